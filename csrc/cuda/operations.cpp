// The host side of the operations: a question becomes launches.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "launch.hpp"
#include "selection.hpp"

namespace metaindex::device {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class... Parameters>
void start(const Launch& launch, Stream stream, const Parameters&... parameters) {
    const void* const list[] = {&parameters...};
    run(launch, list, stream);
}

void maxsim(const Table& table, const Queries& queries, int32_t r_c, const Documents& documents, const uint8_t* allow,
            const Output& output, Stream stream) {
    if (documents.count == 0 || queries.batch == 0) return;
    const MaxSimLaunch planned = plan_maxsim(table, queries, r_c, documents, allow, output, current_card());
    start(planned.launch, stream, planned.parameters);
}

int64_t slices_of(int64_t columns) { return std::max<int64_t>(1, ceil_div(columns, kSliceKeys)); }

void topk_by_slices(const int64_t* keys, const int32_t* counts, int64_t batch, int64_t columns, int32_t k, std::byte* scratch,
                    int64_t* best, Stream stream) {
    auto* room = reinterpret_cast<int64_t*>(scratch);
    int32_t places = 2;
    while (places < k) places *= 2;
    for (bool done = false; !done;) {
        const auto slices = static_cast<int32_t>(slices_of(columns));
        done = slices == 1;
        const TopKSlices p{keys, counts, done ? best : room, columns, slices, k};
        const Launch launch{Kernel::topk_slices,
                            {},
                            static_cast<uint32_t>(batch * slices),
                            1,
                            kTopKThreads,
                            done ? places * static_cast<int32_t>(sizeof(uint64_t)) : 0};
        start(launch, stream, p);
        keys = room;
        counts = nullptr;
        columns = int64_t{slices} * k;
        room += batch * columns;
    }
}

void topk_by_digits(const TopK& p, Stream stream) {
    const auto queries = static_cast<uint32_t>(p.batch);
    // Enough threads for the memory, and none without keys.
    const int64_t most = std::max<int64_t>(1, 2 * current_card().multiprocessors / p.batch);
    const auto blocks = static_cast<uint32_t>(std::max<int64_t>(1, std::min(most, ceil_div(p.columns, kSliceKeys))));
    start({Kernel::topk_start, {}, queries, 1, kTopKThreads, 0}, stream, p);
    for (int number = 0; number < kDigits; ++number) {
        start({Kernel::topk_count, {}, blocks, queries, kTopKThreads, 0}, stream, p, number);
    }
    start({Kernel::topk_collect, {}, blocks, queries, kTopKThreads, 0}, stream, p);
    start({Kernel::topk_sort, {}, static_cast<uint32_t>(ceil_div(p.k, kSortedRun)), queries, kTopKThreads, 0}, stream, p);
    const auto tiles = static_cast<uint32_t>(ceil_div(p.k, kMergeThreads * kMergeItems));
    int from = 0;
    for (int64_t run = kSortedRun; run < p.k; run *= 2, from = 1 - from) {
        start({Kernel::topk_merge, {}, tiles, queries, kMergeThreads, 0}, stream, p, run, from);
    }
}

}  // namespace

void maxsim_scan(const Table& table, const Queries& queries, int32_t r_c, const Runs& runs, const uint8_t* allow,
                 const Output& output, Stream stream) {
    if (runs.size != kRunRows) throw std::invalid_argument("runs: expected runs of " + std::to_string(kRunRows) + " rows");
    int32_t shift = 0;
    while (1 << shift < kRunRows) ++shift;
    maxsim(table, queries, r_c, {runs.runs, nullptr, int64_t{runs.count} << shift, shift, false}, allow, output, stream);
}

void maxsim_gather(const Table& table, const Queries& queries, int32_t r_c, const Candidates& candidates, const uint8_t* allow,
                   const Output& output, Stream stream) {
    if (candidates.lists != 1 && candidates.lists != queries.batch) {
        throw std::invalid_argument("candidates: expected 1 list or " + std::to_string(queries.batch) + ", got " +
                                    std::to_string(candidates.lists));
    }
    const Documents documents{nullptr, candidates.rows, candidates.count, 0, candidates.lists > 1};
    maxsim(table, queries, r_c, documents, allow, output, stream);
}

int64_t topk_scratch_bytes(int64_t batch, int64_t columns, int64_t k) {
    if (k > kSliceMostK) return SelectionScratch::bytes(std::min(batch, kMostQueries), k);
    int64_t keys = 0;
    for (int64_t slices = slices_of(columns); slices > 1; slices = slices_of(slices * k)) keys += batch * slices * k;
    return keys * static_cast<int64_t>(sizeof(int64_t));
}

void topk(const int64_t* keys, const int32_t* counts, int64_t batch, int64_t columns, int64_t k, std::byte* scratch,
          int64_t* best, Stream stream) {
    if (batch < 1 || k < 1) return;
    if (k <= kSliceMostK) {
        topk_by_slices(keys, counts, batch, columns, static_cast<int32_t>(k), scratch, best, stream);
        return;
    }
    for (int64_t first = 0; first < batch; first += kMostQueries) {
        const auto queries = static_cast<int32_t>(std::min(kMostQueries, batch - first));
        topk_by_digits({keys + first * columns, counts == nullptr ? nullptr : counts + first, best + first * k, queries,
                        columns, k, scratch},
                       stream);
    }
}

}  // namespace metaindex::device
