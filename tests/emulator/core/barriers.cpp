// bar, barrier, membar, fence.
#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

constexpr uint32_t kAligned = 1, kWaits = 2, kCount = 4, kVotes = 8;

int barrier_number(Warp& warp, const Operand& operand, Mask lanes) {
    const auto id = static_cast<uint32_t>(warp.uniform(operand, lanes, "barriers"));
    require(id < 16, "there is no barrier ", id);
    return static_cast<int>(id);
}

// Operands: a result for reductions, the barrier, a count of threads if one is given, a predicate for reductions.
Outcome barrier(Warp& warp, const Instruction& i, Mask lanes) {
    const bool aligned = i.flags & kAligned;
    if (aligned && !warp.together(lanes, ~Mask{0})) return Outcome::parked;
    const int first = i.flags & kVotes ? 1 : 0;
    const int id = barrier_number(warp, i[first], lanes);
    int64_t expected = 0;
    if (i.flags & kCount) {
        expected = static_cast<uint32_t>(warp.uniform(i[first + 1], lanes, "numbers of threads"));
        require(expected > 0 && expected % kLanes == 0, "a barrier is for a multiple of ", kLanes, " threads, not ", expected);
        require(expected <= (warp.block.threads + kLanes - 1) / kLanes * kLanes, "a barrier is for ", expected,
                " threads, and the block has ", warp.block.threads);
    }
    const Mask votes = i.flags & kVotes ? warp.predicate(i[i.count - 1]) : 0;
    const bool waits = i.flags & kWaits;
    const bool ended = warp.block.arrive(warp, lanes, i, id, expected, aligned ? kLanes : count(lanes), votes, waits);
    return waits && !ended ? Outcome::waiting : Outcome::next;
}

// A cluster of one block: arriving is nothing, waiting is a barrier of its own over all threads.
Outcome cluster_arrive(Warp&, const Instruction&, Mask) { return Outcome::next; }
Outcome cluster_wait(Warp& warp, const Instruction& i, Mask lanes) {
    const bool ended = warp.block.arrive(warp, lanes, i, Block::kClusterBarrier, 0, count(lanes), 0, true);
    return ended ? Outcome::next : Outcome::waiting;
}

Outcome warp_barrier(Warp& warp, const Instruction& i, Mask lanes) {
    const Slot* members = warp.read(i[0]);
    bool together = true;
    each(lanes, [&](int lane) {
        require(members[lane] >> lane & 1, "bar.warp.sync by lane ", lane, " that its mask ", Hex{members[lane]},
                " leaves out");
        together &= warp.together(lanes, static_cast<Mask>(members[lane]));
    });
    if (!together) return Outcome::parked;
    warp.met(lanes);
    return Outcome::next;
}

void decode_barrier(Instruction& i, Modifiers& modifiers) {
    const bool is_bar = modifiers.name() == "bar";
    if (modifiers.next("warp")) {
        require(modifiers.take("sync"), i.opcode, " is not emulated");
        require_operands(i, 1);
        i.run = &warp_barrier;
        return;
    }
    if (modifiers.next("cluster")) {
        modifiers.take_one({"acquire", "release", "relaxed"});
        modifiers.take("aligned");
        const int what = modifiers.take_one({"arrive", "wait"});
        i.run = what == 0 ? &cluster_arrive : what == 1 ? &cluster_wait : nullptr;
        return;
    }
    modifiers.next("cta");
    const int what = modifiers.take_one({"sync", "arrive", "red"});
    const bool aligned = modifiers.take("aligned");
    i.flags = is_bar || aligned ? kAligned : 0;
    if (what != 1) i.flags |= kWaits;
    int least = 1;
    if (what == 2) {
        const int reduction = modifiers.take_one({"popc", "and", "or"});
        i.parameters[0] = reduction + 1;
        modifiers.type();
        i.flags |= kVotes;
        least = 3;
    }
    require(what >= 0 && i.count >= least && i.count <= least + 1, i.opcode, " with ", i.count, " operands");
    require_operands(i, i.count);
    if (i.count > least) i.flags |= kCount;
    require(what != 1 || i.count == 2, i.opcode, " without a number of threads");
    i.run = &barrier;
}

// Memory is one for all threads here; what the fence of a proxy orders, only the search for races knows.
Outcome fence(Warp&, const Instruction&, Mask) { return Outcome::next; }
Outcome proxy_fence(Warp& warp, const Instruction&, Mask lanes) {
    warp.block.races.proxy_fence(warp.number(), lanes, warp.now());
    return Outcome::next;
}

void decode_fence(Instruction& i, Modifiers& modifiers) {
    i.run = &fence;
    if (modifiers.next("proxy")) {
        if (modifiers.take("async")) {
            const bool other_space = modifiers.take("global");
            modifiers.take_one({"shared::cta", "shared::cluster"});
            if (!other_space) i.run = &proxy_fence;
            return;
        }
        if (modifiers.take_one({"alias", "async::generic", "tensormap::generic"}) < 0) i.run = nullptr;
    }
    modifiers.take("mbarrier_init");
    modifiers.take("sync_restrict::shared::cta");
    modifiers.take_one({"sc", "acq_rel", "acquire", "release"});
    modifiers.take_one({"cta", "cluster", "gpu", "gl", "sys"});
}

}  // namespace

void add_barriers(Decoders& decoders) {
    decoders["bar"] = &decode_barrier;
    decoders["barrier"] = &decode_barrier;
    decoders["fence"] = &decode_fence;
    decoders["membar"] = &decode_fence;
}

}  // namespace emulator
