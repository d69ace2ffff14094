// The orders of `nest` for every instruction set over awkward shapes, on tight allocations so that a sanitizer sees a read past
// the end. Numpy tells what is right (tests/contract/test_nest.py); here all have to agree with the portable kernels, and every
// prefix with the whole.
#include <array>
#include <cmath>
#include <cstring>

#include "cases.hpp"
#include "metaindex/nest.hpp"
#include "nest_orders.hpp"

using namespace metaindex;

namespace {

struct Page {
    Page(int64_t count, int64_t dim, int repeats) : tokens(static_cast<size_t>(count * dim)), count(count), dim(dim) {
        for (int64_t i = 0; i < count * dim; ++i) {
            const int64_t twin = i - repeats * dim;
            const auto number = static_cast<float>(random_numbers() % 2001) / 1000.0f - 1.0f;
            tokens[static_cast<size_t>(i)] = repeats && twin >= 0 ? tokens[static_cast<size_t>(twin)] : number;
        }
    }

    std::vector<float> tokens;
    int64_t count, dim;
};

struct Ordered {
    std::vector<float> vectors;
    std::vector<int64_t> places;

    bool starts_with(const Ordered& other) const {
        return std::memcmp(vectors.data(), other.vectors.data(), other.vectors.size() * sizeof(float)) == 0 &&
               std::equal(other.places.begin(), other.places.end(), places.begin());
    }
};

std::vector<Ordered> nested(const std::vector<Page>& pages, Order order, int64_t size, Run run) {
    std::vector<Ordered> answers;
    std::vector<Nesting> documents;
    for (const Page& page : pages) {
        const int64_t kept = std::min(size, nested_size(order, page.count));
        answers.push_back({std::vector<float>(static_cast<size_t>(kept * page.dim), std::nanf("")),
                           std::vector<int64_t>(static_cast<size_t>(kept), -7)});
        documents.push_back(
            {page.tokens.data(), page.count, page.dim, answers.back().vectors.data(), answers.back().places.data(), kept});
    }
    nest(documents, order, 3, run);
    return answers;
}

// Of four clusters the nearest ones go round: what distances that are rounded badly enough would say.
int64_t least_in_a_ring(const float* row, const int32_t* gone, int64_t count) {
    const auto own = std::find(row, row + count, std::numeric_limits<float>::infinity()) - row;
    const int64_t next = std::array<int64_t, 4>{3, 3, 1, 2}[static_cast<size_t>(own)];
    if (gone[next] == 0) return next;
    int64_t other = 0;
    while (other == own || gone[other] != 0) ++other;
    return other;
}

void check_a_chain_that_meets_itself() {
    NestKernels kernels = kNestGeneric;
    kernels.least = least_in_a_ring;
    // From 0 to 3, 2, 1 and 3 again each distance is less than the one before.
    const std::vector<float> tokens{5.0f, 0.0f, 1.0f, 0.0f, 0.6f, 1.0f, 0.0f, 0.0f};
    std::vector<float> vectors(14, std::nanf(""));
    std::vector<int64_t> places(7, -7);
    NestRooms rooms;
    nest_by_clusters({tokens.data(), 4, 2, vectors.data(), places.data(), 7}, kernels, rooms);
    for (const float number : vectors) CHECK(std::isfinite(number), "a vector was not written");
    for (int64_t token = 0; token < 4; ++token)
        CHECK(std::count(places.begin(), places.end(), token) == 1, "token %ld is not there once", static_cast<long>(token));
}

}  // namespace

int main() {
    check_a_chain_that_meets_itself();
    std::vector<Page> pages;
    for (const int64_t count : {1, 2, 7, 16, 31, 33, 64, 127, 200}) {
        for (const int64_t dim : {1, 5, 128}) {
            for (const int repeats : {0, 1, 9}) pages.emplace_back(count, dim, repeats);
        }
    }
    for (const Order order : kOrders) {
        const std::vector<Ordered> whole = nested(pages, order, 1000, {Isa::generic, 1});
        for (const Isa isa : kIsas) {
            if (!feature(isa).ok) {
                std::printf("skipped: %s (%s)\n", name(isa), feature(isa).why.c_str());
                continue;
            }
            for (const int64_t size : {1, 2, 40, 1000}) {
                const std::vector<Ordered> some = nested(pages, order, size, {isa, 3});
                for (size_t at = 0; at < pages.size(); ++at) {
                    CHECK(whole[at].starts_with(some[at]), "%s %s size=%ld count=%ld d=%ld", name(order), name(isa),
                          static_cast<long>(size), static_cast<long>(pages[at].count), static_cast<long>(pages[at].dim));
                }
            }
        }
        for (size_t at = 0; at < pages.size(); ++at) {
            for (const float number : whole[at].vectors)
                CHECK(std::isfinite(number), "%s: a vector was not written", name(order));
            std::vector<bool> seen(static_cast<size_t>(pages[at].count));
            for (const int64_t place : whole[at].places) {
                CHECK(place >= -1 && place < pages[at].count, "%s: no place", name(order));
                if (place < 0) continue;
                CHECK(!seen[static_cast<size_t>(place)], "%s: a token twice", name(order));
                seen[static_cast<size_t>(place)] = true;
            }
        }
    }
    std::printf(failures ? "%d failures\n" : "all good\n", failures);
    return failures != 0;
}
