#include "races.hpp"

#include <algorithm>

#include "fault.hpp"

namespace emulator {

Races::Races(int threads, uint32_t base, uint32_t bytes, bool enabled) : enabled_(enabled), threads_(threads), base_(base) {
    if (!enabled) return;
    const int warps = (threads + kLanes - 1) / kLanes;
    bytes_.resize(bytes);
    warps_.assign(static_cast<size_t>(warps), Knowledge(static_cast<size_t>(threads) + 1));
    fences_ = warps_;
    meetings_.resize(static_cast<size_t>(warps));
    fenced_.resize(static_cast<size_t>(threads));
}

bool Races::known(int thread, const Last& last) const {
    if (last.thread < 0 || last.thread == thread) return true;
    const auto warp = static_cast<size_t>(thread / kLanes);
    if (last.thread < threads_ && last.thread / kLanes == thread / kLanes) {
        const Meetings& meetings = meetings_[warp];
        return last.clock <= meetings.all ||
               last.clock <= meetings.lanes[size_t(thread % kLanes)][size_t(last.thread % kLanes)];
    }
    return last.clock <= warps_[warp][static_cast<size_t>(last.thread)];
}

void Races::check(int thread, const Last& last, const char* before, const char* verb, uint64_t address) const {
    if (known(thread, last)) return;
    const std::string who = last.thread == threads_ ? "a copy" : "thread " + std::to_string(last.thread);
    fail("race: ", verb, " shared memory at ", address, ", which ", who, " has ", before, " at line ", last.line,
         " with nothing that orders the two");
}

void Races::check_readers(int thread, Byte& byte, const char* verb, uint64_t address) {
    check(thread, byte.reader, "read", verb, address);
    if (byte.readers < 0) return;
    for (Last& last : lists_[size_t(byte.readers)]) {
        check(thread, last, "read", verb, address);
        last = {};
    }
}

bool Races::unread(const Byte& byte) const {
    if (byte.reader.thread >= 0) return false;
    if (byte.readers < 0) return true;
    const std::vector<Last>& list = lists_[size_t(byte.readers)];
    return std::all_of(list.begin(), list.end(), [](const Last& last) { return last.thread < 0; });
}

void Races::note_reader(int thread, uint32_t now, int32_t line, Byte& byte) {
    const Last reader{thread, now, line};
    if (known(thread, byte.reader) || byte.reader.thread / kLanes == thread / kLanes) {
        byte.reader = reader;
        return;
    }
    if (byte.readers < 0) {
        byte.readers = static_cast<int32_t>(lists_.size());
        lists_.emplace_back(warps_.size());
    }
    lists_[size_t(byte.readers)][size_t(thread / kLanes)] = reader;
}

void Races::read(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes) {
    if (!enabled_) return;
    for (uint64_t at = address; at < address + bytes; ++at) {
        Byte& byte = this->byte(at);
        check(thread, byte.writer, byte.atomic ? "updated" : "written", "reads", at);
        note_reader(thread, now, line, byte);
    }
}

void Races::write(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes, const char* before,
                  const char* after) {
    if (!enabled_) return;
    for (uint64_t at = address; at < address + bytes; ++at) {
        Byte& byte = this->byte(at);
        const bool same = after != nullptr && before[at - address] == after[at - address];
        if (same && unread(byte) && !known(thread, byte.writer)) continue;
        check(thread, byte.writer, byte.atomic ? "updated" : "written", "writes", at);
        check_readers(thread, byte, "writes", at);
        byte.writer = {thread, now, line};
        byte.reader = {};
        byte.atomic = false;
    }
}

void Races::update(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes) {
    if (!enabled_) return;
    Knowledge& handed = updated_[address];
    const Mask lane = Mask{1} << (thread % kLanes);
    acquire(thread / kLanes, handed);
    for (uint64_t at = address; at < address + bytes; ++at) {
        Byte& byte = this->byte(at);
        if (!byte.atomic) check(thread, byte.writer, "written", "updates", at);
        check_readers(thread, byte, "updates", at);
        byte.writer = {thread, now, line};
        byte.reader = {};
        byte.atomic = true;
    }
    release(thread / kLanes, lane, now, handed);
}

void Races::write_by_copy(int thread, uint32_t, int32_t line, uint64_t address, uint64_t bytes, uint32_t copy) {
    if (!enabled_) return;
    for (uint64_t at = address; at < address + bytes; ++at) {
        Byte& byte = this->byte(at);
        check(thread, byte.writer, byte.atomic ? "updated" : "written", "lets a copy write", at);
        check_readers(thread, byte, "lets a copy write", at);
        byte.writer = {threads_, copy, line};
        byte.reader = {};
        byte.atomic = false;
    }
}

void Races::read_by_proxy(int thread, uint32_t now, int32_t line, uint64_t address, uint64_t bytes) {
    if (!enabled_) return;
    const auto warp = static_cast<size_t>(thread / kLanes);
    for (uint64_t at = address; at < address + bytes; ++at) {
        const Last& writer = byte(at).writer;
        if (writer.thread < 0 || writer.thread >= threads_) continue;
        const auto by = static_cast<size_t>(writer.thread);
        const bool fenced = fenced_[by] > writer.clock || writer.clock <= fences_[warp][by];
        require(fenced, "reads shared memory at ", at, " through the asynchronous proxy, which thread ", writer.thread,
                " has written at line ", writer.line, " with no fence.proxy.async since");
    }
    read(thread, now, line, address, bytes);
}

bool Races::ordered(int thread, uint64_t address, uint64_t bytes) const {
    for (uint64_t at = address; enabled_ && at < address + bytes; ++at) {
        if (!known(thread, bytes_[at - base_].writer)) return false;
    }
    return true;
}

void Races::converge(int warp, Mask lanes, uint32_t now) {
    if (!enabled_) return;
    Meetings& meetings = meetings_[size_t(warp)];
    if (lanes == ~Mask{0}) {
        meetings.all = now;
        return;
    }
    std::array<uint32_t, kLanes> joined{};
    for (size_t lane = 0; lane < kLanes; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        for (size_t other = 0; other < kLanes; ++other) joined[other] = std::max(joined[other], meetings.lanes[lane][other]);
    }
    for (size_t lane = 0; lane < kLanes; ++lane) {
        if (lanes >> lane & 1) joined[lane] = now;
    }
    for (size_t lane = 0; lane < kLanes; ++lane) {
        if (lanes >> lane & 1) meetings.lanes[lane] = joined;
    }
}

void Races::release(int warp, Mask lanes, uint32_t now, Knowledge& into) const {
    if (!enabled_) return;
    join(into, warps_[size_t(warp)]);
    const Meetings& meetings = meetings_[size_t(warp)];
    const auto first = static_cast<size_t>(warp) * kLanes;
    for (size_t lane = 0; lane < kLanes; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        for (size_t other = 0; other < kLanes && first + other < size_t(threads_); ++other) {
            const uint32_t up_to = other == lane ? now : std::max(meetings.all, meetings.lanes[lane][other]);
            into[first + other] = std::max(into[first + other], up_to);
        }
    }
}

void Races::acquire(int warp, const Knowledge& from) {
    if (enabled_) join(warps_[size_t(warp)], from);
}

void Races::proxy_fence(int warp, Mask lanes, uint32_t now) {
    if (!enabled_) return;
    const auto first = static_cast<size_t>(warp) * kLanes;
    for (size_t lane = 0; lane < kLanes; ++lane) {
        if (lanes >> lane & 1) fenced_[first + lane] = now;
    }
    fences_[size_t(warp)] = warps_[size_t(warp)];
    // Of its own warp a lane knows what it has met.
    const Meetings& meetings = meetings_[size_t(warp)];
    for (size_t other = 0; other < kLanes && first + other < size_t(threads_); ++other) {
        fences_[size_t(warp)][first + other] = meetings.all;
    }
}

void Races::copied(uint32_t copy, Knowledge& into) const {
    if (!enabled_) return;
    if (into.size() < size_t(threads_) + 1) into.resize(size_t(threads_) + 1);
    into[size_t(threads_)] = std::max(into[size_t(threads_)], copy);
}

}  // namespace emulator
