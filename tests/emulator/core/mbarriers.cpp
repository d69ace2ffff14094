// mbarrier.
#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

Space space_of(const Instruction& i) { return static_cast<Space>(i.parameters[0]); }

uint64_t address_of(Warp& warp, const Instruction& i, int operand, int lane) {
    warp.blame(lane);
    return warp.shared_address(space_of(i), warp.address(i[operand], lane), lane);
}

// An mbarrier that this thread may know of: whoever made it has said so.
Mbarrier& found(Warp& warp, uint64_t address, int lane) {
    Mbarrier& barrier = warp.block.mbarrier(address);
    warp.block.races.read(warp.thread(lane), warp.now(), warp.line(), address, 8);
    return barrier;
}

// What arriving returns: the phase, and how many arrivals were outstanding.
Slot token(const Mbarrier& barrier) { return barrier.phase << 32 | static_cast<Slot>(barrier.pending); }

Outcome init(Warp& warp, const Instruction& i, Mask lanes) {
    const Slot* counts = warp.read(i[1]);
    each(lanes, [&](int lane) {
        const uint64_t address = address_of(warp, i, 0, lane);
        warp.block.make_mbarrier(address, static_cast<uint32_t>(counts[lane]), warp.line());
        warp.block.races.write(warp.thread(lane), warp.now(), warp.line(), address, 8);
    });
    return Outcome::next;
}

Outcome invalidate(Warp& warp, const Instruction& i, Mask lanes) {
    each(lanes, [&](int lane) {
        const uint64_t address = address_of(warp, i, 0, lane);
        warp.block.drop_mbarrier(address);
        warp.block.races.write(warp.thread(lane), warp.now(), warp.line(), address, 8);
    });
    return Outcome::next;
}

constexpr uint32_t kExpects = 1, kDrops = 2;

// Operands: where the token goes, the address, and perhaps a count of arrivals or of bytes.
Outcome arrive(Warp& warp, const Instruction& i, Mask lanes) {
    Block& block = warp.block;
    const Slot* given = i.count > 2 ? warp.read(i[2]) : nullptr;
    Slot* to = warp.write(i[0]);
    each(lanes, [&](int lane) {
        Mbarrier& barrier = found(warp, address_of(warp, i, 1, lane), lane);
        const Slot before = token(barrier);
        const int64_t number = given ? get<int32_t>(given[lane]) : 1;
        if (i.flags & kExpects) barrier.bytes += number;
        const int64_t arrivals = i.flags & kExpects ? 1 : number;
        require(arrivals >= 1, "arrives ", arrivals, " times at an mbarrier");
        barrier.pending -= arrivals;
        if (i.flags & kDrops) --barrier.expected;
        block.races.release(warp.number(), Mask{1} << lane, warp.now(), barrier.gathered);
        block.settle(barrier);
        to[lane] = before;
    });
    return Outcome::next;
}

Outcome change_bytes(Warp& warp, const Instruction& i, Mask lanes) {
    const Slot* given = warp.read(i[1]);
    const int sign = i.flags & kExpects ? 1 : -1;
    each(lanes, [&](int lane) {
        Mbarrier& barrier = found(warp, address_of(warp, i, 0, lane), lane);
        barrier.bytes += sign * get<int32_t>(given[lane]);
        warp.block.settle(barrier);
    });
    return Outcome::next;
}

constexpr uint32_t kParity = 1;

Outcome wait(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* given = warp.read(i[2]);
    bool all = true;
    each(lanes, [&](int lane) {
        const Mbarrier& barrier = found(warp, address_of(warp, i, 1, lane), lane);
        const uint64_t phase = i.flags & kParity ? given[lane] & 0xFFFFFFFF : given[lane] >> 32;
        require(!(i.flags & kParity) || phase < 2, "a parity is 0 or 1, not ", phase);
        const bool ended = i.flags & kParity ? (barrier.phase & 1) != phase : barrier.phase != phase;
        to[lane] = ended;
        all &= ended;
        if (ended) warp.block.races.acquire(warp.number(), barrier.handed);
    });
    return all ? Outcome::next : Outcome::polled;
}

Outcome pending_count(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* given = warp.read(i[1]);
    each(lanes, [=](int lane) { to[lane] = given[lane] & 0xFFFFFFFF; });
    return Outcome::next;
}

void decode_mbarrier(Instruction& i, Modifiers& modifiers) {
    const int what = modifiers.take_one(
        {"init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx", "test_wait", "try_wait", "pending_count"});
    const bool expects = modifiers.take("expect_tx"), parity = modifiers.take("parity");
    modifiers.take("noComplete");
    modifiers.take_one({"acquire", "release", "relaxed"});
    modifiers.take_one({"cta", "cluster"});
    i.parameters[0] = static_cast<int32_t>(modifiers.space());
    require(modifiers.type() == Type::b64, i.opcode, " is not emulated");
    constexpr int kAddressAt[] = {0, 0, 1, 1, 0, 0, 1, 1, -1};
    constexpr int kFewest[] = {2, 1, 2, 2, 2, 2, 3, 3, 2}, kMost[] = {2, 1, 3, 3, 2, 2, 3, 4, 2};
    require(what >= 0 && i.count >= kFewest[what] && i.count <= kMost[what], i.opcode, " with ", i.count, " operands");
    for (int k = 0; k < i.count; ++k) {
        if (k == kAddressAt[what])
            require_kind(i, k, {Operand::address});
        else
            require_kind(i, k, {Operand::register_, Operand::constant, Operand::sink});
    }
    switch (what) {
        case 0: i.run = &init; break;
        case 1: i.run = &invalidate; break;
        case 2:
        case 3:
            i.flags = (expects ? kExpects : 0) | (what == 3 ? kDrops : 0);
            i.run = &arrive;
            break;
        case 4:
        case 5:
            i.flags = what == 4 ? kExpects : 0;
            i.run = &change_bytes;
            break;
        case 6:
        case 7:
            i.flags = parity ? kParity : 0;
            i.run = &wait;
            break;
        default: i.run = &pending_count;
    }
}

}  // namespace

void add_mbarriers(Decoders& decoders) { decoders["mbarrier"] = &decode_mbarrier; }

}  // namespace emulator
