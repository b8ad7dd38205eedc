// The C ABI of a backend in a library of its own: the binding opens it when a device is asked for and finds everything
// behind `temper_backend`. Functions return 0, or a status with the error of this thread in last_error_code and
// last_error_message, until the thread's next call.
#pragma once
#include <cstdint>

#include "temper/ops.h"

#define TEMPER_BACKEND_ABI 7

extern "C" {

struct TemperDeviceInfo {
  char name[256];
  int32_t index, major, minor, multiprocessors;
  int64_t memory;  // bytes
};
// Bytes, by temper::Category. `held` is what was taken from the driver, rounding and kept blocks included; the limit is
// about it.
struct TemperDeviceMemory {
  int64_t live[6], peak[6], total_live, total_peak, held, held_peak, limit;
};
// What was copied beside the ops: bytes to the device and from it, the time from the beginning to the end of each copy,
// and how long the ops stood at an `arrive`.
struct TemperTransfers {
  int64_t to_device, from_device;
  double copying, waiting;  // seconds
};

struct TemperBackend {
  uint32_t abi, size;     // TEMPER_BACKEND_ABI, sizeof(TemperBackend)
  const char* op_text;    // TEMPER_OP_TEXT: a library of another table is refused
  const char* name;       // "cuda", "cuda-emulation"
  const char* built_for;  // "sm_80 sm_86 …"
  const TemperOps* ops;   // tensors in device memory

  int (*versions)(int32_t* driver, int32_t* runtime);  // 1000·major + 10·minor; driver 0: none
  int (*device_count)(int32_t* count);
  int (*device_info)(int32_t index, TemperDeviceInfo* out);
  int (*open)(int32_t index, int64_t memory_limit);  // index −1: the only kind; limit 0: none
  int (*opened)(int32_t* index);                     // −1: none
  void (*close)();                                   // every block of the device is gone

  int (*allocate)(void** out, uint64_t bytes, int32_t category);
  void (*release)(void* block);
  int (*memory)(TemperDeviceMemory* out);
  void (*reset_peaks)();
  void (*trim)();

  // In the order of the ops. upload returns when `host` may be reused, download when the bytes have arrived: it waits
  // and so raises faults.
  int (*upload)(void* device, const void* host, uint64_t bytes);
  int (*download)(void* host, const void* device, uint64_t bytes);
  int (*copy)(void* to, const void* from, uint64_t bytes);
  int (*zero)(void* device, uint64_t bytes);
  int (*synchronize)();  // raises what a kernel found wrong: bad_index, not_finite, …

  // Copies beside the ops, after those called so far: up to the device, and down from it. Ops called after `arrive`
  // find the bytes, and after an `evict` so does the host, and ops may overwrite what was copied. Both sides must stay
  // until then; a ticket is used once.
  int (*prefetch)(void* device, const void* host, uint64_t bytes, uint64_t* ticket);
  int (*evict)(void* host, const void* device, uint64_t bytes, uint64_t* ticket);
  int (*arrive)(uint64_t ticket);
  int (*transfers)(TemperTransfers* out);  // since the last call, of copies that are over; waits for nothing

  // Ops between the two are recorded instead of run: one launch then runs them all, on the same addresses. Memory they
  // take stays the graph's.
  int (*begin_graph)();
  int (*end_graph)(void** graph, int32_t abandon);  // abandon 1: the ops failed, nothing is kept and *graph is null
  int (*launch_graph)(void* graph);
  void (*free_graph)(void* graph);

  // Matrix products come in classes (kind of the weights, rows, columns, …), and those of a class may be cut into tiles
  // of several sizes, none of which changes a bit. `tiles`: their names, separated by spaces; empty: there is no
  // choice.
  const char* tiles;
  // Products of the class take that tile from here on; tile "": that of the library's rule. product "*": of all
  // classes.
  int (*set_tile)(const char* product, const char* tile);
  // A line "class<tab>tile" of each class multiplied since the last call, with the tile that it took last; valid until
  // this thread's next call.
  int (*tiled_products)(const char** lines);

  const char* (*last_error_code)();
  const char* (*last_error_message)();
};

// The one symbol a backend library exports.
const TemperBackend* temper_backend();
}
