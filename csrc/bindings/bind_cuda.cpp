#include <pybind11/stl.h>

#include "arrays.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "metaindex/cuda.hpp"

namespace metaindex::bindings {
namespace {

using Address = std::uintptr_t;  // on the device, or 0 for none

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

device::Output output(Address scores, int64_t columns, Address keys, Address counts, Address thresholds, int64_t capacity) {
    if ((scores == 0) == (keys == 0)) throw std::invalid_argument("out: expected scores or hits, one of them");
    return {at<float>(scores), columns, {at<int64_t>(keys), at<int32_t>(counts), at<const int64_t>(thresholds), capacity}};
}

device::Table table(const std::string& codec, const py::dict& fields) {
    device::Table found{};
    const auto address = [&](const char* name) { return fields[name].cast<Address>(); };
    found.codes = at<const int64_t>(address("codes"));
    found.scales = at<const int64_t>(address("scales"));
    found.first_rows = at<const int64_t>(address("first_rows"));
    found.lengths = at<const int32_t>(address("lengths"));
    found.starts = at<const int32_t>(address("starts"));
    found.widths = at<const int32_t>(address("widths"));
    found.token_levels = at<const int32_t>(address("token_levels"));
    found.places = at<const int32_t>(address("places"));
    found.segments = fields["segments"].cast<int32_t>();
    found.levels = fields["levels"].cast<int32_t>();
    found.tokens = fields["tokens"].cast<int32_t>();
    found.dim = fields["dim"].cast<int32_t>();
    found.rows = fields["rows"].cast<int64_t>();
    found.full = fields["full"].cast<bool>();
    found.codec = codec_of(codec);
    if ((found.scales != nullptr) != (found.codec == Codec::int8)) {
        throw std::invalid_argument("scales: expected addresses for int8 and for nothing else");
    }
    return found;
}

}  // namespace

void register_cuda(py::module_& module) {
    module.def(
        "cuda_tile",
        [](const std::string& codec, int32_t dim, int32_t r_q, int32_t r_c, int32_t together) {
            const device::TileChoice tile = device::choose_tile(codec_of(codec), dim, r_q, r_c, together);
            return py::make_tuple(tile.documents, device::describe(tile));
        },
        py::arg("codec"), py::arg("dim"), py::arg("r_q"), py::arg("r_c"), py::arg("together"),
        "How many documents a tile of the CUDA kernels has, and the whole choice as text.");
    // The plain metaclass, as the stub says: nobody derives from these classes.
    const py::metaclass plain(reinterpret_cast<PyObject*>(&PyType_Type));
    py::class_<device::Table>(module, "DeviceTable", plain, "Addresses on a GPU, see metaindex.device.table.")
        .def(py::init(&table), py::arg("codec"), py::arg("fields"));
    module.def(
        "cuda_maxsim_scan",
        [](const device::Table& on, const device::Queries& queries, int32_t r_c, Address runs, int32_t count, int32_t size,
           Address allow, Address scores, int64_t columns, Address keys, Address counts, Address thresholds, int64_t capacity,
           int device, Address stream) {
            const auto out = output(scores, columns, keys, counts, thresholds, capacity);
            const WithoutGil without_gil;
            const device::OnDevice on_device(device);
            device::maxsim_scan(on, queries, r_c, {at<const int32_t>(runs), count, size}, at<const uint8_t>(allow), out,
                                at<void>(stream));
        },
        py::arg("table"), py::arg("queries"), py::arg("r_c"), py::arg("runs"), py::arg("count"), py::arg("size"),
        py::arg("allow"), py::arg("scores"), py::arg("columns"), py::arg("keys"), py::arg("counts"), py::arg("thresholds"),
        py::arg("capacity"), py::arg("device"), py::arg("stream"), "Score runs of rows; see metaindex.device.operations.");
    module.def(
        "cuda_maxsim_gather",
        [](const device::Table& on, const device::Queries& queries, int32_t r_c, Address candidates, int64_t count, bool shared,
           Address allow, Address scores, int64_t columns, Address keys, Address counts, Address thresholds, int64_t capacity,
           int device, Address stream) {
            const auto out = output(scores, columns, keys, counts, thresholds, capacity);
            const WithoutGil without_gil;
            const device::OnDevice on_device(device);
            device::maxsim_gather(on, queries, r_c, at<const int64_t>(candidates), count, shared, at<const uint8_t>(allow), out,
                                  at<void>(stream));
        },
        py::arg("table"), py::arg("queries"), py::arg("r_c"), py::arg("candidates"), py::arg("count"), py::arg("shared"),
        py::arg("allow"), py::arg("scores"), py::arg("columns"), py::arg("keys"), py::arg("counts"), py::arg("thresholds"),
        py::arg("capacity"), py::arg("device"), py::arg("stream"), "Score candidate rows; see metaindex.device.operations.");
    py::class_<device::Queries>(module, "DeviceQueries", plain, "Encoded queries on a GPU, see metaindex.device.operations.")
        .def(py::init([](Address codes, Address scales, Address lengths, int32_t batch, int32_t tokens) {
                 return device::Queries{at<const void>(codes), at<const float>(scales), at<const int32_t>(lengths), batch,
                                        tokens};
             }),
             py::arg("codes"), py::arg("scales"), py::arg("lengths"), py::arg("batch"), py::arg("tokens"));
    module.def("cuda_topk_scratch_bytes", &device::topk_scratch_bytes, py::arg("batch"), py::arg("n"), py::arg("k"),
               "Bytes of scratch memory that cuda_topk needs.");
    module.def(
        "cuda_topk",
        [](Address keys, Address counts, int64_t batch, int64_t n, int64_t k, bool sorted, Address scratch, Address best,
           int device, Address stream) {
            const WithoutGil without_gil;
            const device::OnDevice on_device(device);
            device::topk(at<const int64_t>(keys), at<const int32_t>(counts), batch, n, k, sorted, at<void>(scratch),
                         at<int64_t>(best), at<void>(stream));
        },
        py::arg("keys"), py::arg("counts"), py::arg("batch"), py::arg("n"), py::arg("k"), py::arg("sorted"), py::arg("scratch"),
        py::arg("best"), py::arg("device"), py::arg("stream"), "The k largest keys of each query.");
    module.attr("CUDA_SORTED_KEYS") = device::kSortedKeys;
    module.def(
        "cuda_built",
        [] {
#if defined(METAINDEX_CUDA)
            return true;
#else
            return false;
#endif
        },
        "Whether this module was compiled with CUDA.");
}

}  // namespace metaindex::bindings
