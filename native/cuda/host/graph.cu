// CUDA graphs of recorded ops: a decode step is some four hundred small kernels, whose launches would cost more than
// their work.
#include "cuda/host/graph.h"

#include <atomic>
#include <memory>
#include <thread>

#include "cuda/host/memory.h"
#include "cuda/host/open.h"
#include "cuda/host/runtime.h"

namespace temper::gpu {

struct RecordedGraph {
  int memory = 0;
  cudaGraphExec_t executable = nullptr;
};

namespace {
std::atomic<int> current{0};  // the number of the graph's memory; 0: none is recorded
std::atomic<std::thread::id> recorder;
}  // namespace

bool recording() noexcept { return current != 0 && recorder.load() == std::this_thread::get_id(); }

void wait_for_recording() noexcept {
  for (int graph = current; graph != 0 && recorder.load() != std::this_thread::get_id(); graph = current)
    current.wait(graph);
}

void begin_graph() {
  require(!recording(), "graph_recording", "a recording of ops is under way; end it first");
  device();  // after another thread's recording
  const int memory = begin_graph_memory();
  recorder = std::this_thread::get_id();
  // Relaxed: the arena may have to ask the driver for a segment meanwhile.
  const cudaError_t status = cudaStreamBeginCapture(device().stream, cudaStreamCaptureModeRelaxed);
  if (status != cudaSuccess) {
    end_graph_memory();
    release_graph_memory(memory);
    check(status, "beginning to record");
  }
  current = memory;
}
namespace {
int stop_recording() noexcept {
  const int memory = current.exchange(0);
  end_graph_memory();
  return memory;
}
}  // namespace

RecordedGraph* end_graph() {
  require(recording(), "graph_recording", "no recording of ops is under way");
  auto out = std::make_unique<RecordedGraph>();
  cudaGraph_t graph = nullptr;
  cudaError_t status = cudaStreamEndCapture(device().stream, &graph);
  out->memory = stop_recording();
  current.notify_all();
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
  current.notify_all();
}

void launch_graph(const RecordedGraph* graph) {
  check(cudaGraphLaunch(graph->executable, device().stream), "launching a graph");
}

void free_graph(RecordedGraph* graph) noexcept {
  if (!graph) return;
  if (device_is_open()) {
    cudaStreamSynchronize(device().stream);
    cudaGraphExecDestroy(graph->executable);
    release_graph_memory(graph->memory);
  }
  delete graph;
}

}  // namespace temper::gpu
