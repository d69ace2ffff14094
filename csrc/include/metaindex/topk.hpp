// The k best of each query under one total order: higher score first, then smaller sequence. NaN ranks as -inf.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace metaindex {

struct Entry {
    float score;
    int64_t sequence;
    int64_t row;
};

inline bool better(const Entry& a, const Entry& b) { return a.score != b.score ? a.score > b.score : a.sequence < b.sequence; }

// Collects entries and keeps the k best. The order is total, so the result does not depend on the order of pushes.
class TopK {
 public:
    explicit TopK(int64_t k) : k_(k) {}

    // Whether an entry of that score may still be among the best.
    bool wants(float score) const { return score >= threshold_; }
    void push(float score, int64_t sequence, int64_t row) {
        if (wants(score)) append({score, sequence, row});
    }

    const std::vector<Entry>& entries() const { return entries_; }

 private:
    void append(const Entry& entry);

    int64_t k_;
    float threshold_ = -std::numeric_limits<float>::infinity();  // k entries at least as good are held
    std::vector<Entry> entries_;
};

// Writes the k best of `entries`, best first, then -inf and -1. Reorders `entries`.
void write_best(std::vector<Entry>& entries, int64_t k, float* scores, int64_t* rows);

// The k best columns of scores [batch, count]; `sequence` [count] may be null: the column then breaks ties. Columns whose
// score is -inf or NaN are left out.
void topk(const float* scores, int64_t batch, int64_t count, const int64_t* sequence, int64_t k, float* best_scores,
          int64_t* best_rows, int num_threads);

}  // namespace metaindex
