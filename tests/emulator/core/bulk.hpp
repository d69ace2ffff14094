// cp.async.bulk, whose opcodes start like those of cp.async.
#pragma once

#include "decode.hpp"

namespace emulator {

void decode_bulk_copy(Instruction& i, Modifiers& modifiers);

}  // namespace emulator
