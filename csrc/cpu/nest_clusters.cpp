// Ward's hierarchical clustering, told from the whole document down to single tokens.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <queue>
#include <tuple>
#include <vector>

#include "nest_orders.hpp"

namespace metaindex {
namespace {

constexpr int32_t kGone = 0x7F800000;  // the bits of infinity
constexpr int kLeastExponent = -100;   // beyond it scales would come near to infinity

// One token, its place in the document at `first`, or what became of two clusters.
struct Cluster {
    std::array<int64_t, 2> parts;  // the one with the earlier token comes first
    int64_t size;
    int64_t first;  // place of the earliest token
    float height;   // grows with what the sum of squared distances to the mean gained when the parts became one
};

// Distances between clusters, each in the slot of its earliest token: rises of the sum of squares if two became one, doubled and
// scaled, so that they are at most 4 between tokens.
class Distances {
 public:
    Distances(const Panels& tokens, int64_t count, const NestKernels& kernels, NestRooms& rooms)
        : kernels_(kernels), count_(count), stride_(similarity_stride(tokens.count)) {
        numbers_ = rooms.similarities.of(tokens.count * stride_);
        kernels.similarities(tokens, {0, 0}, numbers_, stride_);
        float* squares = rooms.numbers.of(tokens.count);
        kernels.squares(tokens, squares);
        int exponent;
        std::frexp(*std::max_element(squares, squares + count), &exponent);
        const auto scale = static_cast<float>(std::ldexp(1.0, -std::max(exponent, kLeastExponent)));
        for (int64_t i = 0; i < count; ++i) {
            kernels.to_distances(squares, squares[i], scale, row(i), count);
            row(i)[i] = std::numeric_limits<float>::infinity();
            slots_.push_back(i);
        }
        gone_.assign(static_cast<size_t>(count), 0);
        sizes_.assign(static_cast<size_t>(count), 1);
    }

    // Slots that hold a cluster, rising.
    const std::vector<int64_t>& slots() const { return slots_; }
    float between(int64_t a, int64_t b) const { return numbers_[a * stride_ + b]; }
    int64_t nearest(int64_t slot) const { return kernels_.least(numbers_ + slot * stride_, gone_.data(), count_); }

    // The clusters of two slots become one, in the first of them.
    void join(int64_t kept, int64_t left) {
        gone_[static_cast<size_t>(left)] = kGone;
        slots_.erase(std::lower_bound(slots_.begin(), slots_.end(), left));
        float& size = sizes_[static_cast<size_t>(kept)];
        const float other = sizes_[static_cast<size_t>(left)];
        kernels_.join_distances(row(left), sizes_.data(), size, other, between(kept, left), row(kept), count_);
        size += other;
        row(kept)[kept] = std::numeric_limits<float>::infinity();
        for (const int64_t slot : slots_) row(slot)[kept] = row(kept)[slot];
    }

 private:
    float* row(int64_t slot) { return numbers_ + slot * stride_; }

    const NestKernels& kernels_;
    int64_t count_, stride_;
    float* numbers_;
    std::vector<int64_t> slots_;
    std::vector<int32_t> gone_;
    std::vector<float> sizes_;
};

// All clusters, tokens first and parts before their sum. A chain goes from a cluster to the nearest one until two are nearest to
// each other; these become one (Murtagh, 1983).
std::vector<Cluster> tree(Distances distances, int64_t count) {
    std::vector<Cluster> clusters;
    clusters.reserve(static_cast<size_t>(2 * count - 1));
    std::vector<int64_t> of_slot, chain;
    for (int64_t i = 0; i < count; ++i) {
        clusters.push_back({{-1, -1}, 1, i, 0});
        of_slot.push_back(i);
    }
    while (distances.slots().size() > 1) {
        if (chain.empty()) chain.push_back(distances.slots().front());
        const int64_t tip = chain.back(), next = distances.nearest(tip);
        const int64_t before = chain.size() > 1 ? chain[chain.size() - 2] : -1;
        if (before < 0 || distances.between(tip, next) < distances.between(tip, before)) {
            chain.push_back(next);
            continue;
        }
        chain.resize(chain.size() - 2);
        const int64_t kept = std::min(tip, before), left = std::max(tip, before);
        const float height = distances.between(kept, left);
        distances.join(kept, left);
        int64_t& cluster = of_slot[static_cast<size_t>(kept)];
        const int64_t other = of_slot[static_cast<size_t>(left)];
        const int64_t size = clusters[static_cast<size_t>(cluster)].size + clusters[static_cast<size_t>(other)].size;
        clusters.push_back({{cluster, other}, size, kept, height});
        cluster = static_cast<int64_t>(clusters.size()) - 1;
    }
    return clusters;
}

// The places of all tokens such that those of each cluster follow one another, from `begins` of the cluster on.
struct Arrangement {
    explicit Arrangement(const std::vector<Cluster>& clusters) : begins(clusters.size()) {
        places.resize((clusters.size() + 1) / 2);
        for (size_t each = clusters.size(); each-- > 0;) {
            const Cluster& cluster = clusters[each];
            if (cluster.size == 1) {
                places[static_cast<size_t>(begins[each])] = cluster.first;
                continue;
            }
            const auto part = static_cast<size_t>(cluster.parts[0]), other = static_cast<size_t>(cluster.parts[1]);
            begins[part] = begins[each];
            begins[other] = begins[each] + clusters[part].size;
        }
    }

    std::vector<int64_t> begins, places;
};

// The mean of some tokens, as long as they are on average.
void write_mean(const Nesting& document, const int64_t* places, int64_t count, double* sums, float* to) {
    std::fill_n(sums, document.dim, 0.0);
    double lengths = 0;
    for (int64_t i = 0; i < count; ++i) {
        const float* token = document.tokens + places[i] * document.dim;
        double square = 0;
        for (int64_t k = 0; k < document.dim; ++k) {
            const auto number = static_cast<double>(token[k]);
            sums[k] += number;
            square += number * number;
        }
        lengths += std::sqrt(square);
    }
    double square = 0;
    for (int64_t k = 0; k < document.dim; ++k) square += sums[k] * sums[k];
    const double scale = square > 0 ? lengths / static_cast<double>(count) / std::sqrt(square) : 0.0;
    for (int64_t k = 0; k < document.dim; ++k) to[k] = static_cast<float>(sums[k] * scale);
}

}  // namespace

void nest_by_clusters(const Nesting& document, const NestKernels& kernels, NestRooms& rooms) {
    const Panels tokens = in_panels(document, nullptr, kernels, rooms);
    const std::vector<Cluster> clusters = tree(Distances(tokens, document.count, kernels, rooms), document.count);
    const Arrangement arrangement(clusters);
    double* sums = rooms.sums.of(document.dim);
    const auto write = [&](int64_t at, int64_t cluster) {
        const Cluster& from = clusters[static_cast<size_t>(cluster)];
        if (from.size == 1) return take_token(document, at, from.first);
        document.places[at] = -1;
        write_mean(document, arrangement.places.data() + arrangement.begins[static_cast<size_t>(cluster)], from.size, sums,
                   document.vectors + at * document.dim);
    };
    using Open = std::tuple<float, int64_t, int64_t>;  // a height, the earliest token turned round, a cluster
    std::priority_queue<Open> open;
    const auto push = [&](int64_t cluster) {
        const Cluster& each = clusters[static_cast<size_t>(cluster)];
        if (each.size > 1) open.emplace(each.height, -each.first, cluster);
    };
    const int64_t whole = static_cast<int64_t>(clusters.size()) - 1;
    write(0, whole);
    push(whole);
    for (int64_t at = 1; at < document.size; ++at) {
        const auto [one, other] = clusters[static_cast<size_t>(std::get<2>(open.top()))].parts;
        open.pop();
        write(at, clusters[static_cast<size_t>(other)].size > clusters[static_cast<size_t>(one)].size ? one : other);
        push(one);
        push(other);
    }
}

}  // namespace metaindex
