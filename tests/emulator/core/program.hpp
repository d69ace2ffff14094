// A kernel as the machine runs it: instructions with their handlers, and what their operands name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

inline constexpr int kLanes = 32;

using Mask = uint32_t;  // of the lanes of a warp
using Slot = uint64_t;  // what one lane holds of a register, whatever its type: the value in the lowest bits, zeros above

class Warp;
struct Instruction;

// What becomes of the lanes that ran an instruction.
enum class Outcome : uint8_t {
    next,     // go on
    jumped,   // the handler has moved them
    parked,   // wait at this instruction for other lanes of their warp
    waiting,  // wait behind this instruction until the block wakes them
    polled,   // go on, but what they looked for isn't there yet: let others run first
};

using Handler = Outcome (*)(Warp&, const Instruction&, Mask);

struct Operand {
    enum Kind : uint8_t { sink, register_, constant, address, vector, target };
    Kind kind = sink;
    uint8_t bits = 0;      // as the register was declared
    bool negated = false;  // of a predicate
    int32_t index = 0;     // register; constant; base register of an address, -1 for none; first member; instruction
    int32_t count = 0;     // of members
    int64_t offset = 0;    // of an address
};

struct Instruction {
    Handler run = nullptr;
    const Operand* operands = nullptr;
    int32_t count = 0;
    int32_t guard = -1;   // predicate register, -1 for none
    bool unless = false;  // whether the guard is negated
    uint32_t flags = 0;   // the handler's own
    int32_t parameters[6] = {};
    int32_t line = 0;
    std::string opcode;
    std::string refusal;  // why there is no handler

    const Operand& operator[](int number) const { return operands[number]; }
};

// A special register, filled when a warp starts.
struct Special {
    std::string name;
    int32_t slot;
};

struct Kernel {
    std::vector<Operand> operands;  // of all instructions; members of vectors behind them
    std::vector<Instruction> instructions;
    std::vector<Slot> constants;  // kLanes of each, all alike
    std::vector<Special> specials;
    int32_t registers = 0;
    uint32_t static_shared = 0;   // bytes, from kSharedBase on
    uint32_t dynamic_shared = 0;  // where the extern array starts
    uint32_t local_bytes = 0;
    int32_t most_threads = 0;                         // .maxntid, 0 where it says nothing
    std::vector<std::pair<uint32_t, uint32_t>> gaps;  // shared memory between variables, [from, to)

    const Operand* members(const Operand& vector) const { return operands.data() + vector.index; }
};

}  // namespace emulator
