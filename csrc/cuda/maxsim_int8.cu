#include "maxsim_launch.cuh"

namespace metaindex::device {

template struct Launch<Int8Arithmetic>;

}  // namespace metaindex::device
