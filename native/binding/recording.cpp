// Graphs as JavaScript sees them: a number, for ops recorded on the host (Recording) or on the device (its backend's).
#include "binding/recording.h"

#include <utility>

#include "binding/device.h"
#include "binding/environment.h"
#include "binding/js.h"
#include "binding/registry.h"
#include "cpu/ops.h"
#include "plan/plan.h"

namespace temper::binding {
namespace {

thread_local std::shared_ptr<Recording> current;

class DeviceGraph {
 public:
  DeviceGraph(const TemperBackend& backend, void* graph) : backend_(backend), graph_(graph) {}
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;
  ~DeviceGraph() { backend_.free_graph(graph_); }
  void launch() {
    const std::lock_guard turn(launching_);  // queueing is quick
    must(backend_, backend_.launch_graph(graph_));
  }

 private:
  const TemperBackend& backend_;
  void* const graph_;
  std::mutex launching_;
};

// One of the two. Whoever launches it holds it, so that nobody frees it meanwhile.
struct Graph {
  std::shared_ptr<Recording> host;
  std::shared_ptr<DeviceGraph> device;
};
Registry<Graph>& graphs() {
  static auto* r = new Registry<Graph>({"bad_argument", "", " is no recorded graph"});
  return *r;
}

// beginGraph(place, shared): shared is a graph of the host whose memory this one uses too, 0: none.
void begin_graph(const Napi::CallbackInfo& info) {
  const Call c(info, "beginGraph", 2);
  refuse_while_recording("beginGraph");
  const int64_t place = c.integer(0), shared = c.integer(1);
  require(place == 0 || place == 1, "bad_argument", "beginGraph: place ", place, ", wanted 0 (host) or 1 (device)");
  if (place && !plan::current()) {
    const TemperBackend& b = require_device("beginGraph");
    return must(b, b.begin_graph());
  }
  const Graph other = shared ? graphs().get("beginGraph", static_cast<Handle>(shared)) : Graph{};
  require(!shared || other.host, "bad_argument", "beginGraph: graph ", shared,
          " is the device's, its memory cannot be shared");
  current = std::make_shared<Recording>(other.host.get(), place ? plan::device() : plan::host());
}
// endGraph(abandon) → number, 0 where nothing is kept.
Napi::Value end_graph(const Napi::CallbackInfo& info) {
  const Call c(info, "endGraph", 1);
  const bool abandon = c.integer(0) != 0;
  Graph graph{std::exchange(current, nullptr), nullptr};
  if (!graph.host) {
    const TemperBackend& b = require_device("endGraph");
    void* recorded = nullptr;
    must(b, b.end_graph(&recorded, abandon));
    if (recorded) graph.device = std::make_shared<DeviceGraph>(b, recorded);
  }
  const bool kept = graph.device || (graph.host && !abandon);
  return js_number(c.env(), kept ? graphs().add(owner(c.env()), std::move(graph)) : 0);
}
void launch_graph(const Napi::CallbackInfo& info) {
  refuse_while_recording("launchGraph");
  const Graph graph = graphs().get("launchGraph", static_cast<Handle>(Call(info, "launchGraph", 1).integer(0)));
  if (graph.host) graph.host->run();
  else graph.device->launch();
}
void free_graph(const Napi::CallbackInfo& info) {
  graphs().take("freeGraph", static_cast<Handle>(Call(info, "freeGraph", 1).integer(0)));
}

}  // namespace

void Recording::add(OpCall call, int arity, const Pins& pins, const double* numbers) {
  outside_.add(pins, memory_.get());
  ops_.push_back({call, arity});
  for (int i = 0; i < arity; ++i) {
    const TensorRef t = pins.tensors()[i];
    is_tensor_.push_back(t != nullptr);
    numbers_.push_back(numbers[i]);
    if (t) tensors_.push_back(*t);
  }
}

void Recording::run() {
  std::lock_guard turn(running_);
  const Outside::Use use(outside_, "launchGraph");
  const Tensor* tensor = tensors_.data();
  const uint8_t* is_tensor = is_tensor_.data();
  const double* numbers = numbers_.data();
  for (const Op& op : ops_) {
    TensorRef refs[Pins::kMax];
    for (int i = 0; i < op.arity; ++i) refs[i] = is_tensor[i] ? tensor++ : nullptr;
    if (place_) must(*place_, op.call(*place_->ops, refs, numbers));
    else if (op.call(cpu::table(), refs, numbers) != 0) throw Error(last_error());
    is_tensor += op.arity;
    numbers += op.arity;
  }
  outside_.require_whole();
}

Recording* recording() noexcept { return current.get(); }

void refuse_while_recording(const char* what) {
  require(!current || !plan::on_host(current->place()), "graph_recording", what,
          ": ops are being recorded, nothing runs; do it before or after, or end the recording that is under way");
}

void abandon_recording() noexcept {
  current.reset();
  void* none = nullptr;
  if (const TemperBackend* b = device_backend()) b->end_graph(&none, 1);  // does nothing where this thread records none
}

void define_recording(Napi::Object exports) {
  define<begin_graph>(exports, "beginGraph");
  define<end_graph>(exports, "endGraph");
  define<launch_graph>(exports, "launchGraph");
  define<free_graph>(exports, "freeGraph");
}

}  // namespace temper::binding
