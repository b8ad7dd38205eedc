// Experts that do not fit the device come from host memory layer by layer. Reading a mapped file costs page faults and
// a copy, so it is done by a thread, through pinned buffers of its own, while the layer before computes.
#include "cuda/host/prefetch.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "cuda/host/graph.h"
#include "cuda/host/runtime.h"

namespace temper::gpu {
namespace {

constexpr size_t kStage = size_t{16} << 20;
constexpr int kStages = 3;

struct Job {
  uint64_t ticket;
  char* to;
  const char* from;
  size_t bytes;
  cudaEvent_t ready = nullptr;  // the ops called before it
  cudaEvent_t done = nullptr;
};
struct Finished {
  cudaEvent_t done = nullptr;
  std::exception_ptr error;
};

struct Feeder {
  std::mutex mutex;
  std::condition_variable wake, finished_one;
  std::deque<Job> jobs;
  std::map<uint64_t, Finished> finished;
  uint64_t next = 1;
  int under_way = 0;
  bool started = false;
  cudaStream_t stream = nullptr;
  char* buffer[kStages] = {};
  cudaEvent_t sent[kStages] = {};
};
Feeder& feeder() {  // never destroyed: its thread outlives static destructors
  static Feeder* f = new Feeder;
  return *f;
}

void prepare(Feeder& f) {
  if (f.stream) return;
  check(cudaStreamCreateWithFlags(&f.stream, cudaStreamNonBlocking), "cudaStreamCreate");
  for (int i = 0; i < kStages; ++i) {
    void* p = nullptr;
    check(cudaHostAlloc(&p, kStage, cudaHostAllocDefault), "cudaHostAlloc");
    f.buffer[i] = static_cast<char*>(p);
    check(cudaEventCreateWithFlags(&f.sent[i], cudaEventDisableTiming), "cudaEventCreate");
  }
}

void feed(Feeder& f, const Job& job) {
  device();  // binds this thread
  check(cudaStreamWaitEvent(f.stream, job.ready), "prefetch");
  int turn = 0;
  for (size_t at = 0; at < job.bytes; at += kStage, turn = (turn + 1) % kStages) {
    const size_t n = std::min(kStage, job.bytes - at);
    check(cudaEventSynchronize(f.sent[turn]), "prefetch");
    std::memcpy(f.buffer[turn], job.from + at, n);
    check(cudaMemcpyAsync(job.to + at, f.buffer[turn], n, cudaMemcpyHostToDevice, f.stream), "prefetch");
    check(cudaEventRecord(f.sent[turn], f.stream), "prefetch");
  }
  check(cudaEventRecord(job.done, f.stream), "prefetch");
}

void serve() {
  Feeder& f = feeder();
  std::unique_lock lock(f.mutex);
  for (;;) {
    f.wake.wait(lock, [&] { return !f.jobs.empty(); });
    const Job job = f.jobs.front();
    f.jobs.pop_front();
    ++f.under_way;
    lock.unlock();
    Finished out{job.done, nullptr};
    try {
      feed(f, job);
    } catch (...) {
      out.error = std::current_exception();
    }
    cudaEventDestroy(job.ready);
    lock.lock();
    --f.under_way;
    f.finished.emplace(job.ticket, out);
    f.finished_one.notify_all();
  }
}

}  // namespace

uint64_t prefetch(void* device_to, const void* host, size_t bytes) {
  require(!recording(), "graph_recording", "an upload of ", bytes,
          " bytes while ops are recorded; write the tensor before");
  Feeder& f = feeder();
  const cudaStream_t ops = device().stream;
  std::lock_guard lock(f.mutex);
  prepare(f);
  Job job{0, static_cast<char*>(device_to), static_cast<const char*>(host), bytes};
  check(cudaEventCreateWithFlags(&job.ready, cudaEventDisableTiming), "cudaEventCreate");
  check(cudaEventCreateWithFlags(&job.done, cudaEventDisableTiming), "cudaEventCreate");
  check(cudaEventRecord(job.ready, ops), "prefetch");
  if (!f.started) {
    std::thread(serve).detach();
    f.started = true;
  }
  job.ticket = f.next++;
  f.jobs.push_back(job);
  f.wake.notify_one();
  return job.ticket;
}

void arrive(uint64_t ticket) {
  Feeder& f = feeder();
  const cudaStream_t ops = device().stream;
  Finished found;
  {
    std::unique_lock lock(f.mutex);
    require(ticket > 0 && ticket < f.next, "bad_argument", "arrive: ", ticket, " is no ticket");
    f.finished_one.wait(lock, [&] { return f.finished.count(ticket) != 0; });
    found = f.finished.at(ticket);
    f.finished.erase(ticket);
  }
  const cudaError_t status = found.error ? cudaSuccess : cudaStreamWaitEvent(ops, found.done);
  cudaEventDestroy(found.done);  // the driver keeps what a stream still waits for
  if (found.error) std::rethrow_exception(found.error);
  check(status, "prefetch");
}

void release_prefetch() noexcept {
  Feeder& f = feeder();
  std::unique_lock lock(f.mutex);
  f.finished_one.wait(lock, [&] { return f.jobs.empty() && f.under_way == 0; });
  if (!f.stream) return;
  cudaStreamSynchronize(f.stream);
  for (int i = 0; i < kStages; ++i) {
    cudaFreeHost(f.buffer[i]);
    cudaEventDestroy(f.sent[i]);
    f.buffer[i] = nullptr;
    f.sent[i] = nullptr;
  }
  cudaStreamDestroy(f.stream);
  f.stream = nullptr;
}

}  // namespace temper::gpu
