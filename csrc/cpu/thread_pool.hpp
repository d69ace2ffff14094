// A few sleeping threads of our own, so that nothing fights over another library's.
#pragma once

#include <functional>

namespace metaindex {

// Calls body(worker) on up to `threads` threads, the calling one among them, each with its own worker number in 0..threads-1,
// and returns when all calls have ended. A body takes its work from a shared counter, so it is right for any number of calls:
// threads that are busy elsewhere are not waited for. The first exception is thrown again here.
// Any number of threads may call at once. A forked child makes its own threads at its first call.
void parallel(int threads, const std::function<void(int worker)>& body);

}  // namespace metaindex
