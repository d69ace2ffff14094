// and, or, xor, not, cnot, lop3, shl, shr, shf, prmt, bfe, bfi, bfind, popc, clz, brev, fns.
#include <algorithm>

#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

// Bitwise operations take slots as they are: what lies above the type's bits is zero on both sides, or masked here.
template <class Of>
Outcome bitwise(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    const Slot keep = i.flags == 64 ? ~Slot{0} : (Slot{1} << i.flags) - 1;
    const Slot flip_a = i[1].negated ? ~Slot{0} : 0, flip_b = i[2].negated ? ~Slot{0} : 0;
    each(lanes, [=](int lane) { to[lane] = Of::of(a[lane] ^ flip_a, b[lane] ^ flip_b) & keep; });
    return Outcome::next;
}

struct And {
    static Slot of(Slot a, Slot b) { return a & b; }
};
struct Or {
    static Slot of(Slot a, Slot b) { return a | b; }
};
struct Xor {
    static Slot of(Slot a, Slot b) { return a ^ b; }
};

Outcome invert(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const Slot keep = i.flags == 64 ? ~Slot{0} : (Slot{1} << i.flags) - 1;
    each(lanes, [=](int lane) { to[lane] = ~a[lane] & keep; });
    return Outcome::next;
}

Outcome invert_number(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const Slot keep = i.flags == 64 ? ~Slot{0} : (Slot{1} << i.flags) - 1;
    each(lanes, [=](int lane) { to[lane] = (a[lane] & keep) == 0; });
    return Outcome::next;
}

template <class Of>
void decode_bitwise(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 3);
    i.flags = static_cast<uint32_t>(bits_of(modifiers.type()));
    i.run = &bitwise<Of>;
}

template <Handler kRun>
void decode_not(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 2);
    i.flags = static_cast<uint32_t>(bits_of(modifiers.type()));
    i.run = kRun;
}

Outcome lop3(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    const auto table = static_cast<uint32_t>(warp.read(i[4])[0]);
    each(lanes, [=](int lane) {
        const auto x = static_cast<uint32_t>(a[lane]), y = static_cast<uint32_t>(b[lane]), z = static_cast<uint32_t>(c[lane]);
        uint32_t found = 0;
        for (uint32_t row = 0; row < 8; ++row) {
            if (table >> row & 1) found |= (row & 4 ? x : ~x) & (row & 2 ? y : ~y) & (row & 1 ? z : ~z);
        }
        to[lane] = found;
    });
    return Outcome::next;
}

void decode_lop3(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 5);
    require(modifiers.type() == Type::b32, i.opcode, " is not emulated");
    i.run = &lop3;
}

// The amount is an unsigned 32-bit number; larger ones than the type has bits shift everything out.
template <class T, bool kLeft>
Outcome shift(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    constexpr uint32_t kBits = 8 * sizeof(T);
    each(lanes, [=](int lane) {
        const auto amount = static_cast<uint32_t>(b[lane]);
        const T value = get<T>(a[lane]);
        if (kLeft) {
            to[lane] =
                slot_of<T>(amount >= kBits ? T{0} : static_cast<T>(static_cast<std::make_unsigned_t<T>>(value) << amount));
        } else {
            to[lane] = slot_of<T>(amount >= kBits ? static_cast<T>(value < 0 ? -1 : 0) : static_cast<T>(value >> amount));
        }
    });
    return Outcome::next;
}

template <bool kLeft>
void decode_shift(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 3);
    i.run = over_integers(modifiers.type(), [](auto tag) -> Handler { return &shift<typename decltype(tag)::type, kLeft>; });
}

template <bool kLeft, bool kWrap>
Outcome funnel_shift(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    each(lanes, [=](int lane) {
        const uint64_t both = static_cast<uint32_t>(a[lane]) | static_cast<uint64_t>(static_cast<uint32_t>(b[lane])) << 32;
        const auto amount = static_cast<uint32_t>(c[lane]);
        const uint32_t by = kWrap ? amount & 31 : std::min(amount, 32u);
        to[lane] = static_cast<uint32_t>(kLeft ? both << by >> 32 : both >> by);
    });
    return Outcome::next;
}

void decode_funnel_shift(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    const bool left = modifiers.take_one({"l", "r"}) == 0, wrap = modifiers.take_one({"clamp", "wrap"}) == 1;
    require(modifiers.type() == Type::b32, i.opcode, " is not emulated");
    if (left)
        i.run = wrap ? &funnel_shift<true, true> : &funnel_shift<true, false>;
    else
        i.run = wrap ? &funnel_shift<false, true> : &funnel_shift<false, false>;
}

// Four bytes picked from eight, each possibly replaced by copies of its sign.
uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = a | static_cast<uint64_t>(b) << 32;
    uint32_t found = 0;
    for (int k = 0; k < 4; ++k) {
        const uint32_t pick = selector >> (4 * k) & 15;
        uint32_t byte = both >> (8 * (pick & 7)) & 0xFF;
        if (pick & 8) byte = byte & 0x80 ? 0xFF : 0;
        found |= byte << (8 * k);
    }
    return found;
}

// What the named modes pick, by the lowest two bits of the selector.
constexpr uint32_t kModes[6][4] = {
    {0x3210, 0x4321, 0x5432, 0x6543},  // f4e
    {0x5670, 0x6701, 0x7012, 0x0123},  // b4e
    {0x0000, 0x1111, 0x2222, 0x3333},  // rc8
    {0x3210, 0x3211, 0x3222, 0x3333},  // ecl
    {0x0000, 0x1110, 0x2210, 0x3210},  // ecr
    {0x1010, 0x3232, 0x1010, 0x3232},  // rc16
};

Outcome permute(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    const int mode = i.parameters[0];
    each(lanes, [=](int lane) {
        const auto selector = static_cast<uint32_t>(c[lane]);
        to[lane] = permuted(static_cast<uint32_t>(a[lane]), static_cast<uint32_t>(b[lane]),
                            mode < 0 ? selector : kModes[mode][selector & 3]);
    });
    return Outcome::next;
}

void decode_permute(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    require(modifiers.type() == Type::b32, i.opcode, " is not emulated");
    i.parameters[0] = modifiers.take_one({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"});
    i.run = &permute;
}

template <class T>
Outcome extract(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    constexpr int kMost = 8 * sizeof(T) - 1;
    each(lanes, [=](int lane) {
        const T value = get<T>(a[lane]);
        const int from = b[lane] & 0xFF, length = c[lane] & 0xFF;
        const bool sign = std::is_signed_v<T> && length > 0 && (value >> std::min(from + length - 1, kMost) & 1);
        std::make_unsigned_t<T> found = 0;
        for (int k = 0; k <= kMost; ++k) {
            const bool bit = k < length && from + k <= kMost ? value >> (from + k) & 1 : sign;
            found |= static_cast<std::make_unsigned_t<T>>(bit) << k;
        }
        to[lane] = slot_of(found);
    });
    return Outcome::next;
}

void decode_extract(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    i.run = over_integers(modifiers.type(), [](auto tag) -> Handler { return &extract<typename decltype(tag)::type>; });
}

template <class T>
Outcome insert(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]), *d = warp.read(i[4]);
    constexpr int kBits = 8 * sizeof(T);
    each(lanes, [=](int lane) {
        const int from = c[lane] & 0xFF, length = d[lane] & 0xFF;
        T found = get<T>(b[lane]);
        for (int k = 0; k < length && from + k < kBits; ++k) {
            const T bit = T{1} << (from + k);
            found = get<T>(a[lane]) >> k & 1 ? found | bit : found & ~bit;
        }
        to[lane] = slot_of(found);
    });
    return Outcome::next;
}

void decode_insert(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 5);
    i.run = over_integers(modifiers.type(), [](auto tag) -> Handler {
        using T = typename decltype(tag)::type;
        if constexpr (sizeof(T) >= 4 && std::is_unsigned_v<T>) return &insert<T>;
        return nullptr;
    });
}

template <class T>
Outcome find_highest(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const bool shift = i.flags;
    each(lanes, [=](int lane) {
        const T value = get<T>(a[lane]);
        const auto bits = static_cast<std::make_unsigned_t<T>>(value < 0 ? ~value : value);
        uint32_t found = ~0u;
        for (int k = 8 * sizeof(T) - 1; k >= 0; --k) {
            if (bits >> k & 1) {
                found = static_cast<uint32_t>(shift ? static_cast<int>(8 * sizeof(T)) - 1 - k : k);
                break;
            }
        }
        to[lane] = found;
    });
    return Outcome::next;
}

void decode_find_highest(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 2);
    i.flags = modifiers.take("shiftamt");
    i.run = over_integers(modifiers.type(), [](auto tag) -> Handler { return &find_highest<typename decltype(tag)::type>; });
}

struct Popc {
    template <class T>
    static Slot of(T value) {
        return __builtin_popcountll(value);
    }
};
struct Clz {
    template <class T>
    static Slot of(T value) {
        return value == 0 ? 8 * sizeof(T) : __builtin_clzll(value) - (64 - 8 * sizeof(T));
    }
};
struct Brev {
    template <class T>
    static Slot of(T value) {
        T found = 0;
        for (size_t k = 0; k < 8 * sizeof(T); ++k) found |= (value >> k & T{1}) << (8 * sizeof(T) - 1 - k);
        return found;
    }
};

template <class Of, class T>
Outcome counting(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    each(lanes, [=](int lane) { to[lane] = Of::template of<T>(get<T>(a[lane])); });
    return Outcome::next;
}

template <class Of>
void decode_counting(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 2);
    const Type type = modifiers.type();
    i.run = type == Type::b32 ? &counting<Of, uint32_t> : type == Type::b64 ? &counting<Of, uint64_t> : nullptr;
}

// The nth set bit of a mask, seen from a base upwards or, for a negative n, downwards.
Outcome find_nth_set(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    each(lanes, [=](int lane) {
        const auto mask = static_cast<uint32_t>(a[lane]);
        int left = std::abs(get<int32_t>(c[lane]));
        const int step = get<int32_t>(c[lane]) < 0 ? -1 : 1;
        uint32_t found = ~0u;
        int at = get<int32_t>(b[lane]);
        if (left == 0) {
            if (mask >> at & 1) found = static_cast<uint32_t>(at);
        } else {
            for (; at >= 0 && at < 32; at += step) {
                if ((mask >> at & 1) && --left == 0) {
                    found = static_cast<uint32_t>(at);
                    break;
                }
            }
        }
        to[lane] = found;
    });
    return Outcome::next;
}

void decode_find_nth_set(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    require(modifiers.type() == Type::b32, i.opcode, " is not emulated");
    i.run = &find_nth_set;
}

}  // namespace

void add_bits(Decoders& decoders) {
    decoders["and"] = &decode_bitwise<And>;
    decoders["or"] = &decode_bitwise<Or>;
    decoders["xor"] = &decode_bitwise<Xor>;
    decoders["not"] = &decode_not<&invert>;
    decoders["cnot"] = &decode_not<&invert_number>;
    decoders["lop3"] = &decode_lop3;
    decoders["shl"] = &decode_shift<true>;
    decoders["shr"] = &decode_shift<false>;
    decoders["shf"] = &decode_funnel_shift;
    decoders["prmt"] = &decode_permute;
    decoders["bfe"] = &decode_extract;
    decoders["bfi"] = &decode_insert;
    decoders["bfind"] = &decode_find_highest;
    decoders["popc"] = &decode_counting<Popc>;
    decoders["clz"] = &decode_counting<Clz>;
    decoders["brev"] = &decode_counting<Brev>;
    decoders["fns"] = &decode_find_nth_set;
}

}  // namespace emulator
