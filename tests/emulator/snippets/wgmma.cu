// C = A B^T on Hopper: a warp has slabs of 128 bytes of 64 rows of each side brought by the copy engine into a ring of stages,
// and a warpgroup multiplies them. The macros NO_... each leave out one thing that it needs.
#include <cstdint>

constexpr int kRows = 64, kColumns = 64, kSlab = 128, kStages = 3;
constexpr int kSideBytes = kRows * kSlab, kStageBytes = 2 * kSideBytes;

struct alignas(64) Map {
    char bytes[128];
};

extern __shared__ __align__(1024) unsigned char stages[];

__device__ uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

__device__ void wait(uint32_t barrier, uint32_t parity) {
    uint32_t ended;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
                     : "=r"(ended)
                     : "r"(barrier), "r"(parity)
                     : "memory");
    } while (!ended);
}

__device__ void load_box(uint32_t to, const Map& map, int x, int y, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(&map), "r"(x), "r"(y), "r"(barrier)
        : "memory");
}

__device__ uint64_t descriptor(uint32_t address) {
    return uint64_t{address >> 4} | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}

#define REGISTERS                                                                                                     \
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29," \
    "%30,%31}"
#define RESULTS(c)                                                                                                          \
    c(d[0]), c(d[1]), c(d[2]), c(d[3]), c(d[4]), c(d[5]), c(d[6]), c(d[7]), c(d[8]), c(d[9]), c(d[10]), c(d[11]), c(d[12]), \
        c(d[13]), c(d[14]), c(d[15]), c(d[16]), c(d[17]), c(d[18]), c(d[19]), c(d[20]), c(d[21]), c(d[22]), c(d[23]),       \
        c(d[24]), c(d[25]), c(d[26]), c(d[27]), c(d[28]), c(d[29]), c(d[30]), c(d[31])
#define MULTIPLY(shape, flags, c)                                                                           \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned." shape " " REGISTERS \
                 ", %32, %33, p" flags "; }"                                                                \
                 : RESULTS(c)                                                                               \
                 : "l"(a), "l"(b), "r"(add))

struct Half {
    using Sum = float;
    static constexpr int kItem = 2;
    static __device__ void multiply(float (&d)[32], uint64_t a, uint64_t b, int add) {
        MULTIPLY("m64n64k16.f32.f16.f16", ", 1, 1, 0, 0", "+f");
    }
};
struct BFloat {
    using Sum = float;
    static constexpr int kItem = 2;
    static __device__ void multiply(float (&d)[32], uint64_t a, uint64_t b, int add) {
        MULTIPLY("m64n64k16.f32.bf16.bf16", ", 1, 1, 0, 0", "+f");
    }
};
struct Byte {
    using Sum = int;
    static constexpr int kItem = 1;
    static __device__ void multiply(int (&d)[32], uint64_t a, uint64_t b, int add) {
        MULTIPLY("m64n64k32.s32.s8.s8", "", "+r");
    }
};

template <class Number>
__device__ void gemm(const Map& a, const Map& b, typename Number::Sum* c, int m, int n, int k) {
    __shared__ uint64_t barriers[2 * kStages];
    const auto full = [&](int stage) { return shared_address(barriers + stage); };
    const auto empty = [&](int stage) { return shared_address(barriers + kStages + stage); };
    constexpr int kNumbers = kSlab / Number::kItem;
    const int slabs = (k + kNumbers - 1) / kNumbers, row0 = blockIdx.y * kRows, column0 = blockIdx.x * kColumns;
    const uint32_t ring = shared_address(stages);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < kStages; ++stage) {
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full(stage)) : "memory");
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 4;" ::"r"(empty(stage)) : "memory");
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
#ifndef NO_BARRIER
    __syncthreads();
#endif
    if (threadIdx.x >= 128) {
        if (threadIdx.x > 128) return;
        for (int slab = 0; slab < slabs; ++slab) {
            const int stage = slab % kStages;
#ifndef NO_EMPTY_WAIT
            wait(empty(stage), slab / kStages & 1 ^ 1);
#endif
#ifdef SHORT_EXPECTATION
            const int expected = kStageBytes - 16;
#else
            const int expected = kStageBytes;
#endif
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full(stage)), "r"(expected) : "memory");
            load_box(ring + stage * kStageBytes, a, slab * kNumbers, row0, full(stage));
            load_box(ring + stage * kStageBytes + kSideBytes, b, slab * kNumbers, column0, full(stage));
        }
        return;
    }
    typename Number::Sum sums[32] = {};
    for (int slab = 0; slab < slabs; ++slab) {
        const int stage = slab % kStages;
#ifndef NO_FULL_WAIT
        wait(full(stage), slab / kStages & 1);
#endif
        const uint64_t left = descriptor(ring + stage * kStageBytes),
                       right = descriptor(ring + stage * kStageBytes + kSideBytes);
#ifndef NO_FENCE
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
        for (int step = 0; step < kSlab / 32; ++step) Number::multiply(sums, left + 2 * step, right + 2 * step, slab | step);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#ifndef NO_PRODUCT_WAIT
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#endif
        if (threadIdx.x % 32 == 0) {
            asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(empty(stage)) : "memory");
        }
        __syncwarp();
    }
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < 32; ++i) {
        const int row = row0 + warp * 16 + lane / 4 + i / 2 % 2 * 8, column = column0 + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (row < m && column < n) c[int64_t{row} * n + column] = sums[i];
    }
}

extern "C" __global__ void gemm_f16(const __grid_constant__ Map a, const __grid_constant__ Map b, float* c, int m, int n,
                                    int k) {
    gemm<Half>(a, b, c, m, n, k);
}
extern "C" __global__ void gemm_bf16(const __grid_constant__ Map a, const __grid_constant__ Map b, float* c, int m, int n,
                                     int k) {
    gemm<BFloat>(a, b, c, m, n, k);
}
extern "C" __global__ void gemm_s8(const __grid_constant__ Map a, const __grid_constant__ Map b, int* c, int m, int n, int k) {
    gemm<Byte>(a, b, c, m, n, k);
}
