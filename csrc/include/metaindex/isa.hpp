// Instruction sets: which there are, which this machine has, and which kernel serves a request.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "metaindex/levels.hpp"

namespace metaindex {

// In rising order of preference. `serial` is the plain truth; `generic` is the compiler's own vectors, for any processor.
enum class Isa : uint8_t { serial, generic, avx2, avx512, avx512vnni, avx512bf16, amx };

inline constexpr Isa kIsas[] = {Isa::serial, Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16, Isa::amx};

struct Feature {
    bool ok;
    std::string why;
};

const char* name(Isa isa);
const char* name(Codec codec);

// Whether this build and this machine can run it, found once per process.
const Feature& feature(Isa isa);

// Whether the instruction set has a kernel for the codec, on a machine that can run it.
Feature serves(Isa isa, Codec codec);

// The most preferred instruction set that serves the codec here.
Isa default_isa(Codec codec);

// The kernel that scores `lanes` query tokens of `dim` dimensions: a pure function of its arguments.
std::string kernel_name(Isa isa, Codec codec, int64_t lanes, int64_t dim);

}  // namespace metaindex
