// Stands in for the CUDA sources where the module is built without them: one clear error, and the same names.
#include <stdexcept>

#include "metaindex/cuda.hpp"

namespace metaindex::device {
namespace {

[[noreturn]] void absent() { throw std::runtime_error("this module was compiled without CUDA; build it where nvcc is found"); }

}  // namespace

OnDevice::OnDevice(int) { absent(); }
OnDevice::~OnDevice() = default;
void maxsim_scan(const Table&, const Queries&, int32_t, const Runs&, const uint8_t*, const Output&, Stream) { absent(); }
void maxsim_gather(const Table&, const Queries&, int32_t, const int64_t*, int64_t, bool, const uint8_t*, const Output&,
                   Stream) {
    absent();
}
int64_t topk_scratch_bytes(int64_t, int64_t, int64_t) { absent(); }
void topk(const int64_t*, const int32_t*, int64_t, int64_t, int64_t, bool, void*, int64_t*, Stream) { absent(); }

}  // namespace metaindex::device
