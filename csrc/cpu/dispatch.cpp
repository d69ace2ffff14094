// Which instruction sets this build and this machine have, and which kernel serves what.
#include "dispatch.hpp"

#include <stdexcept>

#if defined(METAINDEX_X86_KERNELS)
#include <sys/syscall.h>
#include <unistd.h>

#include <cpuid.h>
#include <cerrno>
#include <cstring>
#endif

namespace metaindex {
namespace {

#if defined(METAINDEX_X86_KERNELS)

Feature need(bool there, const char* what) {
    return there ? Feature{true, std::string("has ") + what}
                 : Feature{false, std::string("this processor or system lacks ") + what};
}

bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

// The compiler's cpu_supports knows no AMX in older versions, and the kernel grants its registers only on request.
Feature find_amx() {
    unsigned a, b, c, d;
    const unsigned wanted = 1u << 22 | 1u << 24 | 1u << 25;  // bf16, tiles, int8
    if (!has_avx512() || !__builtin_cpu_supports("avx512vnni") || !__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
        (d & wanted) != wanted)
        return need(false, "AMX with AVX-512 VNNI");
    constexpr long request_permission = 0x1023, tile_data = 18;
    if (syscall(SYS_arch_prctl, request_permission, tile_data) != 0) {
        return {false, std::string("the system does not grant AMX registers: ") + std::strerror(errno)};
    }
    return {true, "has AMX int8 and bf16"};
}

Feature find(Isa isa) {
    __builtin_cpu_init();
    switch (isa) {
        case Isa::serial:
        case Isa::generic: return {true, "runs everywhere"};
        case Isa::avx2:
            return need(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"),
                        "AVX2, FMA and F16C");
        case Isa::avx512: return need(has_avx512(), "AVX-512 F, BW, DQ and VL");
        case Isa::avx512vnni: return need(has_avx512() && __builtin_cpu_supports("avx512vnni"), "AVX-512 VNNI");
        case Isa::avx512bf16: return need(has_avx512() && __builtin_cpu_supports("avx512bf16"), "AVX-512 BF16");
        case Isa::amx: return find_amx();
    }
    return {false, "unknown"};
}

#else

Feature find(Isa isa) {
    if (isa == Isa::serial || isa == Isa::generic) return {true, "runs everywhere"};
    return {false, "not in this build: it is for x86-64"};
}

#endif

}  // namespace

const char* name(Isa isa) {
    switch (isa) {
        case Isa::serial: return "serial";
        case Isa::generic: return "generic";
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
        case Isa::avx512vnni: return "avx512vnni";
        case Isa::avx512bf16: return "avx512bf16";
        case Isa::amx: return "amx";
    }
    return "unknown";
}

const char* name(Codec codec) {
    switch (codec) {
        case Codec::float32: return "float32";
        case Codec::float16: return "float16";
        case Codec::bfloat16: return "bfloat16";
        case Codec::int8: return "int8";
    }
    return "unknown";
}

const Feature& feature(Isa isa) {
    // Never destroyed: a thread may still ask while the process ends.
    static const auto& features = *[] {
        auto* found = new std::vector<Feature>;
        for (const Isa each : kIsas) found->push_back(find(each));
        return found;
    }();
    return features[static_cast<size_t>(isa)];
}

const TileKernel* find_kernel(Isa isa, Codec codec, int64_t lanes) {
    switch (isa) {
        case Isa::serial: return kernel_serial(codec, lanes);
        case Isa::generic: return kernel_generic(codec, lanes);
#if defined(METAINDEX_X86_KERNELS)
        case Isa::avx2: return kernel_avx2(codec, lanes);
        case Isa::avx512: return kernel_avx512(codec, lanes);
        case Isa::avx512vnni: return kernel_avx512vnni(codec, lanes);
        case Isa::avx512bf16: return kernel_avx512bf16(codec, lanes);
        case Isa::amx: return kernel_amx(codec, lanes);
#endif
        default: return nullptr;
    }
}

Feature serves(Isa isa, Codec codec) {
    if (!feature(isa).ok) return feature(isa);
    if (find_kernel(isa, codec, kLanes)) return {true, std::string(name(isa)) + " kernel for " + name(codec)};
    return {false, std::string(name(isa)) + " has no instruction for " + name(codec)};
}

Isa default_isa(Codec codec) {
    Isa best = Isa::serial;
    for (const Isa isa : kIsas) {
        if (serves(isa, codec).ok) best = isa;
    }
    return best;
}

const TileKernel& kernel_for(Isa isa, Codec codec, int64_t lanes) {
    const Feature verdict = serves(isa, codec);
    if (!verdict.ok) throw std::invalid_argument("isa: " + verdict.why);
    return *find_kernel(isa, codec, lanes);
}

std::string kernel_name(Isa isa, Codec codec, int64_t lanes, int64_t) { return kernel_for(isa, codec, lanes).name; }

}  // namespace metaindex
