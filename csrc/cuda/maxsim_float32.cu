#include "maxsim_kernels.cuh"

METAINDEX_STREAM_KERNEL(float32, 2, false, metaindex::device::FloatStream<2>)
METAINDEX_STREAM_KERNEL(float32, 4, false, metaindex::device::FloatStream<4>)
METAINDEX_TILE_KERNEL(float32, false, metaindex::device::FloatTile)
