// The CUDA backend under the case tables: its emulation on the host, and the real library where there is a GPU; and the
// host side by itself.
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "cuda/host/graph.h"
#include "cuda/host/memory.h"
#include "cuda/host/open.h"
#include "cuda/host/prefetch.h"
#include "cuda/host/runtime.h"
#include "cuda/host/transfer.h"
#include "emulation/emulation.h"
#include "emulation/faults.h"
#include "temper/backend.h"
#include "temper/error.h"
#include "temper/threads.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

const TemperBackend* g_backend = nullptr;  // whose memory the functions below mean: one device at a time

void must(int status) {
  if (status)
    throw std::runtime_error(std::string(g_backend->last_error_code()) + ": " + g_backend->last_error_message());
}
// The library has an error record of its own; the comparers read the program's.
void take_error() {
  set_last_error(std::string(g_backend->last_error_code()).c_str(),
                 std::string(g_backend->last_error_message()).c_str());
}
int settled() {
  const int status = g_backend->synchronize();
  if (status) take_error();
  return status;
}

Backend over(const TemperBackend* backend) {
  g_backend = backend;
  must(backend->open(0, 0));
  return {backend->name,
          backend->ops,
          {},
          [](size_t n) -> void* {
            void* p = nullptr;
            must(g_backend->allocate(&p, n, static_cast<int32_t>(Category::workspace)));
            return p;
          },
          [](void* d, const void* h, size_t n) { must(g_backend->upload(d, h, n)); },
          [](void* h, const void* d, size_t n) { must(g_backend->download(h, d, n)); },
          [](void* d) { g_backend->release(d); },
          take_error,
          settled};
}

std::string code_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code;
  }
  return "no error";
}

}  // namespace

Backend emulated_backend() {
  Backend b = over(temper_backend());
  using gpu::emulation::Order;
  for (Order order : {Order::rising, Order::falling}) {
    if (kSanitized && order == Order::falling) continue;  // the order changes no address
    b.variants.push_back({order == Order::rising ? "rising threads" : "falling threads", "emulation", [order] {
                            set_thread_count(2);
                            gpu::emulation::set_order(order);
                          }});
  }
  return b;
}

Backend cuda_backend() {
  const char* path = std::getenv("TEMPER_CUDA_LIBRARY");
  void* library = dlopen(path && *path ? path : "build/temper_cuda.so", RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(dlerror());
  auto* entry = reinterpret_cast<const TemperBackend* (*)()>(dlsym(library, "temper_backend"));
  if (!entry || entry()->abi != TEMPER_BACKEND_ABI || entry()->size != sizeof(TemperBackend))
    throw std::runtime_error("not a backend library of this version");
  Backend b = over(entry());
  for (const char* name : {"first run", "second run"}) b.variants.push_back({name, "cuda", [] {}});
  return b;
}

namespace {

// A thread that looked whether another records and then acts must not get into the recording that began in between.
void check_turns(Tally& tally) {
  using namespace gpu;
  constexpr int64_t T = 70, D = 40;
  const auto expect = [&](bool holds, const std::string& what) { report(tally, holds, "device: recording: " + what); };
  struct Memory {
    explicit Memory(int64_t count) : p(allocate_device(static_cast<size_t>(count) * 4, Category::workspace)) {
      zero_on_device(p, static_cast<size_t>(count) * 4);
    }
    ~Memory() { release_device(p); }
    void* p;
  };
  const auto tensor = [](const Memory& of, std::initializer_list<int64_t> shape) {
    Tensor t;
    t.data = of.p;
    for (int64_t n : shape) t.shape[t.ndim++] = n;
    return t;
  };
  const auto first = [](const Memory& of) {
    float x = 0;
    download(&x, of.p, sizeof x);
    return x;
  };
  const TemperOps& ops = *temper_backend()->ops;
  Memory mine(1), theirs(T * D), dw(D), dy(T * D), w(D), rstd(T);
  const Tensor my = tensor(mine, {1}), x = tensor(theirs, {T, D}), dx = x, my_dw = tensor(dw, {D}),
               my_dy = tensor(dy, {T, D}), my_w = tensor(w, {D}), my_rstd = tensor(rstd, {T});
  for (const Tensor* t : {&x, &my_dy, &my_w, &my_rstd}) must(ops.fill(t, 1));
  // Held where its `nth` work was about to go to the stream, another thread lets a recording of this one begin, if it
  // may, and goes on. What the recording holds then is what this thread called.
  const auto meet = [&](const std::string& what, int nth, const std::function<int()>& call) {
    std::atomic<bool> inside{false}, began{false};
    std::atomic<int> status{-1}, begun{0}, over{0};  // the last two: of its works
    static thread_local int left = -2;               // this thread's works are nobody's to hold
    emulation::faults().ahead_of_work = [&] {
      if (left == -2) return;
      ++begun;
      if (left == 0) {
        inside = true;
        for (int i = 0; i < 100 && !began; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (left >= 0) --left;
      ++over;
    };
    std::thread other([&] {
      left = nth;
      status = call();
    });
    while (!inside && status < 0) std::this_thread::yield();
    begin_graph();
    const int seen = over;
    began = true;
    expect(ops.fill(&my, 2) == 0, what + ": an op that is recorded fails");
    RecordedGraph* graph = end_graph();
    other.join();
    emulation::faults().ahead_of_work = nullptr;
    expect(seen == begun, what + ": it began before the call was over");
    expect(status == 0, what + ": the other thread's call failed");
    const int64_t launches_before = emulation::launches();
    launch_graph(graph);
    expect(emulation::launches() - launches_before == 1 && first(mine) == 2,
           what + ": it holds other work than its own");
    free_graph(graph);
  };
  meet("an op", 0, [&] { return ops.fill(&x, 3); });
  meet("an op of two kernels", 0, [&] { return ops.rmsnorm_bwd(&dx, &my_dw, &my_dy, nullptr, &x, &my_w, &my_rstd); });
  std::vector<char> bytes(size_t{20} << 20);
  Memory large(static_cast<int64_t>(bytes.size()) / 4);
  meet("an upload", 1, [&] {
    upload(large.p, bytes.data(), bytes.size());
    return 0;
  });
  // The other way: a call waits until the recording is over, and so does another recording.
  begin_graph();
  std::atomic<int> ready{0}, done{0};
  std::thread op([&] {
    ++ready;
    done += ops.fill(&x, 4) == 0;
  });
  std::thread recording([&] {
    ++ready;
    begin_graph();
    abandon_graph();
    ++done;
  });
  while (ready < 2) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  const int early = done;
  free_graph(end_graph());
  op.join();
  recording.join();
  expect(early == 0 && done == 2 && first(theirs) == 4, "another thread does not wait for it");
  // All at once, as often as it takes to meet.
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int thread = 0; thread < 3; ++thread)
    threads.emplace_back([&, thread] {
      Memory own(1);
      const Tensor t = tensor(own, {1});
      for (int i = 1; i <= 200; ++i) {
        if (thread > 0) {
          if (ops.fill(&t, i) || first(own) != static_cast<float>(i)) ++wrong;
          continue;
        }
        begin_graph();
        if (ops.fill(&t, i)) ++wrong;
        RecordedGraph* graph = end_graph();
        launch_graph(graph);
        if (first(own) != static_cast<float>(i)) ++wrong;
        free_graph(graph);
      }
    });
  for (std::thread& t : threads) t.join();
  expect(wrong == 0, std::to_string(wrong) + " results of 600 calls and recordings of three threads are wrong");
}

}  // namespace

void check_device(Tally& tally) {
  using namespace gpu;
  constexpr size_t kMiB = size_t{1} << 20;
  emulation::Machine& machine = emulation::machine();
  const emulation::Machine before = machine;
  const auto expect = [&](const std::string& what, const std::string& code, const std::function<void()>& f) {
    const std::string got = code_of(f);
    report(tally, got == code, "device: " + what + ": got " + got + ", wanted " + code);
  };
  close_device();
  // ---- opening
  machine.driver = 0;
  expect("no driver", "no_driver", [] { open_device(-1, 0); });
  machine.driver = before.driver;
  machine.devices = 0;
  expect("no device", "no_device", [] { open_device(-1, 0); });
  machine.devices = 1;
  expect("an index that is not there", "bad_device", [] { open_device(3, 0); });
  machine.major = 7;
  expect("too old a device", "device_unsupported", [] { open_device(0, 0); });
  machine.major = before.major;
  expect("no device open", "no_device", [] { device(); });
  // ---- the arena under its limit
  open_device(0, 200 * kMiB);
  expect("another device in one process", "device_open", [] { open_device(1, 0); });
  void* a = allocate_device(64 * kMiB, Category::weights);
  void* b = allocate_device(100 * kMiB, Category::activations);
  expect("over the limit", "out_of_device_memory", [&] { allocate_device(64 * kMiB, Category::kv); });
  std::string message;
  try {
    allocate_device(64 * kMiB, Category::kv);
  } catch (const Error& e) {
    message = e.message;
  }
  for (const char* part :
       {"64 MiB of kv", "weights 64 MiB", "activations 100 MiB", "limit of 200 MiB", "--memory-limit"})
    report(tally, message.find(part) != std::string::npos,
           std::string("device: the refusal does not say '") + part + "': " + message);
  report(tally,
         device_memory().counted.total_live == static_cast<int64_t>(164 * kMiB) && device_memory().held <= 200 * kMiB,
         "device: a refused allocation is counted");
  release_device(b);
  report(tally, device_memory().counted.live[static_cast<int>(Category::activations)] == 0,
         "device: a released block is still counted");
#if !defined(__SANITIZE_ADDRESS__)  // there every block is its own, and goes
  report(tally, device_memory().held >= 164 * kMiB, "device: a released block is not kept");
#endif
  // Other shapes are cut from what is kept, and join again: nothing more is taken from the driver.
  [[maybe_unused]] const size_t held = device_memory().held;
  for (int round = 0; round < 3; ++round) {
    std::vector<void*> parts;
    for (size_t i = 0; i < 9; ++i) parts.push_back(allocate_device((3 + i) * kMiB + 17 * i, Category::workspace));
    for (size_t i = 0; i < parts.size(); i += 2) release_device(parts[i]);
    for (size_t i = 1; i < parts.size(); i += 2) release_device(parts[i]);
    b = allocate_device(100 * kMiB, Category::activations);
    release_device(b);
  }
#if !defined(__SANITIZE_ADDRESS__)  // there every block is its own
  report(tally, device_memory().held == held, "device: blocks do not join their neighbours");
  b = allocate_device(130 * kMiB, Category::activations);  // the kept 100 MiB must go first
  report(tally, b != nullptr && device_memory().held <= 200 * kMiB,
         "device: kept memory is not given back for another shape");
  release_device(b);
#endif
  void* one = allocate_device(100, Category::workspace);
  void* two = allocate_device(100, Category::workspace);
  report(tally, one != two && (reinterpret_cast<uintptr_t>(one) | reinterpret_cast<uintptr_t>(two)) % 16 == 0,
         "device: small blocks overlap or are misaligned");
  release_device(one);
  release_device(two);
  release_device(a);
  trim_device_memory();
  report(tally, device_memory().held == 0 && device_memory().counted.total_live == 0,
         "device: trimming leaves memory held");
  machine.fail_allocation = 0;
  // a second try after trimming
  expect("the device itself has no memory", "no error",
         [] { release_device(allocate_device(kMiB, Category::workspace)); });
  // ---- transfers
  const size_t n = 40 * kMiB + 12345;
  std::vector<uint8_t> sent(n), back(n);
  for (size_t i = 0; i < n; ++i) sent[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  void* p = allocate_device(n, Category::weights);
  void* q = allocate_device(n, Category::weights);
  upload(p, sent.data(), n);
  copy_on_device(q, p, n);
  zero_on_device(p, n);
  download(back.data(), q, n);
  report(tally, back == sent, "device: bytes differ after upload, copy and download");
  download(back.data(), p, n);
  report(tally, std::all_of(back.begin(), back.end(), [](uint8_t x) { return x == 0; }), "device: zero leaves bytes");
  // ---- copies beside the ops
  const uint64_t down = evict(back.data(), q, n);
  arrive(down);
  report(tally, back == sent, "device: bytes differ after evict");
  emulation::Faults& faults = emulation::faults();
  const auto host_waits = [&](const std::string& what, const std::string& code, const std::function<void()>& f) {
    const int64_t waits_before = faults.synchronizations;
    expect(what, code, f);
    report(tally, faults.synchronizations > waits_before,
           "device: " + what + ": the host does not wait for the copies");
  };
  std::fill(back.begin(), back.end(), uint8_t{0});
  faults.wait.plant(1);  // the first is that of the copy for the ops before it
  host_waits("ops that cannot be told to wait for a copy", "no error", [&] { arrive(evict(back.data(), q, n)); });
  report(tally, back == sent, "device: bytes differ where the host waited for a copy");
  faults.wait.plant(0);
  host_waits("a copy that cannot be told to wait for the ops", "device_error",
             [&] { arrive(evict(back.data(), q, n)); });
  faults.copy.plant(3);
  host_waits("a copy one piece of which fails", "device_error", [&] { arrive(evict(back.data(), q, n)); });
  TemperTransfers copied;
  take_transfers(&copied);
  report(tally, copied.from_device == static_cast<int64_t>(2 * n), "device: copies that failed are counted");
  std::copy(sent.begin(), sent.end(), back.begin());
  expect("a ticket a second time", "bad_argument", [&] { arrive(down); });
  expect("a ticket that nobody got", "bad_argument", [&] { arrive(down + 2); });
  const uint64_t up[] = {prefetch(p, back.data(), n), prefetch(q, back.data(), 0)};
  for (uint64_t ticket : {up[1], up[0]}) arrive(ticket);
  std::fill(back.begin(), back.end(), uint8_t{0});
  download(back.data(), p, n);
  report(tally, back == sent, "device: bytes differ after prefetch");
  take_transfers(&copied);
  report(tally, copied.to_device == static_cast<int64_t>(n) && copied.copying > 0 && copied.waiting > 0,
         "device: copies beside the ops are not counted");
  // Of a thread that records: an error, and the memory is free to go all the same.
  const uint64_t late = evict(back.data(), p, n);
  begin_graph();
  expect("an arrival while ops are recorded", "graph_recording", [&] { arrive(late); });
  abandon_graph();
  expect("the same later", "bad_argument", [&] { arrive(late); });
  release_device(p);
  release_device(q);
  check_turns(tally);
  // ---- a device that is lost
  machine.fail_launch = 0;
  void* x = allocate_device(64, Category::workspace);
  Tensor t;
  t.data = x;
  t.ndim = 1;
  t.shape[0] = 16;
  const int status = temper_backend()->ops->fill(&t, 1.0) || temper_backend()->synchronize();
  report(tally, status && last_error().code == "device_lost",
         "device: a lost device gives " + (status ? last_error().code : std::string("no error")));
  uint64_t failed = 0;
  expect("a copy from a lost device", "device_lost", [&] { arrive(failed = evict(back.data(), x, 64)); });
  expect("its ticket", "bad_argument", [&] { arrive(failed); });
  release_device(x);
  machine = before;
  close_device();
  cudaDeviceReset();
  report(tally, code_of([] { device(); }) == "no_device", "device: still open after closing");
  open_device(0, 0);
}

}  // namespace temper::test
