// Opens a backend library, checks that it is of this version, and hands its facts to JavaScript.
#include "binding/device.h"

#include <dlfcn.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "binding/js.h"
#include "binding/tensor_table.h"

namespace temper::binding {
namespace {

struct State {
  std::mutex mutex;
  std::string path;
  const TemperBackend* library = nullptr;  // loaded
  std::atomic<const TemperBackend*> open{nullptr};
};
State& state() {  // never destroyed, as the table of tensors
  static State* s = new State;
  return *s;
}

// Loads the library; with `needs_driver` only where NVIDIA's is installed, so that its absence is said first.
const TemperBackend& load(State& s, const std::string& path, bool needs_driver) {
  if (s.library) {
    require(s.path == path, "device_open", "the backend library ", s.path, " is in use, ", path,
            " was asked for; a process uses one");
    return *s.library;
  }
  if (needs_driver) {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    require(driver != nullptr, "no_driver",
            "no NVIDIA driver (libcuda.so.1) is installed; install the driver of this GPU, or use --device cpu");
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    fail("cuda_library_missing", "the CUDA backend cannot be loaded (", why ? why : path.c_str(),
         "); build it with `npm run build:cuda`, which needs nvcc 12.8 or newer, or use --device cpu");
  }
  auto* entry = reinterpret_cast<const TemperBackend* (*)()>(dlsym(library, "temper_backend"));
  require(entry != nullptr, "cuda_library_version", path,
          " is no backend library of Temper; build it with `npm run build:cuda`");
  const TemperBackend* b = entry();
  require(
      b->abi == TEMPER_BACKEND_ABI && b->size == sizeof(TemperBackend) && std::strcmp(b->op_text, TEMPER_OP_TEXT) == 0,
      "cuda_library_version", path, " was built from another version of Temper (ABI ", b->abi, ", wanted ",
      TEMPER_BACKEND_ABI, "); build it again with `npm run build:cuda`");
  s.path = path;
  s.library = b;
  return *b;
}

napi_value describe(napi_env env, const TemperBackend& b, int32_t index) {
  TemperDeviceInfo info;
  must(b, b.device_info(index, &info));
  napi_value out;
  ok(napi_create_object(env, &out), "deviceInfo");
  set(env, out, "index", js_number(env, info.index));
  set(env, out, "name", js_string(env, info.name));
  set(env, out, "major", js_number(env, info.major));
  set(env, out, "minor", js_number(env, info.minor));
  set(env, out, "multiprocessors", js_number(env, info.multiprocessors));
  set(env, out, "memory", js_number(env, static_cast<double>(info.memory)));
  return out;
}

// deviceInfo(path, needsDriver) → {backend, builtFor, driver, runtime}; opens no device.
napi_value library_info(napi_env env, napi_callback_info info) {
  const Call c(env, info, "backendInfo", 2);
  bool needs_driver = false;
  ok(napi_get_value_bool(env, c.value(1), &needs_driver), "backendInfo: argument 2 is not a boolean");
  State& s = state();
  std::lock_guard lock(s.mutex);
  const TemperBackend& b = load(s, c.text(0), needs_driver);
  int32_t driver = 0, runtime = 0;
  must(b, b.versions(&driver, &runtime));
  napi_value out;
  ok(napi_create_object(env, &out), "backendInfo");
  set(env, out, "backend", js_string(env, b.name));
  set(env, out, "builtFor", js_string(env, b.built_for));
  set(env, out, "driver", js_number(env, driver));
  set(env, out, "runtime", js_number(env, runtime));
  return out;
}
// listDevices() → descriptions, of the library that backendInfo or openDevice loaded.
napi_value list_devices(napi_env env, napi_callback_info) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  require(s.library != nullptr, "no_device", "listDevices: no backend library is loaded");
  int32_t count = 0;
  must(*s.library, s.library->device_count(&count));
  napi_value out;
  ok(napi_create_array(env, &out), "listDevices");
  for (int32_t i = 0; i < count; ++i)
    ok(napi_set_element(env, out, static_cast<uint32_t>(i), describe(env, *s.library, i)), "listDevices");
  return out;
}
// openDevice(path, needsDriver, index, memoryLimit) → description. Index −1: the machine's only kind. Opening the open
// one again sets a limit that is not 0.
napi_value open_device(napi_env env, napi_callback_info info) {
  const Call c(env, info, "openDevice", 4);
  bool needs_driver = false;
  ok(napi_get_value_bool(env, c.value(1), &needs_driver), "openDevice: argument 2 is not a boolean");
  const int64_t index = c.integer(2), limit = c.integer(3);
  require(index >= -1 && index < 1024 && limit >= 0, "bad_argument", "openDevice: device ", index, ", limit ", limit,
          "; wanted a device from 0 (or -1) and a limit from 0");
  State& s = state();
  std::lock_guard lock(s.mutex);
  const TemperBackend& b = load(s, c.text(0), needs_driver);
  must(b, b.open(static_cast<int32_t>(index), limit));
  int32_t opened = -1;
  must(b, b.opened(&opened));
  s.open.store(&b, std::memory_order_release);
  return describe(env, b, opened);
}
// live per category, peak per category, total live, total peak, held, peak of held, limit; bytes. All zeros while no
// device is open.
napi_value memory(napi_env env, napi_callback_info) {
  constexpr size_t n = static_cast<size_t>(Category::count);
  TemperDeviceMemory m{};
  if (const TemperBackend* b = device_backend()) must(*b, b->memory(&m));
  void* data = nullptr;
  napi_value buffer, out;
  ok(napi_create_arraybuffer(env, (2 * n + 5) * sizeof(double), &data, &buffer), "deviceMemory");
  auto* d = static_cast<double*>(data);
  for (size_t i = 0; i < n; ++i) {
    d[i] = static_cast<double>(m.live[i]);
    d[n + i] = static_cast<double>(m.peak[i]);
  }
  const int64_t rest[] = {m.total_live, m.total_peak, m.held, m.held_peak, m.limit};
  for (size_t i = 0; i < 5; ++i) d[2 * n + i] = static_cast<double>(rest[i]);
  ok(napi_create_typedarray(env, napi_float64_array, 2 * n + 5, buffer, 0, &out), "deviceMemory");
  return out;
}
napi_value opened_device(napi_env env, napi_callback_info) {
  int32_t index = -1;
  if (const TemperBackend* b = device_backend()) must(*b, b->opened(&index));
  return js_number(env, index);
}
// Waits for the device and raises what its kernels found wrong.
napi_value synchronize(napi_env, napi_callback_info) {
  if (const TemperBackend* b = device_backend()) must(*b, b->synchronize());
  return nullptr;
}

// Uploads under way. Their tensors are held until they arrived, whoever frees them meanwhile.
struct Prefetches {
  std::mutex mutex;
  std::unordered_map<uint64_t, std::unique_ptr<Pins>> open;
};
Prefetches& prefetches() {
  static Prefetches* p = new Prefetches;
  return *p;
}
napi_value start_prefetch(napi_env env, napi_callback_info info) {
  const Call c(env, info, "prefetch", 2);
  const TemperBackend& b = require_device("prefetch");
  auto pins = std::make_unique<Pins>();
  const double handles[2] = {c.number(0), c.number(1)};
  pins->take("prefetch", handles, 3, 1);
  const TensorRef to = pins->tensors()[0], from = pins->tensors()[1];
  require(to && from, "stale_tensor", "prefetch: 0 is no tensor handle");
  require(pins->place(0) && !pins->place(1), "wrong_device",
          "prefetch: wanted a tensor on the device and one on the host");
  require(to->dtype == from->dtype && to->numel() == from->numel(), "shape_mismatch", "prefetch: ", to->numel(),
          " elements of ", name_of(to->dtype), " from ", from->numel(), " of ", name_of(from->dtype));
  uint64_t ticket = 0;
  must(b, b.prefetch(to->data, from->data, from->bytes(), &ticket));
  Prefetches& p = prefetches();
  std::lock_guard lock(p.mutex);
  p.open.emplace(ticket, std::move(pins));
  return js_number(env, static_cast<double>(ticket));
}
napi_value arrived(napi_env env, napi_callback_info info) {
  const TemperBackend& b = require_device("arrive");
  const uint64_t ticket = Call(env, info, "arrive", 1).size(0);
  std::unique_ptr<Pins> pins;
  {
    Prefetches& p = prefetches();
    std::lock_guard lock(p.mutex);
    const auto at = p.open.find(ticket);
    require(at != p.open.end(), "bad_argument", "arrive: ", ticket, " is no upload under way");
    pins = std::move(at->second);
    p.open.erase(at);
  }
  must(b, b.arrive(ticket));
  pins->require_whole();
  return nullptr;
}

}  // namespace

const TemperBackend* device_backend() noexcept { return state().open.load(std::memory_order_acquire); }

const TemperBackend& require_device(const char* what) {
  const TemperBackend* b = device_backend();
  require(b != nullptr, "no_device", what, ": no device is open; ask for one with device: cuda");
  return *b;
}

void must(const TemperBackend& backend, int status) {
  if (status) throw Error(backend.last_error_code(), backend.last_error_message());
}

void define_device(napi_env env, napi_value exports) {
  define<library_info>(env, exports, "backendInfo");
  define<list_devices>(env, exports, "listDevices");
  define<open_device>(env, exports, "openDevice");
  define<memory>(env, exports, "deviceMemory");
  define<opened_device>(env, exports, "openedDevice");
  define<synchronize>(env, exports, "synchronize");
  define<start_prefetch>(env, exports, "prefetch");
  define<arrived>(env, exports, "arrive");
}

}  // namespace temper::binding
