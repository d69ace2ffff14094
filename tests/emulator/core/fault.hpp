// What a kernel did wrong.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace emulator {

class Fault : public std::runtime_error {
 public:
    explicit Fault(const std::string& what) : std::runtime_error(what) {}
};

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    throw Fault(text.str());
}

template <class... Parts>
void require(bool holds, const Parts&... parts) {
    if (!holds) fail(parts...);
}

struct Hex {
    uint64_t value;
    friend std::ostream& operator<<(std::ostream& out, Hex hex) {
        const auto flags = out.flags();
        out << "0x" << std::hex << hex.value;
        out.flags(flags);
        return out;
    }
};

}  // namespace emulator
