#include "arrays.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "metaindex/topk.hpp"

namespace metaindex::bindings {

void register_topk(py::module_& module) {
    module.def(
        "topk",
        [](const py::object& scores, const py::object& sequence, const py::object& out_scores, const py::object& out_columns,
           int num_threads) {
            const Array from(scores, {"scores", Number::float32, {-1, -1}});
            const int64_t batch = from.shape(0), count = from.shape(1);
            const Array best(out_scores, {"out_scores", Number::float32, {batch, -1}, true});
            const Array columns(out_columns, {"out_columns", Number::int64, {batch, best.shape(1)}, true});
            std::vector<Array> order;
            if (!sequence.is_none()) order.emplace_back(sequence, Expected{"sequence", Number::int64, {count}});
            const int threads = threads_of(num_threads);
            const WithoutGil without_gil;
            topk(from.data<const float>(), batch, count, order.empty() ? nullptr : order[0].data<const int64_t>(),
                 best.shape(1), best.data<float>(), columns.data<int64_t>(), threads);
        },
        py::arg("scores"), py::arg("sequence"), py::arg("out_scores"), py::arg("out_columns"), py::arg("num_threads") = 1,
        "The k best columns of scores float32 [B, N], best first: fills out_scores float32 and out_columns int64, both [B, "
        "k].\n\n"
        "Equal scores rank by sequence int64 [N], or by column where it is None; -inf and NaN are left out.");
}

}  // namespace metaindex::bindings
