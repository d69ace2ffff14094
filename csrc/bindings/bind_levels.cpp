#include <pybind11/stl.h>

#include <stdexcept>

#include "bindings.hpp"
#include "levels_array.hpp"

namespace metaindex::bindings {
namespace {

// Kernels trust what is checked here: lengths fall, and no document reaches past the rows of a level.
void check_lengths(const LevelTable& table, const Segment& segment) {
    for (int64_t row = 0; row < segment.rows; ++row) {
        if (segment.lengths[row] < 1 || (row && segment.lengths[row] > segment.lengths[row - 1])) {
            throw std::invalid_argument("lengths: expected falling numbers of at least 1, got " +
                                        std::to_string(segment.lengths[row]) + " at row " + std::to_string(row));
        }
    }
    for (size_t l = 0; l < segment.levels.size(); ++l) {
        const int64_t rows = segment.levels[l].rows;
        if (rows < segment.rows && segment.lengths[rows] > table.starts[l]) {
            throw std::invalid_argument("level " + std::to_string(l) + ": expected a row for every document longer than " +
                                        std::to_string(table.starts[l]) + " tokens, got " + std::to_string(rows) + " rows");
        }
    }
}

std::unique_ptr<OwnedLevelTable> build(const std::string& codec, int64_t dim, std::vector<int64_t> starts,
                                       std::vector<int64_t> widths, const py::sequence& segments) {
    auto owned = std::make_unique<OwnedLevelTable>();
    LevelTable& table = owned->table;
    table.codec = codec_of(codec);
    table.dim = dim;
    table.starts = std::move(starts);
    table.widths = std::move(widths);
    // Sums of int8 products stay within 32 bits up to here.
    constexpr int64_t most_dimensions = 1 << 17;
    if (dim < 1 || dim > most_dimensions) {
        throw std::invalid_argument("dim: expected 1 to " + std::to_string(most_dimensions) + ", got " + std::to_string(dim));
    }
    if (table.starts.size() != table.widths.size()) throw std::invalid_argument("widths: expected one for each of starts");
    for (size_t l = 0; l < table.starts.size(); ++l) {
        const int64_t start = l ? table.starts[l - 1] + table.widths[l - 1] : 0;
        if (table.starts[l] != start || table.widths[l] < 1) {
            throw std::invalid_argument("starts: expected levels of at least one token that follow one another from 0");
        }
    }
    int64_t first_row = 0;
    for (const py::handle& each : segments) {
        const auto members = each.cast<py::tuple>();
        if (members.size() != 3) throw std::invalid_argument("segments: expected (levels, lengths, sequence)");
        const auto levels = members[0].cast<py::sequence>();
        if (levels.size() > table.starts.size()) throw std::invalid_argument("segments: expected no more levels than starts");
        const Array& lengths = owned->arrays.emplace_back(members[1], Expected{"lengths", Number::int32, {-1}});
        Segment segment{{}, lengths.data<const int32_t>(), nullptr, lengths.shape(0), first_row};
        const Array& sequence = owned->arrays.emplace_back(members[2], Expected{"sequence", Number::int64, {segment.rows}});
        segment.sequence = sequence.data<const int64_t>();
        for (size_t l = 0; l < levels.size(); ++l) {
            const auto parts = levels[l].cast<py::tuple>();
            const Array& codes =
                owned->arrays.emplace_back(parts[0], Expected{"codes", number_of(table.codec), {-1, table.widths[l], dim}});
            Level level{codes.data<const std::byte>(), nullptr, codes.shape(0)};
            if (level.rows > segment.rows) throw std::invalid_argument("codes: expected no more rows than the segment has");
            if (table.codec == Codec::int8) {
                level.scales =
                    owned->arrays.emplace_back(parts[1], Expected{"scales", Number::float32, {level.rows, table.widths[l]}})
                        .data<const float>();
            }
            segment.levels.push_back(level);
        }
        check_lengths(table, segment);
        first_row += segment.rows;
        table.segments.push_back(std::move(segment));
    }
    return owned;
}

}  // namespace

void register_levels(py::module_& module) {
    // The plain metaclass, as the stub says: nobody derives from this class.
    const py::metaclass plain(reinterpret_cast<PyObject*>(&PyType_Type));
    py::class_<OwnedLevelTable>(module, "LevelTable", plain,
                                "Pointers to the levels of a snapshot. Keeps the arrays alive; they must not change.")
        .def(py::init(&build), py::arg("codec"), py::arg("dim"), py::arg("starts"), py::arg("widths"), py::arg("segments"),
             "segments: for each (levels, lengths int32 [rows], sequence int64 [rows]), where levels are pairs of codes "
             "[rows_l, width_l, dim] and scales float32 [rows_l, width_l] or None. ValueError for arrays that don't fit.")
        .def_property_readonly("rows", [](const OwnedLevelTable& owned) { return owned.table.rows(); })
        .def_property_readonly("dim", [](const OwnedLevelTable& owned) { return owned.table.dim; })
        .def_property_readonly("codec", [](const OwnedLevelTable& owned) { return name(owned.table.codec); });
}

}  // namespace metaindex::bindings
