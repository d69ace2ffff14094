// A thread block on a CPU: what the Hopper kernel's source needs in place of the compiler's built-ins and of ptx.cuh.
//
// Every thread is a fiber; which of them goes on is drawn by chance. Copies and products happen as late as the instructions
// allow, or copies as soon as they are asked for, so that a stage which is given back too early, a wait for the wrong phase or
// a forgotten arrival gives wrong scores, a failed check or a block that comes to a stop.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "../../csrc/cuda/sm90/boxes.hpp"
#include "numbers.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __device__
#define __forceinline__ inline

struct float2 {
    float x, y;
};
struct int4 {
    int x, y, z, w;
};

namespace metaindex::simulated {

using namespace metaindex::device::sm90;

#define EXPECT(condition, ...)                                \
    do {                                                      \
        if (!(condition)) {                                   \
            std::printf("FAILED in block: %s: ", #condition); \
            std::printf(__VA_ARGS__);                         \
            std::printf("\n");                                \
            std::exit(1);                                     \
        }                                                     \
    } while (0)

inline constexpr uint32_t kShared = 4 * kSwizzleBytes;  // the address of shared memory
inline constexpr size_t kStackBytes = 256 << 10;
inline constexpr unsigned kPatience = 4;  // rounds that a warp may dawdle

// The hardware's swizzle: bits 4..6 of an address are exchanged by bits 7..9.
inline uint32_t swizzle(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

struct Barrier {
    int count = 0, pending = 0, bytes = 0;
    uint32_t phase = 0;
};

// Threads that wait for one another, and what they show each other meanwhile.
struct Meeting {
    int arrived = 0;
    unsigned round = 0;
    uint64_t shown[2][32] = {};
};

struct Product {
    Codec codec;
    uint64_t a, b;
    bool add;
    int group;
};

template <typename Number>
struct Read {
    unsigned round = 0;
    std::map<uint64_t, std::vector<std::vector<Number>>> columns;
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack;
    std::function<bool()> ready;  // empty: at any time
    bool done = false;
    std::vector<Product> products;
    void* numbers = nullptr;
    int committed = 0;
    std::tuple<Read<float>, Read<int32_t>> read;  // of a warp, with its first thread
};

class Machine {
 public:
    Machine(int block, int shared_bytes, unsigned seed)
        : block_(block), shared_bytes_(shared_bytes), random_(seed), fibers_(kThreads) {
        // Numbers that nobody wrote are NaN.
        memory_.reset(static_cast<unsigned char*>(std::aligned_alloc(kSwizzleBytes, (shared_bytes + 1023) / 1024 * 1024)));
        std::memset(memory_.get(), 0xFF, static_cast<size_t>(shared_bytes));
    }

    void run(const std::function<void()>& body) {
        body_ = &body;
        current_machine = this;
        for (Fiber& fiber : fibers_) prepare(fiber);
        std::vector<int> order(kThreads);
        for (int thread = 0; thread < kThreads; ++thread) order[static_cast<size_t>(thread)] = thread;
        for (unsigned idle = 0;;) {
            std::shuffle(order.begin(), order.end(), random_);
            bool all = true, moved = false;
            for (const int thread : order) {
                Fiber& fiber = fibers_[thread];
                if (fiber.done) continue;
                all = false;
                if (fiber.ready && !fiber.ready()) continue;
                fiber.ready = nullptr;
                moved = true;
                resume(thread);
            }
            if (all) break;
            idle = moved ? 0 : idle + 1;
            if (moved && random_() % 4 != 0) continue;
            if (!copies_.empty()) {
                const size_t at = random_() % copies_.size();
                const auto copy = copies_[at];
                copies_.erase(copies_.begin() + static_cast<std::ptrdiff_t>(at));
                copy();
            } else if (idle > kPatience) {
                report();
            }
        }
        EXPECT(copies_.empty(), "%zu copies were never waited for", copies_.size());
        for (const auto& [address, barrier] : barriers_) EXPECT(barrier.bytes == 0, "barrier %u lacks bytes", address);
    }

    unsigned char* memory() { return memory_.get(); }
    int block() const { return block_; }
    int thread() const { return current_; }

    uint32_t address(const void* pointer) const {
        const auto offset = static_cast<const unsigned char*>(pointer) - memory_.get();
        EXPECT(offset >= 0 && offset < shared_bytes_, "no shared memory at %ld", static_cast<long>(offset));
        return kShared + static_cast<uint32_t>(offset);
    }
    unsigned char* at(uint32_t address, int bytes) {
        EXPECT(address >= kShared && address - kShared + static_cast<uint32_t>(bytes) <= static_cast<uint32_t>(shared_bytes_),
               "no shared memory at %u", address);
        return memory_.get() + (address - kShared);
    }

    void wait_until(std::function<bool()> ready) {
        fibers_[current_].ready = std::move(ready);
        yield();
    }

    // All of `count` threads meet; gives back what each of the 32 that show something showed.
    const uint64_t* meet(int number, int count, uint64_t value = 0) {
        Meeting& meeting = meetings_[number];
        const unsigned round = meeting.round;
        meeting.shown[round % 2][current_ % 32] = value;
        if (++meeting.arrived == count) {
            meeting.arrived = 0;
            ++meeting.round;
        } else {
            wait_until([&meeting, round] { return meeting.round != round; });
        }
        return meeting.shown[round % 2];
    }
    const uint64_t* meet_warp(uint64_t value = 0) { return meet(100 + current_ / 32, 32, value); }

    void init(uint32_t address, int count) {
        EXPECT(address % 8 == 0 && barriers_.find(address) == barriers_.end(), "barrier %u", address);
        barriers_[address] = {count, count, 0, 0};
    }
    void arrive(uint32_t address, int bytes) {
        Barrier& barrier = barriers_.at(address);
        EXPECT(barrier.pending > 0, "barrier %u: one arrival too many", address);
        --barrier.pending;
        barrier.bytes += bytes;
        settle(barrier);
    }
    void wait(uint32_t address, uint32_t parity) {
        Barrier& barrier = barriers_.at(address);
        if (barrier.phase % 2 != parity) return;
        wait_until([&barrier, parity] { return barrier.phase % 2 != parity; });
    }

    // Maps in memory are acquired before they are used; the one of the queries is a parameter.
    void parameter(const void* map) { acquired_.insert(map); }
    void acquire(const void* map) { acquired_.insert(map); }
    bool acquired(const void* map) const { return acquired_.count(map) != 0; }

    // Box by box as the copy engine does it, soon or late.
    void load(uint32_t to, const Box& box, int x, int y, int z, uint32_t barrier) {
        EXPECT(to % 128 == 0, "a box starts at %u", to);
        const auto copy = [this, to, box, x, y, z, barrier] {
            const int item = static_cast<int>(itemsize(box.codec));
            int row = 0;
            for (int k = 0; k < static_cast<int>(box.box[2]); ++k) {
                for (int j = 0; j < static_cast<int>(box.box[1]); ++j, ++row) {
                    for (int i = 0; i < static_cast<int>(box.box[0]); ++i) {
                        const uint64_t at[3] = {static_cast<uint64_t>(x + i), static_cast<uint64_t>(y + j),
                                                static_cast<uint64_t>(z + k)};
                        unsigned char* target =
                            this->at(swizzle(to + static_cast<uint32_t>(row * kSliceBytes + i * item)), item);
                        if (at[0] < box.sizes[0] && at[1] < box.sizes[1] && at[2] < box.sizes[2]) {
                            const auto* from = reinterpret_cast<const unsigned char*>(box.address) + at[1] * box.strides[0] +
                                               at[2] * box.strides[1] + at[0] * static_cast<uint64_t>(item);
                            std::memcpy(target, from, static_cast<size_t>(item));
                        } else {
                            std::memset(target, 0, static_cast<size_t>(item));
                        }
                    }
                }
            }
            Barrier& full = barriers_.at(barrier);
            full.bytes -= row * kSliceBytes;
            settle(full);
        };
        if (random_() % 2 == 0) {
            copy();
        } else {
            copies_.push_back(copy);
        }
    }

    template <typename Number>
    void multiply(Number (&numbers)[kNumbers], Codec codec, uint64_t a, uint64_t b, int add) {
        Fiber& fiber = fibers_[current_];
        fiber.products.push_back({codec, a, b, add != 0, fiber.committed});
        fiber.numbers = numbers;
    }
    void commit() { ++fibers_[current_].committed; }

    // Each warp reads its operands when it waits for them, not before, and often some time later.
    void wait_products(int pending) {
        if (current_ % 32 == 0) wait_until([rounds = random_() % kPatience]() mutable { return rounds-- == 0; });
        meet_warp();
        Fiber& fiber = fibers_[current_];
        auto product = fiber.products.begin();
        for (; product != fiber.products.end() && product->group < fiber.committed - pending; ++product) {
            if (product->codec == Codec::int8) {
                apply<int32_t>(*product, static_cast<int32_t*>(fiber.numbers));
            } else {
                apply<float>(*product, static_cast<float*>(fiber.numbers));
            }
        }
        fiber.products.erase(fiber.products.begin(), product);
        meet_warp();
    }

    static Machine* current_machine;

 private:
    static void enter() {
        Machine& machine = *current_machine;
        machine.landed(nullptr);
        (*machine.body_)();
        machine.fibers_[machine.current_].done = true;
        machine.leave(true);
    }

    [[gnu::noinline]] void prepare(Fiber& fiber) {
        fiber.stack = std::make_unique<unsigned char[]>(kStackBytes);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = kStackBytes;
        fiber.context.uc_link = &main_;
        makecontext(&fiber.context, reinterpret_cast<void (*)()>(&Machine::enter), 0);
    }

    [[gnu::noinline]] void resume(int thread) {
        current_ = thread;
        Fiber& fiber = fibers_[thread];
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(&main_fake_, fiber.stack.get(), kStackBytes);
#endif
        swapcontext(&main_, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_finish_switch_fiber(main_fake_, nullptr, nullptr);
#endif
    }
    void yield() { leave(false); }
    void leave(bool for_good) {
        Fiber& fiber = fibers_[current_];
        void* fake = nullptr;
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, main_stack_, main_stack_bytes_);
#endif
        (void)for_good;
        swapcontext(&fiber.context, &main_);
        landed(fake);
    }
    void landed([[maybe_unused]] void* fake) {
#if defined(__SANITIZE_ADDRESS__)
        __sanitizer_finish_switch_fiber(fake, &main_stack_, &main_stack_bytes_);
#endif
    }

    static void settle(Barrier& barrier) {
        if (barrier.pending == 0 && barrier.bytes == 0) {
            ++barrier.phase;
            barrier.pending = barrier.count;
        }
    }

    void report() {
        for (int thread = 0; thread < kThreads; thread += 32)
            std::printf("warp %d: %s\n", thread / 32, fibers_[thread].done ? "done" : "waits");
        EXPECT(false, "block %d came to a stop", block_);
    }

    // A row of an operand as wgmma finds it from its descriptor.
    template <typename Value>
    std::vector<Value> row(Codec codec, uint64_t descriptor, int row) {
        EXPECT(descriptor >> 62 == 1 && (descriptor >> 49 & 7) == 0, "descriptor %lx", static_cast<unsigned long>(descriptor));
        const auto start = static_cast<uint32_t>(descriptor & 0x3FFF) << 4,
                   stride = static_cast<uint32_t>(descriptor >> 32 & 0x3FFF) << 4;
        const int item = static_cast<int>(itemsize(codec));
        std::vector<Value> found(static_cast<size_t>(kStepBytes / item));
        for (int i = 0; i < kStepBytes / item; ++i) {
            const unsigned char* from =
                at(swizzle(start + static_cast<uint32_t>(row / 8) * stride + static_cast<uint32_t>(row % 8 * 128 + i * item)),
                   item);
            uint16_t half;
            std::memcpy(&half, from, static_cast<size_t>(item));
            found[static_cast<size_t>(i)] = codec == Codec::int8       ? static_cast<Value>(static_cast<int8_t>(*from))
                                            : codec == Codec::bfloat16 ? static_cast<Value>(from_bfloat16(half))
                                                                       : static_cast<Value>(from_float16(half));
        }
        return found;
    }

    template <typename Number>
    void apply(const Product& product, Number* numbers) {
        const int thread = current_ % 128;
        const auto& b = operand<Number>(product);
        for (int half = 0; half < 2; ++half) {
            const auto a = row<Number>(product.codec, product.a, thread / 32 * 16 + thread % 32 / 4 + 8 * half);
            for (int n = 0; n < kNumbers / 2; ++n) {
                const int column = n / 2 * 8 + thread % 4 * 2 + n % 2;
                Number& number = numbers[n / 2 * 4 + half * 2 + n % 2];
                if (!product.add) number = 0;
                for (size_t i = 0; i < a.size(); ++i) number += a[i] * b[static_cast<size_t>(column)][i];
            }
        }
    }

    // The columns that a warp reads, once for all its threads.
    template <typename Number>
    const std::vector<std::vector<Number>>& operand(const Product& product) {
        Read<Number>& read = std::get<Read<Number>>(fibers_[current_ / 32 * 32].read);
        const unsigned round = meetings_[100 + current_ / 32].round;
        if (read.round != round) read = {round, {}};
        auto& columns = read.columns[product.b];
        if (columns.empty()) {
            for (int column = 0; column < kColumns; ++column) columns.push_back(row<Number>(product.codec, product.b, column));
        }
        return columns;
    }

    struct Free {
        void operator()(unsigned char* pointer) const { std::free(pointer); }
    };

    int block_, shared_bytes_, current_ = 0;
    std::mt19937 random_;
    std::vector<Fiber> fibers_;
    std::unique_ptr<unsigned char, Free> memory_;
    const std::function<void()>* body_ = nullptr;
    ucontext_t main_;
    [[maybe_unused]] void* main_fake_ = nullptr;
    [[maybe_unused]] const void* main_stack_ = nullptr;
    [[maybe_unused]] size_t main_stack_bytes_ = 0;
    std::map<uint32_t, Barrier> barriers_;
    std::map<int, Meeting> meetings_;
    std::vector<std::function<void()>> copies_;
    std::set<const void*> acquired_;
};

inline Machine* Machine::current_machine = nullptr;

inline Machine& machine() { return *Machine::current_machine; }

struct Index {
    int (*value)();
    operator int() const { return value(); }
};

struct Indices {
    Index x;
};

template <typename To, typename From>
To bits(From from) {
    To to{};
    std::memcpy(&to, &from, std::min(sizeof to, sizeof from));
    return to;
}

}  // namespace metaindex::simulated

inline const metaindex::simulated::Indices threadIdx{{[] { return metaindex::simulated::machine().thread(); }}};
inline const metaindex::simulated::Indices blockIdx{{[] { return metaindex::simulated::machine().block(); }}};

template <typename T>
T __ldg(const T* pointer) {
    return *pointer;
}
inline void __syncwarp() { metaindex::simulated::machine().meet_warp(); }
inline void __syncthreads() { metaindex::simulated::machine().meet(0, metaindex::device::sm90::kThreads); }
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
    return metaindex::simulated::bits<T>(
        metaindex::simulated::machine().meet_warp(metaindex::simulated::bits<uint64_t>(value))[lane % 32]);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int other) {
    return __shfl_sync(mask, value, threadIdx.x % 32 ^ other);
}
inline unsigned __ballot_sync(unsigned, bool value) {
    const uint64_t* shown = metaindex::simulated::machine().meet_warp(value);
    unsigned found = 0;
    for (int lane = 0; lane < 32; ++lane) found |= static_cast<unsigned>(shown[lane]) << lane;
    return found;
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __float_as_int(float value) { return metaindex::simulated::bits<int>(value); }
inline float __int_as_float(int value) { return metaindex::simulated::bits<float>(value); }
inline int atomicAdd(int* at, int value) {
    const int before = *at;
    *at += value;
    return before;
}
using std::isnan;
using std::max;
using std::min;

namespace metaindex::device::sm90::ptx {

using simulated::machine;

inline uint32_t shared_address(const void* pointer) { return machine().address(pointer); }
inline void barrier_init(uint32_t barrier, int count) { machine().init(barrier, count); }
inline void barriers_ready() {}
inline void arrive(uint32_t barrier) { machine().arrive(barrier, 0); }
inline void arrive_expecting(uint32_t barrier, int bytes) { machine().arrive(barrier, bytes); }
inline void wait(uint32_t barrier, uint32_t parity) { machine().wait(barrier, parity); }
inline void sync_warpgroup(int warpgroup) { machine().meet(1 + warpgroup, kWarpgroup); }
inline void acquire_map(const void* map) { machine().acquire(map); }
inline void load_box(uint32_t to, const void* map, int x, int y, int z, uint32_t barrier) {
    EXPECT(machine().acquired(map), "a map is used before it is acquired");
    Box box;
    std::memcpy(&box, map, sizeof box);
    machine().load(to, box, x, y, z, barrier);
}
inline float maximum(float a, float b) { return std::isnan(a) || std::isnan(b) ? std::nanf("") : std::max(a, b); }
inline void forget(int&) {}
template <int kCount>
void give_up_registers() {}
template <int kCount>
void claim_registers() {}
inline void products_fence() {}
inline void commit_products() { machine().commit(); }
template <int kPending>
void wait_products() {
    machine().wait_products(kPending);
}
template <typename Number>
void pin(Number (&)[kNumbers]) {}
template <Codec kCodec, typename Number>
void multiply(Number (&numbers)[kNumbers], uint64_t a, uint64_t b, int add) {
    machine().multiply(numbers, kCodec, a, b, add);
}

}  // namespace metaindex::device::sm90::ptx
