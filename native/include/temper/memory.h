// Counted memory. Every byte that is not a mapped file comes from here, under a category, so that peaks can be
// predicted and reported.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace temper {

enum class Category : int32_t { weights, adapter, optimizer, activations, workspace, kv, count };

// 64-byte aligned, contents undefined; freed blocks are kept and handed out again. Throws Error{"out_of_memory"}.
void* allocate(size_t bytes, Category category);
void release(void* block) noexcept;
// Addresses for `bytes` of zeros, 64-byte aligned; memory is taken where they are written to. Counted is what commit()
// says. Ends with release(). Throws Error{"out_of_memory"}.
void* reserve(size_t bytes, Category category);
// The first `bytes` of a reserved block are in use from now on.
void commit(void* block, size_t bytes);
// gives kept blocks back to the system; what is kept from now on counts from here
void release_cached() noexcept;

struct MemoryStats {
  int64_t live[static_cast<int>(Category::count)], peak[static_cast<int>(Category::count)], total_live, total_peak,
      cached;
};
MemoryStats memory_stats();
void reset_peaks();  // peak := live

// Workspace of one op call: `Scratch<float> p(n);`. Reused between calls, so it costs no page faults on a hot path.
template <class T>
class Scratch {
 public:
  explicit Scratch(size_t count, Category c = Category::workspace)
      : data_(count ? static_cast<T*>(allocate(count * sizeof(T), c)) : nullptr), size_(count) {}
  ~Scratch() { release(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() const { return data_; }
  size_t size() const { return size_; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  T* data_;
  size_t size_;
};

}  // namespace temper
