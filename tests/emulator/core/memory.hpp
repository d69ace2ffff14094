// Memory that is checked at each access: registered buffers, and the shared memory of a block.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "program.hpp"

namespace emulator {

enum class Access : uint8_t { read, write, atomic };
enum class Space : uint8_t { generic, global, shared, local, parameter };

// Shared memory starts at an address other than 0, as it does on devices that reserve some.
inline constexpr uint32_t kSharedBase = 1024;
// Where shared and local memory lie among generic addresses. No address of the host is as high.
inline constexpr uint64_t kSharedWindow = uint64_t{1} << 52, kLocalWindow = uint64_t{1} << 53;
// What nobody has written: NaN as float16, bfloat16, float32 and float64.
inline constexpr uint64_t kPoison = 0xFFFDFFFDFFFDFFFD;

// Global memory, parameters and constants: buffers of the host at their own addresses.
class Buffers {
 public:
    void add(uint64_t address, uint64_t bytes, bool writable, std::string name);
    char* at(uint64_t address, uint64_t bytes, Access access) const;

 private:
    struct Buffer {
        uint64_t address, bytes;
        bool writable;
        std::string name;
    };
    [[noreturn]] void refuse(uint64_t address, uint64_t bytes, Access access) const;

    std::vector<Buffer> buffers_;  // by address
    mutable size_t last_ = 0;
};

// The shared memory of one block. While an operation is under way its bytes belong to it: nobody may touch what is being
// written, or write what is being read.
class Shared {
 public:
    Shared(const Kernel& kernel, uint32_t dynamic_bytes, uint64_t poison);

    // Within the block's memory and none of the gaps between variables; nothing else is looked at.
    char* at(uint64_t address, uint64_t bytes) {
        check_bounds(address, bytes);
        return bytes_.data() + (address - kSharedBase);
    }
    // Also free for an access by a thread.
    char* at(uint64_t address, uint64_t bytes, Access access) {
        char* found = at(address, bytes);
        if (busy_ > 0) check_free(address, bytes, access);
        return found;
    }
    uint32_t end() const { return kSharedBase + static_cast<uint32_t>(bytes_.size()); }

    // An operation at `line` of the program writes there until it is finished; what lies there meanwhile is poison.
    void start_writing(uint64_t address, uint64_t bytes, int32_t line);
    void finish_writing(uint64_t address, uint64_t bytes);
    void start_reading(uint64_t address, uint64_t bytes, int32_t line);
    void finish_reading(uint64_t address, uint64_t bytes);
    // For those who put up with being written over: whether something writes there, or began to after so many writes.
    bool written_over(uint64_t address, uint64_t bytes, int64_t since) const;
    int64_t writes() const { return writes_; }
    // An mbarrier lives there.
    void reserve(uint64_t address, int32_t line);
    void release(uint64_t address) { finish_writing(address, 8); }

 private:
    // What goes on in 4 bytes.
    struct State {
        int32_t writer = 0;  // line of the program, negative for an mbarrier
        int32_t reader = 0;
        int32_t readers = 0;
        int64_t written = 0;  // by which of the operations that write
    };
    void check_bounds(uint64_t address, uint64_t bytes) const;
    void check_free(uint64_t address, uint64_t bytes, Access access) const;
    template <class Change>
    void change(uint64_t address, uint64_t bytes, Change change);

    std::vector<char> bytes_;
    std::vector<State> states_;
    std::vector<std::pair<uint32_t, uint32_t>> gaps_;
    int64_t writes_ = 0;  // operations that have begun to write
    int64_t busy_ = 0;    // states that are not free
    uint64_t poison_;
};

}  // namespace emulator
