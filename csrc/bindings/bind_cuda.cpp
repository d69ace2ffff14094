#include <pybind11/stl.h>

#include <map>
#include <stdexcept>

#include "arrays.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "maxsim_scan_sm90.hpp"
#include "metaindex/cuda.hpp"

namespace metaindex::bindings {
namespace {

using Address = std::uintptr_t;  // on the device, or 0 for none

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

// Where work goes.
struct Queue {
    int device;
    Address stream;
};

template <class Work>
void on(const Queue& queue, Work work) {
    const WithoutGil without_gil;
    const device::OnDevice on_device(queue.device);
    work(at<void>(queue.stream));
}

device::Table table(const std::string& codec, int32_t dim, int64_t rows, int32_t segments, int32_t levels, int32_t tokens,
                    bool full, const std::map<std::string, Address>& addresses) {
    const auto address = [&](const char* name) {
        const auto found = addresses.find(name);
        if (found == addresses.end()) throw std::invalid_argument(std::string("addresses: expected one of ") + name);
        return found->second;
    };
    device::Table made{};
    made.codes = at<const int64_t>(address("codes"));
    made.scales = at<const int64_t>(address("scales"));
    made.first_rows = at<const int64_t>(address("first_rows"));
    made.lengths = at<const int32_t>(address("lengths"));
    made.starts = at<const int32_t>(address("starts"));
    made.widths = at<const int32_t>(address("widths"));
    made.token_levels = at<const int32_t>(address("token_levels"));
    made.places = at<const int32_t>(address("places"));
    made.segments = segments;
    made.levels = levels;
    made.tokens = tokens;
    made.dim = dim;
    made.rows = rows;
    made.codec = codec_of(codec);
    made.full = full;
    // Sums of int8 products stay within 32 bits up to here.
    require(dim >= 1 && dim <= 1 << 17, "dim: expected 1 to 131072");
    require(rows == 0 || (segments >= 1 && levels >= 1 && tokens >= 1), "rows: expected segments, levels and tokens with them");
    require((made.scales != nullptr) == (made.codec == Codec::int8),
            "scales: expected addresses for int8 and for nothing else");
    return made;
}

device::Queries queries(Address codes, Address scales, Address lengths, int32_t batch, int32_t tokens) {
    require(batch >= 0 && tokens >= 1, "queries: expected a batch of at least 0 with room for at least 1 token");
    return {at<const void>(codes), at<const float>(scales), at<const int32_t>(lengths), batch, tokens};
}

void require_codec(const device::Table& table, const device::Queries& queries) {
    require((table.scales != nullptr) == (queries.scales != nullptr), "queries: expected scales for int8 and for nothing else");
}

using Numbers = std::vector<std::vector<int64_t>>;  // of each level of each segment

// What the copy engine is told of a table's levels at one r_c, and the arrays that it is made from.
class ScanBoxes {
 public:
    ScanBoxes(const std::string& codec, int32_t dim, const Numbers& codes, const Numbers& rows, std::vector<int32_t> starts,
              std::vector<int32_t> widths, int32_t r_c)
        : starts_(std::move(starts)),
          widths_(std::move(widths)),
          codes_(joined(codes)),
          rows_(joined(rows)),
          r_c_(r_c),
          writer_(levels(codec_of(codec), dim, codes.size()), r_c) {}
    ScanBoxes(const ScanBoxes&) = delete;
    ScanBoxes& operator=(const ScanBoxes&) = delete;

    int32_t r_c() const { return r_c_; }
    int64_t bytes() const { return writer_.bytes(); }
    int32_t run_rows() const { return device::sm90::document_tile(r_c_).documents(); }
    void write(Address host) const {
        require(host != 0 && host % 64 == 0, "host: expected an address that is a multiple of 64");
        const WithoutGil without_gil;
        writer_.write(at<std::byte>(host), device::sm90::encode);
    }
    device::sm90::Boxes on_device(Address memory) const {
        require(memory % device::sm90::kMapBytes == 0, "memory: expected an address that is a multiple of 128");
        return writer_.boxes(at<const std::byte>(memory));
    }

 private:
    std::vector<int64_t> joined(const Numbers& table) const {
        require(!widths_.empty() && starts_.size() == widths_.size(), "starts, widths: expected one of each for each level");
        std::vector<int64_t> all;
        for (const std::vector<int64_t>& row : table) {
            require(row.size() == widths_.size(), "codes, rows: expected a number for each level of each segment");
            all.insert(all.end(), row.begin(), row.end());
        }
        return all;
    }
    device::sm90::LevelAddresses levels(Codec codec, int32_t dim, size_t segments) const {
        require(codes_.size() == rows_.size(), "rows: expected as many segments as in codes");
        require(r_c_ >= 1 && r_c_ <= starts_.back() + widths_.back(), "r_c: expected 1 to the tokens of the levels");
        return {codes_.data(),
                rows_.data(),
                starts_.data(),
                widths_.data(),
                static_cast<int32_t>(segments),
                static_cast<int32_t>(widths_.size()),
                dim,
                codec};
    }

    std::vector<int32_t> starts_, widths_;
    std::vector<int64_t> codes_, rows_;
    int32_t r_c_;
    device::sm90::BoxWriter writer_;
};

}  // namespace

void register_cuda(py::module_& module) {
    // The plain metaclass, as the stub says: nobody derives from these classes. Local, so that tests may load these bindings
    // once more, with what stands in for a GPU behind them.
    const py::module_local local;
    const py::metaclass plain(reinterpret_cast<PyObject*>(&PyType_Type));
    py::class_<device::Table>(module, "DeviceTable", plain, local, "Addresses on a GPU; see metaindex.device.table.")
        .def(py::init(&table), py::arg("codec"), py::arg("dim"), py::arg("rows"), py::arg("segments"), py::arg("levels"),
             py::arg("tokens"), py::arg("full"), py::arg("addresses"));
    py::class_<device::Queries>(module, "DeviceQueries", plain, local,
                                "Encoded queries on a GPU; see metaindex.device.operations.")
        .def(py::init(&queries), py::arg("codes"), py::arg("scales"), py::arg("lengths"), py::arg("batch"), py::arg("tokens"));
    py::class_<device::Output>(module, "DeviceOutput", plain, local, "Scores to fill on a GPU, or hits to append to.")
        .def_static(
            "of_scores",
            [](Address scores, int64_t columns) {
                require(scores != 0, "scores: expected an address");
                return device::Output{at<float>(scores), columns, {}};
            },
            py::arg("scores"), py::arg("columns"))
        .def_static(
            "of_hits",
            [](Address keys, Address counts, Address thresholds, int64_t capacity) {
                require(keys != 0 && counts != 0 && thresholds != 0, "hits: expected addresses");
                return device::Output{
                    nullptr, 0, {at<int64_t>(keys), at<int32_t>(counts), at<const int64_t>(thresholds), capacity}};
            },
            py::arg("keys"), py::arg("counts"), py::arg("thresholds"), py::arg("capacity"));
    py::class_<Queue>(module, "DeviceQueue", plain, local, "A GPU by number and one of its streams.")
        .def(py::init<int, Address>(), py::arg("device"), py::arg("stream"));
    module.def(
        "cuda_maxsim_scan",
        [](const device::Table& table, const device::Queries& asked, int32_t r_c, Address runs, int32_t count, Address allow,
           const device::Output& output, const Queue& queue) {
            require(r_c >= 1 && count >= 0, "r_c: expected at least 1");
            require_codec(table, asked);
            on(queue, [&](device::Stream stream) {
                const device::Runs given{at<const int32_t>(runs), count, device::kRunRows};
                device::maxsim_scan(table, asked, r_c, given, at<const uint8_t>(allow), output, stream);
            });
        },
        py::arg("table"), py::arg("queries"), py::arg("r_c"), py::arg("runs"), py::arg("count"), py::arg("allow"),
        py::arg("output"), py::arg("queue"), "Score runs of rows int32 [count, 3]; see metaindex.device.operations.");
    py::class_<ScanBoxes>(module, "DeviceScanBoxes", plain, local,
                          "What a scan on Hopper reads of a table's levels at one r_c, besides the table.")
        .def(py::init<const std::string&, int32_t, const Numbers&, const Numbers&, std::vector<int32_t>, std::vector<int32_t>,
                      int32_t>(),
             py::arg("codec"), py::arg("dim"), py::arg("codes"), py::arg("rows"), py::arg("starts"), py::arg("widths"),
             py::arg("r_c"))
        .def_property_readonly("nbytes", &ScanBoxes::bytes)
        .def_property_readonly("run_rows", &ScanBoxes::run_rows)
        .def("write", &ScanBoxes::write, py::arg("host"));
    module.def(
        "cuda_maxsim_scan_sm90",
        [](const device::Table& table, const device::Queries& asked, Address runs, int32_t count, Address allow,
           const device::Output& output, const ScanBoxes& boxes, Address memory, const Queue& queue) {
            require(count >= 0, "count: expected at least 0");
            require_codec(table, asked);
            require(reinterpret_cast<Address>(asked.codes) % 16 == 0, "queries: expected codes at a multiple of 16 bytes");
            const device::sm90::Boxes where = boxes.on_device(memory);
            on(queue, [&](device::Stream stream) {
                const device::Runs given{at<const int32_t>(runs), count, boxes.run_rows()};
                device::maxsim_scan_sm90(table, asked, boxes.r_c(), given, at<const uint8_t>(allow), output, where, stream);
            });
        },
        py::arg("table"), py::arg("queries"), py::arg("runs"), py::arg("count"), py::arg("allow"), py::arg("output"),
        py::arg("boxes"), py::arg("memory"), py::arg("queue"),
        "The same on compute capability 9.0; `memory` holds what boxes.write wrote.");
    module.def(
        "cuda_maxsim_gather",
        [](const device::Table& table, const device::Queries& asked, int32_t r_c, Address rows, int64_t lists, int64_t count,
           Address allow, const device::Output& output, const Queue& queue) {
            require(r_c >= 1 && count >= 0, "r_c: expected at least 1");
            require_codec(table, asked);
            on(queue, [&](device::Stream stream) {
                const device::Candidates given{at<const int64_t>(rows), lists, count};
                device::maxsim_gather(table, asked, r_c, given, at<const uint8_t>(allow), output, stream);
            });
        },
        py::arg("table"), py::arg("queries"), py::arg("r_c"), py::arg("rows"), py::arg("lists"), py::arg("count"),
        py::arg("allow"), py::arg("output"), py::arg("queue"),
        "Score candidates int64 [lists, count]; see metaindex.device.operations.");
    module.def("cuda_topk_scratch_bytes", &device::topk_scratch_bytes, py::arg("batch"), py::arg("columns"), py::arg("k"),
               "Bytes of scratch memory that cuda_topk needs.");
    module.def(
        "cuda_topk",
        [](Address keys, Address counts, int64_t batch, int64_t columns, int64_t k, Address scratch, Address best,
           const Queue& queue) {
            require(batch >= 0 && columns >= 0 && k >= 0, "topk: expected no negative sizes");
            on(queue, [&](device::Stream stream) {
                device::topk(at<const int64_t>(keys), at<const int32_t>(counts), batch, columns, k, at<std::byte>(scratch),
                             at<int64_t>(best), stream);
            });
        },
        py::arg("keys"), py::arg("counts"), py::arg("batch"), py::arg("columns"), py::arg("k"), py::arg("scratch"),
        py::arg("best"), py::arg("queue"), "The k largest of keys int64 [batch, columns], falling, into best [batch, k].");
    module.def(
        "cuda_tile",
        [](const std::string& codec, int32_t dim, int32_t batch, int32_t tokens, int32_t r_c, int64_t documents, bool own_lists,
           const std::tuple<int32_t, int32_t, int32_t>& card) {
            const auto& [capability, multiprocessors, shared_bytes] = card;
            return describe(device::choose_tile({codec_of(codec), dim, batch, tokens, r_c, documents, own_lists},
                                                {capability, multiprocessors, shared_bytes}));
        },
        py::arg("codec"), py::arg("dim"), py::arg("batch"), py::arg("tokens"), py::arg("r_c"), py::arg("documents"),
        py::arg("own_lists"), py::arg("card"),
        "How a MaxSim operation is cut up on a card (capability, multiprocessors, bytes of shared memory of a block), as "
        "text.");
    module.def(
        "cuda_serves_sm90",
        [](const std::string& codec, int32_t dim, int32_t r_c, int32_t tokens, bool resident, int32_t capability) {
            const Feature found = device::serves_maxsim_scan_sm90({codec_of(codec), dim, r_c, tokens, capability, resident});
            return std::pair(found.ok, found.why);
        },
        py::arg("codec"), py::arg("dim"), py::arg("r_c"), py::arg("tokens"), py::arg("resident"), py::arg("capability"),
        "Whether the scan for compute capability 9.0 serves it, and why.");
    module.def(
        "cuda_scan_path",
        [](const std::string& codec, int32_t dim, int32_t batch, int32_t tokens, int32_t r_c, int64_t documents, bool resident,
           const std::tuple<int32_t, int32_t, int32_t>& card) {
            const auto& [capability, multiprocessors, shared_bytes] = card;
            const device::ScanChoice found = device::choose_scan({codec_of(codec), dim, batch, tokens, r_c, documents, false},
                                                                 resident, {capability, multiprocessors, shared_bytes});
            return std::pair(found.path == device::ScanPath::sm90 ? "sm90" : "portable", found.why);
        },
        py::arg("codec"), py::arg("dim"), py::arg("batch"), py::arg("tokens"), py::arg("r_c"), py::arg("documents"),
        py::arg("resident"), py::arg("card"),
        "Which kernels scan on a card, \"portable\" or \"sm90\", and how and why, as text.");
    module.def("cuda_built", &device::cuda_built, "Whether this module was compiled with CUDA.");
    module.def(
        "cuda_cards",
        [] {
            std::vector<std::tuple<int32_t, int32_t, int32_t>> found;
            for (const device::Card& card : device::cuda_cards()) {
                found.emplace_back(card.capability, card.multiprocessors, card.shared_bytes);
            }
            return found;
        },
        "The GPUs of this machine: (capability, multiprocessors, bytes of shared memory of a block).");
    module.attr("CUDA_RUN_ROWS") = device::kRunRows;
}

}  // namespace metaindex::bindings
