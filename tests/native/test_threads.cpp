// Scans, gathers, top-k, encoders and nested orders of several threads at once over the same documents, each call with threads
// of its own from the one pool. Made for the thread sanitizer; every answer must also be, bit for bit, what one thread alone
// gives.
#include <atomic>
#include <cstdio>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cases.hpp"
#include "metaindex/encode.hpp"
#include "metaindex/maxsim_gather.hpp"
#include "metaindex/maxsim_scan.hpp"
#include "metaindex/nest.hpp"
#include "metaindex/topk.hpp"
#include "thread_pool.hpp"

using namespace metaindex;

namespace {

constexpr size_t kCallers = 6;
constexpr int64_t kBest = 10;
constexpr int64_t kPages = 6, kPageTokens = 200, kKept = 20;  // that overlap; large enough for more than one thread
constexpr Codec kCodecs[] = {Codec::float32, Codec::float16, Codec::bfloat16, Codec::int8};

struct Answers {
    std::vector<float> scores;
    std::vector<int64_t> rows;
    std::vector<uint16_t> halves;

    // Room for `count` scores and rows behind those there are.
    size_t grow(int64_t count) {
        const size_t at = scores.size();
        scores.resize(at + static_cast<size_t>(count));
        rows.resize(scores.size(), -7);
        return at;
    }
    bool operator==(const Answers& other) const {
        return scores.size() == other.scores.size() &&
               std::memcmp(scores.data(), other.scores.data(), scores.size() * sizeof(float)) == 0 && rows == other.rows &&
               halves == other.halves;
    }
};

// Large enough that a call uses more than one thread.
struct Shared {
    explicit Shared(Codec codec) : documents(codec, 16, {1, 3, 8, 12}, {16, 7, 16}, 1500) {
        const int64_t rows = documents.table.rows();
        allow.resize(static_cast<size_t>(rows));
        for (uint8_t& allowed : allow) allowed = random_numbers() % 5 != 0;
        for (int64_t at = 0; at < documents.batch * 1000; ++at) {
            candidates.push_back(static_cast<int64_t>(random_numbers() % static_cast<uint64_t>(rows + 1)) - 1);
        }
    }

    Case documents;
    std::vector<uint8_t> allow;
    std::vector<int64_t> candidates;
};

Answers ask(const Shared& shared, Isa isa, int num_threads) {
    Answers answers;
    const Case& c = shared.documents;
    const Run run{isa, num_threads};
    const int64_t rows = c.table.rows(), listed = static_cast<int64_t>(shared.candidates.size()) / c.batch;
    for (const uint8_t* allow : {static_cast<const uint8_t*>(nullptr), shared.allow.data()}) {
        const size_t all = answers.grow(c.batch * rows);
        maxsim_scan(c.table, c.query_batch(), {16, 24}, allow, {answers.scores.data() + all, nullptr, rows}, run);
        size_t best = answers.grow(c.batch * kBest);
        maxsim_scan(c.table, c.query_batch(), {16, 24}, allow,
                    {answers.scores.data() + best, answers.rows.data() + best, kBest}, run);
        for (const int64_t lists : {int64_t{1}, c.batch}) {
            const Candidates candidates{shared.candidates.data(), lists, listed};
            best = answers.grow(c.batch * kBest);
            maxsim_gather(c.table, c.query_batch(), {16, 24}, candidates, allow,
                          {answers.scores.data() + best, answers.rows.data() + best, kBest}, run);
        }
        best = answers.grow(c.batch * kBest);
        topk(answers.scores.data() + all, c.batch, rows, nullptr, kBest, answers.scores.data() + best,
             answers.rows.data() + best, num_threads);
    }
    const auto& values = shared.documents.levels.front().decoded;
    answers.halves.resize(values.size());
    const TokenShape shape{1, static_cast<int64_t>(values.size()) / 16, 16};
    encode_float16({values.data(), 0, 64}, shape, {answers.halves.data(), 0, 32}, run);
    for (const Order order : kOrders) {
        const size_t at = answers.grow(kPages * kKept * 16);
        std::vector<Nesting> pages;
        for (int64_t page = 0; page < kPages; ++page) {
            pages.push_back({values.data() + page * (kPageTokens / 2) * 16, kPageTokens, 16,
                             answers.scores.data() + at + page * kKept * 16, answers.rows.data() + at + page * kKept, kKept});
        }
        nest(pages, order, 0, run);
    }
    return answers;
}

// All callers at once, from the first call on: the pool is made, and grows, while they ask.
void test_callers(const std::vector<Shared>& shared) {
    std::vector<std::vector<Answers>> given(kCallers, std::vector<Answers>(shared.size()));
    std::atomic<int> lost{0};
    std::vector<std::thread> callers;
    for (size_t caller = 0; caller < kCallers; ++caller) {
        callers.emplace_back([&, caller] {
            for (size_t step = 0; step < shared.size(); ++step) {
                const size_t at = (step + caller) % shared.size();
                given[caller][at] = ask(shared[at], default_isa(kCodecs[at]), 2 + static_cast<int>(caller + step) % 3);
                try {
                    parallel(3, [](int) { throw std::runtime_error("from a worker"); });
                    ++lost;
                } catch (const std::runtime_error&) {
                }
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    CHECK(lost == 0, "%d exceptions were lost", lost.load());
    for (size_t at = 0; at < shared.size(); ++at) {
        const Answers alone = ask(shared[at], default_isa(kCodecs[at]), 1);
        for (size_t caller = 0; caller < kCallers; ++caller) {
            CHECK(given[caller][at] == alone, "%s: caller %ld got another answer than one thread alone", name(kCodecs[at]),
                  static_cast<long>(caller));
        }
    }
}

}  // namespace

int main() {
    std::vector<Shared> shared;
    for (const Codec codec : kCodecs) shared.emplace_back(codec);
    test_callers(shared);
    std::printf(failures ? "%d failures\n" : "all good\n", failures);
    return failures != 0;
}
