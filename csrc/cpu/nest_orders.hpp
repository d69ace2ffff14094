// The orders of `nest`, one document at a time.
#pragma once

#include "buffer.hpp"
#include "metaindex/nest.hpp"
#include "nest_kernels.hpp"

namespace metaindex {

// Memory that a thread keeps from one document to the next.
template <class T>
class Room {
 public:
    T* of(int64_t count) {
        if (count > count_) {
            memory_.reset();
            count_ = 0;
            memory_ = make_buffer<T>(count);
            count_ = count;
        }
        return memory_.get();
    }

 private:
    Buffer<T> memory_;
    int64_t count_ = 0;
};

struct NestRooms {
    Room<float> panels, similarities, numbers;
    Room<double> sums;
    Room<Slice> slices;
};

// The tokens in panels, and `more`, where it is not null, behind them.
Panels in_panels(const Nesting& document, const float* more, const NestKernels& kernels, NestRooms& rooms);

// The normalised mean of the tokens as the first vector of the answer; zeros where they cancel out.
void take_mean(const Nesting& document, NestRooms& rooms);

// The token at `place` as vector `at` of the answer.
void take_token(const Nesting& document, int64_t at, int64_t place);

// How far rows of `count` similarities are apart. Rows a multiple of 4096 bytes apart would share few places of a cache.
inline int64_t similarity_stride(int64_t count) { return count * 4 % 4096 ? count : count + 16; }

void nest_by_facility(const Nesting& document, const NestKernels& kernels, NestRooms& rooms);
void nest_by_clusters(const Nesting& document, const NestKernels& kernels, NestRooms& rooms);
void nest_by_sample(const Nesting& document, uint64_t seed, const NestKernels& kernels, NestRooms& rooms);

}  // namespace metaindex
