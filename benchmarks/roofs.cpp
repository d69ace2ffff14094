// What this machine can do at best: bytes read per second and multiply-add operations per second, by instruction set and by
// number of threads. One JSON object on stdout. Usage: roofs [threads ...], by default 1 and 2.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
constexpr int repeats = 5;

double seconds_of(const std::function<void(int)>& work, int threads) {
    std::atomic<int> waiting{threads};
    std::vector<std::thread> pool;
    std::vector<Clock::time_point> starts(threads), stops(threads);
    for (int t = 0; t < threads; ++t) {
        pool.emplace_back([&, t] {
            waiting.fetch_sub(1);
            while (waiting.load() > 0) std::this_thread::yield();
            starts[t] = Clock::now();
            work(t);
            stops[t] = Clock::now();
        });
    }
    for (auto& thread : pool) thread.join();
    const auto first = *std::min_element(starts.begin(), starts.end());
    const auto last = *std::max_element(stops.begin(), stops.end());
    return std::chrono::duration<double>(last - first).count();
}

double best_rate(double amount, int threads, const std::function<void(int)>& work) {
    double best = 1e30;
    for (int i = 0; i < repeats; ++i) best = std::min(best, seconds_of(work, threads));
    return amount * threads / best;
}

// A result that the compiler has to compute.
#if defined(__x86_64__)
#define KEEP(value) asm volatile("" : "+v"(value))
#elif defined(__aarch64__)
#define KEEP(value) asm volatile("" : "+w"(value))
#else
#define KEEP(value) asm volatile("" : : "r"(&value) : "memory")
#endif

uint8_t* huge_buffer(size_t bytes) {
#if defined(__linux__)
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    madvise(memory, bytes, MADV_HUGEPAGE);
#else
    void* memory = std::malloc(bytes);
    if (memory == nullptr) return nullptr;
#endif
    std::memset(memory, 1, bytes);
    return static_cast<uint8_t*>(memory);
}

// Sixteen bytes, the width that every compiler and machine here has.
typedef uint64_t Words __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(16)));

void read_128(const uint8_t* data, size_t bytes) {
    Words sums[8] = {};
    const Words* words = reinterpret_cast<const Words*>(data);
    for (size_t i = 0; i + 8 <= bytes / sizeof(Words); i += 8)
        for (int j = 0; j < 8; ++j) sums[j] += words[i + j];
    for (auto& sum : sums) KEEP(sum);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void read_256(const uint8_t* data, size_t bytes) {
    __m256i sums[8] = {};
    const __m256i* words = reinterpret_cast<const __m256i*>(data);
    for (size_t i = 0; i + 8 <= bytes / sizeof(__m256i); i += 8)
        for (int j = 0; j < 8; ++j) sums[j] = _mm256_add_epi64(sums[j], _mm256_load_si256(words + i + j));
    for (auto& sum : sums) KEEP(sum);
}

__attribute__((target("avx512f"))) void read_512(const uint8_t* data, size_t bytes) {
    __m512i sums[8] = {};
    const __m512i* words = reinterpret_cast<const __m512i*>(data);
    for (size_t i = 0; i + 8 <= bytes / sizeof(__m512i); i += 8)
        for (int j = 0; j < 8; ++j) sums[j] = _mm512_add_epi64(sums[j], _mm512_load_si512(words + i + j));
    for (auto& sum : sums) KEEP(sum);
}
#endif

void read(const uint8_t* data, size_t bytes) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return read_512(data, bytes);
    if (__builtin_cpu_supports("avx2")) return read_256(data, bytes);
#endif
    read_128(data, bytes);
}

// Every peak below runs `steps` rounds of independent accumulators, enough of them to cover the latency of two ports.
constexpr long steps = 4'000'000;
constexpr int chains = 12;

void peak_fp32_generic(int) {
    Floats sums[chains] = {}, a = Floats{} + 0.5f, b = Floats{} + 0.25f;
    for (long i = 0; i < steps; ++i)
#pragma GCC unroll 12
        for (auto& sum : sums) {
            KEEP(a);
            sum += a * b;
            KEEP(sum);
        }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void peak_fp32_avx2(int) {
    __m256 sums[chains], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm256_setzero_ps();
    for (long i = 0; i < steps; ++i)
#pragma GCC unroll 12
        for (auto& sum : sums) {
            sum = _mm256_fmadd_ps(a, b, sum);
            KEEP(sum);
        }
}

__attribute__((target("avx512f"))) void peak_fp32_avx512(int) {
    __m512 sums[chains], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    for (long i = 0; i < steps; ++i)
#pragma GCC unroll 12
        for (auto& sum : sums) {
            sum = _mm512_fmadd_ps(a, b, sum);
            KEEP(sum);
        }
}

__attribute__((target("avx512f,avx512bf16"))) void peak_bf16_avx512(int) {
    __m512 sums[chains];
    __m512i ones = _mm512_set1_epi16(0x3f80);
    __m512bh a, b;
    std::memcpy(&a, &ones, sizeof a);
    std::memcpy(&b, &ones, sizeof b);
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    for (long i = 0; i < steps; ++i)
#pragma GCC unroll 12
        for (auto& sum : sums) {
            sum = _mm512_dpbf16_ps(sum, a, b);
            KEEP(sum);
        }
}

__attribute__((target("avx512f,avx512vnni"))) void peak_int8_avx512(int) {
    __m512i sums[chains], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm512_setzero_si512();
    for (long i = 0; i < steps; ++i)
#pragma GCC unroll 12
        for (auto& sum : sums) {
            sum = _mm512_dpbusd_epi32(sum, a, b);
            KEEP(sum);
        }
}

__attribute__((target("avx2"))) void peak_int8_avx2(int) {
    __m256i sums[chains], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
#pragma GCC unroll 12
    for (auto& sum : sums) sum = _mm256_setzero_si256();
    for (long i = 0; i < steps; ++i)
#pragma GCC unroll 12
        for (auto& sum : sums) {
            KEEP(a);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
            KEEP(sum);
        }
}

#if defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define HAVE_AMX 1

struct alignas(64) TileShape {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

bool amx_granted() {
    constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

__attribute__((target("amx-tile"))) void shape_tiles() {
    TileShape shape;
    for (int tile = 0; tile < 8; ++tile) {
        shape.row_bytes[tile] = 64;
        shape.rows[tile] = 16;
    }
    asm volatile("ldtilecfg %0" : : "m"(shape));  // GCC 12's _tile_loadconfig lets the stores into `shape` be dropped
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
}

constexpr long tile_steps = steps / 32;

__attribute__((target("amx-tile,amx-int8"))) void peak_int8_amx(int) {
    shape_tiles();
    for (long i = 0; i < tile_steps; ++i) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
    _tile_release();
}

__attribute__((target("amx-tile,amx-bf16"))) void peak_bf16_amx(int) {
    shape_tiles();
    for (long i = 0; i < tile_steps; ++i) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}
#endif
#endif

struct Peak {
    std::string name;
    double operations;  // of one run on one thread; a multiply-add counts as two
    std::function<void(int)> run;
};

std::vector<Peak> peaks() {
    const double rounds = static_cast<double>(steps) * chains * 2;
    std::vector<Peak> found{{"fp32_generic", rounds * 4, peak_fp32_generic}};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) found.push_back({"int8_avx2", rounds * 32, peak_int8_avx2});
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found.push_back({"fp32_avx2", rounds * 8, peak_fp32_avx2});
    if (__builtin_cpu_supports("avx512f")) found.push_back({"fp32_avx512", rounds * 16, peak_fp32_avx512});
    if (__builtin_cpu_supports("avx512bf16")) found.push_back({"bf16_avx512", rounds * 32, peak_bf16_avx512});
    if (__builtin_cpu_supports("avx512vnni")) found.push_back({"int8_avx512", rounds * 64, peak_int8_avx512});
#ifdef HAVE_AMX
    unsigned a = 7, b = 0, c = 0, d = 0;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    const bool tiles = d & (1u << 24);
    if (tiles && amx_granted()) {
        const double tile_rounds = static_cast<double>(tile_steps) * 4 * 16 * 16 * 2;
        if (d & (1u << 22)) found.push_back({"bf16_amx", tile_rounds * 32, peak_bf16_amx});
        if (d & (1u << 25)) found.push_back({"int8_amx", tile_rounds * 64, peak_int8_amx});
    }
#endif
#endif
    return found;
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<int> counts;
    for (int i = 1; i < argc; ++i) counts.push_back(std::max(1, std::atoi(argv[i])));
    if (counts.empty()) counts = {1, 2};
    constexpr size_t big = size_t{1} << 30,
                     small = size_t{160} << 20;  // 1 GiB, and about the size of a corpus that caches may hold
    uint8_t* data = huge_buffer(big);
    if (data == nullptr) {
        std::fprintf(stderr, "roofs: no memory for a buffer of %zu bytes\n", big);
        return 1;
    }
    std::printf("{");
    for (size_t i = 0; i < counts.size(); ++i) {
        const int threads = counts[i];
        const auto bandwidth = [&](size_t bytes) {
            const size_t share = bytes / threads / 4096 * 4096;
            return best_rate(static_cast<double>(share), threads, [=](int t) { read(data + t * share, share); }) / 1e9;
        };
        std::printf("%s\"%d\": {\"read_gbs\": %.2f, \"read_small_gbs\": %.2f", i ? ", " : "", threads, bandwidth(big),
                    bandwidth(small));
        for (const auto& peak : peaks())
            std::printf(", \"%s_gops\": %.1f", peak.name.c_str(), best_rate(peak.operations, threads, peak.run) / 1e9);
        std::printf("}");
    }
    std::printf("}\n");
    return 0;
}
