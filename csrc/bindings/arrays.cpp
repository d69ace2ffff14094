#include "arrays.hpp"

#include <algorithm>
#include <stdexcept>

namespace metaindex::bindings {
namespace {

const char* name_of(Number number) {
    switch (number) {
        case Number::boolean: return "bool";
        case Number::int8: return "int8";
        case Number::uint16: return "uint16";
        case Number::int32: return "int32";
        case Number::int64: return "int64";
        case Number::float16: return "float16";
        case Number::float32: return "float32";
    }
    return "";
}

bool matches(Number number, std::string format, py::ssize_t itemsize) {
    if (!format.empty() && (format[0] == '=' || format[0] == '@' || format[0] == '<')) format.erase(0, 1);
    if (format.size() != 1) return false;
    const char f = format[0];
    switch (number) {
        case Number::boolean: return f == '?';
        case Number::int8: return f == 'b';
        case Number::uint16: return f == 'H';
        case Number::int32: return (f == 'i' || f == 'l') && itemsize == 4;
        case Number::int64: return (f == 'l' || f == 'q') && itemsize == 8;
        case Number::float16: return f == 'e';
        case Number::float32: return f == 'f';
    }
    return false;
}

std::string text(const std::vector<int64_t>& shape) {
    std::string out = "[";
    for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + (shape[i] < 0 ? "any" : std::to_string(shape[i]));
    return out + "]";
}

py::buffer_info request(const py::handle& object, const Expected& expected) {
    if (!PyObject_CheckBuffer(object.ptr())) {
        throw py::type_error(std::string(expected.name) + ": expected an array, got " + Py_TYPE(object.ptr())->tp_name);
    }
    auto* view = new Py_buffer();
    const int flags = PyBUF_STRIDES | PyBUF_FORMAT | (expected.writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), view, flags) != 0) {
        delete view;
        PyErr_Clear();
        throw std::invalid_argument(std::string(expected.name) + ": expected a " + (expected.writable ? "writable " : "") +
                                    "array of native byte order that exports its buffer");
    }
    return py::buffer_info(view);
}

}  // namespace

Array::Array(const py::handle& object, const Expected& expected) : info_(request(object, expected)) {
    const std::vector<int64_t> shape(info_.shape.begin(), info_.shape.end());
    bool fits = shape.size() == expected.shape.size();
    for (size_t i = 0; fits && i < shape.size(); ++i) fits = expected.shape[i] < 0 || expected.shape[i] == shape[i];
    if (!fits || !matches(expected.number, info_.format, info_.itemsize)) {
        throw std::invalid_argument(std::string(expected.name) + ": expected " + name_of(expected.number) + " " +
                                    text(expected.shape) + ", got buffer format '" + info_.format + "' and shape " +
                                    text(shape));
    }
    py::ssize_t contiguous = info_.itemsize;
    const size_t checked = expected.strided ? 1 : shape.size();
    for (size_t i = shape.size(); i-- > shape.size() - checked;) {
        if (info_.size && shape[i] > 1 && info_.strides[i] != contiguous) {
            throw std::invalid_argument(std::string(expected.name) +
                                        ": expected a C-contiguous array, got strides; use numpy.ascontiguousarray");
        }
        contiguous *= static_cast<py::ssize_t>(shape[i]);
    }
    if (info_.size && reinterpret_cast<uintptr_t>(info_.ptr) % static_cast<uintptr_t>(info_.itemsize)) {
        throw std::invalid_argument(std::string(expected.name) + ": expected an aligned array; copy it");
    }
}

Codec codec_of(const std::string& wanted) {
    for (const Codec codec : {Codec::float32, Codec::float16, Codec::bfloat16, Codec::int8}) {
        if (wanted == name(codec)) return codec;
    }
    throw std::invalid_argument("codec: expected float32, float16, bfloat16 or int8, got '" + wanted + "'");
}

Number number_of(Codec codec) {
    switch (codec) {
        case Codec::float32: return Number::float32;
        case Codec::float16: return Number::float16;
        case Codec::bfloat16: return Number::uint16;
        default: return Number::int8;
    }
}

Isa isa_of(const std::optional<std::string>& wanted, Codec codec) {
    if (!wanted) return default_isa(codec);
    std::string known;
    for (const Isa isa : kIsas) {
        if (*wanted == name(isa)) return isa;
        known += (known.empty() ? "" : ", ") + std::string(name(isa));
    }
    throw std::invalid_argument("isa: expected one of " + known + ", got '" + *wanted + "'");
}

int threads_of(int num_threads) {
    if (num_threads < 1) {
        throw std::invalid_argument("num_threads: expected at least 1, got " + std::to_string(num_threads));
    }
    return std::min(num_threads, 1024);
}

}  // namespace metaindex::bindings
