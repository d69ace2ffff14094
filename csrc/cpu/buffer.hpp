// Memory on cache-line boundaries.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace metaindex {

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

template <class T>
using Buffer = std::unique_ptr<T[], Free>;

// Uninitialised room for `count` numbers.
template <class T>
Buffer<T> make_buffer(int64_t count) {
    const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64 + 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (!memory) throw std::bad_alloc();
    return Buffer<T>(static_cast<T*>(memory));
}

}  // namespace metaindex
