#include "gil.hpp"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace metaindex::bindings {
namespace {

namespace py = pybind11;

std::atomic<int> in_flight{0};
std::atomic<bool> ending{false};
std::thread::id ender;  // written before `ending`

void wait_for_calls() {
    ender = std::this_thread::get_id();
    ending = true;
    const py::gil_scoped_release release;  // those that wait for it get it now
    while (in_flight > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

WithoutGil::WithoutGil() {
    ++in_flight;
    state_ = PyEval_SaveThread();
}

WithoutGil::~WithoutGil() {
    if (ending && std::this_thread::get_id() != ender) {
        --in_flight;
        for (;;) pause();
    }
    PyEval_RestoreThread(state_);
    --in_flight;
}

void register_end_of_interpreter() {
    // The calls that a forked child's parent has under way never end in the child.
    pthread_atfork(nullptr, nullptr, [] { in_flight = 0; });
    py::module_::import("atexit").attr("register")(py::cpp_function(wait_for_calls));
}

}  // namespace metaindex::bindings
