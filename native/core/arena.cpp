#include "core/arena.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <tuple>

namespace temper {
namespace {

constexpr size_t kHuge = size_t{1} << 21;
// An arena of so many live and kept bytes grows by huge pages, a smaller one does not: a huge page is in memory as a
// whole, with what is free in it, and the system makes them of small ones by and by.
constexpr size_t kHugeFrom = 32 * kHuge;

// Addresses only: nothing is in memory or promised until a block is laid there. Four times the machine's memory leaves
// room for the gaps between blocks; not the whole address space, because emulators and checkers keep a record for every
// reserved page.
size_t reserve_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  return std::max<size_t>(Arena::page_multiple(1) * static_cast<size_t>(std::max(pages, 0L)) * 4, size_t{1} << 30);
}

}  // namespace

size_t Arena::page_multiple(size_t bytes) {
  static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

Arena::~Arena() {
  if (base_) munmap(base_, static_cast<size_t>(end_ - base_));
}

// Takes the addresses. Under a limit of the address space a quarter of it: the rest is for the mapped checkpoint and
// the runtime.
bool Arena::reserve() {
  rlimit limit{};
  size_t bytes = reserve_bytes();
  if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    bytes = std::min<size_t>(bytes, limit.rlim_cur / 4 / kHuge * kHuge);
  for (; bytes > kHuge; bytes = bytes / 2 / kHuge * kHuge) {
    void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) continue;
    base_ = static_cast<char*>(p);
    end_ = base_ + bytes;
    frontier_ = reinterpret_cast<char*>((reinterpret_cast<size_t>(p) + kHuge - 1) / kHuge * kHuge);
    return true;
  }
  return false;
}

// Makes the addresses up to `end` usable, in whole huge pages. The system refuses here what it could never back.
bool Arena::grow(char* end) {
  size_t bytes = (static_cast<size_t>(end - frontier_) + kHuge - 1) / kHuge * kHuge;
  bytes = std::min(bytes, static_cast<size_t>(end_ - frontier_));
  auto added = ranges_.emplace(frontier_, Range{bytes, State::cold}).first;
  if (mprotect(frontier_, bytes, PROT_READ | PROT_WRITE) != 0) {
    ranges_.erase(added);
    return false;
  }
  const bool large = live_ + kept_ + bytes >= kHugeFrom;
  madvise(frontier_, bytes, large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);  // a wish only
  frontier_ += bytes;
  join(added);
  return true;
}

// Where in a run of free ranges a block would need the fewest pages that are not in memory, then reach the least beyond
// the frontier, then leave the least of the run over.
void Arena::place_in_run(Ranges::iterator first, Ranges::iterator last, size_t bytes, Place& best) {
  char* const start = first->first;
  char* const stop = std::prev(last)->first + std::prev(last)->second.bytes;
  char* const limit = stop == frontier_ ? end_ : stop;
  if (static_cast<size_t>(limit - start) < bytes) return;
  auto consider = [&](char* at) {
    if (at < start || static_cast<size_t>(limit - at) < bytes) return;
    size_t warm = 0;
    for (auto r = first; r != last && r->first < at + bytes; ++r) {
      char *a = std::max(at, r->first), *b = std::min(at + bytes, r->first + r->second.bytes);
      if (r->second.state == State::kept && b > a) warm += static_cast<size_t>(b - a);
    }
    const size_t beyond = at + bytes > frontier_ ? static_cast<size_t>(at + bytes - frontier_) : 0;
    const size_t whole = static_cast<size_t>(std::max(stop, at + bytes) - start);
    const Place place{at, bytes - warm, beyond, whole - bytes};
    if (!best.at || std::tie(place.cold, place.beyond, place.spare) < std::tie(best.cold, best.beyond, best.spare))
      best = place;
  };
  for (auto r = first; r != last; ++r) {
    consider(r->first);
    if (static_cast<size_t>(r->first + r->second.bytes - start) >= bytes) consider(r->first + r->second.bytes - bytes);
  }
}

// The range that begins at `at`, which lies in `range` or right behind it.
Arena::Ranges::iterator Arena::cut(Ranges::iterator range, char* at) {
  if (range->first == at) return range;
  if (range->first + range->second.bytes == at) return std::next(range);
  size_t head = static_cast<size_t>(at - range->first);
  auto tail = ranges_.emplace_hint(std::next(range), at, Range{range->second.bytes - head, range->second.state});
  range->second.bytes = head;
  return tail;
}

// Joins a range with the neighbours of its state.
Arena::Ranges::iterator Arena::join(Ranges::iterator range) noexcept {
  if (range->second.state == State::live) return range;
  auto next = std::next(range);
  if (next != ranges_.end() && next->second.state == range->second.state) {
    range->second.bytes += next->second.bytes;
    ranges_.erase(next);
  }
  if (range == ranges_.begin()) return range;
  auto before = std::prev(range);
  if (before->second.state != range->second.state) return range;
  before->second.bytes += range->second.bytes;
  ranges_.erase(range);
  return before;
}

void* Arena::take(size_t bytes) noexcept {
  bytes = page_multiple(bytes);
  try {
    if (!base_ && !reserve()) return nullptr;
    Place best{};
    for (auto r = ranges_.begin(); r != ranges_.end();) {
      auto stop = r;
      while (stop != ranges_.end() && stop->second.state != State::live) ++stop;
      if (stop != r) place_in_run(r, stop, bytes, best);
      r = stop == ranges_.end() ? stop : std::next(stop);
    }
    if (!best.at && static_cast<size_t>(end_ - frontier_) >= bytes) best.at = frontier_;
    if (!best.at) return nullptr;
    if (best.at + bytes > frontier_ && !grow(best.at + bytes)) return nullptr;
    auto range = cut(std::prev(ranges_.upper_bound(best.at)), best.at);
    auto last = std::prev(ranges_.lower_bound(best.at + bytes));
    cut(last, best.at + bytes);
    for (auto r = range; r != std::next(last); ++r)
      if (r->second.state == State::kept) kept_ -= r->second.bytes;
    ranges_.erase(std::next(range), std::next(last));
    range->second = Range{bytes, State::live};
    live_ += bytes;
    return best.at;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void Arena::give(void* block) noexcept {
  auto range = ranges_.find(static_cast<char*>(block));
  range->second.state = State::kept;
  kept_ += range->second.bytes;
  live_ -= range->second.bytes;
  join(range);
}

void Arena::drop(size_t bytes) noexcept {
  bytes = std::min(page_multiple(bytes), kept_);
  for (auto r = ranges_.end(); bytes > 0 && r != ranges_.begin();) {
    --r;
    if (r->second.state != State::kept) continue;
    size_t part = std::min(bytes, r->second.bytes);
    try {
      r = cut(r, r->first + r->second.bytes - part);
    } catch (const std::bad_alloc&) {  // no memory for the range's node: the whole range goes
      part = r->second.bytes;
    }
    madvise(r->first, r->second.bytes, MADV_DONTNEED);
    r->second.state = State::cold;
    kept_ -= part;
    bytes -= std::min(bytes, part);
    r = join(r);
  }
}

}  // namespace temper
