#include "maxsim_launch.cuh"

namespace metaindex::device {

template struct Launch<Float16Arithmetic>;

}  // namespace metaindex::device
