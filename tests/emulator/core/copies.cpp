// cp.async: copies of 4, 8 or 16 bytes, each under way until its thread waits for its group.
#include "bulk.hpp"
#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

ThreadCopies& copies_of(Warp& warp, int lane) {
    if (warp.copies.empty()) warp.copies.resize(kLanes);
    return warp.copies[lane];
}

void finish(Warp& warp, int lane, const std::vector<Piece>& pieces) {
    Block& block = warp.block;
    for (const Piece& piece : pieces) {
        block.place(piece);
        block.races.write(warp.thread(lane), warp.now(), warp.line(), piece.to, piece.bytes + piece.zeros);
    }
}

// Operands: to, from, bytes, and perhaps how many of those are read (the others become zeros) or whether none is.
Outcome copy(Warp& warp, const Instruction& i, Mask lanes) {
    const auto bytes = static_cast<uint32_t>(warp.read(i[2])[0]);
    require(bytes == 4 || bytes == 8 || bytes == 16, "cp.async copies 4, 8 or 16 bytes, not ", bytes);
    const bool counted = i.parameters[2] == 1, ignored = i.parameters[2] == 2;
    const Mask ignore = ignored ? warp.predicate(i[3]) : 0;
    const Slot* sizes = counted ? warp.read(i[3]) : nullptr;
    each(lanes, [&](int lane) {
        const uint64_t to = warp.shared_address(static_cast<Space>(i.parameters[0]), warp.address(i[0], lane), lane);
        uint32_t read = bytes;
        if (counted) read = static_cast<uint32_t>(sizes[lane]);
        if (ignore >> lane & 1) read = 0;
        warp.blame(lane);
        require(read <= bytes, "cp.async reads ", read, " of ", bytes, " bytes");
        require(to % bytes == 0, "cp.async of ", bytes, " bytes to ", to, ", which is no multiple of that");
        const char* from = nullptr;
        if (read) from = warp.memory(Space::global, warp.address(i[1], lane), read, Access::read, lane, bytes);
        warp.block.shared.start_writing(to, bytes, warp.line());
        warp.block.races.write(warp.thread(lane), warp.now(), warp.line(), to, bytes);
        copies_of(warp, lane).open.push_back({from, to, read, bytes - read});
    });
    return Outcome::next;
}

Outcome commit(Warp& warp, const Instruction&, Mask lanes) {
    each(lanes, [&](int lane) {
        ThreadCopies& own = copies_of(warp, lane);
        own.groups.push_back(std::move(own.open));
        own.open.clear();
    });
    return Outcome::next;
}

Outcome wait_group(Warp& warp, const Instruction& i, Mask lanes) {
    const auto pending = static_cast<size_t>(warp.read(i[0])[0]);
    each(lanes, [&](int lane) {
        ThreadCopies& own = copies_of(warp, lane);
        for (; own.groups.size() > pending; own.groups.pop_front()) finish(warp, lane, own.groups.front());
    });
    return Outcome::next;
}

Outcome wait_all(Warp& warp, const Instruction&, Mask lanes) {
    each(lanes, [&](int lane) {
        ThreadCopies& own = copies_of(warp, lane);
        for (; !own.groups.empty(); own.groups.pop_front()) finish(warp, lane, own.groups.front());
        finish(warp, lane, own.open);
        own.open.clear();
    });
    return Outcome::next;
}

// All that the thread has under way goes over to the mbarrier, which hears of its arrival; waiting for its groups no longer
// does.
Outcome arrive_when_copied(Warp& warp, const Instruction& i, Mask lanes) {
    Block& block = warp.block;
    each(lanes, [&](int lane) {
        const uint64_t address = warp.shared_address(static_cast<Space>(i.parameters[0]), warp.address(i[0], lane), lane);
        Mbarrier& barrier = block.mbarrier(address);
        if (i.parameters[1] == 0) ++barrier.pending;
        ThreadCopies& own = copies_of(warp, lane);
        BulkCopy moved{std::move(own.open), address, 0, 1, warp.line(), ++block.bulk_copies};
        own.open.clear();
        for (; !own.groups.empty(); own.groups.pop_front()) {
            moved.pieces.insert(moved.pieces.end(), own.groups.front().begin(), own.groups.front().end());
        }
        for (const Piece& piece : moved.pieces) {
            block.races.write_by_copy(warp.thread(lane), warp.now(), warp.line(), piece.to, piece.bytes + piece.zeros,
                                      moved.number);
        }
        block.races.release(warp.number(), Mask{1} << lane, warp.now(), barrier.gathered);
        block.start(std::move(moved));
    });
    return Outcome::next;
}

void decode_copy(Instruction& i, Modifiers& modifiers) {
    const bool reduces = modifiers.next("reduce");
    require(modifiers.next("async"), i.opcode, " is not emulated");
    if (modifiers.next("bulk")) {
        require(!reduces, i.opcode, " is not emulated");
        return decode_bulk_copy(i, modifiers);
    }
    if (modifiers.next("commit_group")) {
        i.run = &commit;
    } else if (modifiers.next("wait_group")) {
        require_operands(i, 1);
        i.run = &wait_group;
    } else if (modifiers.next("wait_all")) {
        i.run = &wait_all;
    } else if (modifiers.next("mbarrier")) {
        require(modifiers.next("arrive"), i.opcode, " is not emulated");
        i.parameters[1] = modifiers.take("noinc");
        i.parameters[0] = static_cast<int32_t>(modifiers.space());
        modifiers.type();
        require_kind(i, 0, {Operand::address});
        i.run = &arrive_when_copied;
    } else {
        const int cached = modifiers.take_one({"ca", "cg"});
        require(modifiers.take("global"), i.opcode, " is not emulated");
        i.parameters[0] = static_cast<int32_t>(modifiers.space());
        const int given = i.count - (modifiers.take_cache_hints() ? 1 : 0);
        require(given == 3 || given == 4, i.opcode, " with ", i.count, " operands");
        require_kind(i, 0, {Operand::address});
        require_kind(i, 1, {Operand::address});
        require_kind(i, 2, {Operand::constant});
        i.parameters[2] = given == 3 ? 0 : i[3].bits == 1 ? 2 : 1;
        i.flags = static_cast<uint32_t>(cached);
        i.run = &copy;
    }
}

}  // namespace

void add_copies(Decoders& decoders) { decoders["cp"] = &decode_copy; }

}  // namespace emulator
