// The PTX that the Hopper scan is made of. Addresses of shared memory are 32-bit, as the instructions take them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "geometry.hpp"

namespace metaindex::device::sm90::ptx {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Barriers in shared memory: a phase ends when `count` threads have arrived and all bytes that were announced have come.

__device__ __forceinline__ void barrier_init(uint32_t barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

// Makes the barriers known to the copy engine; before the block's first __syncthreads.
__device__ __forceinline__ void barriers_ready() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void arrive_expecting(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Returns once the phase of this parity has ended; 1 counts as ended before the first.
__device__ __forceinline__ void wait(uint32_t barrier, uint32_t parity) {
    uint32_t ended;
    do {
        asm volatile(
            "{\n"
            ".reg .pred p;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.b32 %0, 1, 0, p;\n"
            "}\n"
            : "=r"(ended)
            : "r"(barrier), "r"(parity)
            : "memory");
    } while (!ended);
}

// The 128 threads of one warpgroup; barrier 0 is that of __syncthreads.
__device__ __forceinline__ void sync_warpgroup(int warpgroup) {
    asm volatile("bar.sync %0, 128;" ::"r"(1 + warpgroup) : "memory");
}

// A map that the host wrote becomes visible to this block's copies.
__device__ __forceinline__ void acquire_map(const void* map) {
    asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(map) : "memory");
}

// Copies the box at (x, y, z) to shared memory; what lies outside the tensor is filled with zeros and counts as bytes.
__device__ __forceinline__ void load_box(uint32_t to, const void* map, int x, int y, int z, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::
            "r"(to),
        "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
        : "memory");
}

// The larger one; NaN if one of them is, unlike fmaxf.
__device__ __forceinline__ float maximum(float a, float b) {
    float found;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(found) : "f"(a), "f"(b));
    return found;
}

// Keeps the compiler from computing ahead, and keeping, what follows from a value.
__device__ __forceinline__ void forget(int& value) { asm volatile("" : "+r"(value)); }

// Registers per thread from here on; every warp of the warpgroup says so.
template <int kCount>
__device__ __forceinline__ void give_up_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

template <int kCount>
__device__ __forceinline__ void claim_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// Before the first product of a group: what was written to its registers comes first.
__device__ __forceinline__ void products_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most `kPending` groups are under way.
template <int kPending>
__device__ __forceinline__ void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from reading results above the wait that they need.
template <typename Number>
__device__ __forceinline__ void pin(Number (&d)[kNumbers]) {
#pragma unroll
    for (int i = 0; i < kNumbers; ++i) {
        if constexpr (std::is_same_v<Number, float>) {
            asm volatile("" : "+f"(d[i])::"memory");
        } else {
            asm volatile("" : "+r"(d[i])::"memory");
        }
    }
}

// d = a * b, plus d where `add` is not 0: 64 rows by 256 columns by kStepBytes of each vector.
#define METAINDEX_NUMBERS                                                                          \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                       \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "             \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "             \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "             \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "             \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "             \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

#define METAINDEX_OPERANDS(c)                                                                                               \
    c(d[0]), c(d[1]), c(d[2]), c(d[3]), c(d[4]), c(d[5]), c(d[6]), c(d[7]), c(d[8]), c(d[9]), c(d[10]), c(d[11]), c(d[12]), \
        c(d[13]), c(d[14]), c(d[15]), c(d[16]), c(d[17]), c(d[18]), c(d[19]), c(d[20]), c(d[21]), c(d[22]), c(d[23]),       \
        c(d[24]), c(d[25]), c(d[26]), c(d[27]), c(d[28]), c(d[29]), c(d[30]), c(d[31]), c(d[32]), c(d[33]), c(d[34]),       \
        c(d[35]), c(d[36]), c(d[37]), c(d[38]), c(d[39]), c(d[40]), c(d[41]), c(d[42]), c(d[43]), c(d[44]), c(d[45]),       \
        c(d[46]), c(d[47]), c(d[48]), c(d[49]), c(d[50]), c(d[51]), c(d[52]), c(d[53]), c(d[54]), c(d[55]), c(d[56]),       \
        c(d[57]), c(d[58]), c(d[59]), c(d[60]), c(d[61]), c(d[62]), c(d[63]), c(d[64]), c(d[65]), c(d[66]), c(d[67]),       \
        c(d[68]), c(d[69]), c(d[70]), c(d[71]), c(d[72]), c(d[73]), c(d[74]), c(d[75]), c(d[76]), c(d[77]), c(d[78]),       \
        c(d[79]), c(d[80]), c(d[81]), c(d[82]), c(d[83]), c(d[84]), c(d[85]), c(d[86]), c(d[87]), c(d[88]), c(d[89]),       \
        c(d[90]), c(d[91]), c(d[92]), c(d[93]), c(d[94]), c(d[95]), c(d[96]), c(d[97]), c(d[98]), c(d[99]), c(d[100]),      \
        c(d[101]), c(d[102]), c(d[103]), c(d[104]), c(d[105]), c(d[106]), c(d[107]), c(d[108]), c(d[109]), c(d[110]),       \
        c(d[111]), c(d[112]), c(d[113]), c(d[114]), c(d[115]), c(d[116]), c(d[117]), c(d[118]), c(d[119]), c(d[120]),       \
        c(d[121]), c(d[122]), c(d[123]), c(d[124]), c(d[125]), c(d[126]), c(d[127])

#define METAINDEX_WGMMA(shape, flags, c)                                                      \
    asm volatile(                                                                             \
        "{\n"                                                                                 \
        ".reg .pred p;\n"                                                                     \
        "setp.ne.b32 p, %130, 0;\n"                                                           \
        "wgmma.mma_async.sync.aligned." shape " {" METAINDEX_NUMBERS "}, %128, %129, p" flags \
        ";\n"                                                                                 \
        "}\n"                                                                                 \
        : METAINDEX_OPERANDS(c)                                                               \
        : "l"(a), "l"(b), "r"(add))

template <Codec kCodec, typename Number>
__device__ __forceinline__ void multiply(Number (&d)[kNumbers], uint64_t a, uint64_t b, int add) {
    if constexpr (kCodec == Codec::float16) {
        METAINDEX_WGMMA("m64n256k16.f32.f16.f16", ", 1, 1, 0, 0", "+f");
    } else if constexpr (kCodec == Codec::bfloat16) {
        METAINDEX_WGMMA("m64n256k16.f32.bf16.bf16", ", 1, 1, 0, 0", "+f");
    } else {
        METAINDEX_WGMMA("m64n256k32.s32.s8.s8", "", "+r");
    }
}

#undef METAINDEX_WGMMA
#undef METAINDEX_OPERANDS
#undef METAINDEX_NUMBERS

}  // namespace metaindex::device::sm90::ptx
