// Pages for large blocks, from one stretch of address space. A freed block's pages stay where they are and join their
// free neighbours, so the next block of another size is laid over them: no page is unmapped and zeroed again between
// ops that need different sizes in turn.
#pragma once
#include <cstddef>
#include <map>

namespace temper {

// Not thread-safe: the caller holds a lock. Sizes are in bytes and are rounded up to whole pages (page_multiple).
class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();  // all blocks end with it
  static size_t page_multiple(size_t bytes);
  // page-aligned, contents undefined; null: the system has no such memory
  void* take(size_t bytes) noexcept;
  void give(void* block) noexcept;  // its pages are kept
  // gives that many kept bytes back to the system; those at high addresses first
  void drop(size_t bytes) noexcept;
  size_t kept() const { return kept_; }  // free bytes that may still be in memory

 private:
  enum class State { live, kept, cold };  // cold: free and not in memory
  struct Range {
    size_t bytes;
    State state;
  };
  using Ranges = std::map<char*, Range>;
  struct Place {
    char* at;
    size_t cold, beyond, spare;
  };

  bool reserve();
  bool grow(char* end);
  void place_in_run(Ranges::iterator first, Ranges::iterator last, size_t bytes, Place& best);
  Ranges::iterator cut(Ranges::iterator range, char* at);
  Ranges::iterator join(Ranges::iterator range) noexcept;

  Ranges ranges_;  // without gaps up to frontier_
  char *base_ = nullptr, *frontier_ = nullptr, *end_ = nullptr;
  size_t live_ = 0, kept_ = 0;
};

}  // namespace temper
