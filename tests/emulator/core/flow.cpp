// bra, brx.idx, exit, ret, trap, brkpt, nanosleep.
#include "decode.hpp"
#include "lanes.hpp"

namespace emulator {

namespace {

Outcome branch(Warp& warp, const Instruction& i, Mask lanes) {
    warp.jump(lanes, i[0].index);
    return Outcome::jumped;
}

void decode_branch(Instruction& i, Modifiers& modifiers) {
    modifiers.take("uni");
    require(i.count == 1, i.opcode, " with ", i.count, " operands");
    require_kind(i, 0, {Operand::target});
    i.run = &branch;
}

// To the label whose number the lane gives; lanes may differ.
Outcome branch_by_index(Warp& warp, const Instruction& i, Mask lanes) {
    const Slot* number = warp.read(i[0]);
    const Operand* targets = warp.block.launch.kernel.members(i[1]);
    const auto first = static_cast<uint32_t>(number[__builtin_ctz(lanes)]);
    bool same = true;
    each(lanes, [&](int lane) {
        const auto at = static_cast<uint32_t>(number[lane]);
        require(at < static_cast<uint32_t>(i[1].count), "brx.idx: there is no label ", at, " of ", i[1].count);
        same &= at == first;
    });
    if (same)
        warp.jump(lanes, targets[first].index);
    else
        warp.scatter(lanes, [&](int lane) { return targets[static_cast<uint32_t>(number[lane])].index; });
    return Outcome::jumped;
}

void decode_branch_by_index(Instruction& i, Modifiers& modifiers) {
    modifiers.take("uni");
    require(modifiers.take("idx") && i.count == 2, i.opcode, " is not emulated");
    require_kind(i, 0, {Operand::register_, Operand::constant});
    require_kind(i, 1, {Operand::vector});
    i.run = &branch_by_index;
}

Outcome leave(Warp& warp, const Instruction&, Mask lanes) {
    warp.exit(lanes);
    return Outcome::jumped;
}

void decode_leave(Instruction& i, Modifiers& modifiers) {
    modifiers.take("uni");
    i.run = &leave;
}

Outcome trap(Warp&, const Instruction& i, Mask) { fail("the kernel executes ", i.opcode); }

void decode_trap(Instruction& i, Modifiers&) { i.run = &trap; }

Outcome sleep(Warp&, const Instruction&, Mask) { return Outcome::polled; }

void decode_sleep(Instruction& i, Modifiers& modifiers) {
    modifiers.take("u32");
    i.run = &sleep;
}

}  // namespace

void add_flow(Decoders& decoders) {
    decoders["bra"] = &decode_branch;
    decoders["brx"] = &decode_branch_by_index;
    decoders["exit"] = &decode_leave;
    decoders["ret"] = &decode_leave;
    decoders["trap"] = &decode_trap;
    decoders["brkpt"] = &decode_trap;
    decoders["nanosleep"] = &decode_sleep;
}

}  // namespace emulator
