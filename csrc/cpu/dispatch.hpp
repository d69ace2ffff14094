#pragma once

#include "metaindex/isa.hpp"
#include "tile.hpp"

namespace metaindex {

// The kernel for `lanes` query tokens. Throws std::invalid_argument where the instruction set does not serve the codec here.
const TileKernel& kernel_for(Isa isa, Codec codec, int64_t lanes);

}  // namespace metaindex
