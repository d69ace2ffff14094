#include "maxsim_launch.cuh"

namespace metaindex::device {

template struct Launch<BFloat16Arithmetic>;

}  // namespace metaindex::device
