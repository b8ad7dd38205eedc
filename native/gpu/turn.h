// A call's turn at the device: who records ops wants none of another thread's among them.
#pragma once

namespace temper::gpu {

// Held over a whole call, from its first look at the stream or the arena to its last launch: while one lives no other
// thread begins to record, and while another thread records none begins. One within another costs nothing, nor does one
// of the thread that records.
class Turn {
 public:
  Turn() noexcept;
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
};

}  // namespace temper::gpu
