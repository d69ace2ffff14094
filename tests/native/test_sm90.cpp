// The Hopper scan without a GPU: its geometry and tiling, which are pure functions, and its kernel's source, run on a simulated
// thread block, against a plain double-precision loop.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>
#include <tuple>
#include <vector>

#include "cases.hpp"
#include "warps.hpp"

#include "../../csrc/cuda/maxsim_scan_sm90.hpp"
#include "../../csrc/cuda/sm90/kernel.cuh"

using namespace metaindex;
using namespace metaindex::device;
using namespace metaindex::device::sm90;

namespace {

constexpr double kTolerance = 2e-6;  // relative to the sum of magnitudes, as for the CPU's kernels
constexpr int64_t kMissing = INT64_MIN;
constexpr int kLargest[] = {1,  2,  3,  4,  5,  7,   8,   11,  16,  17,  24,  32,  33,
                            48, 63, 64, 65, 96, 100, 128, 129, 200, 256, 257, 300, 1030};

void test_cells() {
    std::vector<int> seen(kRows * kColumns);
    for (int thread = 0; thread < kWarpgroup; ++thread) {
        for (int i = 0; i < kNumbers; ++i) {
            const Cell at = cell(thread, i);
            ++seen[static_cast<size_t>(at.row * kColumns + at.column)];
        }
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }), "every cell belongs to one thread");
}

void test_swizzle() {
    std::vector<int> seen(kSwizzleBytes);
    for (int row = 0; row < 8; ++row) {
        for (int byte = 0; byte < kSliceBytes; ++byte) {
            const int at = swizzled(row, byte);
            ++seen[static_cast<size_t>(at)];
            CHECK(at == static_cast<int>(simulated::swizzle(static_cast<uint32_t>(row * kSliceBytes + byte))), "row %d byte %d",
                  row, byte);
            CHECK(swizzled(row + 8, byte) == at + kSwizzleBytes, "the pattern starts over");
        }
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }), "nothing lies on anything else");
    const uint64_t found = descriptor(0x2C400);
    CHECK((found & 0x3FFF) == 0x2C40 && (found >> 32 & 0x3FFF) == 64 && found >> 62 == 1, "descriptor %lx",
          static_cast<unsigned long>(found));
    CHECK((found & 0x3FFF) + (kStepBytes >> 4) * (kSteps - 1) < 0x4000, "steps stay within the address");
}

// Every token of every document of a tile stands in one column, and comes from one box that starts at a row of its own.
void test_pieces(const std::vector<int32_t>& widths) {
    std::vector<int32_t> starts;
    int32_t tokens = 0;
    for (const int32_t width : widths) {
        starts.push_back(tokens);
        tokens += width;
    }
    for (const int r_c : kLargest) {
        if (r_c > tokens) continue;
        const DocumentTile tile = document_tile(r_c);
        const int documents = tile.documents();
        CHECK(documents * tile.tokens() == kColumns && tile.blocks * tile.tokens() >= r_c, "r_c %d", r_c);
        CHECK(tile.blocks == 1 || documents <= 8, "r_c %d: more maxima than are carried", r_c);
        const Pieces found = pieces_of(starts.data(), widths.data(), static_cast<int>(widths.size()), r_c, tile);
        CHECK(static_cast<int>(found.starts.size()) == tile.blocks + 1, "r_c %d", r_c);
        int token = 0;
        for (int block = 0; block < tile.blocks; ++block) {
            int row = 0;
            for (int i = found.starts[static_cast<size_t>(block)]; i < found.starts[static_cast<size_t>(block) + 1]; ++i) {
                const Piece& piece = found.pieces[static_cast<size_t>(i)];
                const int level = found.levels[static_cast<size_t>(i)];
                CHECK(piece.token == token && piece.row == row && piece.tokens > 0, "r_c %d piece %d", r_c, i);
                CHECK(piece.offset == token - starts[static_cast<size_t>(level)], "r_c %d piece %d", r_c, i);
                CHECK(piece.offset + piece.tokens <= widths[static_cast<size_t>(level)], "r_c %d piece %d", r_c, i);
                for (int t = 0; t < piece.tokens; ++t) {
                    for (int document = 0; document < documents; ++document, ++row) {  // as the copy engine fills a box
                        CHECK(tile.document(row) == document && tile.token(block, row) == token + t, "r_c %d row %d", r_c, row);
                    }
                }
                token += piece.tokens;
            }
            CHECK(row <= kColumns, "r_c %d block %d", r_c, block);
        }
        CHECK(token == r_c, "r_c %d: %d tokens", r_c, token);
    }
}

void test_tilings() {
    for (const Codec codec : {Codec::float16, Codec::bfloat16, Codec::int8}) {
        for (const int64_t dim : {16, 64, 96, 128, 256, 384, 2048, 3584, 5120}) {
            for (const int r_c : {1, 4, 24, 64, 96, 300}) {
                for (const int batch : {1, 2, 4, 5, 12, 64, 1000}) {
                    for (const int tokens : {1, 3, 16, 17, 32, 64, 65, 130, 300}) {
                        const Tiling t = tiling({codec, dim, r_c, batch, tokens, 132});
                        CHECK(t.shared_bytes <= kSharedBytes && t.stages >= kMinStages && t.stages <= kMaxStages,
                              "d=%ld r_c=%d batch=%d R=%d: %d stages, %d bytes", static_cast<long>(dim), r_c, batch, tokens,
                              t.stages, t.shared_bytes);
                        CHECK(t.ring % kSwizzleBytes == 0 && t.stage_bytes % kSwizzleBytes == 0,
                              "operands start where the swizzle does");
                        CHECK(t.columns % 16 == 0 && t.scratch % 16 == 0 && t.items % 8 == 0 && t.barriers % 8 == 0,
                              "alignment");
                        CHECK(!t.held || t.documents.blocks * t.slices <= t.stages, "a held tile fits into its stages");
                        CHECK(!t.held || t.resident, "who holds tiles keeps queries");
                        // Every token of every query stands in one row.
                        std::vector<int> seen(static_cast<size_t>(batch) * tokens);
                        for (int tile = 0; tile < t.tiles; ++tile) {
                            for (int owner = 0; owner < t.query_owners(); ++owner) {
                                for (int block = 0; block < t.row_blocks; ++block) {
                                    for (int row = 0; row < t.box_rows; ++row) {
                                        const int query = t.first_query(tile, owner, block) + (t.parts > 1 ? 0 : row / tokens);
                                        const int token = t.first_token(block) + (t.parts > 1 ? row : row % tokens);
                                        if (query < batch && token < tokens)
                                            ++seen[static_cast<size_t>(query) * tokens + token];
                                    }
                                }
                            }
                        }
                        CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }), "d=%ld batch=%d R=%d: rows",
                              static_cast<long>(dim), batch, tokens);
                        CHECK(t.wave <= kMaxWave && t.wave * static_cast<int>(ceil_div(t.tiles, t.wave)) >= t.tiles, "waves");
                    }
                }
            }
        }
    }
}

// What metaindex/device/keys.py calls a key.
int64_t key_of(float score, int64_t place) {
    int32_t bits;
    std::memcpy(&bits, &score, 4);
    const int64_t rising = bits < 0 ? bits ^ 0x7FFFFFFF : bits;
    return rising * (int64_t{1} << 32) + (0x7FFFFFFF - place);
}

// A case's documents as the kernel is given them.
struct Placed {
    explicit Placed(const Case& c) : c(c) {
        for (size_t l = 0; l < c.table.widths.size(); ++l) {
            starts.push_back(static_cast<int32_t>(c.table.starts[l]));
            widths.push_back(static_cast<int32_t>(c.table.widths[l]));
        }
        for (const Segment& segment : c.table.segments) {
            first_rows.push_back(segment.first_row);
            for (const Level& level : segment.levels) {
                codes.push_back(level.rows ? static_cast<int64_t>(reinterpret_cast<uintptr_t>(level.codes)) : 0);
                scales.push_back(static_cast<int64_t>(reinterpret_cast<uintptr_t>(level.scales)));
                rows.push_back(level.rows);
            }
            for (int64_t row = 0; row < segment.rows; ++row) {
                lengths.push_back(segment.lengths[row]);
                places.push_back(static_cast<int32_t>(c.table.rows() - 1 - static_cast<int64_t>(places.size())));
            }
        }
        first_rows.push_back(c.table.rows());
        table = {codes.data(),
                 c.table.codec == Codec::int8 ? scales.data() : nullptr,
                 first_rows.data(),
                 lengths.data(),
                 starts.data(),
                 widths.data(),
                 nullptr,
                 nullptr,
                 static_cast<int32_t>(c.table.segments.size()),
                 static_cast<int32_t>(widths.size()),
                 starts.back() + widths.back(),
                 static_cast<int32_t>(c.table.dim),
                 c.table.rows(),
                 c.table.codec,
                 false};
        table.full = std::all_of(lengths.begin(), lengths.end(), [&](int32_t n) { return n >= table.tokens; });
    }

    LevelAddresses addresses() const {
        return {codes.data(), rows.data(), starts.data(), widths.data(), table.segments, table.levels, table.dim, table.codec};
    }

    std::vector<int32_t> runs(int size, int64_t from, int64_t to) const {
        std::vector<int32_t> found;
        for (size_t segment = 0; segment + 1 < first_rows.size(); ++segment) {
            const int64_t first = std::max(from, first_rows[segment]), end = std::min(to, first_rows[segment + 1]);
            for (int64_t row = first; row < end; row += size) {
                found.push_back(static_cast<int32_t>(segment));
                found.push_back(static_cast<int32_t>(row - first_rows[segment]));
                found.push_back(static_cast<int32_t>(std::min<int64_t>(size, end - row)));
            }
        }
        return found;
    }

    const Case& c;
    std::vector<int64_t> codes, scales, rows, first_rows;
    std::vector<int32_t> starts, widths, lengths, places;
    Table table;
};

struct Scanned {
    std::vector<float> scores;
    std::vector<int64_t> keys;
    std::vector<int32_t> counts;
};

struct Asked {
    int r_c;
    int64_t from, to;
    const uint8_t* allow;
    const int64_t* thresholds;  // null: scores
    int multiprocessors;
    bool places;
    int run_size = kColumns;  // at most
};

// As the host side of the scan does it, block after block.
Scanned scan(const Placed& placed, const Asked& asked, Tiling* used = nullptr) {
    const Case& c = placed.c;
    const BoxWriter writer(placed.addresses(), asked.r_c);
    std::vector<std::byte> memory(static_cast<size_t>(writer.bytes()) + kMapBytes);
    auto* host =
        reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory.data()) + kMapBytes - 1) / kMapBytes * kMapBytes);
    static_assert(sizeof(Box) <= kMapBytes);
    writer.write(host, [](const Box& box, void* map) { std::memcpy(map, &box, sizeof box); });

    const std::vector<int32_t> runs =
        placed.runs(std::min(asked.run_size, document_tile(asked.r_c).documents()), asked.from, asked.to);
    const auto batch = static_cast<int32_t>(c.batch);
    const int64_t columns = placed.table.rows;
    Scanned out{std::vector<float>(static_cast<size_t>(batch * columns), 77.0f),
                std::vector<int64_t>(static_cast<size_t>(batch * columns), 0),
                std::vector<int32_t>(static_cast<size_t>(batch), 0)};
    Table table = placed.table;
    if (asked.places) table.places = placed.places.data();
    const Queries queries{c.queries.codes.get(), c.queries.scales.data(), c.lengths_of_queries.data(), batch,
                          static_cast<int32_t>(c.tokens)};
    const Output output{asked.thresholds ? nullptr : out.scores.data(),
                        columns,
                        {out.keys.data(), out.counts.data(), asked.thresholds, columns}};
    Scan scan{table,       queries,   {runs.data(), static_cast<int32_t>(runs.size() / 3), 0},
              asked.allow, output,    writer.boxes(host),
              {},          asked.r_c, 0,
              0,           0};
    scan.tiling = tiling({table.codec, table.dim, asked.r_c, batch, queries.tokens, asked.multiprocessors});
    if (used) *used = scan.tiling;
    std::byte query_map[kMapBytes];
    const Box box = query_box(queries, table.dim, table.codec, scan.tiling);
    std::memcpy(query_map, &box, sizeof box);
    for (; scan.first_tile < scan.tiling.tiles; scan.first_tile += scan.wave) {
        scan.wave = std::min(scan.tiling.wave, scan.tiling.tiles - scan.first_tile);
        scan.step = blocks_per_tile(scan.wave, asked.multiprocessors, scan.runs.count);
        for (int block = 0; block < scan.wave * scan.step; ++block) {
            simulated::Machine machine(block, scan.tiling.shared_bytes, static_cast<unsigned>(random_numbers()));
            machine.parameter(query_map);
            machine.run([&] {
                if (table.codec == Codec::float16) scan_block<Codec::float16>(scan, query_map, machine.memory());
                if (table.codec == Codec::bfloat16) scan_block<Codec::bfloat16>(scan, query_map, machine.memory());
                if (table.codec == Codec::int8) scan_block<Codec::int8>(scan, query_map, machine.memory());
            });
        }
    }
    return out;
}

// Whether tiles are taken in turn, queries stay, tiles are held, queries have parts, tokens come in blocks.
using Mode = std::tuple<bool, bool, bool, bool, bool>;
std::set<Mode> modes;

void test_scan(const Case& c, int r_c, int multiprocessors) {
    const Placed placed(c);
    const int64_t rows = placed.table.rows, from = rows > 3 ? 1 : 0;
    Tiling used;
    const Scanned scores = scan(placed, {r_c, from, rows, nullptr, nullptr, multiprocessors, false}, &used);
    modes.insert({used.alternate, used.resident, used.held, used.parts > 1, used.documents.blocks > 1});
    std::vector<uint8_t> allow(static_cast<size_t>(rows));
    for (uint8_t& allowed : allow) allowed = random_numbers() % 4 != 0;
    std::vector<int64_t> thresholds;
    for (int64_t b = 0; b < c.batch; ++b) {
        for (int64_t row = 0; row < rows; ++row) {
            double magnitude;
            const double truth = c.truth(b, row, {c.tokens, r_c}, magnitude);
            const float got = scores.scores[static_cast<size_t>(b * rows + row)];
            if (row < from) {
                CHECK(got == 77.0f, "row %ld was not asked for", static_cast<long>(row));
            } else {
                CHECK(std::fabs(got - truth) <= kTolerance * magnitude, "query %ld row %ld: %g for %g", static_cast<long>(b),
                      static_cast<long>(row), static_cast<double>(got), truth);
            }
        }
        const int64_t middle = from + (rows - from) / 2;
        thresholds.push_back(b % 2 ? kMissing : key_of(scores.scores[static_cast<size_t>(b * rows + middle)], middle));
    }
    for (const bool places : {false, true}) {
        const Scanned hits = scan(placed, {r_c, from, rows, allow.data(), thresholds.data(), multiprocessors, places});
        for (int64_t b = 0; b < c.batch; ++b) {
            std::vector<int64_t> expected;
            for (int64_t row = from; row < rows; ++row) {
                const int64_t place = places ? placed.places[static_cast<size_t>(row)] : row;
                const int64_t key = key_of(scores.scores[static_cast<size_t>(b * rows + row)] + 0.0f, place);
                if (allow[static_cast<size_t>(row)] && key > thresholds[static_cast<size_t>(b)]) expected.push_back(key);
            }
            auto first = hits.keys.begin() + b * rows;
            std::vector<int64_t> got(first, first + hits.counts[static_cast<size_t>(b)]);
            std::sort(got.begin(), got.end());
            std::sort(expected.begin(), expected.end());
            CHECK(got == expected, "query %ld: %zu hits for %zu", static_cast<long>(b), got.size(), expected.size());
        }
    }
    const Scanned allowed = scan(placed, {r_c, from, rows, allow.data(), nullptr, 1, false});
    for (int64_t b = 0; b < c.batch; ++b) {
        for (int64_t row = from; row < rows; ++row) {
            const size_t at = static_cast<size_t>(b * rows + row);
            const bool same =
                allow[static_cast<size_t>(row)] ? allowed.scores[at] == scores.scores[at] : std::isinf(allowed.scores[at]);
            CHECK(same, "query %ld row %ld of the allowed", static_cast<long>(b), static_cast<long>(row));
        }
    }
}

// More tiles than the scheduler reads at once, and none of them full.
void test_small_runs() {
    const Case c(Codec::int8, 16, {1, 2, 4}, {3}, 70);
    const Placed placed(c);
    const Scanned large = scan(placed, {7, 0, 70, nullptr, nullptr, 2, false}),
                  small = scan(placed, {7, 0, 70, nullptr, nullptr, 1, false, 1});
    CHECK(large.scores == small.scores, "a run's size changes scores");
}

void test_serves() {
    const ScanQuestion good{Codec::int8, 128, 64, 16, 90, true};
    CHECK(serves_maxsim_scan_sm90(good).ok, "%s", serves_maxsim_scan_sm90(good).why.c_str());
    const auto refuses = [&](auto change, const char* why) {
        ScanQuestion question = good;
        change(question);
        const Feature verdict = serves_maxsim_scan_sm90(question);
        CHECK(!verdict.ok && verdict.why.find(why) != std::string::npos, "%s: %s", why, verdict.why.c_str());
    };
    refuses([](ScanQuestion& q) { q.capability = 100; }, "9.0");
    refuses([](ScanQuestion& q) { q.codec = Codec::float32; }, "float32");
    refuses([](ScanQuestion& q) { q.tokens = 0; }, "no tokens");
    refuses([](ScanQuestion& q) { q.dim = 120; }, "16 bytes");
    refuses([](ScanQuestion& q) { q.dim = 131072; }, "int32");
    refuses([](ScanQuestion& q) { q.resident = false; }, "bus");
}

std::vector<int32_t> repeated(int count, std::vector<int32_t> lengths) {
    std::vector<int32_t> out;
    for (int i = 0; i < count; ++i) out.push_back(lengths[static_cast<size_t>(i) % lengths.size()]);
    return out;
}

}  // namespace

int main() {
    test_cells();
    test_swizzle();
    test_pieces({1, 1, 2, 4, 8, 16, 32});
    test_pieces({1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024});
    test_pieces({3, 5, 20, 100, 172});
    test_pieces(std::vector<int32_t>(130, 1));
    test_tilings();
    test_serves();
    test_small_runs();
    const std::vector<int64_t> doubling{1, 1, 2, 4, 8, 16, 32};
    for (const Codec codec : {Codec::float16, Codec::bfloat16, Codec::int8}) {
        const int64_t slice = kSliceBytes / itemsize(codec);
        test_scan(Case(codec, slice, doubling, {16}, 23), 64, 2);  // one query
        test_scan(Case(codec, 2 * slice, doubling, repeated(13, {16, 9}), 21), 64,
                  1);  // two blocks of rows, held, one of them empty
        test_scan(Case(codec, 3 * slice / 2, doubling, repeated(6, {16, 0, 3}), 21), 11, 2);  // within a level; a tail of d
        test_scan(Case(codec, 16, {3, 5, 20}, repeated(33, {1}), 40), 3, 3);
        test_scan(Case(codec, slice, {1, 6}, repeated(5, {5, 2}), 300), 1, 2);               // 256 documents
        test_scan(Case(codec, 16, {1, 1, 2, 4, 8, 16, 32, 64, 180}, {17, 31}, 11), 300, 1);  // blocks of tokens
        test_scan(Case(codec, slice, doubling, {130, 70, 129}, 9), 48, 2);                   // long queries
        test_scan(Case(codec, slice, doubling, {100}, 9), 64, 2);                            // one long query
        test_scan(Case(codec, 8 * slice, {1, 1, 2}, repeated(9, {16, 5}), 9), 4, 1);         // queries don't fit
        test_scan(Case(codec, 8 * slice, {1, 1, 2}, {70}, 9), 4, 1);
        test_scan(Case(codec, 16, {1, 1, 2, 4, 8, 16, 32, 64, 180}, {100}, 5), 300, 1);  // brought again for each part
    }
    for (const Mode& mode :
         {Mode{true, true, false, false, false}, Mode{true, true, false, false, true}, Mode{false, true, true, false, false},
          Mode{false, true, false, false, false}, Mode{false, true, true, true, false}, Mode{true, true, true, true, false},
          Mode{true, true, false, true, true}, Mode{false, false, false, false, false},
          Mode{true, false, false, true, false}}) {
        CHECK(modes.count(mode) == 1, "no case is tiled like that");
    }
    std::printf(failures ? "%d failures\n" : "all good\n", failures);
    return failures != 0;
}
