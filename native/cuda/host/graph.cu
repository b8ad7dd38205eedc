// CUDA graphs of recorded ops: a decode step is some four hundred small kernels, whose launches would cost more than
// their work.
#include "cuda/host/graph.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "cuda/host/memory.h"
#include "cuda/host/open.h"
#include "cuda/host/runtime.h"
#include "gpu/turn.h"

namespace temper::gpu {

struct RecordedGraph {
  int memory = 0;
  cudaGraphExec_t executable = nullptr;
};

namespace {

// How many threads have a turn, and whether one records or is about to: then nobody else comes in, and it begins when
// the others are out.
constexpr uint32_t kClosed = 1u << 31;
std::atomic<uint32_t> turns{0};
thread_local int depth = 0;     // of this thread's turns
thread_local int recorded = 0;  // the number of the memory of the graph that it records; 0: none

// Adds to `turns` once nobody records.
void enter(uint32_t what) noexcept {
  uint32_t seen = turns.load(std::memory_order_relaxed);
  for (;;) {
    if (seen & kClosed) {
      turns.wait(seen, std::memory_order_relaxed);
      seen = turns.load(std::memory_order_relaxed);
    } else if (turns.compare_exchange_weak(seen, seen + what, std::memory_order_acquire, std::memory_order_relaxed)) {
      return;
    }
  }
}
void leave(uint32_t what) noexcept {
  const uint32_t left = turns.fetch_sub(what, std::memory_order_release) - what;
  if (what == kClosed || left == kClosed) turns.notify_all();
}

void close_turns() noexcept {
  enter(kClosed);
  for (uint32_t seen; (seen = turns.load(std::memory_order_acquire)) != kClosed;) turns.wait(seen);
  ++depth;
}
void open_turns() noexcept {
  --depth;
  leave(kClosed);
}

// Ends this thread's recording: the number of its memory.
int stop_recording() noexcept {
  const int memory = std::exchange(recorded, 0);
  end_graph_memory();
  open_turns();
  return memory;
}

}  // namespace

Turn::Turn() noexcept {
  if (depth++ == 0) enter(1);
}
Turn::~Turn() {
  if (--depth == 0) leave(1);
}

bool recording() noexcept { return recorded != 0; }

void begin_graph() {
  require(!recording(), "graph_recording", "a recording of ops is under way; end it first");
  require(depth == 0, "internal", "a recording begins within a call, which would wait for itself");
  const cudaStream_t stream = device().stream;
  close_turns();
  int memory = 0;
  cudaError_t status = cudaSuccess;
  try {
    memory = begin_graph_memory();
  } catch (...) {
    open_turns();
    throw;
  }
  recorded = memory;
  // Relaxed: the arena may have to ask the driver for a segment meanwhile.
  status = cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
  if (status == cudaSuccess) return;
  release_graph_memory(stop_recording());
  check(status, "beginning to record");
}

RecordedGraph* end_graph() {
  require(recording(), "graph_recording", "no recording of ops is under way");
  auto out = std::make_unique<RecordedGraph>();
  cudaGraph_t graph = nullptr;
  cudaError_t status = cudaStreamEndCapture(device().stream, &graph);
  out->memory = stop_recording();
  if (status == cudaSuccess) {
    status = cudaGraphInstantiate(&out->executable, graph, 0);
    cudaGraphDestroy(graph);
  }
  if (status != cudaSuccess) {
    release_graph_memory(out->memory);
    check(status, "recording a graph");
  }
  return out.release();
}

void abandon_graph() noexcept {
  if (!recording()) return;
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(device().stream, &graph) == cudaSuccess && graph) cudaGraphDestroy(graph);
  cudaGetLastError();
  release_graph_memory(stop_recording());
}

void launch_graph(const RecordedGraph* graph) {
  const Turn turn;
  check(cudaGraphLaunch(graph->executable, device().stream), "launching a graph");
}

void free_graph(RecordedGraph* graph) noexcept {
  if (!graph) return;
  if (device_is_open()) {
    const Turn turn;
    cudaStreamSynchronize(device().stream);
    cudaGraphExecDestroy(graph->executable);
    release_graph_memory(graph->memory);
  }
  delete graph;
}

}  // namespace temper::gpu
