#include "memory.hpp"

#include <algorithm>
#include <cstring>

#include "fault.hpp"

namespace emulator {

namespace {

const char* verb(Access access) { return access == Access::read ? "reads" : access == Access::write ? "writes" : "updates"; }

}  // namespace

void Buffers::add(uint64_t address, uint64_t bytes, bool writable, std::string name) {
    if (bytes == 0) return;
    const auto place = std::lower_bound(buffers_.begin(), buffers_.end(), address,
                                        [](const Buffer& buffer, uint64_t at) { return buffer.address < at; });
    for (auto near = place == buffers_.begin() ? place : place - 1; near != buffers_.end() && near->address < address + bytes;
         ++near) {
        if (near->address == address && near->bytes == bytes) {  // given twice
            near->writable |= writable;
            return;
        }
        require(near->address + near->bytes <= address, "the buffers ", near->name, " and ", name, " overlap");
    }
    buffers_.insert(place, {address, bytes, writable, std::move(name)});
}

char* Buffers::at(uint64_t address, uint64_t bytes, Access access) const {
    const auto holds = [&](const Buffer& buffer) {
        return address - buffer.address < buffer.bytes && bytes <= buffer.bytes - (address - buffer.address) &&
               (access == Access::read || buffer.writable);
    };
    if (last_ >= buffers_.size() || !holds(buffers_[last_])) {
        const auto above = std::upper_bound(buffers_.begin(), buffers_.end(), address,
                                            [](uint64_t at, const Buffer& buffer) { return at < buffer.address; });
        if (above == buffers_.begin() || !holds(*(above - 1))) refuse(address, bytes, access);
        last_ = static_cast<size_t>(above - 1 - buffers_.begin());
    }
    return reinterpret_cast<char*>(address);
}

void Buffers::refuse(uint64_t address, uint64_t bytes, Access access) const {
    std::string nearest = "no buffer is near";
    uint64_t distance = 1 << 20;
    for (const Buffer& buffer : buffers_) {
        const uint64_t end = buffer.address + buffer.bytes;
        if (address >= buffer.address && address + bytes <= end) fail(verb(access), " ", buffer.name, ", which is read-only");
        const bool below = address < buffer.address;
        const uint64_t away = below ? buffer.address - address : address >= end ? address - end : 0;
        if (away >= distance) continue;
        distance = away;
        std::ostringstream text;
        text << (below ? away : address - buffer.address) << " bytes " << (below ? "before" : "into") << " " << buffer.name
             << ", " << buffer.bytes << " bytes";
        nearest = text.str();
    }
    fail(verb(access), " ", bytes, " bytes of global memory at ", Hex{address}, ", which no buffer holds: ", nearest);
}

Shared::Shared(const Kernel& kernel, uint32_t dynamic_bytes, uint64_t poison) : gaps_(kernel.gaps), poison_(poison) {
    const uint32_t end = dynamic_bytes ? kernel.dynamic_shared + dynamic_bytes : kSharedBase + kernel.static_shared;
    bytes_.resize(end - kSharedBase);
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(poison_ >> i % 8 * 8);
    states_.resize((bytes_.size() + 3) / 4);
}

void Shared::check_bounds(uint64_t address, uint64_t bytes) const {
    const uint64_t offset = address - kSharedBase;
    require(offset < bytes_.size() && bytes <= bytes_.size() - offset, "accesses ", bytes, " bytes of shared memory at ",
            address, "; the block's are ", kSharedBase, " to ", end());
    for (const auto& [from, to] : gaps_) {
        require(address + bytes <= from || address >= to, "accesses ", bytes, " bytes of shared memory at ", address,
                ", between two variables");
    }
}

void Shared::check_free(uint64_t address, uint64_t bytes, Access access) const {
    const uint64_t first = (address - kSharedBase) / 4, last = (address + bytes - 1 - kSharedBase) / 4;
    for (uint64_t i = first; i <= last; ++i) {
        const State& state = states_[i];
        require(state.writer >= 0, verb(access), " shared memory at ", address,
                ", where the mbarrier lies that was made at line ", -state.writer);
        require(state.writer == 0, verb(access), " shared memory at ", address, " while the copy issued at line ", state.writer,
                " is writing it");
        require(access == Access::read || state.readers == 0, verb(access), " shared memory at ", address,
                " while the operation issued at line ", state.reader, " is reading it");
    }
}

template <class Change>
void Shared::change(uint64_t address, uint64_t bytes, Change change) {
    const uint64_t first = (address - kSharedBase) / 4, last = (address + bytes - 1 - kSharedBase) / 4;
    for (uint64_t i = first; i <= last; ++i) {
        State& state = states_[i];
        busy_ -= state.writer != 0 || state.readers != 0;
        change(state);
        busy_ += state.writer != 0 || state.readers != 0;
    }
}

void Shared::start_writing(uint64_t address, uint64_t bytes, int32_t line) {
    char* at = this->at(address, bytes, Access::write);
    for (uint64_t i = 0; i < bytes; ++i) at[i] = static_cast<char>(poison_ >> (address + i) % 8 * 8);
    ++writes_;
    change(address, bytes, [&](State& state) {
        state.writer = line;
        state.written = writes_;
    });
}

void Shared::finish_writing(uint64_t address, uint64_t bytes) {
    change(address, bytes, [](State& state) { state.writer = 0; });
}

void Shared::start_reading(uint64_t address, uint64_t bytes, int32_t line) {
    at(address, bytes, Access::read);
    change(address, bytes, [&](State& state) {
        state.reader = line;
        ++state.readers;
    });
}

void Shared::finish_reading(uint64_t address, uint64_t bytes) {
    change(address, bytes, [](State& state) { --state.readers; });
}

bool Shared::written_over(uint64_t address, uint64_t bytes, int64_t since) const {
    const uint64_t first = (address - kSharedBase) / 4, last = (address + bytes - 1 - kSharedBase) / 4;
    return std::any_of(states_.begin() + static_cast<std::ptrdiff_t>(first),
                       states_.begin() + static_cast<std::ptrdiff_t>(last + 1),
                       [=](const State& state) { return state.writer != 0 || state.written > since; });
}

void Shared::reserve(uint64_t address, int32_t line) {
    at(address, 8, Access::write);
    change(address, 8, [&](State& state) { state.writer = -line; });
}

}  // namespace emulator
