// The orders of `nest` for every instruction set over awkward shapes, on tight allocations so that a sanitizer sees a read past
// the end. Numpy tells what is right (tests/contract/test_nest.py); here all have to agree with the portable kernels, and every
// prefix with the whole.
#include <cmath>
#include <cstring>

#include "cases.hpp"
#include "metaindex/nest.hpp"

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

}  // namespace

int main() {
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
