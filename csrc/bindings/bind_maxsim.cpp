#include <pybind11/stl.h>

#include <stdexcept>

#include "bindings.hpp"
#include "gil.hpp"
#include "levels_array.hpp"
#include "metaindex/maxsim_gather.hpp"
#include "metaindex/maxsim_scan.hpp"

namespace metaindex::bindings {
namespace {

// The arrays of a call, checked against one another.
struct Call {
    Call(const OwnedLevelTable& owned, const py::object& codes, const py::object& scales, const py::object& lengths,
         int64_t r_q, int64_t r_c, const py::object& answer_scores, const py::object& answer_rows, const py::object& allow,
         const std::optional<std::string>& isa, int num_threads)
        : table(owned.table), budget{r_q, r_c}, run{isa_of(isa, table.codec), threads_of(num_threads)} {
        if (r_q < 1 || r_c < 1) throw std::invalid_argument("budget: expected r_q and r_c of at least 1");
        const Array& code = keep(codes, {"codes", number_of(table.codec), {-1, -1, table.dim}});
        const int64_t batch = code.shape(0), tokens = code.shape(1);
        queries = {code.data<const std::byte>(), nullptr, nullptr, batch, tokens};
        queries.lengths = keep(lengths, {"lengths", Number::int32, {batch}}).data<const int32_t>();
        for (int64_t b = 0; b < batch; ++b) {
            if (queries.lengths[b] < 0 || queries.lengths[b] > tokens) {
                throw std::invalid_argument("lengths: expected 0.." + std::to_string(tokens) + ", got " +
                                            std::to_string(queries.lengths[b]));
            }
        }
        if (table.codec == Codec::int8) {
            queries.scales = keep(scales, {"scales", Number::float32, {batch, tokens}}).data<const float>();
        }
        const Array& to = keep(answer_scores, {"scores", Number::float32, {batch, -1}, true});
        answer = {to.data<float>(), nullptr, to.shape(1)};
        if (!answer_rows.is_none()) {
            answer.rows = keep(answer_rows, {"rows", Number::int64, {batch, answer.width}, true}).data<int64_t>();
        }
        if (!allow.is_none()) allowed = keep(allow, {"allow", Number::boolean, {table.rows()}}).data<const uint8_t>();
    }

    const Array& keep(const py::object& object, const Expected& expected) {
        arrays.reserve(8);  // references into it stay good
        return arrays.emplace_back(object, expected);
    }

    const LevelTable& table;
    Budget budget;
    Run run;
    std::vector<Array> arrays;
    QueryBatch queries{};
    Answer answer{};
    const uint8_t* allowed = nullptr;
};

void require_width(const Call& call, int64_t width) {
    if (!call.answer.rows && call.answer.width != width) {
        throw std::invalid_argument("scores: expected " + std::to_string(width) + " columns, got " +
                                    std::to_string(call.answer.width));
    }
}

void scan(const OwnedLevelTable& table, const py::object& codes, const py::object& scales, const py::object& lengths,
          int64_t r_q, int64_t r_c, const py::object& answer_scores, const py::object& answer_rows, const py::object& allow,
          const std::optional<std::string>& isa, int num_threads) {
    const Call call(table, codes, scales, lengths, r_q, r_c, answer_scores, answer_rows, allow, isa, num_threads);
    require_width(call, call.table.rows());
    const WithoutGil without_gil;
    maxsim_scan(call.table, call.queries, call.budget, call.allowed, call.answer, call.run);
}

void gather(const OwnedLevelTable& table, const py::object& codes, const py::object& scales, const py::object& lengths,
            int64_t r_q, int64_t r_c, const py::object& candidates, const py::object& answer_scores,
            const py::object& answer_rows, const py::object& allow, const std::optional<std::string>& isa, int num_threads) {
    Call call(table, codes, scales, lengths, r_q, r_c, answer_scores, answer_rows, allow, isa, num_threads);
    const Array& listed = call.keep(candidates, {"candidates", Number::int64, {-1, -1}});
    if (listed.shape(0) != 1 && listed.shape(0) != call.queries.batch) {
        throw std::invalid_argument("candidates: expected 1 list or " + std::to_string(call.queries.batch) + ", got " +
                                    std::to_string(listed.shape(0)));
    }
    require_width(call, listed.shape(1));
    const Candidates rows{listed.data<const int64_t>(), listed.shape(0), listed.shape(1)};
    const WithoutGil without_gil;
    maxsim_gather(call.table, call.queries, call.budget, rows, call.allowed, call.answer, call.run);
}

}  // namespace

void register_maxsim(py::module_& module) {
    module.def("maxsim_scan", &scan, py::arg("table"), py::arg("codes"), py::arg("scales"), py::arg("lengths"), py::arg("r_q"),
               py::arg("r_c"), py::arg("out_scores"), py::arg("out_rows") = py::none(), py::arg("allow") = py::none(),
               py::arg("isa") = py::none(), py::arg("num_threads") = 1,
               "Score queries, codes [B, R, d] with scales [B, R] and lengths int32 [B], against every document.\n\n"
               "Fills out_scores float32 [B, rows]; with out_rows int64 [B, k], the k best of each query instead.");
    module.def("maxsim_gather", &gather, py::arg("table"), py::arg("codes"), py::arg("scales"), py::arg("lengths"),
               py::arg("r_q"), py::arg("r_c"), py::arg("candidates"), py::arg("out_scores"), py::arg("out_rows") = py::none(),
               py::arg("allow") = py::none(), py::arg("isa") = py::none(), py::arg("num_threads") = 1,
               "Score queries against candidates int64 [B, C] or [1, C]; -1 is none.\n\n"
               "Fills out_scores float32 [B, C]; with out_rows int64 [B, k], the k best distinct ones instead.");
}

}  // namespace metaindex::bindings
