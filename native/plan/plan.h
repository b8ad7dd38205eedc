// A backend without memory or arithmetic: `temper plan` runs the code that trains or serves on it. Tensors get
// addresses with nothing behind them, ops go through the binding and their contracts as ever and end in their cost.
// What is counted is what a run allocates, because the same calls are made.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/contract.h"
#include "gpu/segments.h"
#include "temper/backend.h"
#include "temper/cost.h"
#include "temper/memory.h"

namespace temper::plan {

enum class Place : uint8_t { host, device };

// Bytes by category, now and at their peak, and of all together.
struct Book {
  static constexpr size_t kCategories = static_cast<size_t>(Category::count);
  std::array<double, kCategories> live{}, peak{};
  double total_peak = 0;
  void hold(Category category, double bytes) { live[static_cast<size_t>(category)] += bytes; }
  double total() const;
  void note(double workspace);  // peaks, with that much workspace beside what is live
};

// One dry run, of one thread.
class Plan {
 public:
  uintptr_t allocate(Place place, uint64_t bytes, Category category);
  void offload_next() { offload_ = true; }  // the next block lies on disk: counted there and in no category
  void reserve_next() { reserve_ = true; }  // addresses, of which commit says how much is counted
  void commit(const void* block, uint64_t bytes);
  void release(const void* block) noexcept;
  void write(const void* to, const void* from, uint64_t bytes);  // kept, where the block is small
  void read(void* to, const void* from, uint64_t bytes) const;   // zeros, where the contents are not known
  void copy(const void* to, const void* from, uint64_t bytes);
  void zero(const void* to, uint64_t bytes);
  void map(uint64_t bytes) { mapped_ += static_cast<double>(bytes); }
  // An op's call: its arguments as they came, with known contents in place of addresses.
  void call(int op, Place place, const Cost& cost, const TensorRef* tensors, const double* numbers);
  // The same tensor, with its contents where they are known.
  Tensor known(const Tensor& t) const;
  void forget(const Tensor& t);  // an op wrote it

  // Numbers in the order that src/native/plan.ts reads.
  std::vector<double> report() const;

  Book books[2];
  // What a device would hold of its driver's memory for the blocks that this run has there.
  const gpu::Segments& held() const { return segments_; }
  void set_device_limit(int64_t bytes) { segments_.set_limit(static_cast<size_t>(bytes)); }
  int32_t device_index = -1;  // opened in this run

 private:
  struct Block {
    uint64_t size = 0, bytes = 0, offloaded = 0;  // of its addresses; counted in memory, and on disk
    Place place = Place::host;
    Category category = Category::workspace;
    std::vector<uint8_t> contents;  // empty: not known
  };
  using Blocks = std::map<uintptr_t, Block>;
  Blocks::iterator find(const void* address);
  Blocks::const_iterator find(const void* address) const { return const_cast<Plan*>(this)->find(address); }
  void write_tensor(TensorRef t, const contract::Index& index);

  // Addresses in place of a driver's memory.
  struct Addresses final : gpu::Segments::Driver {
    explicit Addresses(uintptr_t& next) : next(next) {}
    char* take(size_t bytes) override;
    void give(char*) noexcept override {}
    uintptr_t& next;
  };
  char* allocate_on_device(uint64_t bytes, Category category);

  Blocks blocks_;
  uintptr_t next_ = kNoMemory + 64;
  Addresses addresses_{next_};
  gpu::Segments segments_{addresses_};
  bool offload_ = false, reserve_ = false;
  double mapped_ = 0, offloaded_ = 0, offloaded_peak_ = 0, calls_ = 0;
  std::vector<double> log_;  // of the calls
};

// The dry run under way on this thread; null: none.
Plan* current() noexcept;
void begin();  // throws Error{"plan_running"} inside of one
std::unique_ptr<Plan> end();

// Of an op that runs on the device and stages on the host.
void note_host_workspace(size_t bytes);

// Both act on the run under way; without one, what is left of an earlier one can be freed and read as zeros.
const TemperBackend& backend(Place place);
inline const TemperBackend* host() { return current() ? &backend(Place::host) : nullptr; }
inline const TemperBackend* device() { return current() ? &backend(Place::device) : nullptr; }
inline bool is_plan(const TemperBackend* b) { return b == &backend(Place::host) || b == &backend(Place::device); }
inline bool on_host(const TemperBackend* b) { return !b || b == &backend(Place::host); }

}  // namespace temper::plan
