// Warps, the blocks they belong to, and the launch of a grid of them.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fault.hpp"
#include "memory.hpp"
#include "program.hpp"
#include "races.hpp"

namespace emulator {

struct Dim3 {
    uint32_t x = 1, y = 1, z = 1;
    uint64_t count() const { return uint64_t{x} * y * z; }
};

// When bulk copies arrive: as late as possible, at once, or at random moments.
enum class Delivery : int32_t { late, early, random };

struct Options {
    uint64_t seed = 0;
    Delivery delivery = Delivery::late;
    uint64_t limit = 0;  // of instructions of warps
    bool races = true;
    // Products may read rows of A that copies are writing: what comes of them is poison.
    bool rows_over_copies = false;
    int32_t resident = 2;  // blocks that run at the same time
};

struct Launch {
    const Kernel& kernel;
    const Buffers& buffers;
    Dim3 grid, block;
    uint32_t dynamic_shared;
    Options options;
    std::mt19937_64 random;
    uint64_t instructions = 0, thread_instructions = 0;
};

// Bytes on their way from a buffer to shared memory.
struct Piece {
    const char* from;  // null where there are only zeros
    uint64_t to;
    uint32_t bytes, zeros;  // zeros follow the bytes
};

// cp.async of one thread.
struct ThreadCopies {
    std::vector<Piece> open;
    std::deque<std::vector<Piece>> groups;
};

// cp.async.bulk from shared to global memory, of one thread.
struct ThreadStores {
    struct Part {
        uint64_t from;  // in shared memory
        char* to;
        uint32_t bytes;
    };
    std::vector<Part> open;
    std::deque<std::vector<Part>> groups;
};

struct Product;  // wgmma.mma_async that is under way
struct ProductQueue {
    std::vector<Product> open;
    std::deque<std::vector<Product>> groups;
    std::map<int32_t, int32_t> registers;  // that results will be written to, and by how many
    bool any() const { return !registers.empty(); }
};

class Block;

class Warp {
 public:
    Warp(Block& block, int number);
    ~Warp();

    // One turn: until all lanes are done, wait, or have looked in vain for what isn't there, or `budget` is used up.
    enum class Turn : uint8_t { done, stuck, busy };
    Turn run(int budget);
    void wake(Mask lanes);
    bool live() const { return live_ != 0; }
    Mask live_lanes() const { return live_; }
    std::string where() const;

    // For handlers.
    const Slot* read(const Operand& operand) const {
        return (operand.kind == Operand::constant ? constants_ : registers_.get()) + size_t(operand.index) * kLanes;
    }
    Slot* write(const Operand& operand) {
        return operand.kind == Operand::sink ? nowhere_ : registers_.get() + size_t(operand.index) * kLanes;
    }
    Slot* register_(int32_t number) { return registers_.get() + size_t(number) * kLanes; }
    Mask predicate(const Operand& operand) const;
    // The same for all lanes of the mask, or a fault.
    Slot uniform(const Operand& operand, Mask lanes, const char* what) const;
    uint64_t address(const Operand& operand, int lane) const;
    // Memory that a lane may access so; the address must be a multiple of `alignment`.
    // A write may say what it is going to store.
    char* memory(Space space, uint64_t address, uint32_t bytes, Access access, int lane, uint32_t alignment,
                 const char* stored = nullptr);
    // The same address as one of shared memory; a fault if it is not.
    uint64_t shared_address(Space space, uint64_t address, int lane) const;

    // Whether all lanes that must meet here are here; the lanes that are park otherwise.
    bool together(Mask here, Mask needed) const { return (needed & live_ & ~here) == 0; }
    void met(Mask lanes);
    void jump(Mask lanes, int32_t to);
    template <class Target>
    void scatter(Mask lanes, Target target) {
        for (int lane = 0; lane < kLanes; ++lane) {
            if (active_ >> lane & 1) lane_pc_[lane] = lanes >> lane & 1 ? target(lane) : pc_ + 1;
        }
        active_ = 0;
    }
    void exit(Mask lanes);

    int thread(int lane) const { return number_ * kLanes + lane; }
    int number() const { return number_; }
    int32_t line() const { return line_; }
    uint32_t now() const { return clock_; }
    void blame(int lane) { culprit_ = lane; }

    Block& block;
    std::vector<ThreadCopies> copies;  // of each lane
    std::vector<ThreadStores> stores;  // of each lane
    std::unique_ptr<ProductQueue> products;
    int32_t registers_claimed = 0;  // setmaxnreg, 0 before

    // Registers written since the last wgmma.fence.
    bool written_since_fence(int32_t number) const { return written_[number] == fences_; }
    void fence_registers() { ++fences_; }
    bool fenced() const { return fences_ > 1; }

 private:
    bool select();
    void park(Mask lanes);
    void run_from(int32_t at);
    void execute(const Instruction& instruction, Mask lanes);
    void regroup();
    void note_registers(const Instruction& instruction);
    void fill(const Special& special);

    int number_;
    const Kernel& kernel_;
    const Slot* constants_;
    std::unique_ptr<Slot[]> registers_;
    Slot nowhere_[kLanes];
    std::vector<std::vector<char>> local_;  // of each lane
    std::vector<uint32_t> written_;
    uint32_t fences_ = 1;

    Mask live_ = 0, parked_ = 0, waiting_ = 0, polled_ = 0, deferred_ = 0;
    bool changed_ = false;  // since lanes parked that could not go on
    Mask active_ = 0;
    int32_t pc_ = 0, next_other_ = 0;
    std::array<int32_t, kLanes> lane_pc_{};
    int32_t line_ = 0;
    uint32_t clock_ = 1;
    int culprit_ = 0;
};

// bar.sync and its kin: barrier `id` of a block.
struct NamedBarrier {
    struct Waiter {
        Warp* warp;
        Mask lanes;
        const Instruction* instruction;
    };
    int64_t expected = 0;  // threads, 0: all that live
    int64_t arrived = 0;
    std::vector<Mask> lanes;  // of each warp, that have arrived
    std::vector<Waiter> waiters;
    int64_t votes = 0;  // threads whose predicate holds
    int64_t voters = 0;
    bool used = false;
    Knowledge gathered;
};

struct Mbarrier {
    int64_t expected, pending, bytes = 0;
    uint64_t phase = 0;  // phases that have ended
    int32_t line = 0;    // where it was made
    Knowledge gathered, handed;
};

// A copy into shared memory that tells an mbarrier when it has arrived.
struct BulkCopy {
    std::vector<Piece> pieces;
    uint64_t barrier;
    int64_t bytes;     // that the mbarrier hears of
    int64_t arrivals;  // likewise
    int32_t line;
    uint32_t number;
};

class Block {
 public:
    static constexpr int kClusterBarrier = 16;

    Block(Launch& launch, Dim3 index);

    // Every warp one turn. False once all are done.
    bool step();
    bool stuck() const { return idle_rounds_ > kPatience; }
    std::string where() const;

    // Whether that has ended the barrier; then its lanes go on at once.
    bool arrive(Warp& warp, Mask lanes, const Instruction& instruction, int id, int64_t expected, int64_t threads, Mask votes,
                bool waits);
    Mbarrier& mbarrier(uint64_t address);
    void make_mbarrier(uint64_t address, int64_t count, int32_t line);
    void drop_mbarrier(uint64_t address);
    // Ends the phase if nothing is outstanding.
    void settle(Mbarrier& barrier);
    void start(BulkCopy copy);
    // Puts what a piece brings where it belongs.
    void place(const Piece& piece);
    void lane_exited();
    // Something happened that others may have waited for.
    void progress() { ++events_; }

    Launch& launch;
    Dim3 index;
    int threads;
    uint64_t poison;
    Shared shared;
    Races races;
    std::vector<std::unique_ptr<Warp>> warps;
    uint32_t bulk_copies = 0;  // so far

 private:
    static constexpr int kPatience = 64;
    bool release_if_complete(int id);
    void deliver_one();
    void deliver(BulkCopy copy);

    std::array<NamedBarrier, 17> barriers_;  // the last is that of the cluster
    std::unordered_map<uint64_t, Mbarrier> mbarriers_;
    std::vector<BulkCopy> under_way_;
    uint64_t events_ = 0;
    int idle_rounds_ = 0;
};

// Runs the grid to its end or throws a Fault.
void run(Launch& launch);

}  // namespace emulator
