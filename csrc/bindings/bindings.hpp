#pragma once

#include <pybind11/pybind11.h>

namespace metaindex::bindings {

void register_isa(pybind11::module_& module);
void register_levels(pybind11::module_& module);
void register_maxsim(pybind11::module_& module);
void register_topk(pybind11::module_& module);
void register_encode(pybind11::module_& module);
void register_nest(pybind11::module_& module);
void register_cuda(pybind11::module_& module);

}  // namespace metaindex::bindings
