// How a warp runs. Lanes that branched apart run group by group, the one furthest behind first, so that they meet again where
// their ways do; a group that looks in vain for what isn't there lets the others go first.
#include <algorithm>

#include "lanes.hpp"
#include "products.hpp"

namespace emulator {

Warp::Warp(Block& owner, int number)
    : block(owner),
      number_(number),
      kernel_(owner.launch.kernel),
      constants_(kernel_.constants.data()),
      registers_(new Slot[size_t(kernel_.registers) * kLanes]),
      local_(kLanes),
      written_(kernel_.registers) {
    std::fill_n(registers_.get(), size_t(kernel_.registers) * kLanes, owner.poison);
    const int lanes = std::min(kLanes, owner.threads - number * kLanes);
    live_ = lanes == kLanes ? ~Mask{0} : (Mask{1} << lanes) - 1;
    for (const Special& special : kernel_.specials) fill(special);
}

Warp::~Warp() = default;

void Warp::fill(const Special& special) {
    const Dim3 block_size = block.launch.block, grid = block.launch.grid, at = block.index;
    const std::string& name = special.name;
    Slot* slots = register_(special.slot);
    const auto axis = [&](Dim3 of) { return name.back() == 'x' ? of.x : name.back() == 'y' ? of.y : of.z; };
    const auto is = [&](const char* stem) {
        const std::string text(stem);
        return name == text + ".x" || name == text + ".y" || name == text + ".z";
    };
    for (int lane = 0; lane < kLanes; ++lane) {
        const auto linear = static_cast<uint32_t>(thread(lane));
        const Dim3 thread_at{linear % block_size.x, linear / block_size.x % block_size.y, linear / block_size.x / block_size.y};
        const uint64_t block_number = at.x + uint64_t{grid.x} * (at.y + uint64_t{grid.y} * at.z);
        const uint32_t below = (Mask{1} << lane) - 1;
        uint64_t value = 0;
        if (is("%tid"))
            value = axis(thread_at);
        else if (is("%ntid"))
            value = axis(block_size);
        else if (is("%ctaid") || is("%clusterid"))
            value = axis(at);
        else if (is("%nctaid") || is("%nclusterid"))
            value = axis(grid);
        else if (is("%cluster_nctaid"))
            value = 1;
        else if (is("%cluster_ctaid") || name == "%cluster_ctarank")
            value = 0;
        else if (name == "%cluster_nctarank")
            value = 1;
        else if (name == "%laneid")
            value = static_cast<uint64_t>(lane);
        else if (name == "%warpid")
            value = static_cast<uint64_t>(number_);
        else if (name == "%nwarpid")
            value = (block.threads + kLanes - 1) / kLanes;
        else if (name == "%lanemask_lt")
            value = below;
        else if (name == "%lanemask_le")
            value = below << 1 | 1;
        else if (name == "%lanemask_eq")
            value = below + 1;
        else if (name == "%lanemask_ge")
            value = ~below;
        else if (name == "%lanemask_gt")
            value = ~(below << 1 | 1);
        else if (name == "%smid")
            value = block_number % block.launch.options.resident;
        else if (name == "%nsmid")
            value = block.launch.options.resident;
        else if (name == "%gridid" || name == "%clock" || name == "%clock64" || name == "%globaltimer")
            value = clock_;
        else if (name == "%dynamic_smem_size")
            value = block.launch.dynamic_shared;
        else if (name == "%total_smem_size")
            value = block.shared.end() - kSharedBase;
        else
            fail("the special register ", name, " is not emulated");
        slots[lane] = value;
    }
}

Warp::Turn Warp::run(int budget) {
    if (!live_) return Turn::done;
    polled_ = deferred_;
    deferred_ = 0;
    while (active_ || select()) {
        if (budget-- == 0) {
            // Whoever waits behind these lanes goes first next time.
            deferred_ = active_;
            each(active_, [&](int lane) { lane_pc_[lane] = pc_; });
            active_ = 0;
            return Turn::busy;
        }
        const Instruction& instruction = kernel_.instructions[pc_];
        line_ = instruction.line;
        ++clock_;
        Mask lanes = active_;
        if (instruction.guard >= 0) {
            const Slot* guard = register_(instruction.guard);
            Mask holds = 0;
            for (int lane = 0; lane < kLanes; ++lane) holds |= static_cast<Mask>(guard[lane] & 1) << lane;
            lanes &= instruction.unless ? ~holds : holds;
        }
        try {
            if (lanes)
                execute(instruction, lanes);
            else
                ++pc_;
        } catch (const Fault& fault) {
            std::ostringstream text;
            const auto linear = static_cast<uint32_t>(thread(culprit_));
            const Dim3 size = block.launch.block;
            text << fault.what() << " (block " << block.index.x << "," << block.index.y << "," << block.index.z << ", thread "
                 << linear % size.x << "," << linear / size.x % size.y << "," << linear / size.x / size.y << ", line " << line_
                 << ")";
            throw Fault(text.str());
        }
        if (active_ && pc_ >= next_other_) regroup();
    }
    return live_ ? Turn::stuck : Turn::done;
}

void Warp::execute(const Instruction& instruction, Mask lanes) {
    culprit_ = __builtin_ctz(lanes);
    require(instruction.run != nullptr, instruction.refusal);
    if (products) note_registers(instruction);
    ++block.launch.instructions;
    block.launch.thread_instructions += count(lanes);
    switch (instruction.run(*this, instruction, lanes)) {
        case Outcome::next: ++pc_; return;
        case Outcome::jumped: return;
        case Outcome::parked: park(lanes); return;
        case Outcome::waiting:
            waiting_ |= lanes;
            each(lanes, [&](int lane) { lane_pc_[lane] = pc_ + 1; });
            break;
        case Outcome::polled:
            polled_ |= lanes;
            each(lanes, [&](int lane) { lane_pc_[lane] = pc_ + 1; });
            break;
    }
    each(active_ & ~lanes, [&](int lane) { lane_pc_[lane] = pc_ + 1; });
    active_ = 0;
}

// Waits for others at this instruction, or, where some wait here already, tries again with them.
void Warp::park(Mask lanes) {
    each(active_ & ~lanes, [&](int lane) { lane_pc_[lane] = pc_ + 1; });
    each(lanes, [&](int lane) { lane_pc_[lane] = pc_; });
    Mask here = 0;
    each(parked_, [&](int lane) { here |= Mask{lane_pc_[lane] == pc_} << lane; });
    active_ = 0;
    if (here)
        run_from(pc_);
    else
        parked_ |= lanes;
}

// The group that is furthest behind, of the lanes that can go on.
bool Warp::select() {
    Mask ready = live_ & ~(waiting_ | parked_ | polled_);
    if (!ready && parked_ && changed_) {
        changed_ = false;
        ready = parked_;
        parked_ = 0;
    }
    if (!ready) return false;
    int32_t first = INT32_MAX;
    each(ready, [&](int lane) { first = std::min(first, lane_pc_[lane]); });
    run_from(first);
    return true;
}

// All lanes that are at an instruction and may go on, parked ones included, as one group.
void Warp::run_from(int32_t at) {
    pc_ = at;
    next_other_ = INT32_MAX;
    each(live_ & ~(waiting_ | polled_), [&](int lane) {
        if (lane_pc_[lane] == at)
            active_ |= Mask{1} << lane;
        else if (lane_pc_[lane] > at)
            next_other_ = std::min(next_other_, lane_pc_[lane]);
    });
    parked_ &= ~active_;
}

void Warp::regroup() {
    each(active_, [&](int lane) { lane_pc_[lane] = pc_; });
    active_ = 0;
    select();
}

void Warp::jump(Mask lanes, int32_t to) {
    if (lanes == active_) {
        pc_ = to;
        return;
    }
    scatter(lanes, [&](int) { return to; });
}

void Warp::exit(Mask lanes) {
    if (!stores.empty()) {
        each(lanes, [&](int lane) {
            require(stores[lane].open.empty() && stores[lane].groups.empty(),
                    "the thread ends while what it stores is under way");
        });
    }
    live_ &= ~lanes;
    each(active_ & ~lanes, [&](int lane) { lane_pc_[lane] = pc_ + 1; });
    active_ = 0;
    changed_ = true;
    block.lane_exited();
}

void Warp::wake(Mask lanes) {
    waiting_ &= ~lanes;
    changed_ = true;
}

void Warp::met(Mask lanes) { block.races.converge(number_, lanes, clock_); }

Mask Warp::predicate(const Operand& operand) const {
    const Slot* slots = read(operand);
    Mask holds = 0;
    for (int lane = 0; lane < kLanes; ++lane) holds |= static_cast<Mask>(slots[lane] & 1) << lane;
    return operand.negated ? ~holds : holds;
}

Slot Warp::uniform(const Operand& operand, Mask lanes, const char* what) const {
    const Slot* slots = read(operand);
    const Slot value = slots[__builtin_ctz(lanes)];
    each(lanes, [&](int lane) { require(slots[lane] == value, "the lanes of a warp give different ", what); });
    return value;
}

uint64_t Warp::address(const Operand& operand, int lane) const {
    if (operand.index < 0) return static_cast<uint64_t>(operand.offset);
    const uint64_t sum = registers_[size_t(operand.index) * kLanes + lane] + static_cast<uint64_t>(operand.offset);
    return operand.bits == 32 ? static_cast<uint32_t>(sum) : sum;
}

uint64_t Warp::shared_address(Space space, uint64_t address, int lane) const {
    if (space == Space::shared) return address;
    const_cast<Warp*>(this)->blame(lane);
    require(space == Space::generic && address - kSharedWindow < kLocalWindow - kSharedWindow, Hex{address},
            " is no address of shared memory");
    return address - kSharedWindow;
}

char* Warp::memory(Space space, uint64_t address, uint32_t bytes, Access access, int lane, uint32_t alignment,
                   const char* stored) {
    culprit_ = lane;
    require(address % alignment == 0, "accesses ", bytes, " bytes at ", Hex{address}, ", which is no multiple of ", alignment);
    if (space == Space::generic) {
        if (address - kSharedWindow < kLocalWindow - kSharedWindow) {
            space = Space::shared;
            address -= kSharedWindow;
        } else if (address >= kLocalWindow && address - kLocalWindow < kernel_.local_bytes) {
            space = Space::local;
            address -= kLocalWindow;
        }
    }
    if (space == Space::shared) {
        char* found = block.shared.at(address, bytes, access);
        switch (access) {
            case Access::read: block.races.read(thread(lane), clock_, line_, address, bytes); break;
            case Access::write: block.races.write(thread(lane), clock_, line_, address, bytes, found, stored); break;
            case Access::atomic: block.races.update(thread(lane), clock_, line_, address, bytes); break;
        }
        return found;
    }
    if (space == Space::local) {
        std::vector<char>& own = local_[lane];
        if (own.empty()) {
            own.resize(kernel_.local_bytes);
            for (size_t i = 0; i < own.size(); ++i) own[i] = static_cast<char>(block.poison >> i % 8 * 8);
        }
        require(address < own.size() && bytes <= own.size() - address, "accesses ", bytes, " bytes of local memory at ",
                address, " of ", own.size());
        return own.data() + address;
    }
    return block.launch.buffers.at(address, bytes, access);
}

std::string Warp::where() const {
    std::ostringstream text;
    text << "warp " << number_ << ":";
    std::map<std::pair<int32_t, const char*>, Mask> places;
    each(live_, [&](int lane) {
        const Mask bit = Mask{1} << lane;
        const char* how = waiting_ & bit  ? "waits at a barrier"
                          : parked_ & bit ? "waits for lanes of its warp"
                                          : "looks in vain";
        const int32_t at = waiting_ & bit ? lane_pc_[lane] - 1 : lane_pc_[lane];
        places[{kernel_.instructions[at].line, how}] |= bit;
    });
    for (const auto& [place, lanes] : places) {
        text << " " << count(lanes) << " threads at line " << place.first << " (" << place.second << ")";
    }
    return text.str();
}

}  // namespace emulator
