// Every instruction set against a plain double-precision loop over awkward shapes, on tight allocations so that a sanitizer
// sees a read past the end. Prints what it skips and why; exits with the number of failures.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "cases.hpp"
#include "metaindex/encode.hpp"
#include "metaindex/maxsim_gather.hpp"
#include "metaindex/maxsim_scan.hpp"
#include "metaindex/topk.hpp"
#include "numbers.hpp"
#include "thread_pool.hpp"

using namespace metaindex;

namespace {

constexpr double kTolerance = 2e-6;  // relative to the sum of magnitudes: float32 sums of at most some thousand products

void test_scores(const Case& c, Budget budget, Isa isa) {
    const int64_t rows = c.table.rows();
    std::vector<float> scores(static_cast<size_t>(c.batch * rows), std::nanf("")), again = scores, gathered = scores;
    maxsim_scan(c.table, c.query_batch(), budget, nullptr, {scores.data(), nullptr, rows}, {isa, 1});
    maxsim_scan(c.table, c.query_batch(), budget, nullptr, {again.data(), nullptr, rows}, {isa, 3});
    CHECK(std::memcmp(scores.data(), again.data(), scores.size() * 4) == 0, "%s %s: threads change bits", name(isa),
          name(c.table.codec));
    std::vector<int64_t> places(static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) places[static_cast<size_t>(r)] = rows - 1 - r;
    maxsim_gather(c.table, c.query_batch(), budget, {places.data(), 1, rows}, nullptr, {gathered.data(), nullptr, rows},
                  {isa, 2});
    for (int64_t b = 0; b < c.batch; ++b) {
        for (int64_t r = 0; r < rows; ++r) {
            double magnitude;
            const double truth = c.truth(b, r, budget, magnitude);
            const float got = scores[static_cast<size_t>(b * rows + r)];
            CHECK(std::fabs(got - truth) <= kTolerance * magnitude, "%s %s d=%ld r_q=%ld r_c=%ld query %ld row %ld: %g for %g",
                  name(isa), name(c.table.codec), static_cast<long>(c.table.dim), static_cast<long>(budget.r_q),
                  static_cast<long>(budget.r_c), static_cast<long>(b), static_cast<long>(r), static_cast<double>(got), truth);
            CHECK(gathered[static_cast<size_t>(b * rows + rows - 1 - r)] == got, "%s: gather differs from scan", name(isa));
        }
    }
}

void test_encoders() {
    std::vector<float> values;
    for (uint32_t bits = 0; bits < 0x47800000u; bits += 65521) {
        values.push_back(float_of(bits));
        values.push_back(-float_of(bits));
    }
    for (const float edge : {65504.0f, 65519.0f, 0x1p-24f, 0x1.8p-24f, 0x1p-25f, 0x1.000002p-25f, 0x1p-14f, 1.00048828125f}) {
        values.push_back(edge);
    }
    const auto count = static_cast<int64_t>(values.size());
    std::vector<uint16_t> serial(values.size()), other(values.size());
    std::vector<int8_t> serial8(values.size()), other8(values.size());
    for (const Isa isa : kIsas) {
        if (!feature(isa).ok) continue;
        for (const int64_t dim : {count, int64_t{1}, int64_t{37}}) {
            const TokenShape shape{1, count / dim, dim};
            const TokenView<const float> from{values.data(), 0, dim * 4};
            encode_float16(from, shape, {serial.data(), 0, dim * 2}, {Isa::serial, 1});
            encode_float16(from, shape, {other.data(), 0, dim * 2}, {isa, 2});
            CHECK(serial == other, "float16 %s d=%ld", name(isa), static_cast<long>(dim));
            encode_bfloat16(from, shape, {serial.data(), 0, dim * 2}, {Isa::serial, 1});
            encode_bfloat16(from, shape, {other.data(), 0, dim * 2}, {isa, 2});
            CHECK(serial == other, "bfloat16 %s d=%ld", name(isa), static_cast<long>(dim));
            std::vector<float> scales(values.size()), other_scales(values.size());
            encode_int8(from, shape, {serial8.data(), 0, dim}, {scales.data(), 0, 4}, {Isa::serial, 1});
            encode_int8(from, shape, {other8.data(), 0, dim}, {other_scales.data(), 0, 4}, {isa, 2});
            CHECK(serial8 == other8 && scales == other_scales, "int8 %s d=%ld", name(isa), static_cast<long>(dim));
        }
    }
}

void test_topk() {
    std::vector<float> scores(5000);
    for (float& score : scores) score = static_cast<float>(random_numbers() % 50);
    scores[17] = std::nanf("");
    for (const int64_t k : {1, 10, 4000, 6000}) {
        std::vector<float> best(static_cast<size_t>(k));
        std::vector<int64_t> columns(static_cast<size_t>(k));
        topk(scores.data(), 1, 5000, nullptr, k, best.data(), columns.data(), 2);
        std::vector<Entry> all;
        for (int64_t i = 0; i < 5000; ++i) {
            if (i != 17) all.push_back({scores[static_cast<size_t>(i)], i, i});
        }
        std::sort(all.begin(), all.end(), better);
        for (int64_t i = 0; i < k; ++i) {
            const int64_t expected = i < static_cast<int64_t>(all.size()) ? all[static_cast<size_t>(i)].row : -1;
            CHECK(columns[static_cast<size_t>(i)] == expected, "topk k=%ld place %ld", static_cast<long>(k),
                  static_cast<long>(i));
        }
    }
}

void test_threads() {
    bool caught = false;
    try {
        parallel(4, [](int) { throw std::runtime_error("from a worker"); });
    } catch (const std::runtime_error&) {
        caught = true;
    }
    CHECK(caught, "an exception is carried over");
}

}  // namespace

int main() {
    test_encoders();
    test_topk();
    test_threads();
    for (const Codec codec : {Codec::float32, Codec::float16, Codec::bfloat16, Codec::int8}) {
        for (const Isa isa : kIsas) {
            const Feature verdict = serves(isa, codec);
            if (!verdict.ok) std::printf("skipped: %s %s (%s)\n", name(isa), name(codec), verdict.why.c_str());
        }
        for (const int64_t dim : {1, 2, 3, 16, 31, 64, 100, 129, 513, 1100}) {
            const Case ragged(codec, dim, {1, 1, 2, 4, 8, 16, 32}, {16, 1, 0, 5, 17}, 21);
            const Case single(codec, dim, {3, 5, 20}, {16}, 9);
            const Case narrow(codec, dim, {1, 6}, {1, 1}, 70);
            const Case few(codec, dim, {1, 1, 2, 4, 8, 16, 32}, {1, 1}, 40);
            for (const Isa isa : kIsas) {
                if (!serves(isa, codec).ok) continue;
                test_scores(few, {1, 64}, isa);
                test_scores(few, {1, 11}, isa);
                test_scores(ragged, {17, 64}, isa);
                test_scores(ragged, {4, 11}, isa);
                test_scores(single, {16, 28}, isa);
                test_scores(single, {3, 4}, isa);
                test_scores(narrow, {1, 1}, isa);
                test_scores(narrow, {1, 7}, isa);
            }
        }
    }
    std::printf(failures ? "%d failures\n" : "all good\n", failures);
    return failures != 0;
}
