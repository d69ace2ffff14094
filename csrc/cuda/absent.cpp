// Stands in for the CUDA sources where the module is built without them: one clear error, and the same names.
#include <stdexcept>

#include "launch.hpp"
#include "maxsim_scan_sm90.hpp"

namespace metaindex::device {
namespace {

[[noreturn]] void absent() { throw std::runtime_error("this module was compiled without CUDA; build it where nvcc is found"); }

}  // namespace

void run(const Launch&, const void* const*, Stream) { absent(); }
Card current_card() { absent(); }
bool cuda_built() { return false; }
std::vector<Card> cuda_cards() { return {}; }
OnDevice::OnDevice(int) { absent(); }
OnDevice::~OnDevice() = default;
void maxsim_scan_sm90(const Table&, const Queries&, int32_t, const Runs&, const uint8_t*, const Output&, const sm90::Boxes&,
                      Stream) {
    absent();
}
void sm90::encode(const Box&, void*) { absent(); }

}  // namespace metaindex::device
