// cp.async.bulk and cp.async.bulk.tensor, in tiles, between global memory and the block's own shared memory.
#include "bulk.hpp"

#include "lanes.hpp"
#include "tensor_map.hpp"

namespace emulator {

namespace {

ThreadStores& stores_of(Warp& warp, int lane) {
    if (warp.stores.empty()) warp.stores.resize(kLanes);
    return warp.stores[lane];
}

uint64_t shared_operand(Warp& warp, const Instruction& i, int operand, int lane) {
    return warp.shared_address(Space::shared, static_cast<uint32_t>(warp.address(i[operand], lane)), lane);
}

void start(Warp& warp, int lane, std::vector<Piece> pieces, uint64_t to, uint32_t bytes, uint64_t barrier) {
    Block& block = warp.block;
    block.mbarrier(barrier);
    block.races.read(warp.thread(lane), warp.now(), warp.line(), barrier, 8);
    const uint32_t number = ++block.bulk_copies;
    block.shared.start_writing(to, bytes, warp.line());
    block.races.write_by_copy(warp.thread(lane), warp.now(), warp.line(), to, bytes, number);
    block.start({std::move(pieces), barrier, bytes, 0, warp.line(), number});
    block.progress();
}

// Operands: to, from, bytes, mbarrier.
Outcome load_bytes(Warp& warp, const Instruction& i, Mask lanes) {
    const Slot* sizes = warp.read(i[2]);
    each(lanes, [&](int lane) {
        warp.blame(lane);
        const auto bytes = static_cast<uint32_t>(sizes[lane]);
        const uint64_t to = shared_operand(warp, i, 0, lane);
        require(bytes % 16 == 0 && to % 16 == 0, "cp.async.bulk of ", bytes, " bytes to ", to, "; both are multiples of 16");
        if (bytes == 0) return;
        const char* from = warp.memory(Space::global, warp.address(i[1], lane), bytes, Access::read, lane, 16);
        start(warp, lane, {{from, to, bytes, 0}}, to, bytes, shared_operand(warp, i, 3, lane));
    });
    return Outcome::next;
}

// Operands: to, from, bytes.
Outcome store_bytes(Warp& warp, const Instruction& i, Mask lanes) {
    const Slot* sizes = warp.read(i[2]);
    each(lanes, [&](int lane) {
        warp.blame(lane);
        const auto bytes = static_cast<uint32_t>(sizes[lane]);
        const uint64_t from = shared_operand(warp, i, 1, lane);
        require(bytes % 16 == 0 && from % 16 == 0, "cp.async.bulk of ", bytes, " bytes from ", from,
                "; both are multiples of 16");
        if (bytes == 0) return;
        char* to = warp.memory(Space::global, warp.address(i[0], lane), bytes, Access::write, lane, 16);
        warp.block.shared.start_reading(from, bytes, warp.line());
        warp.block.races.read_by_proxy(warp.thread(lane), warp.now(), warp.line(), from, bytes);
        stores_of(warp, lane).open.push_back({from, to, bytes});
    });
    return Outcome::next;
}

// The corner of a box, from the vector of coordinates.
void corner_of(Warp& warp, const Operand& coordinates, int lane, int32_t* corner) {
    const Operand* members = warp.block.launch.kernel.members(coordinates);
    for (int axis = 0; axis < coordinates.count; ++axis) corner[axis] = get<int32_t>(warp.read(members[axis])[lane]);
}

TensorMap map_operand(Warp& warp, const Instruction& i, int operand, int lane) {
    const TensorMap map = map_at(warp.block.launch.buffers, warp.address(i[operand], lane));
    require(map.rank == i[operand + 1].count && map.rank == i.parameters[0], "a tensor of ", int{map.rank},
            " axes is copied as one of ", i.parameters[0]);
    return map;
}

// Operands: to, map, coordinates, mbarrier.
Outcome load_box(Warp& warp, const Instruction& i, Mask lanes) {
    each(lanes, [&](int lane) {
        warp.blame(lane);
        const TensorMap map = map_operand(warp, i, 1, lane);
        int32_t corner[kMostAxes];
        corner_of(warp, i[2], lane, corner);
        const uint64_t to = shared_operand(warp, i, 0, lane);
        std::vector<Piece> pieces;
        for (const BoxRun& run : runs_of(map, corner, to)) {
            if (run.global == 0) {
                pieces.push_back({nullptr, run.shared, 0, run.bytes});
            } else {
                pieces.push_back({warp.block.launch.buffers.at(run.global, run.bytes, Access::read), run.shared, run.bytes, 0});
            }
        }
        start(warp, lane, std::move(pieces), to, map.box_bytes(), shared_operand(warp, i, 3, lane));
    });
    return Outcome::next;
}

// Operands: map, coordinates, from. What lies outside the tensor is not written.
Outcome store_box(Warp& warp, const Instruction& i, Mask lanes) {
    each(lanes, [&](int lane) {
        warp.blame(lane);
        const TensorMap map = map_operand(warp, i, 0, lane);
        int32_t corner[kMostAxes];
        corner_of(warp, i[1], lane, corner);
        for (const BoxRun& run : runs_of(map, corner, shared_operand(warp, i, 2, lane))) {
            if (run.global == 0) continue;
            warp.block.shared.start_reading(run.shared, run.bytes, warp.line());
            warp.block.races.read_by_proxy(warp.thread(lane), warp.now(), warp.line(), run.shared, run.bytes);
            stores_of(warp, lane)
                .open.push_back({run.shared, warp.block.launch.buffers.at(run.global, run.bytes, Access::write), run.bytes});
        }
    });
    return Outcome::next;
}

Outcome commit(Warp& warp, const Instruction&, Mask lanes) {
    each(lanes, [&](int lane) {
        ThreadStores& own = stores_of(warp, lane);
        own.groups.push_back(std::move(own.open));
        own.open.clear();
    });
    return Outcome::next;
}

Outcome wait_group(Warp& warp, const Instruction& i, Mask lanes) {
    const auto pending = static_cast<size_t>(warp.read(i[0])[0]);
    Shared& shared = warp.block.shared;
    each(lanes, [&](int lane) {
        ThreadStores& own = stores_of(warp, lane);
        for (; own.groups.size() > pending; own.groups.pop_front()) {
            for (const ThreadStores::Part& part : own.groups.front()) {
                std::memcpy(part.to, shared.at(part.from, part.bytes), part.bytes);
                shared.finish_reading(part.from, part.bytes);
                warp.block.races.read(warp.thread(lane), warp.now(), warp.line(), part.from, part.bytes);
            }
        }
    });
    return Outcome::next;
}

Outcome nothing(Warp&, const Instruction&, Mask) { return Outcome::next; }

void decode_box(Instruction& i, Modifiers& modifiers) {
    const int axes = modifiers.take_one({"1d", "2d", "3d", "4d", "5d"}) + 1;
    i.parameters[0] = axes;
    modifiers.take("tile");
    const bool load = modifiers.take("mbarrier::complete_tx::bytes");
    const bool store = !load && modifiers.take("bulk_group");
    const bool to_shared = modifiers.next("shared::cluster") || modifiers.next("shared::cta");
    require(modifiers.take("global") && to_shared == load && load != store && axes > 0, i.opcode, " is not emulated");
    if (!to_shared) require(modifiers.take("shared::cta"), i.opcode, " is not emulated");
    modifiers.take("cta_group::1");
    const bool policy = modifiers.take_cache_hints();
    const int count = load ? 4 : 3;
    require(i.count == count + policy, i.opcode, " with ", i.count, " operands");
    for (int k = 0; k < count; ++k) require_kind(i, k, {k == (load ? 2 : 1) ? Operand::vector : Operand::address});
    i.run = load ? &load_box : &store_box;
}

}  // namespace

void decode_bulk_copy(Instruction& i, Modifiers& modifiers) {
    if (modifiers.next("commit_group")) {
        i.run = &commit;
    } else if (modifiers.next("wait_group")) {
        modifiers.take("read");
        require_operands(i, 1);
        i.run = &wait_group;
    } else if (modifiers.next("prefetch")) {
        while (!modifiers.empty()) modifiers.take_starting("");
        i.run = &nothing;
    } else if (modifiers.next("tensor")) {
        decode_box(i, modifiers);
    } else {
        const bool load = modifiers.take("mbarrier::complete_tx::bytes");
        if (!load) require(modifiers.take("bulk_group"), i.opcode, " is not emulated");
        const bool to_shared = modifiers.next("shared::cluster") || modifiers.next("shared::cta");
        require(modifiers.take("global") && to_shared == load, i.opcode, " is not emulated");
        if (!load) require(modifiers.take("shared::cta"), i.opcode, " is not emulated");
        const bool policy = modifiers.take_cache_hints();
        require(i.count == (load ? 4 : 3) + policy, i.opcode, " with ", i.count, " operands");
        for (int k = 0; k < i.count - policy; ++k) {
            if (k == 2)
                require_kind(i, k, {Operand::register_, Operand::constant});
            else
                require_kind(i, k, {Operand::address});
        }
        i.run = load ? &load_bytes : &store_bytes;
    }
}

}  // namespace emulator
