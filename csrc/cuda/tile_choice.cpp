#include <algorithm>
#include <stdexcept>

#include "launch.hpp"
#include "layout.hpp"
#include "metaindex/cuda.hpp"

namespace metaindex::device {
namespace {

constexpr int32_t kRegisters = 64 * 1024;            // of a multiprocessor
constexpr int32_t kBlockReserve = 1024;              // bytes of shared memory that each block costs besides its own
constexpr int32_t kThreadsPerMultiprocessor = 1536;  // the least of the architectures served

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int32_t resident_blocks(const Card& card, int32_t threads, int32_t registers, int32_t shared_bytes) {
    const int32_t by_registers = kRegisters / (threads * registers);
    const int32_t by_shared = (card.shared_bytes + kBlockReserve) / (shared_bytes + kBlockReserve);
    return std::max(1, std::min({by_registers, by_shared, kThreadsPerMultiprocessor / threads}));
}

// Enough of what StreamLayout looks at.
MaxSim stream_parameters(const MaxSimShape& shape, const TileChoice& choice) {
    MaxSim p{};
    p.table.codec = shape.codec;
    p.queries.tokens = shape.tokens;
    p.row_bytes = static_cast<int32_t>(shape.dim * itemsize(shape.codec));
    p.columns = {choice.queries, choice.query_tiles, choice.passes};
    return p;
}

// Blocks of as many warps as keep the most of them on a multiprocessor: what they have under way hides the memory's latency.
bool fit_stream(const MaxSimShape& shape, const Card& card, TileChoice& choice) {
    int32_t most = 0;
    for (const int32_t warps : {kStreamMostWarps, kStreamMostWarps / 2}) {
        const StreamLayout layout = StreamLayout::of(stream_parameters(shape, choice), warps);
        if (layout.bytes > card.shared_bytes) continue;
        const int32_t blocks = resident_blocks(card, 32 * warps, stream_registers(shape.codec, choice.kernel_tiles),
                                               static_cast<int32_t>(layout.bytes));
        if (blocks * warps <= most) continue;  // of equal ones the fewer blocks: each loads the queries
        most = blocks * warps;
        choice.warps = warps;
        choice.shared_bytes = static_cast<int32_t>(layout.bytes);
        choice.blocks =
            static_cast<int32_t>(std::max<int64_t>(1, int64_t{blocks} * card.multiprocessors / choice.column_blocks));
    }
    return most > 0;
}

// A warp's 32 rows are shared among documents. The less a document has of them, the fewer are idle where it has few tokens; the
// more, the more warps take part where documents are few, and the longer are the stretches of memory that are read at once, for
// neighbouring tokens lie side by side. In rows that a warp reads: the rounds of all warps times what each takes.
void share_rows(const MaxSimShape& shape, TileChoice& choice) {
    const int64_t row_bytes = shape.dim * itemsize(shape.codec), warps = int64_t{choice.blocks} * choice.warps;
    const int64_t unit_rows = std::max<int64_t>(1, 1024 / row_bytes);  // to look up documents, and to sum up
    constexpr int64_t kLeastRows = 8;  // of a step: with fewer, instructions take longer than the memory
    constexpr int kMostBits = 5;
    int64_t costs[kMostBits + 1];
    for (int bits = 0; bits <= kMostBits; ++bits) {
        const int64_t documents = int64_t{1} << bits, steps = ceil_div(shape.r_c, kStreamRows / documents);
        const int64_t rows = std::max(documents * shape.r_c, steps * kLeastRows) + unit_rows;
        costs[bits] = ceil_div(ceil_div(shape.documents, documents), warps) * rows;
    }
    const int64_t least = *std::min_element(costs, costs + kMostBits + 1);
    int bits = 0;
    while (costs[bits] > least + least / 32) ++bits;
    choice.document_bits = bits;
    choice.token_bits = kMostBits - bits;
    choice.units = ceil_div(shape.documents, int64_t{1} << bits);
}

bool choose_stream(const MaxSimShape& shape, const Card& card, TileChoice& choice) {
    const int32_t most = shape.codec == Codec::float32 ? 4 : 8;  // float32 holds each column in a register per row
    const int32_t together = shape.own_lists ? 1 : shape.batch;
    const int64_t tiles = ceil_div(shape.tokens, kTileColumns) * together;
    if (tiles > most) {
        choice.why = shape.own_lists ? "queries have too many tokens to stream documents past them"
                                     : "documents are read once for more query tokens than they can be streamed past";
        return false;
    }
    const ColumnMap columns = column_map(shape.tokens, together, most);
    choice.path = TileChoice::Path::stream;
    choice.why = "few query tokens: bound by memory";
    choice.kernel_tiles = tiles <= 2 ? 2 : tiles <= 4 ? 4 : 8;
    choice.queries = columns.queries;
    choice.query_tiles = columns.query_tiles;
    choice.passes = 1;
    choice.groups = 1;
    choice.column_blocks = shape.own_lists ? shape.batch : 1;
    if (!fit_stream(shape, card, choice)) {
        choice.why = "queries don't fit into shared memory";
        return false;
    }
    share_rows(shape, choice);
    choice.blocks = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(choice.blocks, choice.units)));
    return true;
}

void choose_tiles(const MaxSimShape& shape, const Card& card, TileChoice& choice) {
    const int32_t together = shape.own_lists ? 1 : shape.batch;
    const ColumnMap columns = column_map(shape.tokens, together, ColumnMap::kMostTiles);
    choice.path = TileChoice::Path::tile;
    choice.kernel_tiles = ColumnMap::kMostTiles;
    choice.queries = columns.queries;
    choice.query_tiles = columns.query_tiles;
    choice.passes = columns.passes;
    choice.groups = static_cast<int32_t>(std::min<int64_t>(2, ceil_div(together, columns.queries)));
    choice.column_blocks =
        static_cast<int32_t>(shape.own_lists ? shape.batch : ceil_div(shape.batch, choice.groups * columns.queries));
    // Eight rows of a thread are eight tokens of one document, or fewer of more where a document has no more than four.
    choice.token_bits = shape.r_c > 4 ? 3 : shape.r_c > 2 ? 2 : shape.r_c > 1 ? 1 : 0;
    choice.document_bits = 6 - choice.token_bits;
    choice.units = ceil_div(shape.documents, int64_t{kTileRowWarps} << choice.document_bits);
    choice.warps = kTileThreads / 32;
    choice.shared_bytes = sizeof(TileLayout);
    const int32_t resident = std::min(2, resident_blocks(card, kTileThreads, 255, choice.shared_bytes));
    choice.blocks = static_cast<int32_t>(
        std::max<int64_t>(1, std::min(choice.units * choice.column_blocks, int64_t{resident} * card.multiprocessors)));
}

}  // namespace

TileChoice choose_tile(const MaxSimShape& shape, const Card& card) {
    if (shape.dim < 1 || shape.batch < 1 || shape.tokens < 1 || shape.r_c < 1 || shape.documents < 0) {
        throw std::invalid_argument("choose_tile: expected shapes of at least 1");
    }
    TileChoice choice{};
    if (!choose_stream(shape, card, choice)) choose_tiles(shape, card, choice);
    return choice;
}

std::string describe(const TileChoice& c) {
    std::string text = std::string("path=") + (c.path == TileChoice::Path::stream ? "stream" : "tile");
    const auto add = [&](const char* name, int64_t value) { text += std::string(" ") + name + "=" + std::to_string(value); };
    add("documents", int64_t{1} << c.document_bits);
    add("tokens", int64_t{1} << c.token_bits);
    add("queries", c.queries);
    add("query_tiles", c.query_tiles);
    add("kernel_tiles", c.kernel_tiles);
    add("passes", c.passes);
    add("groups", c.groups);
    add("column_blocks", c.column_blocks);
    add("units", c.units);
    add("warps", c.warps);
    add("blocks", c.blocks);
    add("shared_bytes", c.shared_bytes);
    return text + ": " + c.why;
}

}  // namespace metaindex::device
