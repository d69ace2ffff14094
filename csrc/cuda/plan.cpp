#include <algorithm>

#include "launch.hpp"

namespace metaindex::device {
namespace {

// Levels start at multiples of 16 bytes; what their rows, and those of the queries, are multiples of is the widest copy.
int32_t widest_copy(int32_t row_bytes, const void* queries) {
    int32_t width = kPieceBytes;
    while (row_bytes % width != 0 || reinterpret_cast<uintptr_t>(queries) % static_cast<uintptr_t>(width) != 0) width /= 2;
    return width;
}

}  // namespace

MaxSimLaunch plan_maxsim(const Table& table, const Queries& queries, int32_t r_c, const Documents& documents,
                         const uint8_t* allow, const Output& output, const Card& card) {
    r_c = std::min(r_c, table.tokens);
    const TileChoice choice =
        choose_tile({table.codec, table.dim, queries.batch, queries.tokens, r_c, documents.count, documents.own_lists}, card);
    const auto row_bytes = static_cast<int32_t>(table.dim * itemsize(table.codec));
    MaxSim p{};
    p.table = table;
    p.queries = queries;
    p.output = output;
    p.allow = allow;
    p.documents = documents;
    p.r_c = r_c;
    p.row_bytes = row_bytes;
    p.copy_bytes = widest_copy(row_bytes, queries.codes);
    p.rows = {choice.document_bits, choice.token_bits};
    p.columns = {choice.queries, choice.query_tiles, choice.passes};
    p.column_blocks = choice.column_blocks;
    p.groups = choice.groups;
    p.blocks = choice.blocks;
    p.units = choice.units;
    const bool stream = choice.path == TileChoice::Path::stream;
    const Kernel kernel = !stream                    ? Kernel::tile
                          : choice.kernel_tiles == 2 ? Kernel::stream_2
                          : choice.kernel_tiles == 4 ? Kernel::stream_4
                                                     : Kernel::stream_8;
    const auto blocks = static_cast<uint32_t>(choice.blocks) * static_cast<uint32_t>(stream ? choice.column_blocks : 1);
    return {{kernel, table.codec, blocks, 1, 32 * static_cast<uint32_t>(choice.warps), choice.shared_bytes}, p};
}

}  // namespace metaindex::device
