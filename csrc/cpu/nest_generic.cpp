#include "nest_body.hpp"

namespace metaindex {

extern const NestKernels kNestGeneric = NestBody<16, 4>::kernels();

}  // namespace metaindex
