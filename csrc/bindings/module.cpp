#include "bindings.hpp"
#include "gil.hpp"

PYBIND11_MODULE(_core, module) {
    using namespace metaindex::bindings;
    module.doc() = "The compiled kernels of metaindex. Its scorers, codecs and nested orders call them.";
    register_isa(module);
    register_levels(module);
    register_maxsim(module);
    register_topk(module);
    register_encode(module);
    register_nest(module);
    register_cuda(module);
    register_end_of_interpreter();
}
