// All tensors JavaScript holds, process-wide. Memory in use by a running op stays until the op is done, even when
// another thread frees its tensor meanwhile.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_set>
#include <vector>

#include "binding/registry.h"
#include "core/contract.h"
#include "core/mapped_file.h"
#include "temper/backend.h"
#include "temper/memory.h"
#include "temper/tensor.h"

namespace temper::binding {

struct Block;
class RecordedMemory;

// On the device of that backend, or, null, on the host; in the memory of a recording where one is given.
Handle alloc_tensor(const void* env, const Tensor& shape, Category category, const TemperBackend* place,
                    std::shared_ptr<RecordedMemory> memory);
// Addresses on the host (temper/memory.h), of which commit_tensor says how much is in use.
Handle reserve_tensor(const void* env, const Tensor& shape, Category category);
void commit_tensor(Handle handle, size_t bytes);
// Over bytes of the file from `offset`; written to only where the file is a scratch file. `place`: null, or a dry run's
// host.
Handle map_tensor(const void* env, std::shared_ptr<const MappedFile> file, uint64_t offset, const Tensor& shape,
                  const TemperBackend* place);
// Over memory of somebody else, who keeps it in place while the handle lives; never released here.
Handle borrow_tensor(const void* env, void* data, const Tensor& shape);
// The same memory from element `offset`; it dies with `base`.
Handle view_tensor(const void* env, Handle base, uint64_t offset, std::span<const int64_t> shape);
void free_tensor(Handle handle);
int64_t live_tensors();

// Copies of the tensors behind handles, their memory held until destruction. `tensors[i]` is null for handle 0.
class Pins {
 public:
  static constexpr int kMax = 24;
  Pins() = default;
  ~Pins();
  Pins(const Pins&) = delete;
  Pins& operator=(const Pins&) = delete;
  // Reads arguments i with `is_tensor` bit i set; errors name them as `args` does. Throws Error: stale_tensor,
  // bad_argument; read_only_tensor when bit i of `written` is set and the tensor lies in a mapped file.
  void take(const char* op, const double* handles, uint32_t is_tensor, uint32_t written,
            std::span<const contract::Arg> args = {});
  const TensorRef* tensors() const { return refs_; }
  // Where argument i lies: null on the host.
  const TemperBackend* place(int i) const { return places_[i]; }
  std::span<Block* const> blocks() const { return {blocks_, static_cast<size_t>(count_)}; }
  // After the reading: throws Error{"file_changed"} when a mapped file among them was shortened meanwhile.
  void require_whole() const;

 private:
  Tensor tensors_[kMax];
  TensorRef refs_[kMax] = {};
  Block* blocks_[kMax] = {};
  const TemperBackend* places_[kMax] = {};
  int count_ = 0;
};

// Memory of recorded ops, the host's or a dry run's. What tensors free while recording later ones take; all of it stays
// until the recordings and the last tensor are gone.
class RecordedMemory {
 public:
  explicit RecordedMemory(const TemperBackend* place) : place_(place) {}
  ~RecordedMemory();
  RecordedMemory(const RecordedMemory&) = delete;
  RecordedMemory& operator=(const RecordedMemory&) = delete;
  void* take(size_t bytes, Category category);
  void give(void* data) noexcept;

 private:
  struct Piece {
    void* data;
    size_t bytes;
    bool free;
  };
  const TemperBackend* const place_;  // null: the host
  std::mutex mutex_;
  std::vector<Piece> pieces_;
};

// Memory that recorded ops use and that is not their own: weights, caches, inputs. It is not held, its absence is
// noticed.
class Outside {
 public:
  Outside() = default;
  ~Outside();
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;
  void add(const Pins& pins, const RecordedMemory* own);
  // Holds all of it. Throws Error: stale_tensor when some was freed, file_changed as Pins::require_whole.
  class Use {
   public:
    Use(const Outside& outside, const char* what);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    const Outside& outside_;
  };
  void require_whole() const;

 private:
  std::vector<Block*> blocks_;
  std::unordered_set<const Block*> known_;
};

}  // namespace temper::binding
