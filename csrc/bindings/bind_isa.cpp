#include <pybind11/stl.h>

#include "arrays.hpp"
#include "bindings.hpp"

namespace metaindex::bindings {

void register_isa(py::module_& module) {
    module.def(
        "features",
        [] {
            py::dict found;
            for (const Isa isa : kIsas) found[name(isa)] = py::make_tuple(feature(isa).ok, feature(isa).why);
            return found;
        },
        "Whether each instruction set can be used here, and why: {isa: (ok, why)}, least preferred first.");
    module.def(
        "serves",
        [](const std::string& isa, const std::string& codec) {
            const Codec which = codec_of(codec);
            const Feature verdict = serves(isa_of(isa, which), which);
            return py::make_tuple(verdict.ok, verdict.why);
        },
        py::arg("isa"), py::arg("codec"), "Whether the instruction set has a kernel for the codec here, and why.");
    module.def(
        "default_isa", [](const std::string& codec) { return name(default_isa(codec_of(codec))); }, py::arg("codec"),
        "The instruction set that serves the codec best here.");
    module.def(
        "kernel",
        [](const std::string& isa, const std::string& codec, int64_t lanes, int64_t dim) {
            const Codec which = codec_of(codec);
            return kernel_name(isa_of(isa, which), which, lanes, dim);
        },
        py::arg("isa"), py::arg("codec"), py::arg("lanes"), py::arg("dim"),
        "The name of the kernel that scores `lanes` query tokens of `dim` dimensions.");
}

}  // namespace metaindex::bindings
