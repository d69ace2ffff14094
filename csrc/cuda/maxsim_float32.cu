#include "maxsim_launch.cuh"

namespace metaindex::device {

template struct Launch<Float32Arithmetic>;

}  // namespace metaindex::device
