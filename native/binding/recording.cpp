// Graphs as JavaScript sees them: a number, for ops recorded on the host (Recording) or on the device (its backend's).
#include "binding/recording.h"

#include <unordered_map>

#include "binding/device.h"
#include "binding/js.h"
#include "cpu/ops.h"

namespace temper::binding {
namespace {

thread_local std::shared_ptr<Recording> current;

// A device's graph that an environment leaves behind stays until the process ends, as its device does.
struct Graph {
  const void* env = nullptr;
  std::shared_ptr<Recording> host;
  void* device = nullptr;
};
struct Graphs {
  std::mutex mutex;
  std::unordered_map<int64_t, Graph> open;
  int64_t next = 1;
};
Graphs& graphs() {
  static Graphs* g = new Graphs;
  return *g;
}
Graph& graph_of(const char* name, int64_t id) {  // needs the mutex
  const auto at = graphs().open.find(id);
  require(at != graphs().open.end(), "bad_argument", name, ": ", id, " is no recorded graph");
  return at->second;
}
std::shared_ptr<Recording> host_graph(const char* name, int64_t id) {  // null: the device's
  std::lock_guard lock(graphs().mutex);
  return graph_of(name, id).host;
}

// beginGraph(place, shared): shared is a graph of the host whose memory this one uses too, 0: none.
napi_value begin_graph(napi_env env, napi_callback_info info) {
  const Call c(env, info, "beginGraph", 2);
  refuse_while_recording("beginGraph");
  const int64_t place = c.integer(0), shared = c.integer(1);
  require(place == 0 || place == 1, "bad_argument", "beginGraph: place ", place, ", wanted 0 (host) or 1 (device)");
  if (place) {
    const TemperBackend& b = require_device("beginGraph");
    must(b, b.begin_graph());
    return nullptr;
  }
  const std::shared_ptr<Recording> other = shared ? host_graph("beginGraph", shared) : nullptr;
  require(!shared || other, "bad_argument", "beginGraph: graph ", shared,
          " is the device's, its memory cannot be shared");
  current = std::make_shared<Recording>(other.get());
  return nullptr;
}
// endGraph(abandon) → number, 0 where nothing is kept.
napi_value end_graph(napi_env env, napi_callback_info info) {
  const bool abandon = Call(env, info, "endGraph", 1).integer(0) != 0;
  Graph graph{env_key(env), std::move(current), nullptr};
  current.reset();
  if (!graph.host) {
    const TemperBackend& b = require_device("endGraph");
    must(b, b.end_graph(&graph.device, abandon));
    if (!graph.device) return js_number(env, 0);
  } else if (abandon) {
    return js_number(env, 0);
  }
  Graphs& g = graphs();
  std::lock_guard lock(g.mutex);
  const int64_t id = g.next++;
  g.open.emplace(id, std::move(graph));
  return js_number(env, static_cast<double>(id));
}
napi_value launch_graph(napi_env env, napi_callback_info info) {
  refuse_while_recording("launchGraph");
  const int64_t id = Call(env, info, "launchGraph", 1).integer(0);
  if (const auto host = host_graph("launchGraph", id)) {
    host->run();
    return nullptr;
  }
  const TemperBackend& b = require_device("launchGraph");
  std::lock_guard lock(graphs().mutex);  // queueing is quick, and nobody frees the graph meanwhile
  must(b, b.launch_graph(graph_of("launchGraph", id).device));
  return nullptr;
}
napi_value free_graph(napi_env env, napi_callback_info info) {
  const int64_t id = Call(env, info, "freeGraph", 1).integer(0);
  Graph graph;
  std::lock_guard lock(graphs().mutex);
  graph = std::move(graph_of("freeGraph", id));
  graphs().open.erase(id);
  if (graph.device) require_device("freeGraph").free_graph(graph.device);
  return nullptr;
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
    if (op.call(cpu::table(), refs, numbers) != 0) throw Error(last_error());
    is_tensor += op.arity;
    numbers += op.arity;
  }
  outside_.require_whole();
}

Recording* recording() noexcept { return current.get(); }

void refuse_while_recording(const char* what) {
  require(!current, "graph_recording", what,
          ": ops are being recorded, nothing runs; do it before or after, or end the recording that is under way");
}

void free_recordings(const void* env) noexcept {
  Graphs& g = graphs();
  std::lock_guard lock(g.mutex);
  std::erase_if(g.open, [env](const auto& entry) { return entry.second.env == env && entry.second.host; });
}

void define_recording(napi_env env, napi_value exports) {
  define<begin_graph>(env, exports, "beginGraph");
  define<end_graph>(env, exports, "endGraph");
  define<launch_graph>(env, exports, "launchGraph");
  define<free_graph>(env, exports, "freeGraph");
}

}  // namespace temper::binding
