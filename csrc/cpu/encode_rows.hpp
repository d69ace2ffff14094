// One token at a time: what each instruction set offers to the encoders.
#pragma once

#include <cstdint>

namespace metaindex {

struct RowEncoders {
    void (*float16)(const float* token, int64_t dim, uint16_t* codes);
    void (*bfloat16)(const float* token, int64_t dim, uint16_t* codes);
    float (*int8)(const float* token, int64_t dim, int8_t* codes);  // returns the scale
};

extern const RowEncoders kEncodersSerial;
extern const RowEncoders kEncodersAvx2;
extern const RowEncoders kEncodersAvx512;

}  // namespace metaindex
