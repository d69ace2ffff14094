// From the text of an opcode to its handler. Each family of instructions has a file that adds its decoders to the table. A
// decoder takes the modifiers it knows; one that is left over, or an operand of the wrong kind, is a refusal, so that nothing
// in a program is passed over in silence.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "machine.hpp"
#include "numbers.hpp"

namespace emulator {

enum class Type : uint8_t {
    none,
    b8,
    b16,
    b32,
    b64,
    b128,
    u8,
    u16,
    u32,
    u64,
    s8,
    s16,
    s32,
    s64,
    f16,
    f16x2,
    bf16,
    bf16x2,
    tf32,
    f32,
    f64,
    pred,
    e4m3,
    e5m2,
};

int bits_of(Type type);
bool is_signed(Type type);
bool is_float(Type type);

class Modifiers {
 public:
    explicit Modifiers(const std::string& opcode);  // "add.rn.f32": the name and what follows it

    const std::string& name() const { return name_; }
    // Whether the next modifier, or any further one, is this; then it is taken.
    bool take(const std::string& modifier);
    bool next(const std::string& modifier);
    // The number of the one of these that is there, else `otherwise`.
    int take_one(std::initializer_list<const char*> modifiers, int otherwise = -1);
    // The next modifier as a type; none if it is no type.
    Type type();
    // The text of the next modifier that starts like this, "" if there is none.
    std::string take_starting(const std::string& start);
    Rounding rounding(Rounding otherwise = Rounding::nearest);
    // The state space; generic where none is named.
    Space space();
    // Hints for caches, which change nothing. Whether one of them stands for an operand, a cache policy.
    bool take_cache_hints();
    bool empty() const { return rest_.empty(); }
    bool of_floats() const;  // whether the last modifier is a floating-point type
    void finish() const;

 private:
    std::string name_;
    std::vector<std::string> rest_;
};

using Decoder = void (*)(Instruction&, Modifiers&);
// By name; instructions of that name on floating-point numbers, where they are others than those on integers, by name and ".f".
using Decoders = std::map<std::string, Decoder>;

void add_integers(Decoders& decoders);
void add_bits(Decoders& decoders);
void add_floats(Decoders& decoders);
void add_comparisons(Decoders& decoders);
void add_conversions(Decoders& decoders);
void add_moves(Decoders& decoders);
void add_accesses(Decoders& decoders);
void add_atomics(Decoders& decoders);
void add_flow(Decoders& decoders);
void add_barriers(Decoders& decoders);
void add_warp_operations(Decoders& decoders);
void add_copies(Decoders& decoders);
void add_mbarriers(Decoders& decoders);
void add_matrices(Decoders& decoders);
void add_products(Decoders& decoders);

// Finds every instruction's handler; those without one keep the reason.
void decode(Kernel& kernel);

// The operands that a handler reads without looking: registers or constants, or `_` for a result.
void require_operands(const Instruction& instruction, int count);
void require_kind(const Instruction& instruction, int operand, std::initializer_list<Operand::Kind> kinds);

template <class T>
struct Tag {
    using type = T;
};

// act(Tag<T>{}) for the type of numbers that a PTX type stands for; bits count as unsigned.
template <class Act>
Handler over_integers(Type type, Act act) {
    switch (type) {
        case Type::b16:
        case Type::u16: return act(Tag<uint16_t>{});
        case Type::b32:
        case Type::u32: return act(Tag<uint32_t>{});
        case Type::b64:
        case Type::u64: return act(Tag<uint64_t>{});
        case Type::s16: return act(Tag<int16_t>{});
        case Type::s32: return act(Tag<int32_t>{});
        case Type::s64: return act(Tag<int64_t>{});
        default: return nullptr;
    }
}

template <class Act>
Handler over_floats(Type type, Act act) {
    switch (type) {
        case Type::f16: return act(Tag<Half>{});
        case Type::bf16: return act(Tag<BFloat>{});
        case Type::f16x2: return act(Tag<Pair<Half>>{});
        case Type::bf16x2: return act(Tag<Pair<BFloat>>{});
        case Type::f32: return act(Tag<float>{});
        case Type::f64: return act(Tag<double>{});
        default: return nullptr;
    }
}

}  // namespace emulator
