// wgmma.mma_async: products of matrices in shared memory that are under way until their warp waits for them.
#pragma once

#include <cstdint>
#include <vector>

#include "decode.hpp"

namespace emulator {

// A matrix in shared memory as a descriptor gives it: `rows` along M or N, numbers of `bytes` each along K.
struct SharedMatrix {
    uint64_t descriptor;
    bool transposed;  // M or N is contiguous instead of K
    int bytes;

    // Where number k of a row lies.
    uint64_t address(int row, int k) const;
};

struct Product {
    int32_t line;
    int columns, depth;
    Type type_d, type_a, type_b;
    bool keeps, saturates;  // whether what was in the registers is added to
    double sign;
    SharedMatrix a, b;
    bool a_from_registers;
    std::vector<double> rows;               // then, 16 of depth numbers
    std::vector<int32_t> results, sources;  // registers
    std::vector<bool> lost;                 // rows that may hold anything, where they may be read while copies write them
    int64_t writes;                         // into shared memory before it started
};

}  // namespace emulator
