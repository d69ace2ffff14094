#include "nest_body.hpp"

namespace metaindex {

extern const NestKernels kNestAvx2 = NestBody<32, 4>::kernels();

}  // namespace metaindex
