// Queries packed for a kernel: as many of a batch as are scored together.
#pragma once

#include <vector>

#include "buffer.hpp"
#include "metaindex/maxsim.hpp"
#include "tile.hpp"

namespace metaindex {

inline constexpr int64_t kMaxSlabLanes = 1024;

// The lanes of a query: its tokens within the budget.
struct Lanes {
    int64_t first;
    int64_t count;
};

// A part of the dimension that is multiplied at once.
struct Chunk {
    int64_t first_dim;
    int64_t dims;
    int64_t units;         // padding counted in
    int64_t units_before;  // of one lane, in earlier chunks
};

// Running maxima of a query's lanes: document i and lane l at first[i * document_stride + l * lane_stride].
struct Maxima {
    const float* first;
    int64_t document_stride;
    int64_t lane_stride;
};

class Slab {
 public:
    // Packs queries [first, last). With `apart`, every query starts a group of its own, so that it can be scored alone.
    Slab(const QueryBatch& queries, Codec codec, int64_t dim, int64_t r_q, const TileKernel& kernel, int64_t first,
         int64_t last, bool apart);

    const TileKernel& kernel() const { return kernel_; }
    int64_t dim() const { return dim_; }
    int64_t groups() const { return groups_; }
    int64_t first_query() const { return first_; }
    int64_t queries() const { return static_cast<int64_t>(lanes_.size()); }
    const Lanes& lanes(int64_t query) const { return lanes_[static_cast<size_t>(query)]; }
    int64_t used_lanes() const { return lanes_.empty() ? 0 : lanes_.back().first + lanes_.back().count; }

    const std::vector<Chunk>& chunks() const { return chunks_; }
    // The next group's panel is `chunk.units * panel_unit()` bytes on.
    const std::byte* panel(const Chunk& chunk, int64_t group) const { return panels_.get() + panel_offset(chunk, group); }
    int64_t panel_unit() const { return kLanes * unit_bytes(kernel_.layout); }
    const int32_t* bias(int64_t group) const { return bias_ ? bias_.get() + group * panel_unit() / 4 : nullptr; }

    // The scores of a query with `count` documents. An order of additions that only the kernel decides keeps them bitwise
    // the same however documents are cut into pieces.
    void score(const Maxima& best, const Lanes& lanes, int64_t count, float* scores) const;

 private:
    float score(const float* best, const Lanes& lanes) const {
        const float* scales = scales_.get() + lanes.first;
        float sums[4] = {};
        int64_t i = 0;
        for (; i + 4 <= lanes.count; i += 4) {
            for (int j = 0; j < 4; ++j) sums[j] += best[i + j] * scales[i + j];
        }
        float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        for (; i < lanes.count; ++i) sum += best[i] * scales[i];
        return sum;
    }
    template <class Number, class Read>
    void pack(int64_t lane, Read read);
    void pack_halves(int64_t lane, const uint16_t* codes);
    int64_t panel_offset(const Chunk& chunk, int64_t group) const {
        return (chunk.units_before * groups_ + group * chunk.units) * panel_unit();
    }

    const TileKernel& kernel_;
    int64_t dim_;
    int64_t first_;
    int64_t groups_ = 0;
    std::vector<Lanes> lanes_;
    std::vector<Chunk> chunks_;
    Buffer<std::byte> panels_;
    Buffer<int32_t> bias_;
    Buffer<float> scales_;
};

}  // namespace metaindex
