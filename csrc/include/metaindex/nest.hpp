// Orders of a document's tokens in which every prefix covers the whole.
#pragma once

#include <cstdint>
#include <vector>

#include "metaindex/isa.hpp"
#include "metaindex/maxsim.hpp"

namespace metaindex {

enum class Order : uint8_t { facility, clusters, sample };

inline constexpr Order kOrders[] = {Order::facility, Order::clusters, Order::sample};

const char* name(Order order);

// A document, and where the first `size` vectors of its order go, with the place of the token that each is, -1 for none.
struct Nesting {
    const float* tokens;  // [count, dim], finite
    int64_t count;
    int64_t dim;
    float* vectors;   // [size, dim]
    int64_t* places;  // [size]
    int64_t size;     // 1 to nested_size
};

// How many vectors the whole order of a document has.
int64_t nested_size(Order order, int64_t count);

// Documents side by side on threads. Each answer is the same, bit for bit, for any instruction set and any number of threads.
// `seed` is that of the draws of Order::sample.
void nest(const std::vector<Nesting>& documents, Order order, uint64_t seed, Run run);

}  // namespace metaindex
