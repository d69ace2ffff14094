// add, sub, mul, mad, div, rem, min, max, abs, neg, sad, add.cc and its kin, dp4a, dp2a.
#include <algorithm>

#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

template <class T>
using Wider = std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
                                 std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                                                    std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

template <class T>
using Unsigned = std::make_unsigned_t<T>;

struct Add {
    template <class T>
    static T of(T a, T b) {
        return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
    }
};
struct Sub {
    template <class T>
    static T of(T a, T b) {
        return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
    }
};
struct MulLow {
    template <class T>
    static T of(T a, T b) {
        return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    }
};
struct MulHigh {
    template <class T>
    static T of(T a, T b) {
        return static_cast<T>(static_cast<Wider<T>>(a) * b >> (8 * sizeof(T)));
    }
};
struct Min {
    template <class T>
    static T of(T a, T b) {
        return std::min(a, b);
    }
};
struct Max {
    template <class T>
    static T of(T a, T b) {
        return std::max(a, b);
    }
};
// What a division by zero gives is left open; all ones is what devices give.
struct Div {
    template <class T>
    static T of(T a, T b) {
        if (b == 0) return static_cast<T>(~Unsigned<T>{0});
        if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Sub::of(T{0}, a);
        return static_cast<T>(a / b);
    }
};
struct Rem {
    template <class T>
    static T of(T a, T b) {
        if (b == 0) return a;
        if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
        return static_cast<T>(a % b);
    }
};
template <class Of>
struct Saturated {
    template <class T>
    static T of(T a, T b) {
        const int64_t exact = std::is_same_v<Of, Add> ? int64_t{a} + int64_t{b} : int64_t{a} - int64_t{b};
        return static_cast<T>(std::clamp<int64_t>(exact, INT32_MIN, INT32_MAX));
    }
};

template <class Of, class T>
Outcome binary(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    each(lanes, [=](int lane) { to[lane] = slot_of<T>(Of::template of<T>(get<T>(a[lane]), get<T>(b[lane]))); });
    return Outcome::next;
}

template <class Of>
void binary_decoder(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 3);
    const Type type = modifiers.type();
    i.run = over_integers(type, [](auto tag) -> Handler { return &binary<Of, typename decltype(tag)::type>; });
}

template <class Of>
void add_or_sub(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 3);
    if (modifiers.take("sat")) {
        require(modifiers.type() == Type::s32, i.opcode, " is not emulated");
        i.run = &binary<Saturated<Of>, int32_t>;
        return;
    }
    binary_decoder<Of>(i, modifiers);
}

template <class T>
Outcome mul_wide(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    each(lanes, [=](int lane) {
        to[lane] = slot_of(static_cast<Wider<T>>(static_cast<Wider<T>>(get<T>(a[lane])) * get<T>(b[lane])));
    });
    return Outcome::next;
}

template <class Of, class T>
Outcome multiply_add(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    each(lanes, [=](int lane) {
        to[lane] = slot_of<T>(Add::of<T>(Of::template of<T>(get<T>(a[lane]), get<T>(b[lane])), get<T>(c[lane])));
    });
    return Outcome::next;
}

template <class T>
Outcome multiply_add_wide(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    using Wide = Wider<T>;
    each(lanes, [=](int lane) {
        const Wide product = static_cast<Wide>(get<T>(a[lane])) * get<T>(b[lane]);
        to[lane] = slot_of(static_cast<Wide>(static_cast<uint64_t>(product) + static_cast<uint64_t>(get<Wide>(c[lane]))));
    });
    return Outcome::next;
}

template <class T>
constexpr bool kWidens = sizeof(T) <= 4;

void decode_mul(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 3);
    const int part = modifiers.take_one({"lo", "hi", "wide"});
    i.run = over_integers(modifiers.type(), [&](auto tag) -> Handler {
        using T = typename decltype(tag)::type;
        if (part == 0) return &binary<MulLow, T>;
        if (part == 1) return &binary<MulHigh, T>;
        if constexpr (kWidens<T>) {
            if (part == 2) return &mul_wide<T>;
        }
        return nullptr;
    });
}

void decode_mad(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    const int part = modifiers.take_one({"lo", "hi", "wide"});
    i.run = over_integers(modifiers.type(), [&](auto tag) -> Handler {
        using T = typename decltype(tag)::type;
        if (part == 0) return &multiply_add<MulLow, T>;
        if (part == 1) return &multiply_add<MulHigh, T>;
        if constexpr (kWidens<T>) {
            if (part == 2) return &multiply_add_wide<T>;
        }
        return nullptr;
    });
}

struct Abs {
    template <class T>
    static T of(T a) {
        return a < 0 ? Sub::of(T{0}, a) : a;
    }
};
struct Neg {
    template <class T>
    static T of(T a) {
        return Sub::of(T{0}, a);
    }
};

template <class Of, class T>
Outcome unary(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    each(lanes, [=](int lane) { to[lane] = slot_of<T>(Of::template of<T>(get<T>(a[lane]))); });
    return Outcome::next;
}

template <class Of>
void unary_decoder(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 2);
    i.run = over_integers(modifiers.type(), [](auto tag) -> Handler { return &unary<Of, typename decltype(tag)::type>; });
}

template <class T>
Outcome sad(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    each(lanes, [=](int lane) {
        const T x = get<T>(a[lane]), y = get<T>(b[lane]);
        to[lane] = slot_of<T>(Add::of<T>(get<T>(c[lane]), x < y ? Sub::of<T>(y, x) : Sub::of<T>(x, y)));
    });
    return Outcome::next;
}

void decode_sad(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    i.run = over_integers(modifiers.type(), [](auto tag) -> Handler { return &sad<typename decltype(tag)::type>; });
}

// Sums of products of four bytes, or two 16-bit numbers by two bytes, added to 32 bits.
template <class A, class B, bool kTwo>
Outcome dot(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    const int half = static_cast<int>(i.flags);
    each(lanes, [=](int lane) {
        auto sum = static_cast<uint32_t>(c[lane]);
        if (kTwo) {
            using Wide = std::conditional_t<std::is_signed_v<A>, int16_t, uint16_t>;
            for (int k = 0; k < 2; ++k) {
                sum += static_cast<uint32_t>(static_cast<int32_t>(static_cast<Wide>(a[lane] >> (16 * k))) *
                                             static_cast<B>(b[lane] >> (8 * (k + 2 * half))));
            }
        } else {
            for (int k = 0; k < 4; ++k) {
                sum += static_cast<uint32_t>(static_cast<A>(a[lane] >> (8 * k)) * static_cast<B>(b[lane] >> (8 * k)));
            }
        }
        to[lane] = sum;
    });
    return Outcome::next;
}

template <bool kTwo>
void decode_dot(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    if (kTwo) i.flags = modifiers.take_one({"lo", "hi"}, 0);
    const Type a = modifiers.type(), b = modifiers.type();
    const bool fits = (a == Type::s32 || a == Type::u32) && (b == Type::s32 || b == Type::u32);
    require(fits, i.opcode, " is not emulated");
    if (a == Type::s32)
        i.run = b == Type::s32 ? &dot<int8_t, int8_t, kTwo> : &dot<int8_t, uint8_t, kTwo>;
    else
        i.run = b == Type::s32 ? &dot<uint8_t, int8_t, kTwo> : &dot<uint8_t, uint8_t, kTwo>;
}

}  // namespace

void add_integers(Decoders& decoders) {
    decoders["add"] = &add_or_sub<Add>;
    decoders["sub"] = &add_or_sub<Sub>;
    decoders["mul"] = &decode_mul;
    decoders["mad"] = &decode_mad;
    decoders["div"] = &binary_decoder<Div>;
    decoders["rem"] = &binary_decoder<Rem>;
    decoders["min"] = &binary_decoder<Min>;
    decoders["max"] = &binary_decoder<Max>;
    decoders["abs"] = &unary_decoder<Abs>;
    decoders["neg"] = &unary_decoder<Neg>;
    decoders["sad"] = &decode_sad;
    decoders["dp4a"] = &decode_dot<false>;
    decoders["dp2a"] = &decode_dot<true>;
}

}  // namespace emulator
