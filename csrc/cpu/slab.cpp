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
    const int64_t all_units = round_up((dim + unit_dims(kernel.element) - 1) / unit_dims(kernel.element), kernel.units_multiple);
    const int64_t bytes = groups_ * all_units * kLanes * kUnitBytes;
    panels_ = make_buffer<std::byte>(bytes);
    std::memset(panels_.get(), 0, static_cast<size_t>(bytes));
    scales_ = make_buffer<float>(groups_ * kLanes);
    std::fill_n(scales_.get(), groups_ * kLanes, 1.0f);
    if (kernel.unsigned_tokens) {
        bias_ = make_buffer<int32_t>(groups_ * kLanes);
        std::fill_n(bias_.get(), groups_ * kLanes, 0);
    }
    for (int64_t b = first; b < last; ++b) {
        const Lanes& lanes = this->lanes(b - first);
        for (int64_t i = 0; i < lanes.count; ++i) {
            const int64_t lane = lanes.first + i;
            const std::byte* codes = queries.codes + (b * queries.tokens + i) * dim * itemsize(codec);
            if (queries.scales) scales_[static_cast<size_t>(lane)] = queries.scales[b * queries.tokens + i];
            const auto* bytes8 = reinterpret_cast<const int8_t*>(codes);
            const auto* halves = reinterpret_cast<const uint16_t*>(codes);
            const auto* floats = reinterpret_cast<const float*>(codes);
            switch (kernel.element) {
                case Element::int8: pack<int8_t>(codes, lane, [&](int64_t j) { return bytes8[j]; }); break;
                case Element::int16: pack<int16_t>(codes, lane, [&](int64_t j) { return bytes8[j]; }); break;
                case Element::int32: pack<int32_t>(codes, lane, [&](int64_t j) { return bytes8[j]; }); break;
                case Element::bfloat16: pack<uint16_t>(codes, lane, [&](int64_t j) { return halves[j]; }); break;
                case Element::float32:
                    pack<float>(codes, lane, [&](int64_t j) {
                        return codec == Codec::float32   ? floats[j]
                               : codec == Codec::float16 ? from_float16(halves[j])
                                                         : from_bfloat16(halves[j]);
                    });
                    break;
            }
            if (bias_) {
                int32_t sum = 0;
                for (int64_t j = 0; j < dim; ++j) sum += bytes8[j];
                bias_[static_cast<size_t>(lane)] = -128 * sum;
            }
        }
    }
}

template <class Number, class Read>
void Slab::pack(const std::byte*, int64_t lane, Read read) {
    constexpr int64_t per_unit = kUnitBytes / static_cast<int64_t>(sizeof(Number));
    const bool in_rows = kernel_.layout == Layout::rows;
    for (int64_t first = 0; first < dim_; first += chunk_dims()) {
        const int64_t dims = std::min(chunk_dims(), dim_ - first);
        auto* panel = const_cast<std::byte*>(this->panel(first, lane / kLanes));
        const int64_t unit_stride = in_rows ? kUnitBytes : kLanes * kUnitBytes;
        panel += lane % kLanes * (in_rows ? units(dims) * kUnitBytes : kUnitBytes);
        for (int64_t j = 0; j < dims; ++j) {
            const Number number = static_cast<Number>(read(first + j));
            std::memcpy(panel + j / per_unit * unit_stride + j % per_unit * static_cast<int64_t>(sizeof(Number)), &number,
                        sizeof(Number));
        }
    }
}

int64_t Slab::units(int64_t dims) const {
    const int64_t per_unit = unit_dims(kernel_.element);
    return round_up((dims + per_unit - 1) / per_unit, kernel_.units_multiple);
}

const std::byte* Slab::panel(int64_t first_dim, int64_t group) const {
    const int64_t before = first_dim / unit_dims(kernel_.element) * groups_;
    const int64_t units_here = units(std::min(chunk_dims(), dim_ - first_dim));
    return panels_.get() + (before + group * units_here) * kLanes * kUnitBytes;
}

}  // namespace metaindex
