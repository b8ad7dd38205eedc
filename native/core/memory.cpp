// The counting, caching allocator. Freed blocks are kept and handed out again; kept plus live exceeds the highest live
// figure ever reached by kSlack at most, so keeping them costs hardly more than the process had needed before. Large
// blocks are laid over kept pages of any size (arena.h), small ones are kept by size class.
#include "temper/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>

#include "core/arena.h"
#include "core/relax.h"
#include "temper/error.h"

namespace temper {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kArenaFrom = size_t{1} << 20;  // smaller blocks come from malloc
// Without it what lies between the blocks of a pass went back to the system at each of its peaks, to be taken again a
// layer later: of a small model's prompt that was half the time.
constexpr size_t kSlack = size_t{8} << 20;
constexpr int kCategories = static_cast<int>(Category::count);

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeep = false;  // a kept block would hide a use after release from the sanitizer
#else
constexpr bool kKeep = true;
#endif

// Sits in the 64 bytes before the data.
struct Header {
  size_t held;   // bytes taken from the system, this header included
  size_t bytes;  // data bytes asked for
  int32_t category;
  bool in_arena;
  char* mapping = nullptr;  // of a reserved block, which counts as `held` what is committed
  size_t mapped = 0;        // bytes
  Header* next = nullptr;   // of a kept block of malloc, in its class
};
static_assert(sizeof(Header) <= kAlign);

// Classes of sizes, 8 per octave: at most one eighth is wasted.
struct SizeClass {
  static constexpr size_t kCount = 16 + 8 * 37;  // up to 2^46 bytes and one more
  size_t number, bytes;

  static SizeClass of(size_t bytes) {
    const size_t size = std::max(bytes, kAlign);
    if (size <= 16 * kAlign) {
      const size_t n = (size + kAlign - 1) / kAlign;
      return {n, n * kAlign};
    }
    const int octave = std::bit_width(size) - 1;
    const size_t step = size_t{1} << (octave - 3), n = (size + step - 1) / step;  // 8 to 16
    return {static_cast<size_t>(octave - 10) * 8 + n + 8, n * step};
  }
};

// Free blocks of malloc; of a class the last that came goes first, as it is in the caches.
class KeptBlocks {
 public:
  size_t bytes() const { return bytes_; }  // held
  void give(Header* block) {
    Header*& first = first_[number_of(block)];
    block->next = first;
    first = block;
    bytes_ += block->held;
  }
  // One of the class, or of the next one where that is hardly larger; null: there is none.
  Header* take(size_t number, size_t held) {
    for (size_t n = number; n < std::min(number + 2, SizeClass::kCount); ++n)
      if (first_[n] && first_[n]->held <= held + held / 8) return pop(n);
    return nullptr;
  }
  // The largest one; null: there is none.
  Header* take_largest() {
    for (size_t n = SizeClass::kCount; n-- > 0;)
      if (first_[n]) return pop(n);
    return nullptr;
  }

 private:
  static size_t number_of(const Header* block) { return SizeClass::of(block->held - kAlign).number; }
  Header* pop(size_t number) {
    Header* block = first_[number];
    first_[number] = block->next;
    bytes_ -= block->held;
    return block;
  }
  Header* first_[SizeClass::kCount] = {};
  size_t bytes_ = 0;
};

struct State {
  std::mutex mutex;
  Arena arena;
  KeptBlocks kept;
  size_t live[kCategories] = {}, peak[kCategories] = {};
  size_t total = 0, total_peak = 0;
  size_t held = 0, held_peak = 0;  // of live blocks, and their highest sum since the start or release_cached()
  size_t cached() const { return kept.bytes() + arena.kept(); }
};
// Never destroyed: worker threads may still release blocks while the process runs its exit handlers.
State& state() {
  static State* s = new State;
  return *s;
}

// Blocks are taken and given back within nanoseconds: who finds the lock held tries again before it sleeps.
std::unique_lock<std::mutex> lock(State& s) {
  for (int i = 0; i < 64; ++i) {
    if (s.mutex.try_lock()) return {s.mutex, std::adopt_lock};
    relax();
  }
  return std::unique_lock(s.mutex);
}

// A block for data of these bytes, kept or new; null: the system has no such memory.
Header* make_block(State& s, size_t bytes) {
  if (kKeep && bytes >= kArenaFrom) {
    size_t held = Arena::page_multiple(bytes + kAlign);
    if (auto* h = static_cast<Header*>(s.arena.take(held))) {
      *h = Header{.held = held, .bytes = 0, .category = 0, .in_arena = true};
      return h;
    }
  }  // under a limit of the address space malloc may still have room
  const SizeClass size = SizeClass::of(bytes);
  const size_t held = (kKeep ? size.bytes : (std::max<size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign) + kAlign;
  if (Header* h = s.kept.take(size.number, held)) return h;
  auto* h = static_cast<Header*>(std::aligned_alloc(kAlign, held));
  if (h) *h = Header{.held = held, .bytes = 0, .category = 0, .in_arena = false};
  return h;
}

// Leaves at most `limit` bytes kept. Large blocks go first, and of the others the largest: the fewest calls free the
// most.
void trim(State& s, size_t limit) noexcept {
  if (s.cached() > limit) s.arena.drop(s.cached() - limit);
  while (s.cached() > limit) {
    Header* largest = s.kept.take_largest();
    if (!largest) return;
    std::free(largest);
  }
}

void count(State& s, int category, size_t bytes, size_t held) {
  s.live[category] += bytes;
  s.peak[category] = std::max(s.peak[category], s.live[category]);
  s.total += bytes;
  s.total_peak = std::max(s.total_peak, s.total);
  s.held += held;
  s.held_peak = std::max(s.held_peak, s.held);
  trim(s, s.held_peak - s.held + kSlack);  // before the new pages are touched
}

}  // namespace

void* allocate(size_t bytes, Category category) {
  require(bytes <= (size_t{1} << 46), "out_of_memory", "allocate: ", bytes,
          " bytes asked for, more than any machine has; check the shape");
  State& s = state();
  const auto turn = lock(s);
  Header* h = make_block(s, bytes);
  if (!h) {
    trim(s, 0);
    h = make_block(s, bytes);
  }
  if (!h) {
    fail("out_of_memory", "allocate: the system has no ", bytes, " bytes for category ", static_cast<int>(category),
         " (", s.total, " bytes live); lower tokens per step, sequence length or rank");
  }
  h->bytes = bytes;
  h->category = static_cast<int32_t>(category);
  count(s, h->category, bytes, h->held);
  return reinterpret_cast<char*>(h) + kAlign;
}

void* reserve(size_t bytes, Category category) {
  constexpr size_t kHuge = size_t{1} << 21;
  require(bytes <= (size_t{1} << 46), "out_of_memory", "reserve: ", bytes,
          " bytes asked for, more than any machine has; check the shape");
  // huge pages only where the last one, half used, is little beside the rest
  const bool huge = bytes >= 32 * kHuge;
  const size_t align = huge ? kHuge : Arena::page_multiple(1), mapped = Arena::page_multiple(bytes + 2 * align);
  void* p = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  require(p != MAP_FAILED, "out_of_memory", "reserve: the system has no addresses for ", bytes, " bytes of category ",
          static_cast<int>(category), "; lower the context or the number of sequences");
  // data begins at a multiple of `align`, the header stands before it
  char* data = reinterpret_cast<char*>((reinterpret_cast<size_t>(p) + kAlign + align - 1) / align * align);
  if (huge) madvise(data, bytes, MADV_HUGEPAGE);  // a wish only
  *reinterpret_cast<Header*>(data - kAlign) = Header{.held = 0,
                                                     .bytes = 0,
                                                     .category = static_cast<int32_t>(category),
                                                     .in_arena = false,
                                                     .mapping = static_cast<char*>(p),
                                                     .mapped = mapped};
  return data;
}

void commit(void* block, size_t bytes) {
  auto* h = reinterpret_cast<Header*>(static_cast<char*>(block) - kAlign);
  State& s = state();
  const auto turn = lock(s);
  require(h->mapping && bytes <= h->mapped, "bad_argument", "commit: ", bytes, " bytes of a block of ", h->mapped);
  if (bytes <= h->bytes) return;
  const size_t more = bytes - h->bytes;
  h->bytes = h->held = bytes;
  count(s, h->category, more, more);
}

void release(void* block) noexcept {
  if (!block) return;
  auto* h = reinterpret_cast<Header*>(static_cast<char*>(block) - kAlign);
  State& s = state();
  const auto turn = lock(s);
  s.live[h->category] -= h->bytes;
  s.total -= h->bytes;
  s.held -= h->held;
  if (h->mapping) {
    munmap(h->mapping, h->mapped);
    return;
  }
  if (h->in_arena) return s.arena.give(h);
  if (kKeep) s.kept.give(h);
  else std::free(h);
}

void release_cached() noexcept {
  State& s = state();
  const auto turn = lock(s);
  trim(s, 0);
  s.held_peak = s.held;
}

MemoryStats memory_stats() {
  State& s = state();
  const auto turn = lock(s);
  MemoryStats out{};
  for (int i = 0; i < kCategories; ++i) {
    out.live[i] = static_cast<int64_t>(s.live[i]);
    out.peak[i] = static_cast<int64_t>(s.peak[i]);
  }
  out.total_live = static_cast<int64_t>(s.total);
  out.total_peak = static_cast<int64_t>(s.total_peak);
  out.cached = static_cast<int64_t>(s.cached());
  return out;
}

void reset_peaks() {
  State& s = state();
  const auto turn = lock(s);
  std::copy(std::begin(s.live), std::end(s.live), std::begin(s.peak));
  s.total_peak = s.total;
}

}  // namespace temper
