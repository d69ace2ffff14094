// Work without the GIL that survives the end of the interpreter.
#pragma once

#include <pybind11/pybind11.h>

namespace metaindex::bindings {

// Lets other Python threads run while it lives. Before Python 3.14, a daemon thread that takes the GIL back once the
// interpreter has begun to end is unwound through frames that may not throw, and the process aborts. So when the interpreter is
// about to end, calls that still run are waited for, and what comes back later waits for the process to go.
class WithoutGil {
 public:
    WithoutGil();
    ~WithoutGil();
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;

 private:
    PyThreadState* state_;
};

void register_end_of_interpreter();

}  // namespace metaindex::bindings
