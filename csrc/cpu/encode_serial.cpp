#include <cmath>

#include "encode_rows.hpp"
#include "numbers.hpp"

namespace metaindex {
namespace {

void float16(const float* token, int64_t dim, uint16_t* codes) {
    for (int64_t i = 0; i < dim; ++i) codes[i] = to_float16(token[i]);
}

void bfloat16(const float* token, int64_t dim, uint16_t* codes) {
    for (int64_t i = 0; i < dim; ++i) codes[i] = to_bfloat16(token[i]);
}

float int8(const float* token, int64_t dim, int8_t* codes) {
    float most = 0;
    for (int64_t i = 0; i < dim; ++i) most = std::fmax(most, std::fabs(token[i]));
    const float scale = most / 127.0f;
    if (scale == 0) {  // of a zero token, or underflown: its codes are zeros too
        for (int64_t i = 0; i < dim; ++i) codes[i] = 0;
        return scale;
    }
    for (int64_t i = 0; i < dim; ++i) {
        codes[i] = static_cast<int8_t>(std::nearbyint(std::fmin(std::fmax(token[i] / scale, -127.0f), 127.0f)));
    }
    return scale;
}

}  // namespace

const RowEncoders kEncodersSerial{float16, bfloat16, int8};

}  // namespace metaindex
