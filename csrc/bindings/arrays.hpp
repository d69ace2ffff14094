// Host arrays through the buffer protocol: checked once, then plain pointers.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "metaindex/isa.hpp"

namespace metaindex::bindings {

namespace py = pybind11;

enum class Number { boolean, int8, uint16, int32, int64, float16, float32 };

struct Expected {
    const char* name;  // of the argument, for messages
    Number number;
    std::vector<int64_t> shape;  // -1 is any length
    bool writable = false;
    bool strided = false;  // only the last dimension must be contiguous
};

// A borrowed view; the buffer stays locked as long as it lives.
class Array {
 public:
    // Throws ValueError, naming the argument, what was expected and what came.
    Array(const py::handle& object, const Expected& expected);

    template <class T>
    T* data() const {
        return static_cast<T*>(info_.ptr);
    }
    int64_t shape(size_t axis) const { return static_cast<int64_t>(info_.shape[axis]); }
    int64_t stride(size_t axis) const { return static_cast<int64_t>(info_.strides[axis]); }

 private:
    py::buffer_info info_;
};

Codec codec_of(const std::string& name);
Number number_of(Codec codec);
// The instruction set of that name, or the best for the codec.
Isa isa_of(const std::optional<std::string>& name, Codec codec);
int threads_of(int num_threads);

}  // namespace metaindex::bindings
