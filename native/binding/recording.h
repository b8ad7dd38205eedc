// Host ops that are recorded once and run again with one call: between two ops of a decode step JavaScript costs
// microseconds, since the weights that stream by empty its caches.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "binding/tensor_table.h"
#include "temper/backend.h"

namespace temper::binding {

using OpCall = int (*)(const TemperOps&, const TensorRef*, const double*);

class Recording {
 public:
  // With the memory of another recording where one is given: then the two never run at once. `place`: a dry run's.
  explicit Recording(const Recording* shared, const TemperBackend* place)
      : place_(place), memory_(shared ? shared->memory_ : std::make_shared<RecordedMemory>(place)) {}
  const TemperBackend* place() const { return place_; }  // null: the host
  const std::shared_ptr<RecordedMemory>& memory() const { return memory_; }
  void add(OpCall call, int arity, const Pins& pins, const double* numbers);
  // Throws Error: stale_tensor, a tensor from outside was freed; file_changed; or what an op fails with, the ops behind
  // it then do not run.
  void run();

 private:
  struct Op {
    OpCall call;
    int arity;
  };
  const TemperBackend* place_;
  std::shared_ptr<RecordedMemory> memory_;
  std::vector<Op> ops_;
  // Of all ops, one after the other.
  std::vector<Tensor> tensors_;
  std::vector<uint8_t> is_tensor_;
  std::vector<double> numbers_;
  Outside outside_;
  std::mutex running_;
};

// The recording under way on this thread; null: ops run.
Recording* recording() noexcept;
// Throws Error{"graph_recording"} while one is under way: what would be read or written now is not there yet, or not
// any more when the ops run.
void refuse_while_recording(const char* what);
// Ends the one under way on this thread, whose environment ends; none is kept.
void abandon_recording() noexcept;

}  // namespace temper::binding
