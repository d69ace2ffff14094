// cvt.
#include <algorithm>
#include <cmath>

#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

constexpr uint32_t kFlush = 8, kSaturate = 16, kRelu = 32, kToInteger = 64, kFinite = 128;

Rounding rounding_of(const Instruction& i) { return static_cast<Rounding>(i.flags & 7); }

// Integers narrower than their register are extended to it, as their type says.
Slot extended(uint64_t value, Type type, int register_bits) {
    const int bits = bits_of(type);
    if (is_signed(type) && bits < 64)
        value = static_cast<uint64_t>(static_cast<int64_t>(value << (64 - bits)) >> (64 - bits));
    else if (bits < 64)
        value &= (uint64_t{1} << bits) - 1;
    return register_bits < 64 ? value & ((uint64_t{1} << register_bits) - 1) : value;
}

Type source_of(const Instruction& i) { return static_cast<Type>(i.parameters[1]); }
Type target_of(const Instruction& i) { return static_cast<Type>(i.parameters[0]); }

double real(Slot slot, Type type) {
    switch (type) {
        case Type::f16: return get<Half>(slot).wide();
        case Type::bf16: return get<BFloat>(slot).wide();
        case Type::f32: return get<float>(slot);
        default: return get<double>(slot);
    }
}

// Of an integer or a double. Both compare exactly with the nearest float32, which the directed roundings start from.
template <class Exact>
float float_of(Exact exact, Rounding rounding) {
    float found = static_cast<float>(exact);
    if (rounding == Rounding::nearest || exact != exact) return found;
    const auto back = static_cast<Exact>(found);
    const bool above = back > exact, below = back < exact;
    if (above && (rounding == Rounding::down || (rounding == Rounding::zero && exact > 0)))
        found = std::nextafterf(found, -INFINITY);
    if (below && (rounding == Rounding::up || (rounding == Rounding::zero && exact < 0)))
        found = std::nextafterf(found, INFINITY);
    return found;
}

Slot real_slot(double value, Type type, uint32_t flags) {
    const auto rounding = static_cast<Rounding>(flags & 7);
    if (flags & kSaturate) value = std::isnan(value) ? 0 : std::clamp(value, 0.0, 1.0);
    if ((flags & kRelu) && !(value > 0) && !std::isnan(value)) value = 0;
    const bool finite = flags & kFinite;
    switch (type) {
        case Type::f16: return slot_of(Half::from(value, rounding, finite));
        case Type::bf16: return slot_of(BFloat::from(value, rounding, finite));
        case Type::tf32: return tf32(value, rounding);
        case Type::f32: {
            float found = float_of(value, rounding);
            if (flags & kFlush) found = flushed(found);
            return std::isnan(found) ? 0x7FFFFFFF : slot_of(found);
        }
        default: return slot_of(value);
    }
}

__int128 least(Type type) { return is_signed(type) ? -(static_cast<__int128>(1) << (bits_of(type) - 1)) : 0; }
__int128 most(Type type) { return (static_cast<__int128>(1) << (bits_of(type) - is_signed(type))) - 1; }

__int128 whole(Slot slot, Type type) {
    const Slot wide = extended(slot, type, 64);
    return is_signed(type) ? static_cast<__int128>(static_cast<int64_t>(wide)) : static_cast<__int128>(wide);
}

Outcome integer_to_integer(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const Type from = source_of(i), target = target_of(i);
    const int width = std::max<int>(i[0].bits, bits_of(target));
    const bool saturate = i.flags & kSaturate;
    each(lanes, [=](int lane) {
        if (saturate) {
            const __int128 value = std::clamp(whole(a[lane], from), least(target), most(target));
            to[lane] = extended(static_cast<uint64_t>(value), target, width);
        } else {
            to[lane] = extended(extended(a[lane], from, 64), target, width);
        }
    });
    return Outcome::next;
}

// Out of range is clamped; NaN becomes 0, or the highest bit alone where either side has 64 bits.
Outcome real_to_integer(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const Type from = source_of(i), target = target_of(i);
    const int width = std::max<int>(i[0].bits, bits_of(target));
    const Rounding rounding = rounding_of(i);
    const bool flush = i.flags & kFlush;
    each(lanes, [=](int lane) {
        double value = real(a[lane], from);
        if (flush) value = flushed(static_cast<float>(value));
        if (std::isnan(value)) {
            to[lane] = bits_of(target) == 64 || from == Type::f64 ? Slot{1} << (bits_of(target) - 1) : 0;
            return;
        }
        value = round_to_integer(value, rounding);
        __int128 found;
        if (value <= static_cast<double>(least(target)))
            found = least(target);
        else if (value >= static_cast<double>(most(target)))
            found = most(target);
        else
            found = static_cast<__int128>(value);
        to[lane] = extended(static_cast<uint64_t>(found), target, width);
    });
    return Outcome::next;
}

Outcome integer_to_real(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const Type from = source_of(i), target = target_of(i);
    const uint32_t flags = i.flags;
    each(lanes, [=](int lane) {
        const __int128 value = whole(a[lane], from);
        if (target == Type::f32)
            to[lane] = slot_of(float_of(value, static_cast<Rounding>(flags & 7)));
        else
            to[lane] = real_slot(static_cast<double>(value), target, flags);
    });
    return Outcome::next;
}

Outcome real_to_real(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const Type from = source_of(i), target = target_of(i);
    const uint32_t flags = i.flags;
    each(lanes, [=](int lane) {
        double value = real(a[lane], from);
        if ((flags & kFlush) && from == Type::f32) value = flushed(static_cast<float>(value));
        if (flags & kToInteger) value = round_to_integer(value, static_cast<Rounding>(flags & 7));
        to[lane] = real_slot(value, target, flags);
    });
    return Outcome::next;
}

// Two float32 numbers to a pair, the first to the upper half.
Outcome reals_to_pair(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    const Type target = target_of(i) == Type::f16x2 ? Type::f16 : Type::bf16;
    const uint32_t flags = i.flags;
    each(lanes, [=](int lane) {
        to[lane] = real_slot(get<float>(a[lane]), target, flags) << 16 | real_slot(get<float>(b[lane]), target, flags);
    });
    return Outcome::next;
}

void decode_convert(Instruction& i, Modifiers& modifiers) {
    // rni and its kin round to integers; the others to the target's precision.
    constexpr Rounding kWhole[] = {Rounding::nearest, Rounding::zero, Rounding::down, Rounding::up};
    const int to_integer = modifiers.take_one({"rni", "rzi", "rmi", "rpi"});
    i.flags = static_cast<uint32_t>(to_integer >= 0 ? kWhole[to_integer] : modifiers.rounding());
    if (to_integer >= 0) i.flags |= kToInteger;
    if (modifiers.take("ftz")) i.flags |= kFlush;
    if (modifiers.take("sat")) i.flags |= kSaturate;
    if (modifiers.take("relu")) i.flags |= kRelu;
    if (modifiers.take("satfinite")) i.flags |= kFinite;
    const Type target = modifiers.type(), from = modifiers.type();
    require(target != Type::none && from != Type::none, i.opcode, " has no types");
    i.parameters[0] = static_cast<int32_t>(target);
    i.parameters[1] = static_cast<int32_t>(from);
    if (target == Type::f16x2 || target == Type::bf16x2) {
        require_operands(i, 3);
        if (from == Type::f32) i.run = &reals_to_pair;
        return;
    }
    require_operands(i, 2);
    const auto emulated = [](Type type) {
        return !is_float(type) || type == Type::f16 || type == Type::bf16 || type == Type::f32 || type == Type::f64;
    };
    if (!emulated(from) || !(emulated(target) || target == Type::tf32)) return;
    if (is_float(from))
        i.run = is_float(target) ? &real_to_real : &real_to_integer;
    else
        i.run = is_float(target) ? &integer_to_real : &integer_to_integer;
}

}  // namespace

void add_conversions(Decoders& decoders) { decoders["cvt"] = &decode_convert; }

}  // namespace emulator
