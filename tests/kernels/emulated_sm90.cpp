// The Hopper scan for tests: its host functions, called with plain numbers.
#include <cstring>
#include <exception>
#include <string>

#include "maxsim_scan_sm90.hpp"

namespace {

using namespace metaindex;
using namespace metaindex::device;

template <class T>
const T* pointer(int64_t address) {
    return reinterpret_cast<const T*>(address);
}

thread_local std::string error;

template <class Act>
const char* guarded(Act act) {
    try {
        act();
        return nullptr;
    } catch (const std::exception& thrown) {
        error = thrown.what();
        return error.c_str();
    }
}

}  // namespace

extern "C" {

int32_t run_size(int32_t r_c) { return maxsim_scan_sm90_run_size(r_c); }

// levels: codes, rows, starts, widths, segments, levels, dim, codec
static sm90::LevelAddresses level_addresses(const int64_t* given) {
    return {pointer<int64_t>(given[0]),     pointer<int64_t>(given[1]),     pointer<int32_t>(given[2]),
            pointer<int32_t>(given[3]),     static_cast<int32_t>(given[4]), static_cast<int32_t>(given[5]),
            static_cast<int32_t>(given[6]), static_cast<Codec>(given[7])};
}

int64_t boxes_bytes(const int64_t* levels, int32_t r_c) { return maxsim_scan_sm90_boxes_bytes(level_addresses(levels), r_c); }

// Where the boxes are written is where the kernel finds them. `boxes` gets what says what is where.
const char* make_boxes(const int64_t* levels, int32_t r_c, void* memory, void* boxes) {
    return guarded([&] {
        auto* at = static_cast<std::byte*>(memory);
        const sm90::Boxes made = maxsim_scan_sm90_boxes(level_addresses(levels), r_c, at, at);
        std::memcpy(boxes, &made, sizeof(made));
    });
}

// table: codes, scales, first_rows, lengths, starts, widths, token_levels, places, segments, levels, tokens, dim, rows, codec,
// full queries: codes, scales, lengths, batch, tokens; runs: runs, count, size output: scores, columns, keys, counts,
// thresholds, capacity
const char* scan(const int64_t* t, const int64_t* q, int32_t r_c, const int64_t* runs, const void* allow, const int64_t* o,
                 const void* boxes) {
    return guarded([&] {
        Table table{};
        table.codes = pointer<int64_t>(t[0]);
        table.scales = pointer<int64_t>(t[1]);
        table.first_rows = pointer<int64_t>(t[2]);
        table.lengths = pointer<int32_t>(t[3]);
        table.starts = pointer<int32_t>(t[4]);
        table.widths = pointer<int32_t>(t[5]);
        table.token_levels = pointer<int32_t>(t[6]);
        table.places = pointer<int32_t>(t[7]);
        table.segments = static_cast<int32_t>(t[8]);
        table.levels = static_cast<int32_t>(t[9]);
        table.tokens = static_cast<int32_t>(t[10]);
        table.dim = static_cast<int32_t>(t[11]);
        table.rows = t[12];
        table.codec = static_cast<Codec>(t[13]);
        table.full = t[14] != 0;
        const Queries queries{pointer<void>(q[0]), pointer<float>(q[1]), pointer<int32_t>(q[2]), static_cast<int32_t>(q[3]),
                              static_cast<int32_t>(q[4])};
        const Hits hits{reinterpret_cast<int64_t*>(o[2]), reinterpret_cast<int32_t*>(o[3]), pointer<int64_t>(o[4]), o[5]};
        const Output output{reinterpret_cast<float*>(o[0]), o[1], hits};
        sm90::Boxes where;
        std::memcpy(&where, boxes, sizeof(where));
        maxsim_scan_sm90(table, queries, r_c,
                         {pointer<int32_t>(runs[0]), static_cast<int32_t>(runs[1]), static_cast<int32_t>(runs[2])},
                         static_cast<const uint8_t*>(allow), output, where, nullptr);
    });
}

}  // extern "C"
