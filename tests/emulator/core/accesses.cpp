// ld, st, ldu.
#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

constexpr int kMostParts = 8;

Space space_of(const Instruction& i) { return static_cast<Space>(i.parameters[0]); }
bool ordered(const Instruction& i) { return i.parameters[3] != 0; }

// What is read into a wider register is extended to it.
template <class T>
Slot widened_to(T value, int register_bits) {
    if (std::is_signed_v<T>) {
        const auto wide = static_cast<uint64_t>(static_cast<int64_t>(value));
        return register_bits >= 64 ? wide : wide & ((uint64_t{1} << register_bits) - 1);
    }
    return slot_of(value);
}

template <class T>
Outcome load(Warp& warp, const Instruction& i, Mask lanes) {
    const int parts = i.parameters[2];
    const Operand* results = i[0].kind == Operand::vector ? warp.block.launch.kernel.members(i[0]) : &i[0];
    const auto bytes = static_cast<uint32_t>(parts * sizeof(T));
    const Access access = ordered(i) && space_of(i) != Space::global ? Access::atomic : Access::read;
    Slot* to[kMostParts];
    for (int k = 0; k < parts; ++k) to[k] = warp.write(results[k]);
    each(lanes, [&](int lane) {
        const uint64_t address = warp.address(i[1], lane);
        T found[kMostParts];
        std::memcpy(found, warp.memory(space_of(i), address, bytes, access, lane, bytes), bytes);
        for (int k = 0; k < parts; ++k) to[k][lane] = widened_to(found[k], results[k].bits);
    });
    return Outcome::next;
}

template <class T>
Outcome store(Warp& warp, const Instruction& i, Mask lanes) {
    const int parts = i.parameters[2];
    const Operand* values = i[1].kind == Operand::vector ? warp.block.launch.kernel.members(i[1]) : &i[1];
    const auto bytes = static_cast<uint32_t>(parts * sizeof(T));
    const Access access = ordered(i) && space_of(i) != Space::global ? Access::atomic : Access::write;
    const Slot* from[kMostParts];
    for (int k = 0; k < parts; ++k) from[k] = warp.read(values[k]);
    each(lanes, [&](int lane) {
        T stored[kMostParts];
        for (int k = 0; k < parts; ++k) stored[k] = get<T>(from[k][lane]);
        const auto* values = reinterpret_cast<const char*>(stored);
        std::memcpy(warp.memory(space_of(i), warp.address(i[0], lane), bytes, access, lane, bytes, values), stored, bytes);
    });
    return Outcome::next;
}

template <class Act>
Handler over_elements(Type type, Act act) {
    switch (type) {
        case Type::b8:
        case Type::u8: return act(Tag<uint8_t>{});
        case Type::s8: return act(Tag<int8_t>{});
        case Type::f16:
        case Type::bf16: return act(Tag<uint16_t>{});
        case Type::f32:
        case Type::f16x2:
        case Type::bf16x2: return act(Tag<uint32_t>{});
        case Type::f64: return act(Tag<uint64_t>{});
        default: return over_integers(type, act);
    }
}

void take_access(Instruction& i, Modifiers& modifiers, int value) {
    i.parameters[3] = modifiers.take_one({"volatile", "relaxed", "acquire", "release", "mmio"}) >= 0;
    modifiers.take("weak");
    modifiers.take_one({"cta", "cluster", "gpu", "sys"});
    i.parameters[0] = static_cast<int32_t>(modifiers.space());
    const bool policy = modifiers.take_cache_hints();
    require(i.count == (policy ? 3 : 2), i.opcode, " with ", i.count, " operands");
    constexpr int kParts[] = {1, 2, 4, 8};
    i.parameters[2] = kParts[modifiers.take_one({"v2", "v4", "v8"}) + 1];
    const int given = i[value].kind == Operand::vector ? i[value].count : 1;
    require(given == i.parameters[2], i.opcode, " with ", given, " values");
    require_kind(i, 1 - value, {Operand::address});
}

void decode_load(Instruction& i, Modifiers& modifiers) {
    take_access(i, modifiers, 0);
    i.run = over_elements(modifiers.type(), [](auto tag) -> Handler { return &load<typename decltype(tag)::type>; });
}

void decode_store(Instruction& i, Modifiers& modifiers) {
    take_access(i, modifiers, 1);
    i.run = over_elements(modifiers.type(), [](auto tag) -> Handler { return &store<typename decltype(tag)::type>; });
}

}  // namespace

void add_accesses(Decoders& decoders) {
    decoders["ld"] = &decode_load;
    decoders["ldu"] = &decode_load;
    decoders["st"] = &decode_store;
}

}  // namespace emulator
