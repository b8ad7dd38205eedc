// Finding and opening a device.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace temper::gpu {

struct Description {
  int index = 0, major = 0, minor = 0, multiprocessors = 0, shared_per_block = 0;
  size_t memory = 0, l2_bytes = 0;
  std::string name;
};
struct Versions {
  int driver = 0, runtime = 0;
};  // 1000·major + 10·minor; driver 0: none installed

Versions versions() noexcept;
// Throws Error{"no_driver" | "driver_too_old" | "no_device"}.
std::vector<Description> devices();
// Opens the device of that index, −1 for the only one. One device per process: opening the same again does nothing,
// another is an error, as is −1 where devices of different kinds are present. Throws also Error{"bad_device" |
// "device_unsupported" | "device_open"}.
void open_device(int index, size_t memory_limit);
void close_device() noexcept;
bool device_is_open() noexcept;

}  // namespace temper::gpu
