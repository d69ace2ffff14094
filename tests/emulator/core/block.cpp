#include <algorithm>

#include "lanes.hpp"
#include "products.hpp"

namespace emulator {

namespace {

// Odd seeds have other bytes where nobody wrote, so that what a kernel makes of them differs from seed to seed.
uint64_t poison_of(const Options& options) { return options.seed % 2 ? 0x7FFE7FFE7FFE7FFE : kPoison; }

}  // namespace

Block::Block(Launch& of, Dim3 at)
    : launch(of),
      index(at),
      threads(static_cast<int>(of.block.count())),
      poison(poison_of(of.options)),
      shared(of.kernel, of.dynamic_shared, poison),
      races(threads, kSharedBase, shared.end() - kSharedBase, of.options.races) {
    for (int number = 0; number * kLanes < threads; ++number) warps.push_back(std::make_unique<Warp>(*this, number));
    for (NamedBarrier& barrier : barriers_) barrier.lanes.resize(warps.size());
}

bool Block::step() {
    const uint64_t before = events_;
    bool live = false, busy = false;
    std::vector<Warp*> order;
    for (const auto& warp : warps) order.push_back(warp.get());
    std::shuffle(order.begin(), order.end(), launch.random);
    for (Warp* warp : order) {
        const Warp::Turn turn = warp->run(64 + static_cast<int>(launch.random() % 512));
        live |= turn != Warp::Turn::done;
        busy |= turn == Warp::Turn::busy;
        if (launch.options.delivery == Delivery::random && launch.random() % 4 == 0) deliver_one();
    }
    require(launch.instructions <= launch.options.limit, "the kernel did not end within ", launch.options.limit,
            " instructions of warps", where());
    if (!live) {
        require(under_way_.empty(), "the block ended while the copy issued at line ",
                under_way_.empty() ? 0 : under_way_.front().line, " was under way");
        return false;
    }
    if (!busy && events_ == before) {
        if (!under_way_.empty())
            deliver_one();
        else
            ++idle_rounds_;
    } else {
        idle_rounds_ = 0;
    }
    return true;
}

std::string Block::where() const {
    std::string text;
    for (const auto& warp : warps) {
        if (warp->live()) text += "\n  " + warp->where();
    }
    for (const auto& [address, barrier] : mbarriers_) {
        std::ostringstream line;
        line << "\n  mbarrier at " << address << " (made at line " << barrier.line << "): phase " << barrier.phase << ", "
             << barrier.pending << " of " << barrier.expected << " arrivals and " << barrier.bytes << " bytes outstanding";
        text += line.str();
    }
    return text;
}

bool Block::arrive(Warp& warp, Mask lanes, const Instruction& instruction, int id, int64_t expected, int64_t arriving,
                   Mask votes, bool waits) {
    NamedBarrier& barrier = barriers_[id];
    require(!barrier.used || barrier.expected == expected, "barrier ", id, " is given ", expected,
            " threads here and elsewhere ", barrier.expected, " (0: all)");
    require((barrier.lanes[warp.number()] & lanes) == 0, "arrives at barrier ", id, " again before it has ended");
    barrier.used = true;
    barrier.expected = expected;
    barrier.arrived += arriving;
    barrier.lanes[warp.number()] |= lanes;
    barrier.votes += count(votes & lanes);
    barrier.voters += count(lanes);
    require(expected == 0 || barrier.arrived <= expected, "barrier ", id, " is for ", expected, " threads, and ",
            barrier.arrived, " arrive");
    races.release(warp.number(), lanes, warp.now(), barrier.gathered);
    if (waits) barrier.waiters.push_back({&warp, lanes, &instruction});
    return release_if_complete(id);
}

bool Block::release_if_complete(int id) {
    NamedBarrier& barrier = barriers_[id];
    if (!barrier.used) return false;
    bool complete = barrier.arrived == barrier.expected;
    if (barrier.expected == 0) {
        complete = std::all_of(warps.begin(), warps.end(),
                               [&](const auto& warp) { return (warp->live_lanes() & ~barrier.lanes[warp->number()]) == 0; });
    }
    if (!complete) return false;
    NamedBarrier ended;
    ended.lanes.resize(warps.size());
    std::swap(ended, barrier);
    for (const NamedBarrier::Waiter& waiter : ended.waiters) {
        races.acquire(waiter.warp->number(), ended.gathered);
        races.converge(waiter.warp->number(), waiter.lanes, waiter.warp->now());
        const Instruction& instruction = *waiter.instruction;
        if (instruction.parameters[0] != 0) {  // bar.red: 1 popc, 2 and, 3 or
            const int64_t found = instruction.parameters[0] == 1   ? ended.votes
                                  : instruction.parameters[0] == 2 ? ended.votes == ended.voters
                                                                   : ended.votes != 0;
            Slot* to = waiter.warp->write(instruction[0]);
            each(waiter.lanes, [&](int lane) { to[lane] = static_cast<Slot>(found); });
        }
        waiter.warp->wake(waiter.lanes);
    }
    progress();
    return true;
}

void Block::lane_exited() {
    progress();
    for (int id = 0; id < static_cast<int>(barriers_.size()); ++id) {
        if (barriers_[id].used && barriers_[id].expected == 0) release_if_complete(id);
    }
}

Mbarrier& Block::mbarrier(uint64_t address) {
    const auto found = mbarriers_.find(address);
    require(found != mbarriers_.end(), "there is no mbarrier at ", address, " of shared memory");
    return found->second;
}

void Block::make_mbarrier(uint64_t address, int64_t count, int32_t line) {
    require(address % 8 == 0, "an mbarrier needs an address that is a multiple of 8, not ", address);
    require(count >= 1 && count < 1 << 20, "an mbarrier counts from 1 to 2^20 - 1 arrivals, not ", count);
    require(!mbarriers_.count(address), "there already is an mbarrier at ", address, " of shared memory");
    shared.reserve(address, line);
    Mbarrier barrier{};
    barrier.expected = barrier.pending = count;
    barrier.line = line;
    mbarriers_[address] = barrier;
}

void Block::drop_mbarrier(uint64_t address) {
    mbarrier(address);
    shared.release(address);
    mbarriers_.erase(address);
}

void Block::settle(Mbarrier& barrier) {
    constexpr int64_t kMostBytes = (1 << 20) - 1;
    require(barrier.pending >= 0, "more threads arrive at the mbarrier than the ", barrier.expected, " it was made for");
    require(-kMostBytes <= barrier.bytes && barrier.bytes <= kMostBytes, "an mbarrier counts up to ", kMostBytes,
            " bytes, not ", barrier.bytes);
    progress();
    if (barrier.pending > 0 || barrier.bytes != 0) return;
    ++barrier.phase;
    barrier.pending = barrier.expected;
    join(barrier.handed, barrier.gathered);
    barrier.gathered.clear();
}

void Block::start(BulkCopy copy) {
    if (launch.options.delivery == Delivery::early)
        deliver(std::move(copy));
    else
        under_way_.push_back(std::move(copy));
}

void Block::deliver_one() {
    if (under_way_.empty()) return;
    std::swap(under_way_[launch.random() % under_way_.size()], under_way_.back());
    BulkCopy copy = std::move(under_way_.back());
    under_way_.pop_back();
    deliver(std::move(copy));
}

void Block::place(const Piece& piece) {
    shared.finish_writing(piece.to, piece.bytes + piece.zeros);
    char* to = shared.at(piece.to, piece.bytes + piece.zeros);
    if (piece.bytes) std::memcpy(to, piece.from, piece.bytes);
    std::memset(to + piece.bytes, 0, piece.zeros);
}

void Block::deliver(BulkCopy copy) {
    for (const Piece& piece : copy.pieces) place(piece);
    Mbarrier& barrier = mbarrier(copy.barrier);
    races.copied(copy.number, barrier.gathered);
    barrier.bytes -= copy.bytes;
    barrier.pending -= copy.arrivals;
    settle(barrier);
}

}  // namespace emulator
