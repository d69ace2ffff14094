// The few instructions that CUDA C++ has no words for.
#pragma once

#include <cstdint>

namespace metaindex::device {

__device__ inline uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes from global to shared memory, of which the first `bytes` are read and the rest become zero.
__device__ inline void copy_async(uint32_t target, const void* source, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(bytes) : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 16-byte matrices; lane i names a row of matrix i / 8 and gets four bytes of each: row i / 4, bytes 4 * (i % 4).
__device__ inline void load_matrices(uint32_t (&out)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

#define METAINDEX_MMA(name, shape, sum, in, constraint, type)                                                 \
    __device__ inline void name(type(&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {              \
        asm volatile("mma.sync.aligned." shape ".row.col." sum "." in "." in "." sum                          \
                     " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                       \
                     : "+" constraint(c[0]), "+" constraint(c[1]), "+" constraint(c[2]), "+" constraint(c[3]) \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                         \
    }
METAINDEX_MMA(multiply_float16, "m16n8k16", "f32", "f16", "f", float)
METAINDEX_MMA(multiply_bfloat16, "m16n8k16", "f32", "bf16", "f", float)
METAINDEX_MMA(multiply_int8, "m16n8k32", "s32", "s8", "r", int)
#undef METAINDEX_MMA

}  // namespace metaindex::device
