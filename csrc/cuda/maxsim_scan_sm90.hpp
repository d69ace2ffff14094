// maxsim_scan for compute capability 9.0: copies by the copy engine, products by wgmma. See sm90/kernel.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "metaindex/device.hpp"
#include "sm90/boxes.hpp"

namespace metaindex::device {

struct ScanQuestion {
    Codec codec;
    int64_t dim;
    int32_t r_c;
    int32_t tokens;      // of a query
    int32_t capability;  // of the device, 90 for 9.0
    bool resident;       // whether all levels lie on the device itself
};

// Whether maxsim_scan_sm90 serves it, and if not, why.
inline Feature serves_maxsim_scan_sm90(const ScanQuestion& question) {
    if (question.capability != 90) return {false, "wgmma is only in compute capability 9.0"};
    if (question.codec == Codec::float32) return {false, "tensor cores would round float32"};
    if (question.r_c < 1 || question.tokens < 1) return {false, "there are no tokens"};
    if (question.dim * itemsize(question.codec) % 16 != 0) {
        return {false, "the copy engine wants tokens of a multiple of 16 bytes"};
    }
    if (question.codec == Codec::int8 && question.dim >= (int64_t{1} << 31) / (128 * 128)) {
        return {false, "sums of so many products overflow int32"};
    }
    if (!question.resident) return {false, "levels in host memory come over the bus, which no copy engine makes faster"};
    return {true, "sm90"};
}

// Scores the rows of the runs at (lengths, r_c), none longer than document_tile(r_c).documents(); `allow` [rows] may be null.
// `boxes` are a BoxWriter's for these levels at this r_c, and lie on the device. Queries lie at a multiple of 16 bytes.
// Throws std::runtime_error where the driver refuses or a launch fails.
void maxsim_scan_sm90(const Table& table, const Queries& queries, int32_t r_c, const Runs& runs, const uint8_t* allow,
                      const Output& output, const sm90::Boxes& boxes, Stream stream);

}  // namespace metaindex::device
