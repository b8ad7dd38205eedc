// The device arena: counted memory under a limit, cut from segments that are kept. cudaMalloc and cudaFree wait for the
// device, so a step may not call them once it has run before: freed ranges join their neighbours and are handed out
// again, best fit first. Large weights, which come once and stay, get a segment of their own of exactly their size;
// small blocks have segments apart, so that they do not cut the large ones to pieces.
#include "cuda/host/memory.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <vector>

#include "cuda/host/runtime.h"

namespace temper::gpu {
namespace {

constexpr size_t kAlign = 256;                // what the hardware's widest copies and cuBLASLt want
constexpr size_t kPage = size_t{2} << 20;     // the driver maps device memory in pages of 2 MiB
constexpr size_t kSmall = size_t{256} << 10;  // up to here a block lives in a segment of small ones
constexpr size_t kSmallSegment = kPage;
constexpr size_t kSegment = size_t{64} << 20;
constexpr int kCategories = static_cast<int>(Category::count);
constexpr const char* kNames[kCategories] = {"weights", "adapter", "optimizer", "activations", "workspace", "kv"};

#if defined(__SANITIZE_ADDRESS__)
// emulated device memory: a kept or shared segment would hide overruns from the sanitizer
constexpr bool kKeep = false;
#else
constexpr bool kKeep = true;
#endif

struct Segment {
  char* base;
  size_t size;
  bool small;
  size_t live = 0;  // blocks
};
// A piece of a segment; the pieces of a segment lie in a map by offset, so that neighbours are found.
struct Range {
  Segment* segment;
  size_t size;
  size_t bytes = 0;   // asked for
  int category = -1;  // −1: nobody has it
  int graph = 0;      // of the recording that took it: it stays out of the common free lists until that graph goes
};
bool is_free(const Range& r) { return r.category < 0 && r.graph == 0; }
struct State {
  std::mutex mutex;
  std::map<char*, Segment*> segments;
  std::map<char*, Range> ranges;  // by address, over all segments
  std::set<std::pair<size_t, char*>> free_small, free_large;
  size_t live[kCategories] = {}, peak[kCategories] = {};
  size_t total = 0, total_peak = 0, in_use = 0, held = 0, held_peak = 0, limit = 0;
  // the graph that takes what is allocated now; the last one's number
  int recording = 0, graphs = 0;
  std::map<int, std::set<std::pair<size_t, char*>>> kept_by_graph;
};
State& state() {  // never destroyed: worker threads may still release blocks while the process exits
  static State* s = new State;
  return *s;
}

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
std::set<std::pair<size_t, char*>>& free_set(State& s, const Segment& segment) {
  return segment.small ? s.free_small : s.free_large;
}

void drop_segment(State& s, Segment* segment) {
  cudaFree(segment->base);  // a lost device refuses; there is nothing to be done about it here
  s.held -= segment->size;
  s.segments.erase(segment->base);
  delete segment;
}

// Gives whole free segments back, largest first, until `held` is at most `target`.
void trim(State& s, size_t target) {
  for (auto* set : {&s.free_large, &s.free_small}) {
    for (auto at = set->end(); at != set->begin() && s.held > target;) {
      --at;
      Segment* segment = s.ranges.at(at->second).segment;
      if (segment->live) continue;
      s.ranges.erase(at->second);
      at = set->erase(at);
      drop_segment(s, segment);
    }
  }
}

// Null when the limit or the device refuses.
Segment* make_segment(State& s, size_t wanted, size_t least, bool small) {
  for (size_t size : {wanted, least}) {
    if (s.limit && s.held + size > s.limit) trim(s, s.limit > size ? s.limit - size : 0);
    if (s.limit && s.held + size > s.limit) continue;
    void* base = nullptr;
    cudaError_t status = cudaMalloc(&base, size);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      trim(s, 0);
      status = cudaMalloc(&base, size);
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      continue;
    }
    check(status, "cudaMalloc");
    auto* segment = new Segment{static_cast<char*>(base), size, small};
    s.segments.emplace(segment->base, segment);
    s.ranges.emplace(segment->base, Range{segment, size});
    free_set(s, *segment).emplace(size, segment->base);
    s.held += size;
    s.held_peak = std::max(s.held_peak, s.held);
    return segment;
  }
  return nullptr;
}

std::string mib(size_t bytes) { return std::to_string((bytes + (size_t{1} << 20) - 1) >> 20) + " MiB"; }

[[noreturn]] void refuse(const State& s, size_t bytes, Category category) {
  std::ostringstream live;
  for (int i = 0; i < kCategories; ++i)
    if (s.live[i]) live << (live.tellp() > 0 ? ", " : "") << kNames[i] << ' ' << mib(s.live[i]);
  size_t device_free = 0, device_total = 0;
  cudaMemGetInfo(&device_free, &device_total);
  fail("out_of_device_memory", mib(bytes), " of ", kNames[static_cast<int>(category)], " do not fit: in use ",
       live.tellp() > 0 ? live.str() : std::string("nothing"), "; held ", mib(s.held),
       s.limit ? " of a limit of " + mib(s.limit) : std::string(" without a limit of ours"), ", the device has ",
       mib(device_free), " of ", mib(device_total),
       " free; lower tokens per step, context, batch or rank, or raise --memory-limit");
}

void take(State& s, Range& range, size_t bytes, Category category) {
  const int c = static_cast<int>(category);
  range.bytes = bytes;
  range.category = c;
  s.live[c] += bytes;
  s.peak[c] = std::max(s.peak[c], s.live[c]);
  s.total += bytes;
  s.total_peak = std::max(s.total_peak, s.total);
}

// Back to the free lists, joined with free neighbours.
void give_back(State& s, std::map<char*, Range>::iterator at) noexcept {
  Segment* segment = at->second.segment;
  s.in_use -= at->second.size;
  --segment->live;
  auto& free = free_set(s, *segment);
  try {
    const auto next = std::next(at);
    if (next != s.ranges.end() && next->second.segment == segment && is_free(next->second)) {
      free.erase({next->second.size, next->first});
      at->second.size += next->second.size;
      s.ranges.erase(next);
    }
    if (at != s.ranges.begin()) {
      const auto previous = std::prev(at);
      if (previous->second.segment == segment && is_free(previous->second)) {
        free.erase({previous->second.size, previous->first});
        previous->second.size += at->second.size;
        s.ranges.erase(at);
        at = previous;
      }
    }
    free.emplace(at->second.size, at->first);
  } catch (...) {  // the host has no memory for a set's node: the range is lost until its segment goes
  }
}

}  // namespace

void* allocate_device(size_t bytes, Category category) {
  require(bytes <= (size_t{1} << 46), "out_of_device_memory", "allocate: ", bytes,
          " bytes asked for, more than any device has; check the shape");
  device();  // binds this thread
  State& s = state();
  const size_t need = round_up(std::max<size_t>(bytes, 1), kAlign);
  std::lock_guard lock(s.mutex);
  const bool small = kKeep && need <= kSmall;
  const bool apart = !kKeep || (category == Category::weights && need >= kPage / 2);
  if (s.recording) {
    auto& kept = s.kept_by_graph[s.recording];
    const auto again = kept.lower_bound({need, nullptr});
    if (again != kept.end() && again->first <= need + need / 8) {
      char* base = again->second;
      kept.erase(again);
      take(s, s.ranges.at(base), bytes, category);
      return base;
    }
  }
  auto& free = small ? s.free_small : s.free_large;
  auto found = kKeep ? free.lower_bound({need, nullptr}) : free.end();
  // A weight takes a kept range only when it fills it: else it would sit for good in the middle of what the steps use.
  if (apart && found != free.end() && found->first > need + need / 16) found = free.end();
  if (found == free.end()) {
    const size_t least = kKeep ? round_up(need, kPage) : std::max<size_t>(bytes, 1);
    const Segment* segment = make_segment(s,
                                          small   ? kSmallSegment
                                          : apart ? least
                                                  : std::max(least, kSegment),
                                          least, small);
    if (!segment) refuse(s, bytes, category);
    found = free.find({segment->size, segment->base});
  }
  char* base = found->second;
  Range& range = s.ranges.at(base);
  free.erase(found);
  if (range.size > need) {
    s.ranges.emplace(base + need, Range{range.segment, range.size - need});
    free.emplace(range.size - need, base + need);
    range.size = need;
  }
  range.graph = s.recording;
  ++range.segment->live;
  s.in_use += range.size;
  take(s, range, bytes, category);
  return base;
}

void release_device(void* block) noexcept {
  if (!block) return;
  State& s = state();
  std::lock_guard lock(s.mutex);
  auto at = s.ranges.find(static_cast<char*>(block));
  if (at == s.ranges.end() || at->second.category < 0) return;  // the device was closed meanwhile
  Range& range = at->second;
  s.live[range.category] -= range.bytes;
  s.total -= range.bytes;
  range.category = -1;
  if (range.graph) {
    try {
      s.kept_by_graph[range.graph].emplace(range.size, at->first);
    } catch (...) {  // no node: it waits for its graph's end
    }
    return;
  }
  give_back(s, at);
  if (!kKeep) trim(s, 0);
}

int begin_graph_memory() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  require(s.recording == 0, "internal", "a graph is being recorded already");
  return s.recording = ++s.graphs;
}
void end_graph_memory() noexcept {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.recording = 0;
}
void release_graph_memory(int graph) noexcept {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.kept_by_graph.erase(graph);
  std::vector<char*> mine;
  for (auto& [base, range] : s.ranges)
    if (range.graph == graph) mine.push_back(base);
  for (char* base : mine) {
    const auto at = s.ranges.find(base);
    at->second.graph = 0;
    if (at->second.category < 0) give_back(s, at);
  }
  if (!kKeep) trim(s, 0);
}

DeviceMemory device_memory() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  DeviceMemory out{};
  for (int i = 0; i < kCategories; ++i) {
    out.counted.live[i] = static_cast<int64_t>(s.live[i]);
    out.counted.peak[i] = static_cast<int64_t>(s.peak[i]);
  }
  out.counted.total_live = static_cast<int64_t>(s.total);
  out.counted.total_peak = static_cast<int64_t>(s.total_peak);
  out.counted.cached = static_cast<int64_t>(s.held - s.in_use);
  out.held = s.held;
  out.held_peak = s.held_peak;
  out.limit = s.limit;
  return out;
}

void reset_device_peaks() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  std::copy(std::begin(s.live), std::end(s.live), std::begin(s.peak));
  s.total_peak = s.total;
  s.held_peak = s.held;
}

void set_memory_limit(size_t bytes) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.limit = bytes;
  if (bytes && s.held > bytes) trim(s, bytes);
}

void trim_device_memory() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  trim(s, 0);
}

void forget_device_memory() noexcept {
  State& s = state();
  std::lock_guard lock(s.mutex);
  for (auto& [base, segment] : s.segments) {
    cudaFree(base);
    delete segment;
  }
  s.segments.clear();
  s.ranges.clear();
  s.free_small.clear();
  s.free_large.clear();
  s.kept_by_graph.clear();
  s.recording = 0;
  std::fill(std::begin(s.live), std::end(s.live), 0);
  std::fill(std::begin(s.peak), std::end(s.peak), 0);
  s.total = s.total_peak = s.in_use = s.held = s.held_peak = s.limit = 0;
}

}  // namespace temper::gpu
