// One thread's way from documents to running maxima: tokens are collected level by level, staged in blocks and multiplied.
#pragma once

#include "buffer.hpp"
#include "metaindex/maxsim.hpp"
#include "slab.hpp"
#include "tile.hpp"

namespace metaindex {

struct Document {
    const Segment* segment;
    int64_t row;
    int64_t place;  // where its score goes
};

class DocumentScorer {
 public:
    // Scores up to `capacity` documents at once against at most `groups` neighbouring groups of the slab.
    DocumentScorer(const LevelTable& table, const Slab& slab, int64_t r_c, int64_t groups, int64_t capacity);
    ~DocumentScorer();
    DocumentScorer(const DocumentScorer&) = delete;
    DocumentScorer& operator=(const DocumentScorer&) = delete;

    // Which of the slab's groups the next documents are scored against, and how many of their lanes.
    void select(int64_t first_group, int64_t lanes);
    // Rows [first, first + count) of a segment.
    void score(const Segment& segment, int64_t first, int64_t count);
    void score(const Document* documents, int64_t count);
    // The running maxima of those documents for a query in the selected groups.
    Maxima best(const Lanes& lanes) const {
        const int64_t lane = lanes.first - first_group_ * kLanes;
        if (in_rows_) return {best_.get() + lane * stride_, 1, stride_};
        return {best_.get() + lane, stride_, 1};
    }

 private:
    // Tokens collected for one job.
    struct Block {
        int64_t spans = 0;
        int64_t count = 0;
        Span span[kMaxStagedTokens];
        // What lies past `count` is read by kernels that take whole blocks, and has no effect.
        alignas(64) float scales[kMaxStagedTokens] = {};
        alignas(64) int32_t slots[kMaxStagedTokens] = {};
    };
    static constexpr int64_t kBlocks = 4;

    void reset(int64_t count);
    // `tokens` neighbouring tokens; the first `per_slot` belong to document `slot`, the next to `slot + 1`, and so on.
    void add(const std::byte* codes, const float* scales, int64_t tokens, int64_t slot, int64_t per_slot);
    void add_document(const Segment& segment, size_t level, int64_t row, int64_t slot);
    // Multiplies a block while the tokens of `later`, which may be null, are prefetched, and empties it.
    void multiply(Block& block, const Block* later);
    // Writes where each token of a block lies to `upcoming_`.
    void locate(const Block& block);
    void advance();
    void finish();

    const LevelTable& table_;
    const Slab& slab_;
    const TileKernel& kernel_;
    int64_t r_c_;
    int64_t first_group_ = 0;
    int64_t groups_;
    int64_t lanes_;
    // Where lanes go along the dimension, their maxima lie document by document, so that 16 documents are one vector.
    bool in_rows_;
    int64_t stride_;
    Buffer<std::byte> staged_;
    Buffer<std::byte> partial_;
    Buffer<float> best_;
    // A ring: blocks are multiplied `ahead_` blocks after they were collected, so that memory has time to deliver them.
    Block blocks_[kBlocks + 1];
    int64_t ahead_;
    const std::byte* upcoming_[kMaxStagedTokens] = {};
    int64_t filling_ = 0;
    int64_t waiting_ = 0;
};

}  // namespace metaindex
