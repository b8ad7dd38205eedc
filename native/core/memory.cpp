// The counting, caching allocator. Freed blocks are kept and handed out again; kept plus live never exceeds the highest live figure ever
// reached, so keeping them costs no memory that the process had not needed before.
#include "temper/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "temper/error.h"

namespace temper {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kMapFrom = size_t{1} << 21;  // from 2 MiB on, blocks are mappings of their own and go back to the system at once
constexpr int kCategories = static_cast<int>(Category::count);

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeep = false;  // a kept block would hide a use after release from the sanitizer
#else
constexpr bool kKeep = true;
#endif

// Sits in the 64 bytes before the data.
struct Header {
  size_t capacity;  // data bytes of the block
  size_t bytes;     // data bytes asked for
  int32_t category;
  bool mapped;
};
static_assert(sizeof(Header) <= kAlign);

struct State {
  std::mutex mutex;
  std::multimap<size_t, Header*> kept;  // by capacity
  size_t live[kCategories] = {}, peak[kCategories] = {};
  size_t total = 0, total_peak = 0, cached = 0;
  size_t held = 0, held_peak = 0;  // capacities of live blocks, and their highest sum since the start or release_cached()
};
// Never destroyed: worker threads may still release blocks while the process runs its exit handlers.
State& state() {
  static State* s = new State;
  return *s;
}

// 8 classes per octave: at most one eighth is wasted.
size_t class_of(size_t bytes) {
  size_t size = std::max(bytes, kAlign);
  size_t step = kAlign;
  while (step * 16 <= size) step *= 2;
  return (size + step - 1) / step * step;
}

Header* make_block(size_t capacity) {
  size_t whole = capacity + kAlign;
  void* p = nullptr;
  bool mapped = kKeep && whole >= kMapFrom;
  if (mapped) {
    p = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    madvise(p, whole, MADV_HUGEPAGE);  // a wish only
  } else {
    p = std::aligned_alloc(kAlign, (whole + kAlign - 1) / kAlign * kAlign);
    if (!p) return nullptr;
  }
  auto* h = static_cast<Header*>(p);
  h->capacity = capacity;
  h->mapped = mapped;
  return h;
}

void drop_block(Header* h) {
  if (h->mapped) munmap(h, h->capacity + kAlign);
  else std::free(h);
}

// Largest first: the fewest calls free the most.
void trim(State& s, size_t cached_limit) {
  while (s.cached > cached_limit && !s.kept.empty()) {
    auto last = std::prev(s.kept.end());
    s.cached -= last->first;
    drop_block(last->second);
    s.kept.erase(last);
  }
}

}  // namespace

void* allocate(size_t bytes, Category category) {
  require(bytes <= (size_t{1} << 46), "out_of_memory", "allocate: ", bytes, " bytes asked for, more than any machine has; check the shape");
  State& s = state();
  size_t capacity = kKeep ? class_of(bytes) : std::max<size_t>(bytes, 1);
  std::lock_guard lock(s.mutex);
  Header* h = nullptr;
  auto found = s.kept.lower_bound(capacity);
  if (found != s.kept.end() && found->first <= capacity + capacity / 8) {
    h = found->second;
    s.cached -= found->first;
    s.kept.erase(found);
  } else {
    size_t ceiling = std::max(s.held_peak, s.held + capacity);
    trim(s, ceiling - s.held - capacity);
    h = make_block(capacity);
    if (!h) {
      trim(s, 0);
      h = make_block(capacity);
    }
    if (!h) {
      fail("out_of_memory", "allocate: the system has no ", bytes, " bytes for category ", static_cast<int>(category), " (", s.total,
           " bytes live); lower tokens per step, sequence length or rank");
    }
  }
  h->bytes = bytes;
  h->category = static_cast<int32_t>(category);
  int c = h->category;
  s.live[c] += bytes;
  s.peak[c] = std::max(s.peak[c], s.live[c]);
  s.total += bytes;
  s.total_peak = std::max(s.total_peak, s.total);
  s.held += h->capacity;
  s.held_peak = std::max(s.held_peak, s.held);
  return reinterpret_cast<char*>(h) + kAlign;
}

void release(void* block) noexcept {
  if (!block) return;
  auto* h = reinterpret_cast<Header*>(static_cast<char*>(block) - kAlign);
  State& s = state();
  std::lock_guard lock(s.mutex);
  s.live[h->category] -= h->bytes;
  s.total -= h->bytes;
  s.held -= h->capacity;
  if (kKeep) {
    try {
      s.kept.emplace(h->capacity, h);
      s.cached += h->capacity;
      return;
    } catch (...) {  // no memory for the map's node: give the block back instead
    }
  }
  drop_block(h);
}

void release_cached() noexcept {
  State& s = state();
  std::lock_guard lock(s.mutex);
  trim(s, 0);
  s.held_peak = s.held;
}

MemoryStats memory_stats() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  MemoryStats out{};
  for (int i = 0; i < kCategories; ++i) {
    out.live[i] = static_cast<int64_t>(s.live[i]);
    out.peak[i] = static_cast<int64_t>(s.peak[i]);
  }
  out.total_live = static_cast<int64_t>(s.total);
  out.total_peak = static_cast<int64_t>(s.total_peak);
  out.cached = static_cast<int64_t>(s.cached);
  return out;
}

void reset_peaks() {
  State& s = state();
  std::lock_guard lock(s.mutex);
  std::copy(std::begin(s.live), std::end(s.live), std::begin(s.peak));
  s.total_peak = s.total;
}

}  // namespace temper
