#include "launch.cuh"

namespace metaindex::device::sm90 {

template cudaError_t launch<Codec::int8>(const Scan&, const CUtensorMap&, cudaStream_t);

}  // namespace metaindex::device::sm90
