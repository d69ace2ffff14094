#include "metaindex/nest.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "nest_orders.hpp"
#include "thread_pool.hpp"
#include "work.hpp"

namespace metaindex {
namespace {

constexpr int64_t kWorthAThread = 1'000'000;  // multiplications and additions: some tens of microseconds, as waking takes

const NestKernels& kernels_of(Isa isa) {
    if (!feature(isa).ok) throw std::invalid_argument("isa: " + feature(isa).why);
#if defined(METAINDEX_X86_KERNELS)
    if (isa >= Isa::avx512) return kNestAvx512;
    if (isa == Isa::avx2) return kNestAvx2;
#endif
    return kNestGeneric;
}

double multiplications(const std::vector<Nesting>& documents, Order order) {
    double work = 0;
    for (const Nesting& each : documents) {
        const auto count = static_cast<double>(each.count), dim = static_cast<double>(each.dim);
        work += dim * count * (order == Order::sample ? static_cast<double>(each.size) : count / 2);
    }
    return work;
}

}  // namespace

const char* name(Order order) {
    switch (order) {
        case Order::facility: return "facility";
        case Order::clusters: return "clusters";
        case Order::sample: return "sample";
    }
    return "unknown";
}

int64_t nested_size(Order order, int64_t count) { return order == Order::clusters ? count : count + 1; }

void take_mean(const Nesting& document, NestRooms& rooms) {
    const int64_t dim = document.dim;
    double* sums = rooms.sums.of(dim);
    std::fill_n(sums, dim, 0.0);
    for (int64_t i = 0; i < document.count; ++i) {
        const float* token = document.tokens + i * dim;
        for (int64_t k = 0; k < dim; ++k) sums[k] += static_cast<double>(token[k]);
    }
    double square = 0;
    for (int64_t k = 0; k < dim; ++k) {
        sums[k] /= static_cast<double>(document.count);
        square += sums[k] * sums[k];
    }
    const double length = square > 0 ? std::sqrt(square) : 1.0;
    for (int64_t k = 0; k < dim; ++k) document.vectors[k] = static_cast<float>(sums[k] / length);
    document.places[0] = -1;
}

Panels in_panels(const Nesting& document, const float* more, const NestKernels& kernels, NestRooms& rooms) {
    const int64_t count = document.count, dim = document.dim, panel = kernels.panel;
    const int64_t panels = (count + (more ? 1 : 0) + panel - 1) / panel;
    float* numbers = rooms.panels.of(panels * panel * dim);
    for (int64_t i = 0; i < panels * panel; ++i) {
        float* to = numbers + i / panel * panel * dim + i % panel;
        const float* token = i < count ? document.tokens + i * dim : i == count ? more : nullptr;
        for (int64_t k = 0; k < dim; ++k) to[k * panel] = token ? token[k] : 0.0f;
    }
    return {numbers, panels * panel, dim};
}

void take_token(const Nesting& document, int64_t at, int64_t place) {
    document.places[at] = place;
    std::memcpy(document.vectors + at * document.dim, document.tokens + place * document.dim,
                static_cast<size_t>(document.dim) * sizeof(float));
}

void nest(const std::vector<Nesting>& documents, Order order, uint64_t seed, Run run) {
    const NestKernels& kernels = kernels_of(run.isa);
    std::atomic<size_t> next{0};
    const auto pieces = static_cast<int64_t>(documents.size());
    parallel(useful_threads(run.num_threads, pieces, multiplications(documents, order), kWorthAThread), [&](int) {
        NestRooms rooms;
        for (size_t at; (at = next++) < documents.size();) {
            switch (order) {
                case Order::facility: nest_by_facility(documents[at], kernels, rooms); break;
                case Order::clusters: nest_by_clusters(documents[at], kernels, rooms); break;
                case Order::sample: nest_by_sample(documents[at], seed, kernels, rooms); break;
            }
        }
    });
}

}  // namespace metaindex
