// The thread pool all CPU ops share. Work is cut the same way whatever the thread count, so results keep their bits.
#pragma once
#include <cstdint>
#include <type_traits>
#include <utility>

namespace temper {

// threads that work on a job, the caller included; TEMPER_THREADS or the cores allowed to us
int thread_count();
void set_thread_count(int n);  // 1…1024, else Error{"bad_argument"}
// From now on so many threads at most work on a job of the calling thread, whatever others have; 1: it computes alone,
// beside others that do their own. Returns how many it were.
int use_at_most(int n);  // 1…1024, else Error{"bad_argument"}

namespace detail {
void run_tasks(int64_t tasks, void (*call)(void*, int64_t), void* context);
}

// Runs body(i) for i = 0…tasks−1, each once, handed out dynamically; returns when all are done. The first exception is
// rethrown here. A task must not depend on which thread runs it nor on order; a nested call runs its tasks in the
// calling thread. One job runs at a time in the process: callers from several JS threads take turns.
template <class F>
void parallel_for(int64_t tasks, F&& body) {
  using Body = std::remove_reference_t<F>;
  detail::run_tasks(
      tasks, [](void* b, int64_t i) { (*static_cast<Body*>(b))(i); },
      const_cast<void*>(static_cast<const void*>(&body)));
}
// The same over [0, n) cut into pieces of `grain`: body(begin, end).
template <class F>
void parallel_ranges(int64_t n, int64_t grain, F&& body) {
  parallel_for((n + grain - 1) / grain, [&](int64_t i) { body(i * grain, (i + 1) * grain < n ? (i + 1) * grain : n); });
}

}  // namespace temper
