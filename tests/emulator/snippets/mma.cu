// C = A B^T by the tensor cores of every architecture: cp.async into two stages, ldmatrix, mma.sync. Numbers are of 16 or 8
// bits; a stage holds 64 bytes of 64 rows of each side, and each of 4 warps multiplies 16 rows of A with 64 of B. NO_WAIT,
// NO_BARRIER and NO_SECOND_BARRIER leave out what it needs.
#include <cstdint>

constexpr int kRows = 64, kSlab = 64, kPitch = kSlab + 16, kStageBytes = 2 * kRows * kPitch;

__device__ uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

__device__ void copy16(uint32_t to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ void load4(uint32_t (&to)[4], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from));
}

__device__ void load2(uint32_t (&to)[2], uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(from));
}

struct Half {
    using Sum = float;
    static __device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};
struct BFloat {
    using Sum = float;
    static __device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};
struct Byte {
    using Sum = int;
    static __device__ void multiply(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
        asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
};

// 64 rows of `bytes` each from row `first` on; zeros beyond row `rows` and beyond their end.
__device__ void load_rows(uint32_t to, const char* from, int first, int rows, int bytes, int slab) {
    for (int part = threadIdx.x; part < kRows * kSlab / 16; part += blockDim.x) {
        const int row = part / (kSlab / 16), byte = part % (kSlab / 16) * 16, at = slab * kSlab + byte;
        const int left = first + row < rows ? max(0, min(16, bytes - at)) : 0;
        copy16(to + row * kPitch + byte, left ? from + int64_t{first + row} * bytes + at : from, left);
    }
}

template <class Number>
__device__ void gemm(const char* a, const char* b, typename Number::Sum* c, int m, int n, int bytes) {
    __shared__ __align__(16) char stages[2][kStageBytes];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int row0 = blockIdx.y * kRows, column0 = blockIdx.x * kRows, slabs = (bytes + kSlab - 1) / kSlab;
    typename Number::Sum sums[8][4] = {};
    const auto load = [&](int slab) {
        if (slab < slabs) {
            const uint32_t to = shared_address(stages[slab % 2]);
            load_rows(to, a, row0, m, bytes, slab);
            load_rows(to + kRows * kPitch, b, column0, n, bytes, slab);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    load(0);
    for (int slab = 0; slab < slabs; ++slab) {
        load(slab + 1);
#ifndef NO_WAIT
        asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
#ifndef NO_BARRIER
        __syncthreads();
#endif
        const uint32_t at = shared_address(stages[slab % 2]);
        for (int step = 0; step < kSlab; step += 32) {
            uint32_t left[4];
            load4(left, at + (warp * 16 + lane % 16) * kPitch + step + lane / 16 * 16);
            for (int column = 0; column < 8; ++column) {
                uint32_t right[2];
                load2(right, at + (kRows + column * 8 + lane % 8) * kPitch + step + lane / 8 % 2 * 16);
                Number::multiply(sums[column], left, right);
            }
        }
#ifndef NO_SECOND_BARRIER
        __syncthreads();
#endif
    }
    for (int column = 0; column < 8; ++column) {
        for (int i = 0; i < 4; ++i) {
            const int row = row0 + warp * 16 + lane / 4 + i / 2 * 8, at = column0 + column * 8 + lane % 4 * 2 + i % 2;
            if (row < m && at < n) c[int64_t{row} * n + at] = sums[column][i];
        }
    }
}

extern "C" __global__ void gemm_f16(const char* a, const char* b, float* c, int m, int n, int bytes) {
    gemm<Half>(a, b, c, m, n, bytes);
}
extern "C" __global__ void gemm_bf16(const char* a, const char* b, float* c, int m, int n, int bytes) {
    gemm<BFloat>(a, b, c, m, n, bytes);
}
extern "C" __global__ void gemm_s8(const char* a, const char* b, int* c, int m, int n, int bytes) {
    gemm<Byte>(a, b, c, m, n, bytes);
}
