// What Python calls. A kernel comes as one array of numbers, in the order in which they are read here, and its texts.
#include <algorithm>
#include <cstring>

#include "decode.hpp"
#include "products.hpp"

namespace emulator {

namespace {

class Reader {
 public:
    Reader(const int64_t* numbers, const char* texts) : numbers_(numbers) {
        for (const char* end; (end = std::strchr(texts, '\n')) != nullptr; texts = end + 1) texts_.emplace_back(texts, end);
    }
    int64_t next() { return *numbers_++; }
    int32_t small() { return static_cast<int32_t>(next()); }
    uint32_t natural() { return static_cast<uint32_t>(next()); }
    const std::string& text() { return texts_.at(static_cast<size_t>(next())); }

 private:
    const int64_t* numbers_;
    std::vector<std::string> texts_;
};

Kernel* load(Reader from) {
    auto kernel = std::make_unique<Kernel>();
    kernel->registers = from.small();
    kernel->static_shared = from.natural();
    kernel->dynamic_shared = from.natural();
    kernel->local_bytes = from.natural();
    kernel->most_threads = from.small();
    for (int64_t left = from.next(); left > 0; --left) {
        kernel->constants.insert(kernel->constants.end(), kLanes, static_cast<Slot>(from.next()));
    }
    for (int64_t left = from.next(); left > 0; --left) {
        const std::string& name = from.text();
        kernel->specials.push_back({name, from.small()});
    }
    for (int64_t left = from.next(); left > 0; --left) {
        const uint32_t begin = from.natural();
        kernel->gaps.emplace_back(begin, from.natural());
    }
    kernel->operands.resize(static_cast<size_t>(from.next()));
    for (Operand& operand : kernel->operands) {
        operand.kind = static_cast<Operand::Kind>(from.next());
        operand.bits = static_cast<uint8_t>(from.next());
        operand.negated = from.next() != 0;
        operand.index = from.small();
        operand.count = from.small();
        operand.offset = from.next();
    }
    kernel->instructions.resize(static_cast<size_t>(from.next()));
    for (Instruction& instruction : kernel->instructions) {
        instruction.opcode = from.text();
        instruction.line = from.small();
        instruction.guard = from.small();
        instruction.unless = from.next() != 0;
        instruction.operands = kernel->operands.data() + from.next();
        instruction.count = from.small();
    }
    decode(*kernel);
    return kernel.release();
}

}  // namespace

}  // namespace emulator

extern "C" {

struct EmulatorLaunch {
    uint32_t grid[3], block[3];
    uint32_t dynamic_shared;
    int32_t delivery, races, rows_over_copies, resident;
    uint64_t seed, limit;
    int64_t buffers;
    const int64_t* ranges;                       // of each buffer: address, bytes, whether it may be written to
    const char* names;                           // of buffers, each with a line feed
    uint64_t instructions, thread_instructions;  // results
};

void* emulator_load(const int64_t* numbers, const char* texts) { return emulator::load({numbers, texts}); }

void emulator_unload(void* kernel) { delete static_cast<emulator::Kernel*>(kernel); }

// 0, or 1 with a message.
int emulator_launch(void* kernel, EmulatorLaunch* given, char* message, size_t bytes) {
    using namespace emulator;
    try {
        Buffers buffers;
        const char* name = given->names;
        for (int64_t i = 0; i < given->buffers; ++i) {
            const char* end = std::strchr(name, '\n');
            const int64_t* range = given->ranges + 3 * i;
            buffers.add(static_cast<uint64_t>(range[0]), static_cast<uint64_t>(range[1]), range[2] != 0, {name, end});
            name = end + 1;
        }
        Launch launch{*static_cast<Kernel*>(kernel),
                      buffers,
                      {given->grid[0], given->grid[1], given->grid[2]},
                      {given->block[0], given->block[1], given->block[2]},
                      given->dynamic_shared,
                      {given->seed, static_cast<Delivery>(given->delivery), given->limit, given->races != 0,
                       given->rows_over_copies != 0, given->resident},
                      std::mt19937_64(given->seed)};
        struct Count {
            EmulatorLaunch* given;
            Launch& launch;
            ~Count() {
                given->instructions = launch.instructions;
                given->thread_instructions = launch.thread_instructions;
            }
        } count{given, launch};
        run(launch);
        return 0;
    } catch (const std::exception& error) {
        const std::string text = error.what();
        const size_t length = std::min(bytes - 1, text.size());
        std::memcpy(message, text.data(), length);
        message[length] = 0;
        return 1;
    }
}

}  // extern "C"
