// atom, red.
#include <algorithm>

#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

enum Operation { add, min, max, and_, or_, xor_, inc, dec, exch, cas };

template <class T>
T updated(int operation, T old, T a, T b) {
    if constexpr (is_pair<T>) {
        using Number = decltype(T::lower);
        return {updated<Number>(operation, old.lower, a.lower, b.lower),
                updated<Number>(operation, old.upper, a.upper, b.upper)};
    } else if constexpr (is_narrow<T>) {
        return T::from(updated<double>(operation, old.wide(), a.wide(), b.wide()));
    } else if constexpr (std::is_floating_point_v<T>) {
        switch (operation) {
            case add: return old + a;
            case min: return std::fmin(old, a);
            case max: return std::fmax(old, a);
            default: return a;
        }
    } else {
        using U = std::make_unsigned_t<T>;
        switch (operation) {
            case add: return static_cast<T>(static_cast<U>(old) + static_cast<U>(a));
            case min: return std::min(old, a);
            case max: return std::max(old, a);
            case and_: return old & a;
            case or_: return old | a;
            case xor_: return old ^ a;
            case inc: return static_cast<U>(old) >= static_cast<U>(a) ? T{0} : static_cast<T>(old + 1);
            case dec: return old == 0 || static_cast<U>(old) > static_cast<U>(a) ? a : static_cast<T>(old - 1);
            case exch: return a;
            default: return old == a ? b : old;
        }
    }
}

// Operand 0 of red is the address, of atom the old value.
template <class T, bool kReturns>
Outcome update(Warp& warp, const Instruction& i, Mask lanes) {
    constexpr int kAddress = kReturns ? 1 : 0;
    const int operation = i.parameters[1];
    const Slot* a = warp.read(i[kAddress + 1]);
    const Slot* b = operation == cas ? warp.read(i[kAddress + 2]) : a;
    Slot old[kLanes];
    each(lanes, [&](int lane) {
        char* at = warp.memory(static_cast<Space>(i.parameters[0]), warp.address(i[kAddress], lane), sizeof(T), Access::atomic,
                               lane, sizeof(T));
        T before;
        std::memcpy(&before, at, sizeof(T));
        const T after = updated<T>(operation, before, get<T>(a[lane]), get<T>(b[lane]));
        std::memcpy(at, &after, sizeof(T));
        old[lane] = slot_of(before);
    });
    if constexpr (kReturns) {
        Slot* to = warp.write(i[0]);
        each(lanes, [&](int lane) { to[lane] = old[lane]; });
    }
    return Outcome::next;
}

template <bool kReturns>
void decode_update(Instruction& i, Modifiers& modifiers) {
    modifiers.take_one({"relaxed", "acquire", "release", "acq_rel"});
    modifiers.take_one({"cta", "cluster", "gpu", "sys"});
    modifiers.take("noftz");
    i.parameters[0] = static_cast<int32_t>(modifiers.space());
    i.parameters[1] = modifiers.take_one({"add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"});
    require(i.parameters[1] >= 0, i.opcode, " is not emulated");
    const bool policy = modifiers.take_cache_hints();
    const int values = i.parameters[1] == cas ? 2 : 1;
    require(i.count == values + 1 + kReturns + policy, i.opcode, " with ", i.count, " operands");
    require_kind(i, kReturns, {Operand::address});
    for (int k = 0; k < values; ++k) require_kind(i, kReturns + 1 + k, {Operand::register_, Operand::constant});
    const Type type = modifiers.type();
    const auto handler = [](auto tag) -> Handler { return &update<typename decltype(tag)::type, kReturns>; };
    i.run = is_float(type) ? over_floats(type, handler) : over_integers(type, handler);
}

}  // namespace

void add_atomics(Decoders& decoders) {
    decoders["atom"] = &decode_update<true>;
    decoders["red"] = &decode_update<false>;
}

}  // namespace emulator
