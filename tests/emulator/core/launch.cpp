#include "lanes.hpp"
#include "products.hpp"

namespace emulator {

namespace {

void check(const Launch& launch) {
    const uint64_t threads = launch.block.count();
    require(threads >= 1 && threads <= 1024, "a block has 1 to 1024 threads, not ", threads);
    const auto most = static_cast<uint64_t>(launch.kernel.most_threads);
    require(most == 0 || threads <= most, "the kernel was compiled for blocks of at most ", most, " threads, not ", threads);
    require(launch.grid.count() >= 1 && launch.grid.y <= 65535 && launch.grid.z <= 65535, "no such grid");
    constexpr uint32_t kMostShared = 227 * 1024;
    const uint32_t shared = launch.kernel.static_shared + launch.dynamic_shared;
    require(shared <= kMostShared, "a block has at most ", kMostShared, " bytes of shared memory, not ", shared);
}

}  // namespace

void run(Launch& launch) {
    check(launch);
    const uint64_t count = launch.grid.count();
    uint64_t next = 0;
    std::vector<std::unique_ptr<Block>> resident;
    for (;;) {
        while (next < count && resident.size() < static_cast<size_t>(launch.options.resident)) {
            const uint64_t x = next % launch.grid.x, y = next / launch.grid.x % launch.grid.y,
                           z = next / launch.grid.x / launch.grid.y;
            resident.push_back(std::make_unique<Block>(
                launch, Dim3{static_cast<uint32_t>(x), static_cast<uint32_t>(y), static_cast<uint32_t>(z)}));
            ++next;
        }
        if (resident.empty()) return;
        bool stuck = true;
        for (size_t i = 0; i < resident.size();) {
            if (resident[i]->step()) {
                stuck &= resident[i]->stuck();
                ++i;
            } else {
                stuck = false;
                resident.erase(resident.begin() + static_cast<std::ptrdiff_t>(i));
            }
        }
        if (!stuck) continue;
        std::string text = "deadlock: no thread can go on";
        for (const auto& block : resident) {
            text += "\n block " + std::to_string(block->index.x) + "," + std::to_string(block->index.y) + "," +
                    std::to_string(block->index.z) + block->where();
        }
        throw Fault(text);
    }
}

}  // namespace emulator
