// The bindings of the CUDA operations as a module of their own, so that tests can link them to what stands in for the runtime.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "arrays.hpp"
#include "bindings.hpp"

namespace metaindex::bindings {

Codec codec_of(const std::string& name) {
    if (name == "float32") return Codec::float32;
    if (name == "float16") return Codec::float16;
    if (name == "bfloat16") return Codec::bfloat16;
    if (name == "int8") return Codec::int8;
    throw std::invalid_argument("codec: got '" + name + "'");
}

}  // namespace metaindex::bindings

PYBIND11_MODULE(emulated_cuda, module) { metaindex::bindings::register_cuda(module); }
