#include <algorithm>
#include <stdexcept>

#include "geometry.hpp"
#include "metaindex/cuda.hpp"
#include "metaindex/levels.hpp"

namespace metaindex::device {
namespace {

int32_t power_of_two(int32_t least) {
    int32_t found = 1;
    while (found < least) found *= 2;
    return found;
}

}  // namespace

TileChoice choose_tile(Codec codec, int32_t dim, int32_t r_q, int32_t r_c, int32_t together) {
    if (dim < 1 || r_q < 0 || r_c < 1 || together < 1) throw std::invalid_argument("choose_tile: shapes start at 1");
    TileChoice tile{};
    const int64_t wanted = static_cast<int64_t>(std::max(r_q, 1)) * together;
    // Few columns: documents are read once from memory and that takes all the time, so what is left of a tile is free, and
    // small tiles leave room for many loads under way. Many columns: each document tile is multiplied with more of them per
    // load. Loads of single numbers take all the time themselves, and more registers than 128 columns leave.
    tile.wide_loads = dim * itemsize(codec) % 16 == 0;
    tile.columns = wanted <= 16 ? 16 : wanted <= 32 || !tile.wide_loads ? 32 : 128;
    tile.queries = std::max(1, std::min(together, tile.columns / std::max(r_q, 1)));
    tile.passes = (std::max(r_q, 1) + tile.columns - 1) / tile.columns;
    // A document's tokens are padded to a power of two; with 128 columns to at least 4, or its maxima would not fit beside the
    // ring of loads.
    tile.tokens = std::min(kRows, std::max(power_of_two(r_c), tile.columns == 128 ? 4 : 1));
    tile.documents = kRows / tile.tokens;
    tile.token_blocks = (r_c + tile.tokens - 1) / tile.tokens;
    // A ring of 4 x 18 or 20 KB lets two blocks share a multiprocessor of sm_80 and three one of sm_90; with 128 columns one
    // stage is 32 KB, and three of them two blocks on sm_90.
    tile.stages = tile.columns == 128 ? 3 : 4;
    const int32_t stage = (kRows + tile.columns) * kChunkBytes;
    const int32_t maxima = kRows / folded(tile.tokens) * tile.columns * 4;
    tile.shared_bytes = tile.stages * stage + maxima;
    return tile;
}

std::string describe(const TileChoice& t) {
    return std::to_string(t.documents) + " documents x " + std::to_string(t.tokens) + " tokens by " +
           std::to_string(t.columns) + " columns of " + std::to_string(t.queries) + (t.queries == 1 ? " query" : " queries") +
           ", " + std::to_string(t.token_blocks) + " token blocks, " + std::to_string(t.passes) + " passes, " +
           std::to_string(t.stages) + " stages, " + std::to_string(t.shared_bytes) + " bytes shared, " +
           (t.wide_loads ? "16-byte" : "single") + " loads";
}

}  // namespace metaindex::device
