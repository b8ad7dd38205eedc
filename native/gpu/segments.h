// The books of a device's memory: segments taken from the driver, the pieces they are cut into, and a limit on what is
// taken. Freed pieces join their neighbours and are handed out again, best fit first. Large weights, which come once
// and stay, get a segment of their own of exactly their size; small blocks have segments apart, so that they do not cut
// the large ones to pieces. It touches no memory: a dry run keeps the same books over addresses with nothing behind
// them, and so knows what rounding and gaps take.
#pragma once
#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "temper/error.h"
#include "temper/memory.h"

namespace temper::gpu {

// Not thread-safe: the caller holds a lock. Sizes are in bytes.
class Segments {
 public:
  static constexpr int kCategories = static_cast<int>(Category::count);
  struct Driver {
    virtual ~Driver() = default;
    virtual char* take(size_t bytes) = 0;  // null: it has no such memory
    virtual void give(char* base) noexcept = 0;
  };
  // keep: freed memory stays cut for the next block; else each block is a segment, given back at once
  explicit Segments(Driver& driver, bool keep = true) : driver_(driver), keep_(keep) {}
  Segments(const Segments&) = delete;
  Segments& operator=(const Segments&) = delete;

  // Null: the limit or the driver refuses.
  char* allocate(size_t bytes, Category category) {
    const size_t need = round_up(std::max<size_t>(bytes, 1), kAlign);
    const bool small = keep_ && need <= kSmall;
    const bool apart = !keep_ || (category == Category::weights && need >= kPage / 2);
    if (recording_) {
      auto& kept = kept_by_graph_[recording_];
      const auto again = kept.lower_bound({need, nullptr});
      if (again != kept.end() && again->first <= need + need / 8) {
        char* base = again->second;
        kept.erase(again);
        take(ranges_.at(base), bytes, category);
        return base;
      }
    }
    auto& free = small ? free_small_ : free_large_;
    auto found = keep_ ? free.lower_bound({need, nullptr}) : free.end();
    // A weight takes a kept range only when it fills it: else it would sit for good in the middle of what steps use.
    if (apart && found != free.end() && found->first > need + need / 16) found = free.end();
    if (found == free.end()) {
      const size_t least = keep_ ? round_up(need, kPage) : std::max<size_t>(bytes, 1);
      const size_t wanted = small ? kSmallSegment : apart ? least : std::max(least, kSegment);
      const Segment* segment = make_segment(wanted, least, small);
      if (!segment) return nullptr;
      found = free.find({segment->size, segment->base});
    }
    char* base = found->second;
    Range& range = ranges_.at(base);
    free.erase(found);
    if (range.size > need) {
      ranges_.emplace(base + need, Range{range.segment, range.size - need});
      free.emplace(range.size - need, base + need);
      range.size = need;
    }
    range.graph = recording_;
    ++range.segment->live;
    in_use_ += range.size;
    take(range, bytes, category);
    return base;
  }

  void release(char* block) noexcept {
    const auto at = ranges_.find(block);
    if (at == ranges_.end() || at->second.category < 0) return;  // everything was forgotten meanwhile
    Range& range = at->second;
    live_[range.category] -= range.bytes;
    total_ -= range.bytes;
    range.category = -1;
    if (range.graph) {
      try {
        kept_by_graph_[range.graph].emplace(range.size, at->first);
      } catch (...) {  // no node: it waits for its graph's end
      }
      return;
    }
    give_back(at);
    if (!keep_) trim(0);
  }

  // What is allocated from here on is a graph's, until release_graph: also after its release.
  int begin_graph() {
    require(recording_ == 0, "internal", "a graph is being recorded already");
    return recording_ = ++graphs_;
  }
  void end_graph() noexcept { recording_ = 0; }
  void release_graph(int graph) noexcept {
    kept_by_graph_.erase(graph);
    std::vector<char*> mine;
    for (auto& [base, range] : ranges_)
      if (range.graph == graph) mine.push_back(base);
    for (char* base : mine) {
      const auto at = ranges_.find(base);
      at->second.graph = 0;
      if (at->second.category < 0) give_back(at);
    }
    if (!keep_) trim(0);
  }

  // The most that may be taken from the driver; 0: no limit. Below what is held now the rest is refused, nothing taken
  // away.
  void set_limit(size_t bytes) noexcept {
    limit_ = bytes;
    if (bytes && held_ > bytes) trim(bytes);
  }
  // Gives whole free segments back, largest first, until at most `target` is held.
  void trim(size_t target) noexcept {
    for (auto* set : {&free_large_, &free_small_}) {
      for (auto at = set->end(); at != set->begin() && held_ > target;) {
        --at;
        Segment* segment = ranges_.at(at->second).segment;
        if (segment->live) continue;
        ranges_.erase(at->second);
        at = set->erase(at);
        driver_.give(segment->base);
        held_ -= segment->size;
        segments_.erase(segment->base);
        delete segment;
      }
    }
  }
  void reset_peaks() noexcept {
    std::copy(std::begin(live_), std::end(live_), std::begin(peak_));
    total_peak_ = total_;
    held_peak_ = held_;
  }
  // Everything, whoever has it.
  void forget() noexcept {
    for (auto& [base, segment] : segments_) {
      driver_.give(base);
      delete segment;
    }
    segments_.clear();
    ranges_.clear();
    free_small_.clear();
    free_large_.clear();
    kept_by_graph_.clear();
    recording_ = 0;
    std::fill(std::begin(live_), std::end(live_), 0);
    total_ = in_use_ = held_ = limit_ = 0;
    reset_peaks();
  }
  ~Segments() { forget(); }

  size_t live(int category) const { return live_[category]; }
  size_t peak(int category) const { return peak_[category]; }
  size_t total() const { return total_; }
  size_t total_peak() const { return total_peak_; }
  // taken from the driver: rounding, gaps and kept pieces included
  size_t held() const { return held_; }
  size_t held_peak() const { return held_peak_; }
  size_t in_use() const { return in_use_; }
  size_t limit() const { return limit_; }

 private:
  static constexpr size_t kAlign = 256;                // what the hardware's widest copies and cuBLASLt want
  static constexpr size_t kPage = size_t{2} << 20;     // drivers map device memory in pages of 2 MiB
  static constexpr size_t kSmall = size_t{256} << 10;  // up to here a block lives in a segment of small ones
  static constexpr size_t kSmallSegment = kPage;
  static constexpr size_t kSegment = size_t{64} << 20;

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
  using Free = std::set<std::pair<size_t, char*>>;

  static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }
  static bool is_free(const Range& r) { return r.category < 0 && r.graph == 0; }
  Free& free_set(const Segment& segment) { return segment.small ? free_small_ : free_large_; }

  Segment* make_segment(size_t wanted, size_t least, bool small) {
    for (size_t size : {wanted, least}) {
      if (limit_ && held_ + size > limit_) trim(limit_ > size ? limit_ - size : 0);
      if (limit_ && held_ + size > limit_) continue;
      char* base = driver_.take(size);
      if (!base) {
        trim(0);
        base = driver_.take(size);
      }
      if (!base) continue;
      auto* segment = new Segment{base, size, small};
      segments_.emplace(base, segment);
      ranges_.emplace(base, Range{segment, size});
      free_set(*segment).emplace(size, base);
      held_ += size;
      held_peak_ = std::max(held_peak_, held_);
      return segment;
    }
    return nullptr;
  }
  void take(Range& range, size_t bytes, Category category) {
    const int c = static_cast<int>(category);
    range.bytes = bytes;
    range.category = c;
    live_[c] += bytes;
    peak_[c] = std::max(peak_[c], live_[c]);
    total_ += bytes;
    total_peak_ = std::max(total_peak_, total_);
  }
  // Back to the free lists, joined with free neighbours.
  void give_back(std::map<char*, Range>::iterator at) noexcept {
    Segment* segment = at->second.segment;
    in_use_ -= at->second.size;
    --segment->live;
    auto& free = free_set(*segment);
    try {
      const auto next = std::next(at);
      if (next != ranges_.end() && next->second.segment == segment && is_free(next->second)) {
        free.erase({next->second.size, next->first});
        at->second.size += next->second.size;
        ranges_.erase(next);
      }
      if (at != ranges_.begin()) {
        const auto previous = std::prev(at);
        if (previous->second.segment == segment && is_free(previous->second)) {
          free.erase({previous->second.size, previous->first});
          previous->second.size += at->second.size;
          ranges_.erase(at);
          at = previous;
        }
      }
      free.emplace(at->second.size, at->first);
    } catch (...) {  // the host has no memory for a set's node: the range is lost until its segment goes
    }
  }

  Driver& driver_;
  const bool keep_;
  std::map<char*, Segment*> segments_;
  std::map<char*, Range> ranges_;  // by address, over all segments
  Free free_small_, free_large_;
  size_t live_[kCategories] = {}, peak_[kCategories] = {};
  size_t total_ = 0, total_peak_ = 0, in_use_ = 0, held_ = 0, held_peak_ = 0, limit_ = 0;
  // the graph that takes what is allocated now; the last one's number
  int recording_ = 0, graphs_ = 0;
  std::map<int, Free> kept_by_graph_;
};

}  // namespace temper::gpu
