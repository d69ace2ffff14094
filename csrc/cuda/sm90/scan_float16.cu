#include "launch.cuh"

namespace metaindex::device::sm90 {

template cudaError_t launch<Codec::float16>(const Scan&, const CUtensorMap&, cudaStream_t);

}  // namespace metaindex::device::sm90
