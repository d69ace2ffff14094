// The register block of the AVX-512 kernels whose lanes multiply by themselves. Included by files compiled for different
// instruction sets, so nothing here may have external linkage.
#pragma once

#include "avx512_fold.hpp"

namespace metaindex {
namespace {

// kTokens tokens against kGroups panels, all accumulators in registers. `Kind` has the instruction.
template <class Kind, int kTokens, int kGroups>
inline void multiply_block(const TileJob& job, int64_t group, int64_t first) {
    using Sum = typename Kind::Sum;
    const std::byte* panel[kGroups];
    Sum sums[kGroups][kTokens];
    std::byte* partial[kGroups];
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
        panel[g] = job.panel + (group + g) * job.panel_stride;
        partial[g] = job.partial + (group + g) * kPartialStride + first * kLanes * 4;
        Sum start{};
        if (job.bias) load(start, job.bias + (group + g) * kLanes);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
            if (job.first) {
                sums[g][t] = start;
            } else {
                load(sums[g][t], partial[g] + t * kLanes * 4);
            }
        }
    }
    const std::byte* tokens = job.tokens + first * kStagedBytes;
    for (int64_t u = 0; u < job.units; ++u, tokens += kUnitBytes) {
        prefetch_next<kTokens>(job, first, group, u);
        typename Kind::Query query[kGroups];
#pragma GCC unroll 2
        for (int g = 0; g < kGroups; ++g) query[g] = Kind::query(panel[g] + u * kLanes * kUnitBytes);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
            const auto token = Kind::broadcast(tokens + t * kStagedBytes);
#pragma GCC unroll 2
            for (int g = 0; g < kGroups; ++g) sums[g][t] = Kind::step(sums[g][t], query[g], token);
        }
    }
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
        if (job.last) {
            __m512 values[kTokens];
#pragma GCC unroll 16
            for (int t = 0; t < kTokens; ++t) values[t] = similarity(sums[g][t], job.scales + first + t);
            fold(job, first, job.best + (group + g) * kLanes, values);
        } else {
#pragma GCC unroll 16
            for (int t = 0; t < kTokens; ++t) store(partial[g] + t * kLanes * 4, sums[g][t]);
        }
    }
}

// Two panels share each broadcast token; a single one takes twice the tokens, so that as many sums are under way.
template <class Kind>
void multiply(const TileJob& job) {
    int64_t group = 0;
    for (; group + 2 <= job.groups; group += 2) {
        for (int64_t first = 0; first < job.count; first += 8) multiply_block<Kind, 8, 2>(job, group, first);
    }
    if (group < job.groups) {
        for (int64_t first = 0; first < job.count; first += 16) multiply_block<Kind, 16, 1>(job, group, first);
    }
}

}  // namespace
}  // namespace metaindex
