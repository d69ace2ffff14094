#include <pybind11/stl.h>

#include <stdexcept>

#include "arrays.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "metaindex/nest.hpp"

namespace metaindex::bindings {
namespace {

Order order_of(const std::string& wanted) {
    std::string known;
    for (const Order order : kOrders) {
        if (wanted == name(order)) return order;
        known += (known.empty() ? "" : ", ") + std::string(name(order));
    }
    throw std::invalid_argument("order: expected one of " + known + ", got '" + wanted + "'");
}

void nest_all(const std::string& order, const py::sequence& tokens, const py::sequence& vectors, const py::sequence& places,
              uint64_t seed, const std::optional<std::string>& isa, int num_threads) {
    const Order which = order_of(order);
    const size_t number = tokens.size();
    if (vectors.size() != number || places.size() != number) {
        throw std::invalid_argument("vectors, places: expected one of each for each document");
    }
    std::vector<Array> arrays;
    arrays.reserve(3 * number);
    std::vector<Nesting> documents;
    documents.reserve(number);
    for (size_t each = 0; each < number; ++each) {
        const Array& from = arrays.emplace_back(tokens[each], Expected{"tokens", Number::float32, {-1, -1}});
        const int64_t count = from.shape(0), dim = from.shape(1);
        if (count < 1 || dim < 1) throw std::invalid_argument("tokens: expected at least one token of one dimension");
        const Array& to = arrays.emplace_back(vectors[each], Expected{"vectors", Number::float32, {-1, dim}, true});
        const int64_t size = to.shape(0);
        if (size < 1 || size > nested_size(which, count)) {
            throw std::invalid_argument("vectors: expected 1 to " + std::to_string(nested_size(which, count)) +
                                        " of them, got " + std::to_string(size));
        }
        const Array& at = arrays.emplace_back(places[each], Expected{"places", Number::int64, {size}, true});
        documents.push_back({from.data<const float>(), count, dim, to.data<float>(), at.data<int64_t>(), size});
    }
    const Run run{isa_of(isa, Codec::float32), threads_of(num_threads)};
    const WithoutGil without_gil;
    nest(documents, which, seed, run);
}

}  // namespace

void register_nest(py::module_& module) {
    module.def("nest", &nest_all, py::arg("order"), py::arg("tokens"), py::arg("vectors"), py::arg("places"),
               py::arg("seed") = 0, py::arg("isa") = py::none(), py::arg("num_threads") = 1,
               "Put documents, tokens float32 [t, d], into nested order: fills vectors float32 [k, d] and places int64 [k] of "
               "tokens, where -1 stands for what is none.\n\n"
               "The same bits for any instruction set and number of threads.");
    module.def(
        "nested_size", [](const std::string& order, int64_t count) { return nested_size(order_of(order), count); },
        py::arg("order"), py::arg("count"), "How many vectors the whole order of `count` tokens has.");
}

}  // namespace metaindex::bindings
