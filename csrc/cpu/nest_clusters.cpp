// Means of the clusters of Ward's hierarchical clustering, chosen greedily by how much better they represent their tokens.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <queue>
#include <utility>
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
};

// Distances between clusters, each in the slot of its earliest token: rises of the sum of squares if two became one, doubled
// and scaled, so that they are at most 4 between tokens.
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

// All clusters, tokens first and parts before their sum. A chain goes from a cluster to the nearest one until two are nearest
// to each other; these become one (Murtagh, 1983).
std::vector<Cluster> tree(Distances distances, int64_t count) {
    std::vector<Cluster> clusters;
    clusters.reserve(static_cast<size_t>(2 * count - 1));
    std::vector<int64_t> of_slot, chain;
    for (int64_t i = 0; i < count; ++i) {
        clusters.push_back({{-1, -1}, 1, i});
        of_slot.push_back(i);
    }
    while (distances.slots().size() > 1) {
        if (chain.empty()) chain.push_back(distances.slots().front());
        const int64_t tip = chain.back(), next = distances.nearest(tip);
        const int64_t before = chain.size() > 1 ? chain[chain.size() - 2] : -1;
        // Joins never bring clusters nearer to others than their parts were, so a chain would meet none twice; but distances
        // are rounded. A cluster that is in the chain twice would be joined in one place and be gone in the other: the tip then
        // takes the one before it, though another is nearer by a rounding.
        const auto held = [&] { return std::find(chain.begin(), chain.end(), next) != chain.end(); };
        if (before < 0 || (distances.between(tip, next) < distances.between(tip, before) && !held())) {
            chain.push_back(next);
            continue;
        }
        chain.resize(chain.size() - 2);
        const int64_t kept = std::min(tip, before), left = std::max(tip, before);
        distances.join(kept, left);
        int64_t& cluster = of_slot[static_cast<size_t>(kept)];
        const int64_t other = of_slot[static_cast<size_t>(left)];
        const int64_t size = clusters[static_cast<size_t>(cluster)].size + clusters[static_cast<size_t>(other)].size;
        clusters.push_back({{cluster, other}, size, kept});
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

    const int64_t* tokens_of(int64_t cluster) const { return places.data() + begins[static_cast<size_t>(cluster)]; }

    std::vector<int64_t> begins, places;
};

// What the mean of each cluster is, and how similar it is to the cluster's tokens.
class Means {
 public:
    Means(const Nesting& document, const std::vector<Cluster>& clusters, NestRooms& rooms)
        : document_(document), clusters_(clusters), width_(document.dim + 1) {
        sums_ = rooms.sums.of(static_cast<int64_t>(clusters.size()) * width_);
        double* to = sums_;
        for (const Cluster& cluster : clusters) {
            if (cluster.size == 1) {
                const float* token = document.tokens + cluster.first * document.dim;
                std::copy_n(token, document.dim, to);
                to[document.dim] = length(to);
            } else {
                const double* one = sums_ + cluster.parts[0] * width_;
                const double* other = sums_ + cluster.parts[1] * width_;
                for (int64_t k = 0; k < width_; ++k) to[k] = one[k] + other[k];
            }
            to += width_;
        }
    }

    // A token as it is; the mean of several as long as they are on average, zeros where they cancel out.
    void write(int64_t cluster, float* to) const {
        const Cluster& from = clusters_[static_cast<size_t>(cluster)];
        if (from.size == 1) {
            std::copy_n(document_.tokens + from.first * document_.dim, document_.dim, to);
            return;
        }
        const double* sum = sums_ + cluster * width_;
        const double whole = length(sum);
        const double scale = whole > 0 ? sum[document_.dim] / static_cast<double>(from.size) / whole : 0.0;
        for (int64_t k = 0; k < document_.dim; ++k) to[k] = static_cast<float>(sum[k] * scale);
    }

 private:
    // Squares are added up in four sums by turns, none of which waits for another.
    double length(const double* numbers) const {
        std::array<double, 4> sums{};
        for (int64_t k = 0; k < document_.dim; ++k) sums[static_cast<size_t>(k % 4)] += numbers[k] * numbers[k];
        return std::sqrt((sums[0] + sums[2]) + (sums[1] + sums[3]));
    }

    const Nesting& document_;
    const std::vector<Cluster>& clusters_;
    int64_t width_;  // of the sum of a cluster's tokens, with that of their lengths behind it
    double* sums_;
};

}  // namespace

void nest_by_clusters(const Nesting& document, const NestKernels& kernels, NestRooms& rooms) {
    const Panels tokens = in_panels(document, nullptr, kernels, rooms);
    const std::vector<Cluster> clusters = tree(Distances(tokens, document.count, kernels, rooms), document.count);
    const Arrangement arrangement(clusters);
    const Means means(document, clusters, rooms);
    const auto number = static_cast<int64_t>(clusters.size());
    const auto at = [&](int64_t cluster) -> const Cluster& { return clusters[static_cast<size_t>(cluster)]; };

    // The distances have done their work: their room is enough for what clusters are like to their own tokens.
    std::vector<int64_t> starts{0};
    for (const Cluster& cluster : clusters) starts.push_back(starts.back() + cluster.size);
    float* similarities = rooms.similarities.of(starts.back());
    float* mean = rooms.panels.of(document.dim);
    for (int64_t cluster = 0; cluster < number; ++cluster) {
        means.write(cluster, mean);
        kernels.dots(document.tokens, document.dim, arrangement.tokens_of(cluster), at(cluster).size, mean,
                     similarities + starts[static_cast<size_t>(cluster)]);
    }
    const auto similarities_of = [&](int64_t cluster) { return similarities + starts[static_cast<size_t>(cluster)]; };

    // How well each token is represented, in the arrangement.
    float* covered = rooms.numbers.of(document.count);
    const auto gain = [&](int64_t cluster) {
        const float* now = covered + arrangement.begins[static_cast<size_t>(cluster)];
        const float* then = similarities_of(cluster);
        double sum = 0;
        for (int64_t i = 0; i < at(cluster).size; ++i) sum += static_cast<double>(std::max(then[i] - now[i], 0.0f));
        return sum;
    };
    const auto take = [&](int64_t place, int64_t cluster) {
        means.write(cluster, document.vectors + place * document.dim);
        document.places[place] = at(cluster).size == 1 ? at(cluster).first : -1;
    };
    std::copy_n(similarities_of(number - 1), document.count, covered);
    take(0, number - 1);
    std::vector<std::pair<double, int64_t>> waiting;  // gains, and clusters turned round: of equal ones the first is taken
    for (int64_t cluster = 0; cluster < number - 1; ++cluster) waiting.emplace_back(gain(cluster), -cluster);
    std::priority_queue<std::pair<double, int64_t>> best({}, std::move(waiting));
    for (int64_t place = 1; place < document.size; ++place) {
        // Gains only fall, also as they are rounded: one that is still the largest when it is worked out anew is the largest.
        int64_t cluster = -best.top().second;
        for (;;) {
            best.pop();
            const std::pair<double, int64_t> now{gain(cluster), -cluster};
            if (best.empty() || now > best.top()) break;
            best.push(now);
            cluster = -best.top().second;
        }
        take(place, cluster);
        float* now = covered + arrangement.begins[static_cast<size_t>(cluster)];
        const float* then = similarities_of(cluster);
        for (int64_t i = 0; i < at(cluster).size; ++i) now[i] = std::max(now[i], then[i]);
    }
}

}  // namespace metaindex
