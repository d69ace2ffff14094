// The host side of maxsim_scan and maxsim_gather: what a launch is told.
#include <limits>

#include "check.hpp"
#include "maxsim.cuh"

namespace metaindex::device {
namespace {

void launch(Work& work, bool gather, Stream stream) {
    work.row_bytes = static_cast<int32_t>(work.table.dim * itemsize(work.table.codec));
    work.tiles = static_cast<int64_t>(work.document_tiles) * work.groups * work.lists;
    if (work.tiles == 0) return;
    const auto on = static_cast<cudaStream_t>(stream);
    switch (work.table.codec) {
        case Codec::float32: return Launch<Float32Arithmetic>::run(work, gather, on);
        case Codec::float16: return Launch<Float16Arithmetic>::run(work, gather, on);
        case Codec::bfloat16: return Launch<BFloat16Arithmetic>::run(work, gather, on);
        case Codec::int8: return Launch<Int8Arithmetic>::run(work, gather, on);
    }
}

int32_t ceiling(int64_t count, int64_t size) {
    const int64_t tiles = (count + size - 1) / size;
    if (tiles > std::numeric_limits<int32_t>::max()) throw std::invalid_argument("maxsim: too many tiles for one launch");
    return static_cast<int32_t>(tiles);
}

Work common(const Table& table, const Queries& queries, int32_t r_c, const uint8_t* allow, const Output& out) {
    if (queries.tokens < 1) throw std::invalid_argument("queries: expected room for at least one token");
    Work work{};
    work.table = table;
    work.queries = queries;
    work.r_c = r_c;
    work.allow = allow;
    work.out = out;
    return work;
}

}  // namespace

void maxsim_scan(const Table& table, const Queries& queries, int32_t r_c, const Runs& runs, const uint8_t* allow,
                 const Output& out, Stream stream) {
    Work work = common(table, queries, r_c, allow, out);
    work.tile = choose_tile(table.codec, table.dim, queries.tokens, r_c, queries.batch);
    if (runs.size != work.tile.documents) throw std::invalid_argument("runs: expected runs of the tile's documents");
    work.runs = runs.runs;
    work.lists = 1;
    work.document_tiles = runs.count;
    work.groups = ceiling(queries.batch, work.tile.queries);
    launch(work, false, stream);
}

void maxsim_gather(const Table& table, const Queries& queries, int32_t r_c, const int64_t* candidates, int64_t count,
                   bool shared, const uint8_t* allow, const Output& out, Stream stream) {
    Work work = common(table, queries, r_c, allow, out);
    work.tile = choose_tile(table.codec, table.dim, queries.tokens, r_c, shared ? queries.batch : 1);
    work.candidates = candidates;
    work.count = count;
    work.document_tiles = ceiling(count, work.tile.documents);
    // Lists of their own: every tile has one query, and the lists follow one another.
    work.groups = shared ? ceiling(queries.batch, work.tile.queries) : 1;
    work.lists = shared ? 1 : queries.batch;
    launch(work, true, stream);
}

OnDevice::OnDevice(int device) {
    int current = 0;
    check(cudaGetDevice(&current));
    if (current == device) return;
    check(cudaSetDevice(device));
    before_ = current;
}

OnDevice::~OnDevice() {
    if (before_ >= 0) cudaSetDevice(before_);
}

}  // namespace metaindex::device
