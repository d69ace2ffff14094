#include "document_scorer.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace metaindex {
namespace {

constexpr int64_t kPrefetchBytes = 16 * 1024;

}  // namespace

DocumentScorer::DocumentScorer(const LevelTable& table, const Slab& slab, int64_t r_c, int64_t groups, int64_t capacity)
    : table_(table),
      slab_(slab),
      kernel_(slab.kernel()),
      r_c_(r_c),
      groups_(groups),
      lanes_(slab.used_lanes()),
      in_rows_(kernel_.layout == Layout::rows),
      stride_(in_rows_ ? capacity : groups * kLanes),
      staged_(make_buffer<std::byte>(kernel_.staged_tokens * kStagedBytes)),
      partial_(make_buffer<std::byte>(groups * kPartialStride)),
      best_(make_buffer<float>(capacity * groups * kLanes)),
      ahead_(std::clamp<int64_t>(kPrefetchBytes / (kernel_.staged_tokens * table.token_bytes()), 1, kBlocks)) {
    std::memset(staged_.get(), 0, static_cast<size_t>(kernel_.staged_tokens * kStagedBytes));
    if (kernel_.enter) kernel_.enter();
}

DocumentScorer::~DocumentScorer() {
    if (kernel_.leave) kernel_.leave();
}

void DocumentScorer::select(int64_t first_group, int64_t lanes) {
    first_group_ = first_group;
    groups_ = (lanes + kLanes - 1) / kLanes;
    lanes_ = lanes;
}

void DocumentScorer::reset(int64_t count) {
    constexpr float nothing = -std::numeric_limits<float>::infinity();
    if (!in_rows_) std::fill_n(best_.get(), count * stride_, nothing);
    for (int64_t lane = 0; in_rows_ && lane < lanes_; ++lane) std::fill_n(best_.get() + lane * stride_, count, nothing);
}

void DocumentScorer::score(const Segment& segment, int64_t first, int64_t count) {
    reset(count);
    const int32_t* lengths = segment.lengths + first;
    const auto reaching = [&](int64_t tokens) {
        if (lengths[count - 1] >= tokens) return count;
        return static_cast<int64_t>(
            std::partition_point(lengths, lengths + count, [&](int32_t length) { return length >= tokens; }) - lengths);
    };
    for (size_t l = 0; l < segment.levels.size() && table_.starts[l] < r_c_; ++l) {
        const int64_t start = table_.starts[l], width = table_.widths[l];
        int64_t done = 0;
        if (start + width <= r_c_) {
            done = reaching(start + width);
            const Level& level = segment.levels[l];
            const float* scales = level.scales ? level.scales + first * width : nullptr;
            if (done) add(level.codes + first * width * table_.token_bytes(), scales, done * width, 0, width);
        }
        for (const int64_t some = reaching(start + 1); done < some; ++done) add_document(segment, l, first + done, done);
    }
    finish();
}

void DocumentScorer::score(const Document* documents, int64_t count) {
    reset(count);
    for (int64_t i = 0; i < count; ++i) {
        const Segment& segment = *documents[i].segment;
        const int64_t length = segment.lengths[documents[i].row];
        for (size_t l = 0; l < segment.levels.size() && table_.starts[l] < std::min(r_c_, length); ++l) {
            add_document(segment, l, documents[i].row, i);
        }
    }
    finish();
}

void DocumentScorer::add_document(const Segment& segment, size_t level, int64_t row, int64_t slot) {
    const int64_t start = table_.starts[level], width = table_.widths[level];
    const int64_t tokens = std::min({width, r_c_ - start, segment.lengths[row] - start});
    const Level& from = segment.levels[level];
    add(from.codes + row * width * table_.token_bytes(), from.scales ? from.scales + row * width : nullptr, tokens, slot,
        tokens);
}

void DocumentScorer::add(const std::byte* codes, const float* scales, int64_t tokens, int64_t slot, int64_t per_slot) {
    const int64_t token_bytes = table_.token_bytes();
    int64_t left_in_slot = per_slot;
    while (tokens) {
        Block& block = blocks_[filling_];
        const int64_t taken = std::min(tokens, kernel_.staged_tokens - block.count);
        block.span[block.spans++] = {codes, taken};
        if (scales) {
            std::copy_n(scales, taken, block.scales + block.count);
            scales += taken;
        }
        const int64_t end = block.count + taken;
        codes += taken * token_bytes;
        if (per_slot == 1) {
            for (int64_t i = 0; i < taken; ++i) block.slots[block.count + i] = static_cast<int32_t>(slot + i);
            block.count = end;
            slot += taken;
        }
        while (block.count < end) {
            const int64_t here = std::min(end - block.count, left_in_slot);
            std::fill_n(block.slots + block.count, here, static_cast<int32_t>(slot));
            block.count += here;
            left_in_slot -= here;
            if (!left_in_slot) {
                ++slot;
                left_in_slot = per_slot;
            }
        }
        tokens -= taken;
        if (block.count == kernel_.staged_tokens) advance();
    }
}

void DocumentScorer::advance() {
    const int64_t filled = filling_;
    filling_ = (filling_ + 1) % (ahead_ + 1);
    if (++waiting_ <= ahead_) return;
    multiply(blocks_[filling_], &blocks_[filled]);
    --waiting_;
}

void DocumentScorer::finish() {
    const int64_t last = filling_;
    for (int64_t at = (last + ahead_ + 1 - waiting_) % (ahead_ + 1); at != last; at = (at + 1) % (ahead_ + 1)) {
        multiply(blocks_[at], nullptr);
    }
    if (blocks_[last].count) multiply(blocks_[last], nullptr);
    waiting_ = 0;
}

void DocumentScorer::locate(const Block& block) {
    int64_t at = 0;
    for (int64_t i = 0; i < block.spans; ++i) {
        const std::byte* codes = block.span[i].codes;
        for (int64_t t = 0; t < block.span[i].tokens; ++t, codes += table_.token_bytes()) upcoming_[at++] = codes;
    }
}

void DocumentScorer::multiply(Block& block, const Block* later) {
    const int64_t token_bytes = table_.token_bytes();
    const bool in_place = kernel_.in_place && block.spans == 1 && block.count % kBlock == 0 &&
                          (in_rows_ || token_bytes % (kernel_.units_multiple * unit_bytes(kernel_.layout)) == 0);
    const bool next_in_run = later && later->spans == 1 && slab_.chunks().size() == 1;
    if (later && !next_in_run) locate(*later);
    for (const Chunk& chunk : slab_.chunks()) {
        if (!groups_) break;
        const int64_t offset = chunk.first_dim * itemsize(table_.codec);
        if (!in_place) kernel_.stage(block.span, block.spans, token_bytes, chunk.first_dim, chunk.dims, staged_.get());
        TileJob job;
        job.units = chunk.units;
        job.panel = slab_.panel(chunk, first_group_);
        job.panel_stride = job.units * slab_.panel_unit();
        job.bias = slab_.bias(first_group_);
        job.groups = groups_;
        job.lanes = lanes_;
        job.dims = chunk.dims;
        job.tokens = in_place ? block.span[0].codes + offset : staged_.get();
        job.token_stride = in_place ? token_bytes : kStagedBytes;
        job.in_place = in_place;
        job.count = block.count;
        job.scales = block.scales;
        job.slots = block.slots;
        job.best = best_.get();
        job.best_stride = stride_;
        job.next_run = next_in_run ? later->span[0].codes : nullptr;
        job.next_stride = token_bytes;
        job.next = later && !next_in_run ? upcoming_ : nullptr;
        job.next_offset = offset;
        job.next_lines = (chunk.dims * itemsize(table_.codec) + 63) / 64;
        job.partial = partial_.get();
        job.first = &chunk == &slab_.chunks().front();
        job.last = &chunk == &slab_.chunks().back();
        kernel_.multiply(job);
    }
    block.spans = block.count = 0;
}

}  // namespace metaindex
