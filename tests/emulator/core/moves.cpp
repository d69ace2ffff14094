// mov, cvta, isspacep, and the instructions that only concern caches and schedules.
#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

Slot kept_bits(int bits) { return bits == 64 ? ~Slot{0} : (Slot{1} << bits) - 1; }

Outcome move(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const Slot keep = kept_bits(static_cast<int>(i.flags)), flip = i[1].negated ? 1 : 0;
    each(lanes, [=](int lane) { to[lane] = (a[lane] ^ flip) & keep; });
    return Outcome::next;
}

Outcome unpack(Warp& warp, const Instruction& i, Mask lanes) {
    const Operand* to = warp.block.launch.kernel.members(i[0]);
    const int part = static_cast<int>(i.flags) / i[0].count;
    Slot whole[kLanes];
    std::memcpy(whole, warp.read(i[1]), sizeof(whole));
    for (int k = 0; k < i[0].count; ++k) {
        Slot* member = warp.write(to[k]);
        each(lanes, [&](int lane) { member[lane] = whole[lane] >> (part * k) & kept_bits(part); });
    }
    return Outcome::next;
}

Outcome pack(Warp& warp, const Instruction& i, Mask lanes) {
    const Operand* from = warp.block.launch.kernel.members(i[1]);
    const int part = static_cast<int>(i.flags) / i[1].count;
    Slot whole[kLanes] = {};
    for (int k = 0; k < i[1].count; ++k) {
        const Slot* member = warp.read(from[k]);
        for (int lane = 0; lane < kLanes; ++lane) whole[lane] |= (member[lane] & kept_bits(part)) << (part * k);
    }
    Slot* to = warp.write(i[0]);
    each(lanes, [&](int lane) { to[lane] = whole[lane]; });
    return Outcome::next;
}

void decode_move(Instruction& i, Modifiers& modifiers) {
    require(i.count == 2, i.opcode, " with ", i.count, " operands");
    const Type type = modifiers.type();
    require(type != Type::none && bits_of(type) <= 64, i.opcode, " is not emulated");
    i.flags = static_cast<uint32_t>(bits_of(type));
    if (i[0].kind == Operand::vector) {
        require_kind(i, 1, {Operand::register_, Operand::constant});
        i.run = &unpack;
    } else if (i[1].kind == Operand::vector) {
        i.run = &pack;
    } else {
        require_operands(i, 2);
        i.run = &move;
    }
}

uint64_t window_of(Space space) { return space == Space::shared ? kSharedWindow : space == Space::local ? kLocalWindow : 0; }

bool in_window(uint64_t address, Space space) {
    if (space == Space::shared) return address >= kSharedWindow && address < kLocalWindow;
    if (space == Space::local) return address >= kLocalWindow && address < kLocalWindow + kSharedWindow;
    return address < kSharedWindow;
}

Outcome to_generic(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const uint64_t window = window_of(static_cast<Space>(i.parameters[0]));
    each(lanes, [=](int lane) { to[lane] = a[lane] + window; });
    return Outcome::next;
}

// A generic address that lies elsewhere is only a fault where it is used: compilers may convert before they look.
Outcome from_generic(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const uint64_t window = window_of(static_cast<Space>(i.parameters[0]));
    each(lanes, [=](int lane) { to[lane] = a[lane] - window; });
    return Outcome::next;
}

void decode_convert_address(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 2);
    const bool to = modifiers.next("to");
    i.parameters[0] = static_cast<int32_t>(modifiers.space());
    if (modifiers.take_one({"u64", "u32"}) != 0) return;
    i.run = to ? &from_generic : &to_generic;
}

Outcome lies_in_space(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot* a = warp.read(i[1]);
    const auto space = static_cast<Space>(i.parameters[0]);
    each(lanes, [=](int lane) { to[lane] = in_window(a[lane], space); });
    return Outcome::next;
}

void decode_lies_in_space(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 2);
    i.parameters[0] = static_cast<int32_t>(modifiers.space());
    i.run = &lies_in_space;
}

Outcome nothing(Warp&, const Instruction&, Mask) { return Outcome::next; }

void decode_nothing(Instruction& i, Modifiers& modifiers) {
    while (!modifiers.empty()) modifiers.take_starting("");
    i.run = &nothing;
}

// Sets registers aside; how many is looked at where the block ends up with all of them.
Outcome claim_registers(Warp& warp, const Instruction& i, Mask) {
    const auto wanted = static_cast<int32_t>(warp.read(i[0])[0]);
    require(wanted >= 24 && wanted <= 256 && wanted % 8 == 0, "setmaxnreg takes a multiple of 8 from 24 to 256, not ", wanted);
    warp.registers_claimed = wanted;
    int64_t sum = 0;
    for (const auto& other : warp.block.warps) {
        if (other->registers_claimed == 0) return Outcome::next;
        sum += int64_t{kLanes} * other->registers_claimed;
    }
    require(sum <= 65536, "the warps of the block claim ", sum, " registers; a multiprocessor has 65536");
    return Outcome::next;
}

void decode_claim_registers(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 1);
    modifiers.take_one({"inc", "dec"});
    require(modifiers.take("sync") && modifiers.take("aligned") && modifiers.take("u32"), i.opcode, " is not emulated");
    i.run = &claim_registers;
}

Outcome zero(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    each(lanes, [=](int lane) { to[lane] = 0; });
    return Outcome::next;
}

void decode_policy(Instruction& i, Modifiers& modifiers) {
    require_kind(i, 0, {Operand::register_});
    while (!modifiers.empty()) modifiers.take_starting("");
    i.run = &zero;
}

// The address of a variable in another block of the cluster; there is only this one.
Outcome map_to_block(Warp& warp, const Instruction& i, Mask lanes) {
    Slot* to = warp.write(i[0]);
    const Slot *a = warp.read(i[1]), *b = warp.read(i[2]);
    each(lanes, [&](int lane) {
        require(static_cast<uint32_t>(b[lane]) == 0, "mapa: there is no block ", b[lane], " in a cluster of one");
        to[lane] = a[lane];
    });
    return Outcome::next;
}

void decode_map_to_block(Instruction& i, Modifiers& modifiers) {
    require_operands(i, 3);
    modifiers.take("shared::cluster");
    modifiers.type();
    i.run = &map_to_block;
}

}  // namespace

void add_moves(Decoders& decoders) {
    decoders["mov"] = &decode_move;
    decoders["cvta"] = &decode_convert_address;
    decoders["isspacep"] = &decode_lies_in_space;
    decoders["mapa"] = &decode_map_to_block;
    decoders["setmaxnreg"] = &decode_claim_registers;
    decoders["createpolicy"] = &decode_policy;
    for (const char* name : {"prefetch", "prefetchu", "griddepcontrol", "discard", "applypriority", "pmevent"}) {
        decoders[name] = &decode_nothing;
    }
}

}  // namespace emulator
