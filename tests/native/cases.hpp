// What the native tests share: checks that count, and documents with queries whose scores a plain loop knows.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "metaindex/encode.hpp"
#include "metaindex/maxsim.hpp"
#include "numbers.hpp"

namespace metaindex {

inline int failures = 0;

#define CHECK(condition, ...)                       \
    do {                                            \
        if (!(condition)) {                         \
            std::printf("FAILED %s: ", #condition); \
            std::printf(__VA_ARGS__);               \
            std::printf("\n");                      \
            ++failures;                             \
        }                                           \
    } while (0)

inline std::mt19937 random_numbers(7);

struct Encoded {
    std::unique_ptr<std::byte[]> codes;  // exactly as long as its tokens: no slack for a read too far
    std::vector<float> scales;
    std::vector<float> decoded;
};

inline Encoded encode(Codec codec, int64_t tokens, int64_t dim) {
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(dim)));
    std::vector<float> values(static_cast<size_t>(tokens * dim));
    for (float& value : values) value = normal(random_numbers);
    Encoded out{std::make_unique<std::byte[]>(static_cast<size_t>(tokens * dim * itemsize(codec))), {}, values};
    out.scales.resize(static_cast<size_t>(tokens));
    const TokenShape shape{1, tokens, dim};
    const TokenView<const float> from{values.data(), 0, dim * 4};
    const Run run{Isa::serial, 1};
    auto* halves = reinterpret_cast<uint16_t*>(out.codes.get());
    auto* bytes = reinterpret_cast<int8_t*>(out.codes.get());
    if (codec == Codec::float32 && !values.empty()) std::memcpy(out.codes.get(), values.data(), values.size() * 4);
    if (codec == Codec::float16) encode_float16(from, shape, {halves, 0, dim * 2}, run);
    if (codec == Codec::bfloat16) encode_bfloat16(from, shape, {halves, 0, dim * 2}, run);
    if (codec == Codec::int8) encode_int8(from, shape, {bytes, 0, dim}, {out.scales.data(), 0, 4}, run);
    for (size_t i = 0; i < values.size(); ++i) {
        if (codec == Codec::float16) out.decoded[i] = from_float16(halves[i]);
        if (codec == Codec::bfloat16) out.decoded[i] = from_bfloat16(halves[i]);
        if (codec == Codec::int8) out.decoded[i] = static_cast<float>(bytes[i]) * out.scales[i / static_cast<size_t>(dim)];
    }
    return out;
}

// Ragged documents in two segments, and what their scores should be.
struct Case {
    Case(Codec codec, int64_t dim, std::vector<int64_t> widths, std::vector<int32_t> query_lengths, int64_t documents)
        : lengths_of_queries(std::move(query_lengths)) {
        table.codec = codec;
        table.dim = dim;
        int64_t start = 0;
        for (const int64_t width : widths) {
            table.starts.push_back(start);
            table.widths.push_back(width);
            start += width;
        }
        std::uniform_int_distribution<int32_t> any(1, static_cast<int32_t>(start));
        for (int64_t first = 0; first < documents; first += (documents + 1) / 2) {
            const int64_t rows = std::min((documents + 1) / 2, documents - first);
            auto& lengths = lengths_of_documents.emplace_back();
            auto& sequence = sequences.emplace_back();
            for (int64_t row = 0; row < rows; ++row) {
                lengths.push_back(any(random_numbers));
                sequence.push_back(documents - first - row);
            }
            std::sort(lengths.rbegin(), lengths.rend());
            Segment segment{{}, lengths.data(), sequence.data(), rows, first};
            for (size_t l = 0; l < widths.size(); ++l) {
                const auto reach =
                    std::count_if(lengths.begin(), lengths.end(), [&](int32_t n) { return n > table.starts[l]; });
                levels.push_back(encode(codec, reach * widths[l], dim));
                segment.levels.push_back({levels.back().codes.get(), levels.back().scales.data(), reach});
            }
            table.segments.push_back(segment);
        }
        tokens = *std::max_element(lengths_of_queries.begin(), lengths_of_queries.end());
        batch = static_cast<int64_t>(lengths_of_queries.size());
        queries = encode(codec, batch * tokens, dim);
    }

    QueryBatch query_batch() const {
        return {queries.codes.get(), queries.scales.data(), lengths_of_queries.data(), batch, tokens};
    }

    // The score, and through `magnitude` the sum of the magnitudes that went into it.
    double truth(int64_t query, int64_t place, Budget budget, double& magnitude) const {
        const size_t at = place >= table.segments[0].rows && table.segments.size() > 1 ? 1 : 0;
        const Segment& segment = table.segments[at];
        const int64_t row = place - segment.first_row, dim = table.dim;
        double score = 0;
        magnitude = 1e-3;
        for (int64_t i = 0; i < std::min<int64_t>(budget.r_q, lengths_of_queries[static_cast<size_t>(query)]); ++i) {
            const float* q = queries.decoded.data() + (query * tokens + i) * dim;
            double best = -std::numeric_limits<double>::infinity(), most = 0;
            for (size_t l = 0; l < table.widths.size(); ++l) {
                const Encoded& level = levels[at * table.widths.size() + l];
                const int64_t end = std::min<int64_t>({budget.r_c, segment.lengths[row], table.starts[l] + table.widths[l]});
                for (int64_t j = table.starts[l]; j < end; ++j) {
                    const float* d = level.decoded.data() + (row * table.widths[l] + j - table.starts[l]) * dim;
                    double sum = 0, size = 0;
                    for (int64_t x = 0; x < dim; ++x) {
                        sum += static_cast<double>(q[x]) * d[x];
                        size += std::fabs(static_cast<double>(q[x]) * d[x]);
                    }
                    best = std::max(best, sum);
                    most = std::max(most, size);
                }
            }
            score += best;
            magnitude += most;
        }
        return score;
    }

    LevelTable table;
    std::vector<Encoded> levels;
    std::vector<std::vector<int32_t>> lengths_of_documents = reserved<int32_t>();
    std::vector<std::vector<int64_t>> sequences = reserved<int64_t>();
    std::vector<int32_t> lengths_of_queries;
    Encoded queries;
    int64_t batch;
    int64_t tokens;

 private:
    template <class T>
    static std::vector<std::vector<T>> reserved() {
        std::vector<std::vector<T>> out;
        out.reserve(2);  // segments point into its members
        return out;
    }
};

}  // namespace metaindex
