#include "thread_pool.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

namespace metaindex {
namespace {

// The processors that the threads of a task run on. A thread is often woken on the processor of the one that woke it, and the
// system may take longer than the task to move it to an idle one, so a thread that finds its processor taken moves by itself.
class Processors {
 public:
#if defined(__linux__)
    void settle() {
        std::lock_guard<std::mutex> lock(mutex_);
        const int here = sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE) return;
        if (CPU_ISSET(here, &taken_)) leave();
        const int now = sched_getcpu();
        if (now >= 0 && now < CPU_SETSIZE) CPU_SET(now, &taken_);
    }

 private:
    void leave() const {
        cpu_set_t allowed, free;
        if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
        CPU_XOR(&free, &allowed, &taken_);
        CPU_AND(&free, &free, &allowed);
        if (CPU_COUNT(&free) == 0 || sched_setaffinity(0, sizeof free, &free) != 0) return;
        sched_setaffinity(0, sizeof allowed, &allowed);  // it has moved; from here on it may go where it could before
    }

    cpu_set_t taken_{};
    std::mutex mutex_;
#else
    void settle() {}
#endif
};

struct Task {
    const std::function<void(int)>* body;
    int next_worker;  // the next number to hand out; all are out at `workers`
    int workers;
    int running = 0;
    std::exception_ptr error;
    std::condition_variable done;
    Processors processors;
};

class Pool {
 public:
    void run(int workers, const std::function<void(int)>& body) {
        Task task{&body, 1, workers, 0, nullptr, {}, {}};
        task.processors.settle();
        {
            std::lock_guard<std::mutex> lock(mutex_);
            grow(workers - 1);
            tasks_.push_back(&task);
        }
        wake_.notify_all();
        call(task, 0);
        std::unique_lock<std::mutex> lock(mutex_);
        withdraw(task);
        task.done.wait(lock, [&] { return task.running == 0; });
        if (task.error) std::rethrow_exception(task.error);
    }

 private:
    void grow(int threads) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);  // signals belong to the threads of the program
        try {
            for (; threads_ < threads; ++threads_) std::thread([this] { serve(); }).detach();
        } catch (const std::exception&) {
            // The machine gives no more threads: those there are do the work.
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    [[noreturn]] void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return !tasks_.empty(); });
            Task& task = *tasks_.front();
            const int worker = task.next_worker++;
            ++task.running;
            if (task.next_worker == task.workers) tasks_.pop_front();
            lock.unlock();
            task.processors.settle();
            call(task, worker);
            lock.lock();
            if (--task.running == 0) task.done.notify_all();
        }
    }

    void call(Task& task, int worker) {
        try {
            (*task.body)(worker);
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex_);
            if (!task.error) task.error = std::current_exception();
        }
    }

    void withdraw(const Task& task) {
        for (auto at = tasks_.begin(); at != tasks_.end(); ++at) {
            if (*at == &task) {
                tasks_.erase(at);
                return;
            }
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Task*> tasks_;
    int threads_ = 0;
};

// Never destroyed: its threads live as long as the process. A forked child has none of them and starts with a new pool.
std::atomic<Pool*> current{nullptr};

Pool& pool() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
    (void)registered;
    Pool* found = current.load();
    if (found) return *found;
    auto* fresh = new Pool;
    if (current.compare_exchange_strong(found, fresh)) return *fresh;
    delete fresh;
    return *found;
}

}  // namespace

void parallel(int threads, const std::function<void(int)>& body) {
    if (threads <= 1) {
        body(0);
    } else {
        pool().run(threads, body);
    }
}

}  // namespace metaindex
