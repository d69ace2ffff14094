// Finds accesses to the same byte of shared memory, at least one of them a write, that nothing orders.
//
// Every thread has a clock, which is its warp's count of instructions. What a thread may rely on is a vector of those clocks:
// of each other thread, up to when. Barriers hand such vectors on: arriving adds the thread's own to the barrier's, waiting
// takes the barrier's over. Within a warp only instructions that make lanes meet (bar.warp.sync, shuffles, votes, barriers) do
// so. Taking over is kept per warp, not per thread: a thread is taken to know what another of its warp has waited for.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "program.hpp"

namespace emulator {

// Of each thread of a block, and of the copy engine behind them, the clock up to which its accesses are known.
using Knowledge = std::vector<uint32_t>;

inline void join(Knowledge& into, const Knowledge& other) {
    if (into.size() < other.size()) into.resize(other.size());
    for (size_t i = 0; i < other.size(); ++i) into[i] = std::max(into[i], other[i]);
}

class Races {
 public:
    // Looks at nothing unless `enabled`.
    Races(int threads, uint32_t base, uint32_t bytes, bool enabled);

    void read(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes);
    // Threads that write what lies there already may do so beside each other: `before` and `after` are the bytes, where known.
    void write(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes, const char* before = nullptr,
               const char* after = nullptr);
    // Atomic and volatile accesses are never in a race with each other, and order what lies before and after them.
    void update(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes);
    // By the copy engine, on behalf of a thread: number `copy` of its copies, from 1 on.
    void write_by_copy(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes, uint32_t copy);
    // Through the asynchronous proxy, for which writes by threads need a fence.proxy.async.
    void read_by_proxy(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes);

    // Whether a thread may rely on what lies there.
    bool ordered(int thread, uint64_t address, uint64_t bytes) const;

    void converge(int warp, Mask lanes, uint32_t now);
    void release(int warp, Mask lanes, uint32_t now, Knowledge& into) const;
    void acquire(int warp, const Knowledge& from);
    void proxy_fence(int warp, Mask lanes, uint32_t now);
    void copied(uint32_t copy, Knowledge& into) const;

 private:
    struct Last {
        int32_t thread = -1;
        uint32_t clock = 0;
        int32_t line = 0;
    };
    struct Byte {
        Last writer, reader;
        int32_t readers = -1;  // where there are several: number of a list with the last of each warp
        bool atomic = false;   // the writer was
    };
    // What the lanes of one warp know of each other: all up to `all`, and more in `lanes` where only some have met.
    struct Meetings {
        uint32_t all = 0;
        std::array<std::array<uint32_t, kLanes>, kLanes> lanes{};
    };

    bool known(int thread, const Last& last) const;
    void check(int thread, const Last& last, const char* before, const char* verb, uint64_t address) const;
    void check_readers(int thread, Byte& byte, const char* verb, uint64_t address);
    bool unread(const Byte& byte) const;  // since it was written
    void note_reader(int thread, uint32_t now, int32_t line, Byte& byte);
    Byte& byte(uint64_t address) { return bytes_[address - base_]; }

    bool enabled_;
    int threads_;
    uint32_t base_;
    std::vector<Byte> bytes_;
    std::vector<std::vector<Last>> lists_;
    std::vector<Knowledge> warps_;
    std::vector<Meetings> meetings_;
    std::vector<uint32_t> fenced_;                     // of each thread, the clock of its last proxy fence
    std::vector<Knowledge> fences_;                    // of each warp, what it knew at its last proxy fence
    std::unordered_map<uint64_t, Knowledge> updated_;  // what updates of an address hand on
};

}  // namespace emulator
