// The process-wide thread pool behind temper/threads.h. It is never destroyed: its threads may outlive static
// destructors and the Node worker that started them, so the library that holds their code is pinned in memory as well.
#include "temper/threads.h"

#include <dlfcn.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "core/relax.h"
#include "temper/error.h"

namespace temper {
namespace {

constexpr int kMaxThreads = 1024;
constexpr auto kSpin = std::chrono::microseconds(100);  // ops follow each other faster than a futex wakes a thread

thread_local bool inside_job = false;
thread_local int limit = kMaxThreads;  // threads that work on a job of this one

// Polls until the condition holds or the time is up.
template <class F>
void spin(F&& holds) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + kSpin;
  do {
    for (int i = 0; i < 8; ++i) {
      if (holds()) return;
      relax();
    }
  } while (Clock::now() < end);
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
  require(*end == '\0' && n >= 1 && n <= kMaxThreads, "bad_argument", "TEMPER_THREADS: got '", text,
          "', wanted a whole number from 1 to ", kMaxThreads, "; unset it to use every allowed core");
  return static_cast<int>(n);
}

std::atomic<int>& wanted_threads() {
  static std::atomic<int> n{initial_threads()};
  return n;
}

// The tasks a thread still has, begin in the low half. A task is handed out once, so a word that came back means the
// same tasks.
struct alignas(64) Share {
  std::atomic<uint64_t> left{0};
};
constexpr uint64_t tasks_from(uint64_t begin, uint64_t end) { return end << 32 | begin; }

// Every thread begins with a piece of its own and walks through it in order, so that it reads weights as one stream;
// who is done takes half of what the slowest has left.
struct Job {
  void (*call)(void*, int64_t);
  void* context;
  Share* shares;
  int threads;
  std::mutex error_mutex;
  std::exception_ptr error;
  std::atomic<bool> failed{false};

  void deal(int64_t tasks) {
    for (int t = 0; t < threads; ++t)
      shares[t].left.store(
          tasks_from(static_cast<uint64_t>(tasks * t / threads), static_cast<uint64_t>(tasks * (t + 1) / threads)),
          std::memory_order_relaxed);
  }

  bool take(int seat, int64_t& task) {
    std::atomic<uint64_t>& mine = shares[seat].left;
    uint64_t now = mine.load(std::memory_order_relaxed);
    while (static_cast<uint32_t>(now) < now >> 32)
      if (mine.compare_exchange_weak(now, now + 1, std::memory_order_relaxed)) {
        task = static_cast<uint32_t>(now);
        return true;
      }
    for (;;) {
      uint64_t most = 0;
      int victim = -1;
      for (int t = 0; t < threads; ++t) {
        const uint64_t left = shares[t].left.load(std::memory_order_relaxed),
                       n = (left >> 32) - static_cast<uint32_t>(left);
        if (n > most) most = n, now = left, victim = t;
      }
      if (victim < 0) return false;
      const uint64_t begin = static_cast<uint32_t>(now), end = now >> 32, cut = begin + (end - begin) / 2;
      if (!shares[victim].left.compare_exchange_weak(now, tasks_from(begin, cut), std::memory_order_relaxed)) continue;
      mine.store(tasks_from(cut + 1, end), std::memory_order_relaxed);
      task = static_cast<int64_t>(cut);
      return true;
    }
  }

  void work(int seat) {
    int64_t task;
    while (!failed.load(std::memory_order_relaxed) && take(seat, task)) {
      try {
        call(context, task);
      } catch (...) {
        std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        failed.store(true, std::memory_order_relaxed);
      }
    }
  }
};

// Jobs follow one another within microseconds, so their beginning and end are single words: a lock would be held by one
// thread just when another wants it, and whoever meets that sleeps in the system.
class Pool {
 public:
  void run(int64_t tasks, int threads, void (*call)(void*, int64_t), void* context) {
    std::lock_guard turn(turn_);
    start(threads - 1);
    Job job{call, context, shares_, threads, {}, {}, {}};
    job.deal(tasks);
    job_ = &job;
    done_.store(0, std::memory_order_relaxed);
    const uint64_t seats = static_cast<uint64_t>(threads - 1),
                   number = (door_.load(std::memory_order_relaxed) / kSeats + 1) * kSeats;
    door_.store(number + seats);
    if (asleep_.load() > 0) notify(wake_);
    inside_job = true;
    job.work(0);
    inside_job = false;
    // Late ones find no seat any more; only those that took one are waited for.
    const uint64_t taken = seats - door_.exchange(number) % kSeats;
    const auto all_done = [&] { return done_.load() == taken; };
    spin(all_done);
    if (!all_done()) {
      std::unique_lock lock(mutex_);
      waited_for_.store(true);
      over_.wait(lock, all_done);
      waited_for_.store(false);
    }
    if (job.error) std::rethrow_exception(job.error);
  }

 private:
  static constexpr uint64_t kSeats = 2 * kMaxThreads;

  void start(int workers) {
    for (; started_ < workers; ++started_) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::exception&) {
        return;  // the system gives no more threads: the caller does their share
      }
    }
  }
  // Who is about to sleep has said so with the mutex held, and then looked once more.
  void notify(std::condition_variable& sleepers) {
    { std::lock_guard lock(mutex_); }
    sleepers.notify_all();
  }

  void serve() {
    inside_job = true;
    uint64_t seen = 0;
    for (;;) {
      const auto opened = [&] { return door_.load() / kSeats != seen; };
      spin(opened);
      if (!opened()) {
        std::unique_lock lock(mutex_);
        asleep_.fetch_add(1);
        wake_.wait(lock, opened);
        asleep_.fetch_sub(1);
      }
      uint64_t door = door_.load();
      while (door % kSeats > 0 && !door_.compare_exchange_weak(door, door - 1)) {}
      seen = door / kSeats;
      if (door % kSeats == 0) continue;
      job_->work(static_cast<int>(door % kSeats));
      done_.fetch_add(1);
      if (waited_for_.load()) notify(over_);
    }
  }

  Share shares_[kMaxThreads];
  std::mutex turn_;  // callers take turns
  Job* job_ = nullptr;
  int started_ = 0;
  // The number of the job times kSeats, and how many may still join in it. Who took a seat may read job_.
  alignas(64) std::atomic<uint64_t> door_{0};
  alignas(64) std::atomic<uint64_t> done_{0};
  std::mutex mutex_;  // of those who sleep
  std::condition_variable wake_, over_;
  std::atomic<int> asleep_{0};
  std::atomic<bool> waited_for_{false};
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

int thread_count() { return std::min(limit, wanted_threads().load(std::memory_order_relaxed)); }

int use_at_most(int n) {
  require(n >= 1 && n <= kMaxThreads, "bad_argument", "threads at most: got ", n, ", wanted 1 to ", kMaxThreads);
  return std::exchange(limit, n);
}

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
  constexpr int64_t most = 1 << 30;  // a share counts in 32 bits
  if (tasks > most) {
    struct Part {
      void (*call)(void*, int64_t);
      void* context;
      int64_t from;
    };
    for (int64_t from = 0; from < tasks; from += most) {
      Part part{call, context, from};
      pool().run(
          tasks - from < most ? tasks - from : most, threads,
          [](void* p, int64_t i) {
            static_cast<Part*>(p)->call(static_cast<Part*>(p)->context, static_cast<Part*>(p)->from + i);
          },
          &part);
    }
    return;
  }
  pool().run(tasks, threads, call, context);
}
}  // namespace detail

}  // namespace temper
