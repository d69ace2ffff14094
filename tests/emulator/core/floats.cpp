// Arithmetic on floating-point numbers. Built with -frounding-math: directed roundings change the mode of the processor.
// The approximate instructions are computed exactly and rounded: a kernel may rely on no more than their bounds.
#include <cfenv>
#include <cmath>

#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

constexpr uint32_t kRounding = 7, kFlush = 8, kSaturate = 16, kKeepNan = 32, kRelu = 64;

class RoundingScope {
 public:
    explicit RoundingScope(uint32_t flags) : directed_((flags & kRounding) != 0) {
        constexpr int kModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD, FE_TONEAREST};
        if (directed_) std::fesetround(kModes[flags & kRounding]);
    }
    ~RoundingScope() {
        if (directed_) std::fesetround(FE_TONEAREST);
    }

 private:
    bool directed_;
};

float canonical(float value) { return std::isnan(value) ? bit_cast<float>(0x7FFFFFFFu) : value; }
double canonical(double value) { return value; }

template <class T>
T finished(T value, uint32_t flags) {
    if constexpr (std::is_same_v<T, float>) {
        if (flags & kFlush) value = flushed(value);
    }
    if (flags & kSaturate) value = std::isnan(value) ? T{0} : std::fmin(std::fmax(value, T{0}), T{1});
    if ((flags & kRelu) && value < 0) value = 0;
    return canonical(value);
}

// Of.of on the numbers in slots, in the precision that one rounding to T leaves exact.
template <class Of, class T, class... Args>
T computed(uint32_t flags, Args... args) {
    if constexpr (is_pair<T>) {
        using Number = decltype(T::lower);
        return {computed<Of, Number>(flags, args.lower...), computed<Of, Number>(flags, args.upper...)};
    } else if constexpr (is_narrow<T>) {
        const double exact = Of::of(flags, static_cast<double>(args.wide())...);
        return T::from(finished(exact, flags), static_cast<Rounding>(flags & kRounding));
    } else if constexpr (std::is_same_v<T, float>) {
        if (flags & kFlush) return finished<T>(Of::of(flags, flushed(args)...), flags);
        return finished<T>(Of::of(flags, args...), flags);
    } else {
        return finished<T>(Of::of(flags, args...), flags);
    }
}

template <class Of, class T, int kArguments>
Outcome run(Warp& warp, const Instruction& i, Mask lanes) {
    const RoundingScope scope(is_narrow<T> || is_pair<T> ? 0 : i.flags);
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const Slot* b = kArguments > 1 ? warp.read(i[2]) : a;
    const Slot* c = kArguments > 2 ? warp.read(i[3]) : a;
    const uint32_t flags = i.flags;
    each(lanes, [=](int lane) {
        const T x = get<T>(a[lane]), y = get<T>(b[lane]), z = get<T>(c[lane]);
        if constexpr (kArguments == 1)
            to[lane] = slot_of<T>(computed<Of, T>(flags, x));
        else if constexpr (kArguments == 2)
            to[lane] = slot_of<T>(computed<Of, T>(flags, x, y));
        else
            to[lane] = slot_of<T>(computed<Of, T>(flags, x, y, z));
    });
    return Outcome::next;
}

struct Add {
    template <class T>
    static T of(uint32_t, T a, T b) {
        return a + b;
    }
};
struct Sub {
    template <class T>
    static T of(uint32_t, T a, T b) {
        return a - b;
    }
};
struct Mul {
    template <class T>
    static T of(uint32_t, T a, T b) {
        return a * b;
    }
};
struct Div {
    template <class T>
    static T of(uint32_t, T a, T b) {
        return a / b;
    }
};
struct Fma {
    template <class T>
    static T of(uint32_t, T a, T b, T c) {
        return std::fma(a, b, c);
    }
};
struct Min {
    template <class T>
    static T of(uint32_t flags, T a, T b) {
        if (std::isnan(a)) return flags & kKeepNan ? a : b;
        if (std::isnan(b)) return flags & kKeepNan ? b : a;
        return a < b || (a == b && std::signbit(a)) ? a : b;
    }
};
struct Max {
    template <class T>
    static T of(uint32_t flags, T a, T b) {
        return -Min::of(flags, -a, -b);
    }
};
struct Abs {
    template <class T>
    static T of(uint32_t, T a) {
        return std::fabs(a);
    }
};
struct Neg {
    template <class T>
    static T of(uint32_t, T a) {
        return -a;
    }
};
struct Rcp {
    template <class T>
    static T of(uint32_t, T a) {
        return T{1} / a;
    }
};
struct Sqrt {
    template <class T>
    static T of(uint32_t, T a) {
        return std::sqrt(a);
    }
};
struct Rsqrt {
    template <class T>
    static T of(uint32_t, T a) {
        return static_cast<T>(1 / std::sqrt(static_cast<double>(a)));
    }
};
struct Ex2 {
    template <class T>
    static T of(uint32_t, T a) {
        return static_cast<T>(std::exp2(static_cast<double>(a)));
    }
};
struct Lg2 {
    template <class T>
    static T of(uint32_t, T a) {
        return static_cast<T>(std::log2(static_cast<double>(a)));
    }
};
struct Sin {
    template <class T>
    static T of(uint32_t, T a) {
        return static_cast<T>(std::sin(static_cast<double>(a)));
    }
};
struct Cos {
    template <class T>
    static T of(uint32_t, T a) {
        return static_cast<T>(std::cos(static_cast<double>(a)));
    }
};
struct Tanh {
    template <class T>
    static T of(uint32_t, T a) {
        return static_cast<T>(std::tanh(static_cast<double>(a)));
    }
};

template <class Of, int kArguments>
void decode_float(Instruction& i, Modifiers& modifiers) {
    require_operands(i, kArguments + 1);
    modifiers.take_one({"approx", "full"});
    i.flags = static_cast<uint32_t>(modifiers.rounding());
    if (modifiers.take("ftz")) i.flags |= kFlush;
    if (modifiers.take("sat")) i.flags |= kSaturate;
    if (modifiers.take("NaN")) i.flags |= kKeepNan;
    if (modifiers.take("relu")) i.flags |= kRelu;
    i.run =
        over_floats(modifiers.type(), [](auto tag) -> Handler { return &run<Of, typename decltype(tag)::type, kArguments>; });
}

struct Copysign {
    template <class T>
    static T of(uint32_t, T a, T b) {
        return std::copysign(b, a);
    }
};

template <class T>
Outcome test_property(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const int property = i.parameters[0];
    each(lanes, [=](int lane) {
        const int kind = std::fpclassify(get<T>(a[lane]));
        const bool normal = kind == FP_NORMAL || kind == FP_ZERO;
        const bool holds[] = {kind != FP_NAN && kind != FP_INFINITE,
                              kind == FP_INFINITE,
                              kind != FP_NAN,
                              kind == FP_NAN,
                              normal,
                              kind == FP_SUBNORMAL};
        to[lane] = holds[property];
    });
    return Outcome::next;
}

void decode_test_property(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 2);
    i.parameters[0] = modifiers.take_one({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
    const Type type = modifiers.type();
    if (i.parameters[0] < 0) return;
    i.run = type == Type::f32 ? &test_property<float> : type == Type::f64 ? &test_property<double> : nullptr;
}

}  // namespace

void add_floats(Decoders& decoders) {
    decoders["add.f"] = &decode_float<Add, 2>;
    decoders["sub.f"] = &decode_float<Sub, 2>;
    decoders["mul.f"] = &decode_float<Mul, 2>;
    decoders["div.f"] = &decode_float<Div, 2>;
    decoders["fma.f"] = &decode_float<Fma, 3>;
    decoders["mad.f"] = &decode_float<Fma, 3>;
    decoders["min.f"] = &decode_float<Min, 2>;
    decoders["max.f"] = &decode_float<Max, 2>;
    decoders["abs.f"] = &decode_float<Abs, 1>;
    decoders["neg.f"] = &decode_float<Neg, 1>;
    decoders["rcp.f"] = &decode_float<Rcp, 1>;
    decoders["sqrt.f"] = &decode_float<Sqrt, 1>;
    decoders["rsqrt.f"] = &decode_float<Rsqrt, 1>;
    decoders["ex2.f"] = &decode_float<Ex2, 1>;
    decoders["lg2.f"] = &decode_float<Lg2, 1>;
    decoders["sin.f"] = &decode_float<Sin, 1>;
    decoders["cos.f"] = &decode_float<Cos, 1>;
    decoders["tanh.f"] = &decode_float<Tanh, 1>;
    decoders["copysign.f"] = &decode_float<Copysign, 2>;
    decoders["testp.f"] = &decode_test_property;
}

}  // namespace emulator
