// shfl, vote, match, redux, activemask, elect: lanes of a warp that look at each other.
#include <algorithm>

#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

// Lanes that meet: of those here, each with the members that its mask names. False where some are still missing.
class Meeting {
 public:
    Meeting(Warp& warp, const Operand& operand, Mask lanes) {
        const Slot* masks = warp.read(operand);
        each(lanes, [&](int lane) {
            const auto members = static_cast<Mask>(masks[lane]);
            require(members >> lane & 1, "lane ", lane, " is not in its own member mask ", Hex{members});
            together &= warp.together(lanes, members);
            members_[lane] = members & lanes;
        });
        if (together) warp.met(lanes);
    }
    Mask of(int lane) const { return members_[lane]; }
    bool together = true;

 private:
    Mask members_[kLanes] = {};
};

enum Way { up, down, butterfly, index };

Outcome shuffle(Warp& warp, const Instruction& i, Mask lanes) {
    const Meeting meeting(warp, i[4], lanes);
    if (!meeting.together) return Outcome::parked;
    const bool two = i[0].kind == Operand::vector;
    const Operand* results = two ? warp.block.launch.kernel.members(i[0]) : &i[0];
    Slot from[kLanes];
    std::memcpy(from, warp.read(i[1]), sizeof(from));
    Slot steps[kLanes], clamps[kLanes];
    std::memcpy(steps, warp.read(i[2]), sizeof(steps));
    std::memcpy(clamps, warp.read(i[3]), sizeof(clamps));
    Slot* to = warp.write(results[0]);
    Slot* found = two ? warp.write(results[1]) : nullptr;
    const int way = i.parameters[0];
    each(lanes, [&](int lane) {
        const int step = steps[lane] & 31, clamp = clamps[lane] & 31, segment = clamps[lane] >> 8 & 31;
        const int last = (lane & segment) | (clamp & ~segment & 31);
        int source;
        bool in_range;
        switch (way) {
            case up: source = lane - step, in_range = source >= last; break;
            case down: source = lane + step, in_range = source <= last; break;
            case butterfly: source = lane ^ step, in_range = source <= last; break;
            default: source = (lane & segment) | (step & ~segment), in_range = source <= last; break;
        }
        if (!in_range) source = lane;
        // What a lane holds that does not take part is left open.
        to[lane] = meeting.of(lane) >> source & 1 ? from[source] & 0xFFFFFFFF : warp.block.poison & 0xFFFFFFFF;
        if (found) found[lane] = in_range;
    });
    return Outcome::next;
}

void decode_shuffle(Instruction& i, Modifiers& modifiers) {
    require(modifiers.take("sync") && i.count == 5, i.opcode, " is not emulated");
    for (int k = 1; k < 5; ++k) require_kind(i, k, {Operand::register_, Operand::constant});
    require_kind(i, 0, {Operand::register_, Operand::vector});
    i.parameters[0] = modifiers.take_one({"up", "down", "bfly", "idx"});
    if (modifiers.type() == Type::b32 && i.parameters[0] >= 0) i.run = &shuffle;
}

enum Vote { all, any, uniform, ballot };

Outcome vote(Warp& warp, const Instruction& i, Mask lanes) {
    const Meeting meeting(warp, i[2], lanes);
    if (!meeting.together) return Outcome::parked;
    const Mask holds = warp.predicate(i[1]);
    Slot* to = warp.write(i[0]);
    const int what = i.parameters[0];
    each(lanes, [&](int lane) {
        const Mask members = meeting.of(lane), yes = holds & members;
        switch (what) {
            case all: to[lane] = yes == members; break;
            case any: to[lane] = yes != 0; break;
            case uniform: to[lane] = yes == 0 || yes == members; break;
            default: to[lane] = yes; break;
        }
    });
    return Outcome::next;
}

void decode_vote(Instruction& i, Modifiers& modifiers) {
    require(modifiers.take("sync"), i.opcode, " is not emulated");
    require_operands(i, 3);
    i.parameters[0] = modifiers.take_one({"all", "any", "uni", "ballot"});
    modifiers.type();
    if (i.parameters[0] >= 0) i.run = &vote;
}

template <class T, bool kAll>
Outcome match(Warp& warp, const Instruction& i, Mask lanes) {
    const Meeting meeting(warp, i[2], lanes);
    if (!meeting.together) return Outcome::parked;
    const bool two = i[0].kind == Operand::vector;
    const Operand* results = two ? warp.block.launch.kernel.members(i[0]) : &i[0];
    Slot from[kLanes];
    std::memcpy(from, warp.read(i[1]), sizeof(from));
    Slot* to = warp.write(results[0]);
    Slot* holds = two ? warp.write(results[1]) : nullptr;
    each(lanes, [&](int lane) {
        Mask equal = 0;
        each(meeting.of(lane), [&](int other) {
            if (get<T>(from[other]) == get<T>(from[lane])) equal |= Mask{1} << other;
        });
        const bool everybody = equal == meeting.of(lane);
        to[lane] = !kAll || everybody ? equal : 0;
        if (holds) holds[lane] = everybody;
    });
    return Outcome::next;
}

void decode_match(Instruction& i, Modifiers& modifiers) {
    const int what = modifiers.take_one({"any", "all"});
    require(modifiers.take("sync") && i.count == 3 && what >= 0, i.opcode, " is not emulated");
    const Type type = modifiers.type();
    if (type == Type::b32) i.run = what == 0 ? &match<uint32_t, false> : &match<uint32_t, true>;
    if (type == Type::b64) i.run = what == 0 ? &match<uint64_t, false> : &match<uint64_t, true>;
}

enum Reduction { add, least, most, and_, or_, xor_ };

template <class T>
Outcome reduce(Warp& warp, const Instruction& i, Mask lanes) {
    const Meeting meeting(warp, i[2], lanes);
    if (!meeting.together) return Outcome::parked;
    Slot from[kLanes];
    std::memcpy(from, warp.read(i[1]), sizeof(from));
    Slot* to = warp.write(i[0]);
    const int how = i.parameters[0];
    each(lanes, [&](int lane) {
        const Mask members = meeting.of(lane);
        T found = get<T>(from[__builtin_ctz(members)]);
        each(members & (members - 1), [&](int other) {
            const T value = get<T>(from[other]);
            switch (how) {
                case add: found = static_cast<T>(static_cast<uint32_t>(found) + static_cast<uint32_t>(value)); break;
                case least: found = std::min(found, value); break;
                case most: found = std::max(found, value); break;
                case and_: found &= value; break;
                case or_: found |= value; break;
                default: found ^= value; break;
            }
        });
        to[lane] = slot_of(found);
    });
    return Outcome::next;
}

void decode_reduce(Instruction& i, Modifiers& modifiers) {
    require(modifiers.take("sync"), i.opcode, " is not emulated");
    require_operands(i, 3);
    i.parameters[0] = modifiers.take_one({"add", "min", "max", "and", "or", "xor"});
    const Type type = modifiers.type();
    if (i.parameters[0] < 0) return;
    i.run = type == Type::s32 ? &reduce<int32_t> : type == Type::u32 || type == Type::b32 ? &reduce<uint32_t> : nullptr;
}

Outcome active_lanes(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    each(lanes, [=](int lane) { to[lane] = lanes; });
    return Outcome::next;
}

void decode_active_lanes(Instruction& i, Modifiers& modifiers) {
    modifiers.type();
    require_operands(i, 1);
    i.run = &active_lanes;
}

Outcome elect(Warp& warp, const Instruction& i, Mask lanes) {
    const Meeting meeting(warp, i[1], lanes);
    if (!meeting.together) return Outcome::parked;
    const Operand* results = warp.block.launch.kernel.members(i[0]);
    Slot *leader = warp.write(results[0]), *is_leader = warp.write(results[1]);
    each(lanes, [&](int lane) {
        const int first = __builtin_ctz(meeting.of(lane));
        leader[lane] = static_cast<Slot>(first);
        is_leader[lane] = first == lane;
    });
    return Outcome::next;
}

void decode_elect(Instruction& i, Modifiers& modifiers) {
    require(modifiers.take("sync") && i.count == 2, i.opcode, " is not emulated");
    require_kind(i, 0, {Operand::vector});
    i.run = &elect;
}

}  // namespace

void add_warp_operations(Decoders& decoders) {
    decoders["shfl"] = &decode_shuffle;
    decoders["vote"] = &decode_vote;
    decoders["match"] = &decode_match;
    decoders["redux"] = &decode_reduce;
    decoders["activemask"] = &decode_active_lanes;
    decoders["elect"] = &decode_elect;
}

}  // namespace emulator
