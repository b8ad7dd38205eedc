// Experts that do not fit the device come from host memory layer by layer, and layer inputs wait there for their
// backward. Reading a mapped file costs page faults and a copy, and pageable memory the driver copies only while the
// caller waits: so threads do both, piece by piece through pinned buffers of their own, while a layer computes. What a
// job copies is whole when all of its pieces are; jobs of one direction begin in the order they came.
#include "cuda/host/prefetch.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/host/graph.h"
#include "cuda/host/runtime.h"
#include "gpu/turn.h"

namespace temper::gpu {
namespace {

constexpr size_t kPiece = size_t{4} << 20;
constexpr int kBuffers = 2;  // of a thread: one is filled while the other is sent
// One core moves 5 to 10 GB/s of pageable memory, a bus 25 to 55.
constexpr size_t kThreads = 4;                          // to a direction
constexpr const char* kWhat = "a copy beside the ops";  // in errors

struct Event {
  explicit Event(unsigned flags) { check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event); }  // the driver keeps what a stream still waits for
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  operator cudaEvent_t() const { return event; }
  cudaEvent_t event = nullptr;
};

enum class Way { up, down };
struct Job {
  Way way;
  char* device;
  char* host;  // up: only read
  size_t bytes;
  size_t pieces = std::max<size_t>(1, (bytes + kPiece - 1) / kPiece);
  size_t taken = 0, copied = 0;         // pieces
  std::exception_ptr error = nullptr;   // the first
  Event ready{cudaEventDisableTiming};  // the ops called before it
  Event begun{cudaEventDefault};        // on the copies' stream, as `done`
  Event done{cudaEventDefault};
  Event before{cudaEventDefault};  // on the ops' stream, about what stands still for it
  Event after{cudaEventDefault};
};
using Shared = std::shared_ptr<Job>;

struct Buffer {
  Buffer() {
    void* p = nullptr;
    check(cudaHostAlloc(&p, kPiece, cudaHostAllocDefault), "cudaHostAlloc");
    data = static_cast<char*>(p);
  }
  ~Buffer() { cudaFreeHost(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  char* data = nullptr;
  Event sent{cudaEventDisableTiming | cudaEventBlockingSync};  // a thread may wait for a layer: not by spinning
};
struct Buffers {
  Buffer of[kBuffers];
  int turn = 0;
  Buffer& next() { return of[turn = (turn + 1) % kBuffers]; }
};
struct Feeder {
  explicit Feeder(uint64_t first) : next(first) {}
  std::mutex mutex;
  std::condition_variable wake, finished_one;
  std::deque<Shared> waiting;       // of which pieces are left to take
  std::map<uint64_t, Shared> jobs;  // by ticket, until they arrive
  uint64_t next;
  int under_way = 0;  // pieces
  size_t threads = 0;
  // of the open device: a thread's buffers, and the stream
  std::vector<std::unique_ptr<Buffers>> buffers;
  cudaStream_t stream = nullptr;
};
// Tickets up are odd, tickets down even.
Feeder& feeder(Way way) {  // never destroyed: its threads outlive static destructors
  static Feeder* up = new Feeder(1);
  static Feeder* down = new Feeder(2);
  return way == Way::up ? *up : *down;
}

void copy_piece(const Job& job, size_t piece, Buffer& buffer, cudaStream_t stream) {
  device();
  const size_t at = piece * kPiece, n = std::min(kPiece, job.bytes - at);
  if (job.way == Way::up) {
    check(cudaEventSynchronize(buffer.sent), kWhat);
    std::memcpy(buffer.data, job.host + at, n);
    check(cudaMemcpyAsync(job.device + at, buffer.data, n, cudaMemcpyHostToDevice, stream), kWhat);
    check(cudaEventRecord(buffer.sent, stream), kWhat);
  } else {
    check(cudaMemcpyAsync(buffer.data, job.device + at, n, cudaMemcpyDeviceToHost, stream), kWhat);
    check(cudaEventRecord(buffer.sent, stream), kWhat);
    check(cudaEventSynchronize(buffer.sent), kWhat);
    std::memcpy(job.host + at, buffer.data, n);
  }
}

template <class Work>
std::exception_ptr caught(const Work& work) noexcept {
  try {
    work();
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

// A thread takes piece after piece; the one that ends a job's last says so.
void serve(Feeder& f, size_t thread) {
  std::unique_lock lock(f.mutex);
  for (;;) {
    f.wake.wait(lock, [&] { return !f.waiting.empty(); });
    const Shared job = f.waiting.front();
    const size_t piece = job->taken++;
    if (job->taken == job->pieces) f.waiting.pop_front();
    ++f.under_way;
    // Before another thread may take a piece: what comes to the stream later waits too.
    if (piece == 0)
      job->error = caught([&] {
        device();
        check(cudaStreamWaitEvent(f.stream, job->ready), kWhat);
        check(cudaEventRecord(job->begun, f.stream), kWhat);
      });
    std::exception_ptr error = job->error;
    if (!error && job->bytes > 0) {
      Buffer& buffer = f.buffers[thread]->next();
      const cudaStream_t stream = f.stream;
      lock.unlock();
      error = caught([&] { copy_piece(*job, piece, buffer, stream); });
      lock.lock();
    }
    --f.under_way;
    if (!job->error) job->error = error;
    if (++job->copied < job->pieces) continue;
    error = caught([&] { check(cudaEventRecord(job->done, f.stream), kWhat); });
    if (!job->error) job->error = error;
    f.finished_one.notify_all();
  }
}

void prepare(Feeder& f) {
  while (f.buffers.size() < kThreads) f.buffers.push_back(std::make_unique<Buffers>());
  if (!f.stream) check(cudaStreamCreateWithFlags(&f.stream, cudaStreamNonBlocking), "cudaStreamCreate");
  for (; f.threads < kThreads; ++f.threads) std::thread(serve, std::ref(f), f.threads).detach();
}

uint64_t begin(Way way, void* on_device, void* on_host, size_t bytes) {
  const Turn turn;
  require(!recording(), "graph_recording", "a copy of ", bytes,
          " bytes while ops are recorded; write or read the tensor before");
  const cudaStream_t ops = device().stream;
  const Shared job(new Job{way, static_cast<char*>(on_device), static_cast<char*>(on_host), bytes});
  check(cudaEventRecord(job->ready, ops), kWhat);
  Feeder& f = feeder(way);
  std::lock_guard lock(f.mutex);
  prepare(f);
  const uint64_t ticket = std::exchange(f.next, f.next + 2);  // used up even where there is no memory to go on
  f.jobs.emplace(ticket, job);
  f.waiting.push_back(job);
  f.wake.notify_all();
  return ticket;
}

// Copies that arrived and whose times are not all known yet, and the sums of those whose are.
struct Account {
  std::mutex mutex;
  std::deque<Shared> open;
  TemperTransfers sum{};
};
Account& account() {
  static Account* a = new Account;
  return *a;
}
double seconds(cudaEvent_t from, cudaEvent_t to) {
  float milliseconds = 0;
  return cudaEventElapsedTime(&milliseconds, from, to) == cudaSuccess ? milliseconds / 1e3 : 0;
}
void settle(Account& a) {
  for (; !a.open.empty() && cudaEventQuery(a.open.front()->after) == cudaSuccess; a.open.pop_front()) {
    const Job& job = *a.open.front();
    (job.way == Way::up ? a.sum.to_device : a.sum.from_device) += static_cast<int64_t>(job.bytes);
    a.sum.copying += seconds(job.begun, job.done);
    a.sum.waiting += seconds(job.before, job.after);
  }
  if (!a.open.empty()) cudaGetLastError();  // that one is not over yet is no error for others to find on the thread
}

}  // namespace

uint64_t prefetch(void* device_to, const void* host, size_t bytes) {
  return begin(Way::up, device_to, const_cast<void*>(host), bytes);
}
uint64_t evict(void* host_to, const void* device_from, size_t bytes) {
  return begin(Way::down, const_cast<void*>(device_from), host_to, bytes);
}

void arrive(uint64_t ticket) {
  const Turn turn;  // the threads that copy need none: their stream is their own
  const cudaStream_t ops = device().stream;
  const bool recorded = recording();  // what the stream is told then belongs to the graph
  Feeder& f = feeder(ticket % 2 ? Way::up : Way::down);
  std::unique_lock lock(f.mutex);
  const auto found = f.jobs.find(ticket);
  require(found != f.jobs.end(), "bad_argument", "arrive: ", ticket, " is no ticket of a copy under way");
  const Shared job = found->second;
  f.jobs.erase(found);
  // From here nothing may throw until the threads are done with the memory. Between `before` and `after` the ops stand
  // still, be it for the copy or because the host, waiting here, calls none.
  const cudaError_t marked = recorded ? cudaSuccess : cudaEventRecord(job->before, ops);
  f.finished_one.wait(lock, [&] { return job->copied == job->pieces; });
  const cudaStream_t copies = f.stream;
  lock.unlock();
  cudaError_t waits = recorded ? cudaEventSynchronize(job->done) : cudaStreamWaitEvent(ops, job->done);
  // Pieces that are on their way must not meet what the memory is used for next. Where the stream of the ops cannot be
  // told to wait, or what a failed copy left there has no event behind it, the host does, for all copies that way.
  if (waits != cudaSuccess || job->error) {
    cudaGetLastError();
    waits = cudaStreamSynchronize(copies);
  }
  if (job->error) std::rethrow_exception(job->error);
  require(!recorded, "graph_recording", "an arrival of ", job->bytes,
          " bytes while ops are recorded; let them arrive before");
  for (const cudaError_t status : {marked, waits, cudaEventRecord(job->after, ops)}) check(status, kWhat);
  Account& a = account();
  std::lock_guard account_lock(a.mutex);
  a.open.push_back(job);
  settle(a);
}

void take_transfers(TemperTransfers* out) {
  Account& a = account();
  std::lock_guard lock(a.mutex);
  settle(a);
  *out = std::exchange(a.sum, {});
}

void release_prefetch() noexcept {
  for (const Way way : {Way::up, Way::down}) {
    Feeder& f = feeder(way);
    std::unique_lock lock(f.mutex);
    f.finished_one.wait(lock, [&] { return f.waiting.empty() && f.under_way == 0; });
    if (f.stream) {
      cudaStreamSynchronize(f.stream);
      cudaStreamDestroy(f.stream);
    }
    f.stream = nullptr;
    f.buffers.clear();
    f.jobs.clear();
  }
  Account& a = account();
  std::lock_guard lock(a.mutex);
  a.open.clear();
  a.sum = {};
}

}  // namespace temper::gpu
