#include <string>

#include "maxsim_scan_sm90.hpp"
#include "metaindex/cuda.hpp"

namespace metaindex::device {
namespace {

std::string describe(const sm90::Tiling& t) {
    std::string text = "path=sm90";
    const auto add = [&](const char* name, int64_t value) { text += std::string(" ") + name + "=" + std::to_string(value); };
    add("documents", t.documents.documents());
    add("document_blocks", t.documents.blocks);
    add("queries", t.tile_queries());
    add("row_blocks", t.row_blocks);
    add("alternate", t.alternate);
    add("resident", t.resident);
    add("held", t.held);
    add("tiles", t.tiles);
    add("wave", t.wave);
    add("stages", t.stages);
    add("shared_bytes", t.shared_bytes);
    return text;
}

}  // namespace

// Tensor cores pay where arithmetic takes as long as reading the documents. Up to the query tokens that documents can be
// streamed past, it doesn't, and a stream has neither barriers nor columns that no query fills. The losing alternative: a
// number of query tokens, which says less, since wide vectors can't be streamed past as many as narrow ones.
ScanChoice choose_scan(const MaxSimShape& shape, bool resident, const Card& card) {
    const TileChoice portable = choose_tile(shape, card);
    const Feature served =
        serves_maxsim_scan_sm90({shape.codec, shape.dim, shape.r_c, shape.tokens, card.capability, resident});
    if (!served.ok) return {ScanPath::portable, describe(portable) + "; not sm90: " + served.why};
    if (portable.path == TileChoice::Path::stream) return {ScanPath::portable, describe(portable)};
    const sm90::Tiling tiles =
        sm90::tiling({shape.codec, shape.dim, shape.r_c, shape.batch, shape.tokens, card.multiprocessors});
    return {ScanPath::sm90, describe(tiles) + ": " + portable.why};
}

}  // namespace metaindex::device
