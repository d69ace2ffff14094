// Where documents and their tokens lie.
#pragma once

#include "parameters.hpp"

namespace metaindex::device {

struct Document {
    int64_t row;     // of the snapshot
    int64_t local;   // of its segment
    int64_t column;  // of its score; -1 where there is no such document
    int32_t segment;
    int32_t tokens;  // that count at this budget; 0 where the document is left out
};

// Document `number` of a scan, or of a list of candidates.
__device__ __forceinline__ Document find_document(const MaxSim& p, int64_t list, int64_t number) {
    Document found{-1, 0, -1, 0, 0};
    const Table& table = p.table;
    if (number >= p.documents.count) return found;
    if (p.documents.runs != nullptr) {
        const int32_t* run = p.documents.runs + 3 * (number >> p.documents.run_shift);
        const auto within = static_cast<int32_t>(number & ((int64_t{1} << p.documents.run_shift) - 1));
        if (within >= __ldg(run + 2)) return found;
        found.segment = __ldg(run);
        found.local = int64_t{__ldg(run + 1)} + within;
        found.row = __ldg(table.first_rows + found.segment) + found.local;
        found.column = found.row;
    } else {
        found.row = __ldg(p.documents.candidates + list * p.documents.count + number);
        found.column = number;
        if (found.row < 0) return found;
        int32_t after = table.segments;  // the last segment that starts at the row or before it is left of here
        while (after - found.segment > 1) {
            const int32_t middle = (found.segment + after) / 2;
            (__ldg(table.first_rows + middle) <= found.row ? found.segment : after) = middle;
        }
        found.local = found.row - __ldg(table.first_rows + found.segment);
    }
    if (p.allow != nullptr && __ldg(p.allow + found.row) == 0) return found;
    found.tokens = table.full ? p.r_c : min(p.r_c, __ldg(table.lengths + found.row));
    return found;
}

struct TokenAddress {
    const unsigned char* codes;
    const float* scale;  // null for codecs without
};

// Of a token that its document has.
__device__ __forceinline__ TokenAddress find_token(const MaxSim& p, int32_t segment, int64_t local, int32_t token) {
    const Table& table = p.table;
    const int32_t level = __ldg(table.token_levels + token);
    const int64_t entry = int64_t{segment} * table.levels + level;
    const int64_t at = local * __ldg(table.widths + level) + (token - __ldg(table.starts + level));
    const float* scale = nullptr;
    if (table.scales != nullptr) scale = reinterpret_cast<const float*>(__ldg(table.scales + entry)) + at;
    return {reinterpret_cast<const unsigned char*>(__ldg(table.codes + entry)) + at * p.row_bytes, scale};
}

}  // namespace metaindex::device
