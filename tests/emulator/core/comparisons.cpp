// setp, set, selp, slct.
#include <cmath>

#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

enum Compare { eq, ne, lt, le, gt, ge, lo, ls, hi, hs, equ, neu, ltu, leu, gtu, geu, num, nan };

template <class T>
bool compared(int compare, T a, T b) {
    switch (compare) {
        case eq:
        case equ: return a == b;
        case ne:
        case neu: return a != b;
        case lt:
        case lo:
        case ltu: return a < b;
        case le:
        case ls:
        case leu: return a <= b;
        case gt:
        case hi:
        case gtu: return a > b;
        default: return a >= b;
    }
}

template <class T>
bool holds(int compare, Slot x, Slot y, bool flush) {
    if constexpr (is_narrow<T>) {
        return holds<float>(compare, slot_of(get<T>(x).wide()), slot_of(get<T>(y).wide()), flush);
    } else if constexpr (std::is_floating_point_v<T>) {
        T a = get<T>(x), b = get<T>(y);
        if constexpr (std::is_same_v<T, float>) {
            if (flush) a = flushed(a), b = flushed(b);
        }
        const bool unordered = std::isnan(a) || std::isnan(b);
        if (compare == nan) return unordered;
        if (compare == num) return !unordered;
        return unordered ? compare >= equ : compared(compare, a, b);
    } else {
        return compared(compare, get<T>(x), get<T>(y));
    }
}

bool combined(int how, bool found, bool other) {
    return how == 0 ? found && other : how == 1 ? found || other : found != other;
}

constexpr int32_t kFlush = 1;

// The comparison, joined with a predicate where there is one; a second result joins its opposite.
template <class T>
Outcome set_predicate(Warp& warp, const Instruction& i, Mask lanes) {
    const bool two = i[0].kind == Operand::vector;
    const Operand* results = two ? warp.block.launch.kernel.members(i[0]) : &i[0];
    Slot* to = warp.write(results[0]);
    Slot* opposite = two ? warp.write(results[1]) : nullptr;
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    const int how = i.parameters[1];
    const Mask other = how >= 0 ? warp.predicate(i[3]) : 0;
    const int compare = i.parameters[0];
    const bool flush = i.parameters[2] & kFlush;
    each(lanes, [=](int lane) {
        const bool found = holds<T>(compare, a[lane], b[lane], flush), joined = other >> lane & 1;
        to[lane] = how >= 0 ? combined(how, found, joined) : found;
        if (opposite) opposite[lane] = how >= 0 ? combined(how, !found, joined) : !found;
    });
    return Outcome::next;
}

// As a number: all ones or 1.0 where it holds.
template <class T>
Outcome set_number(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    const int how = i.parameters[1];
    const Mask other = how >= 0 ? warp.predicate(i[3]) : 0;
    const bool flush = i.parameters[2] & kFlush;
    const Slot yes = i.flags;
    const int compare = i.parameters[0];
    each(lanes, [=](int lane) {
        const bool found = holds<T>(compare, a[lane], b[lane], flush);
        to[lane] = (how >= 0 ? combined(how, found, other >> lane & 1) : found) ? yes : 0;
    });
    return Outcome::next;
}

template <class Act>
Handler over_numbers(Type type, Act act) {
    if (is_float(type)) {
        switch (type) {
            case Type::f16: return act(Tag<Half>{});
            case Type::bf16: return act(Tag<BFloat>{});
            case Type::f32: return act(Tag<float>{});
            case Type::f64: return act(Tag<double>{});
            default: return nullptr;
        }
    }
    return over_integers(type, act);
}

void take_comparison(Instruction& i, Modifiers& modifiers) {
    i.parameters[0] = modifiers.take_one(
        {"eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
    require(i.parameters[0] >= 0, i.opcode, " compares in no known way");
    i.parameters[1] = modifiers.take_one({"and", "or", "xor"});
    i.parameters[2] = modifiers.take("ftz") ? kFlush : 0;
    const int count = i.parameters[1] >= 0 ? 4 : 3;
    require(i.count == count, i.opcode, " with ", i.count, " operands");
    for (int k = 1; k < count; ++k) require_kind(i, k, {Operand::register_, Operand::constant});
}

void decode_set_predicate(Instruction& i, Modifiers& modifiers) {
    take_comparison(i, modifiers);
    require_kind(i, 0, {Operand::register_, Operand::vector, Operand::sink});
    i.run = over_numbers(modifiers.type(), [](auto tag) -> Handler { return &set_predicate<typename decltype(tag)::type>; });
}

void decode_set_number(Instruction& i, Modifiers& modifiers) {
    take_comparison(i, modifiers);
    require_kind(i, 0, {Operand::register_});
    const Type result = modifiers.type();
    if (result == Type::f32)
        i.flags = bit_cast<uint32_t>(1.0f);
    else if (result == Type::u32 || result == Type::s32)
        i.flags = ~0u;
    else
        return;
    i.run = over_numbers(modifiers.type(), [](auto tag) -> Handler { return &set_number<typename decltype(tag)::type>; });
}

Outcome select(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    const Mask first = warp.predicate(i[3]);
    const Slot keep = i.flags == 64 ? ~Slot{0} : (Slot{1} << i.flags) - 1;
    each(lanes, [=](int lane) { to[lane] = (first >> lane & 1 ? a[lane] : b[lane]) & keep; });
    return Outcome::next;
}

void decode_select(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    i.flags = static_cast<uint32_t>(bits_of(modifiers.type()));
    i.run = &select;
}

Outcome select_by_sign(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]), *c = warp.read(i[3]);
    const bool real = i.flags;
    each(lanes, [=](int lane) {
        const bool first = real ? get<float>(c[lane]) >= 0 : get<int32_t>(c[lane]) >= 0;
        to[lane] = first ? a[lane] : b[lane];
    });
    return Outcome::next;
}

void decode_select_by_sign(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 4);
    modifiers.take("ftz");
    modifiers.type();
    const Type by = modifiers.type();
    require(by == Type::s32 || by == Type::f32, i.opcode, " is not emulated");
    i.flags = by == Type::f32;
    i.run = &select_by_sign;
}

}  // namespace

void add_comparisons(Decoders& decoders) {
    decoders["setp"] = &decode_set_predicate;
    decoders["set"] = &decode_set_number;
    decoders["selp"] = &decode_select;
    decoders["slct"] = &decode_select_by_sign;
}

}  // namespace emulator
