#include "slab.hpp"

#include <algorithm>
#include <cstring>

#include "numbers.hpp"

namespace metaindex {
namespace {

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Slab::Slab(const QueryBatch& queries, Codec codec, int64_t dim, int64_t r_q, const TileKernel& kernel, int64_t first,
           int64_t last, bool apart)
    : kernel_(kernel), dim_(dim), first_(first) {
    int64_t next = 0;
    for (int64_t b = first; b < last; ++b) {
        if (apart) next = round_up(next, kLanes);
        const int64_t count = std::clamp<int64_t>(std::min<int64_t>(queries.lengths[b], r_q), 0, queries.tokens);
        lanes_.push_back({next, count});
        next += count;
    }
    groups_ = (next + kLanes - 1) / kLanes;
    const int64_t per_unit = unit_bytes(kernel.layout) / itemsize(kernel.element);
    int64_t units = 0;
    for (int64_t at = 0; at < dim; at += kStagedBytes / itemsize(kernel.element)) {
        const int64_t dims = std::min(kStagedBytes / itemsize(kernel.element), dim - at);
        chunks_.push_back({at, dims, round_up((dims + per_unit - 1) / per_unit, kernel.units_multiple), units});
        units += chunks_.back().units;
    }
    const int64_t bytes = groups_ * units * panel_unit();
    panels_ = make_buffer<std::byte>(bytes);
    std::memset(panels_.get(), 0, static_cast<size_t>(bytes));
    scales_ = make_buffer<float>(groups_ * kLanes);
    std::fill_n(scales_.get(), groups_ * kLanes, 1.0f);
    if (kernel.unsigned_tokens) {
        bias_ = make_buffer<int32_t>(groups_ * panel_unit() / 4);
        std::fill_n(bias_.get(), groups_ * panel_unit() / 4, 0);
    }
    for (int64_t b = first; b < last; ++b) {
        const Lanes& lanes = this->lanes(b - first);
        for (int64_t i = 0; i < lanes.count; ++i) {
            const int64_t lane = lanes.first + i;
            const std::byte* codes = queries.codes + (b * queries.tokens + i) * dim * itemsize(codec);
            if (codec == Codec::int8) scales_[static_cast<size_t>(lane)] = queries.scales[b * queries.tokens + i];
            const auto* bytes8 = reinterpret_cast<const int8_t*>(codes);
            const auto* halves = reinterpret_cast<const uint16_t*>(codes);
            const auto* floats = reinterpret_cast<const float*>(codes);
            switch (kernel.element) {
                case Element::int8: pack<int8_t>(lane, [&](int64_t j) { return bytes8[j]; }); break;
                case Element::int16: pack<int16_t>(lane, [&](int64_t j) { return bytes8[j]; }); break;
                case Element::int32: pack<int32_t>(lane, [&](int64_t j) { return bytes8[j]; }); break;
                case Element::bfloat16: pack<uint16_t>(lane, [&](int64_t j) { return halves[j]; }); break;
                case Element::halves: pack_halves(lane, halves); break;
                case Element::float32:
                    pack<float>(lane, [&](int64_t j) {
                        return codec == Codec::float32   ? floats[j]
                               : codec == Codec::float16 ? from_float16(halves[j])
                                                         : from_bfloat16(halves[j]);
                    });
                    break;
            }
            if (bias_) {
                int32_t sum = 0;
                for (int64_t j = 0; j < dim; ++j) sum += bytes8[j];
                const int64_t at = lane / kLanes * kLanes + position(kernel.layout, lane % kLanes);
                bias_[static_cast<size_t>(at * unit_bytes(kernel.layout) / 4)] = -128 * sum;
            }
        }
    }
}

void Slab::score(const Maxima& best, const Lanes& lanes, int64_t count, float* scores) const {
    if (best.lane_stride == 1) {
        for (int64_t i = 0; i < count; ++i) scores[i] = score(best.first + i * best.document_stride, lanes);
        return;
    }
    std::fill_n(scores, count, 0.0f);
    for (int64_t lane = 0; lane < lanes.count; ++lane) {
        const float scale = scales_[static_cast<size_t>(lanes.first + lane)];
        const float* row = best.first + lane * best.lane_stride;
        for (int64_t i = 0; i < count; ++i) scores[i] += row[i] * scale;
    }
}

template <class Number, class Read>
void Slab::pack(int64_t lane, Read read) {
    constexpr int64_t number_bytes = sizeof(Number);
    const int64_t unit = unit_bytes(kernel_.layout);
    const bool in_rows = kernel_.layout == Layout::rows;
    const int64_t stride = in_rows ? unit : panel_unit();
    for (const Chunk& chunk : chunks_) {
        std::byte* to = panels_.get() + panel_offset(chunk, lane / kLanes) +
                        position(kernel_.layout, lane % kLanes) * (in_rows ? chunk.units * unit : unit);
        for (int64_t j = 0; j < chunk.dims; to += stride) {
            for (int64_t at = 0; at < unit && j < chunk.dims; at += number_bytes, ++j) {
                const Number number = static_cast<Number>(read(chunk.first_dim + j));
                std::memcpy(to + at, &number, sizeof number);
            }
        }
    }
}

void Slab::pack_halves(int64_t lane, const uint16_t* codes) {
    for (const Chunk& chunk : chunks_) {
        std::byte* upper = panels_.get() + panel_offset(chunk, lane / kLanes) + lane % kLanes * 4;
        std::byte* lower = upper + chunk.units / 2 * panel_unit();
        for (int64_t j = 0; j < chunk.dims; ++j) {
            const int64_t at = (j / 32 * 16 + j % 16) * panel_unit() + j % 32 / 16 * 2;
            const float number = from_float16(codes[chunk.first_dim + j]);
            const uint32_t bits = bits_of(number);
            const auto high = static_cast<uint16_t>(bits >> 16);
            const auto low = static_cast<uint16_t>(bits_of(number - float_of(bits & 0xFFFF0000u)) >> 16);
            std::memcpy(upper + at, &high, sizeof high);
            std::memcpy(lower + at, &low, sizeof low);
        }
    }
}

}  // namespace metaindex
