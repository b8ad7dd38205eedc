// Faults that a test plants in the emulated driver, on whichever thread meets them, and what it did.
// `ahead_of_work` is called, where set, before anything is put into a stream; it is set while no other thread calls.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>

namespace temper::gpu::emulation {

// The n-th call from `plant(n)` on is refused.
class Planted {
 public:
  void plant(int64_t n) { left_ = n; }
  bool met() { return left_ >= 0 && left_-- == 0; }

 private:
  std::atomic<int64_t> left_{-1};
};

struct Faults {
  Planted wait;                              // of cudaStreamWaitEvent
  Planted copy;                              // of cudaMemcpyAsync
  std::atomic<int64_t> synchronizations{0};  // calls of cudaStreamSynchronize so far
  std::function<void()> ahead_of_work;
};
Faults& faults();

}  // namespace temper::gpu::emulation
