#include "nest_body.hpp"

namespace metaindex {

extern const NestKernels kNestAvx512 = NestBody<64, 8>::kernels();

}  // namespace metaindex
