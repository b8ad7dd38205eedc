// The process-wide thread pool behind temper/threads.h. It is never destroyed: its threads may outlive static destructors and
// the Node worker that started them, so the library that holds their code is pinned in memory as well.
#include "temper/threads.h"

#include <dlfcn.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "temper/error.h"

namespace temper {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kSpins = 400;  // about ten microseconds: ops follow each other faster than a futex wakes a thread

thread_local bool inside_job = false;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    const int n = CPU_COUNT(&set);
    if (n > 0) return n < kMaxThreads ? n : kMaxThreads;
  }
  const int n = static_cast<int>(std::thread::hardware_concurrency());
  return n > 0 ? n : 1;
}

int initial_threads() {
  const char* text = std::getenv("TEMPER_THREADS");
  if (!text || !*text) return allowed_cores();
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  require(*end == '\0' && n >= 1 && n <= kMaxThreads, "bad_argument", "TEMPER_THREADS: got '", text, "', wanted a whole number from 1 to ", kMaxThreads,
          "; unset it to use every allowed core");
  return static_cast<int>(n);
}

std::atomic<int>& wanted_threads() {
  static std::atomic<int> n{initial_threads()};
  return n;
}

struct Job {
  void (*call)(void*, int64_t);
  void* context;
  int64_t tasks;
  std::atomic<int64_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  void work() {
    for (;;) {
      const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= tasks) return;
      try {
        call(context, i);
      } catch (...) {
        std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        next.store(tasks, std::memory_order_relaxed);  // hand out no more
      }
    }
  }
};

class Pool {
 public:
  void run(Job& job, int threads) {
    std::lock_guard turn(turn_);
    start(threads - 1);
    {
      std::lock_guard lock(mutex_);
      job_ = &job;
      seats_ = threads - 1;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    inside_job = true;
    job.work();
    inside_job = false;
    // Late sleepers find no job any more; only those that took a seat are waited for.
    std::unique_lock lock(mutex_);
    job_ = nullptr;
    for (int spin = 0; active_ && spin < kSpins; ++spin) {
      lock.unlock();
      relax();
      lock.lock();
    }
    done_.wait(lock, [&] { return active_ == 0; });
  }

 private:
  void start(int workers) {
    for (; started_ < workers; ++started_) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::exception&) {
        return;  // the system gives no more threads: the caller does their share
      }
    }
  }

  void serve() {
    inside_job = true;
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin) relax();
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
      seen = generation_.load(std::memory_order_relaxed);
      if (!job_ || seats_ == 0) continue;
      Job* job = job_;
      --seats_;
      ++active_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_;   // callers take turns
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_, done_;
  std::atomic<uint64_t> generation_{0};
  Job* job_ = nullptr;
  int seats_ = 0, active_ = 0, started_ = 0;
};

Pool& pool() {
  static Pool* const p = [] {
    Dl_info info;
    static const char anchor = 0;
    if (dladdr(&anchor, &info) && info.dli_fname) dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    return new Pool;
  }();
  return *p;
}

}  // namespace

int thread_count() { return wanted_threads().load(std::memory_order_relaxed); }

void set_thread_count(int n) {
  require(n >= 1 && n <= kMaxThreads, "bad_argument", "thread count: got ", n, ", wanted 1 to ", kMaxThreads);
  wanted_threads().store(n, std::memory_order_relaxed);
}

namespace detail {
void run_tasks(int64_t tasks, void (*call)(void*, int64_t), void* context) {
  if (tasks <= 0) return;
  const int threads = inside_job ? 1 : static_cast<int>(thread_count() < tasks ? thread_count() : tasks);
  if (threads == 1) {
    for (int64_t i = 0; i < tasks; ++i) call(context, i);
    return;
  }
  Job job{call, context, tasks, {}, {}, {}};
  pool().run(job, threads);
  if (job.error) std::rethrow_exception(job.error);
}
}  // namespace detail

}  // namespace temper
