#include <pybind11/stl.h>

#include <stdexcept>

#include "arrays.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "metaindex/encode.hpp"

namespace metaindex::bindings {
namespace {

template <class T>
TokenView<T> view(const Array& array) {
    return {array.data<T>(), array.stride(0), array.stride(1)};
}

void encode(const std::string& name, const py::object& tokens, const py::object& codes, const py::object& scales,
            const std::optional<std::string>& isa, int num_threads) {
    const Codec codec = codec_of(name);
    const Array from(tokens, {"tokens", Number::float32, {-1, -1, -1}, false, true});
    const TokenShape shape{from.shape(0), from.shape(1), from.shape(2)};
    const Array to(codes, {"codes", number_of(codec), {shape.outer, shape.inner, shape.dim}, true, true});
    std::vector<Array> scale;
    if (codec == Codec::int8) {
        // One number per token: a last axis of its own would say so, but callers have [outer, inner].
        scale.emplace_back(scales, Expected{"scales", Number::float32, {shape.outer, shape.inner}, true, true});
    }
    // Every instruction set has encoders for every codec, so the best of the machine serves.
    const Isa which = isa ? isa_of(isa, codec) : default_isa(Codec::float32);
    const Run run{which, threads_of(num_threads)};
    const WithoutGil without_gil;
    switch (codec) {
        case Codec::float32: throw std::invalid_argument("codec: float32 is kept as it is");
        case Codec::float16: return encode_float16(view<const float>(from), shape, view<uint16_t>(to), run);
        case Codec::bfloat16: return encode_bfloat16(view<const float>(from), shape, view<uint16_t>(to), run);
        case Codec::int8: return encode_int8(view<const float>(from), shape, view<int8_t>(to), view<float>(scale[0]), run);
    }
}

}  // namespace

void register_encode(py::module_& module) {
    module.def("encode", &encode, py::arg("codec"), py::arg("tokens"), py::arg("codes"), py::arg("scales") = py::none(),
               py::arg("isa") = py::none(), py::arg("num_threads") = 1,
               "Encode tokens float32 [n, m, d] into codes [n, m, d] and, for int8, scales float32 [n, m].\n\n"
               "The first two axes may have any strides. Bit for bit what the numpy codecs give.");
}

}  // namespace metaindex::bindings
