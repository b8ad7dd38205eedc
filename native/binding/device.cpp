// Opens a backend library, checks that it is of this version, and hands its facts to JavaScript.
#include "binding/device.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>

#include "binding/environment.h"
#include "binding/js.h"
#include "binding/registry.h"
#include "binding/tensor_table.h"
#include "plan/plan.h"

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

// Loads the library. `driver`: the driver's library, whose absence is said first; empty: it needs none. `build`: how to
// make it. Another library may follow while no device is open.
const TemperBackend& load(State& s, const std::string& path, const std::string& driver, const std::string& build) {
  if (s.library && s.path == path) return *s.library;
  require(!s.open.load(std::memory_order_acquire), "device_open", "the backend library ", s.path, " is in use, ", path,
          " was asked for; a process uses one");
  if (!driver.empty()) {
    void* installed = dlopen(driver.c_str(), RTLD_LAZY | RTLD_LOCAL);
    require(installed != nullptr, "no_driver", "no driver (", driver,
            ") is installed; install the driver of this GPU, or use --device cpu");
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    fail("cuda_library_missing", "the backend cannot be loaded (", why ? why : path.c_str(), "); build it with ", build,
         ", or use --device cpu");
  }
  auto* entry = reinterpret_cast<const TemperBackend* (*)()>(dlsym(library, "temper_backend"));
  require(entry != nullptr, "cuda_library_version", path, " is no backend library of Temper; build it with ", build);
  const TemperBackend* b = entry();
  require(
      b->abi == TEMPER_BACKEND_ABI && b->size == sizeof(TemperBackend) && std::strcmp(b->op_text, TEMPER_OP_TEXT) == 0,
      "cuda_library_version", path, " was built from another version of Temper (ABI ", b->abi, ", wanted ",
      TEMPER_BACKEND_ABI, "); build it again with ", build);
  s.path = path;
  s.library = b;
  return *b;
}

Napi::Object describe(Napi::Env env, const TemperBackend& b, int32_t index) {
  TemperDeviceInfo info;
  must(b, b.device_info(index, &info));
  Napi::Object out = Napi::Object::New(env);
  out.Set("index", info.index);
  out.Set("name", info.name);
  out.Set("major", info.major);
  out.Set("minor", info.minor);
  out.Set("multiprocessors", info.multiprocessors);
  out.Set("memory", static_cast<double>(info.memory));
  return out;
}

// backendInfo(path, driver, build) → {backend, builtFor, driver, runtime}; opens no device.
Napi::Value library_info(const Napi::CallbackInfo& info) {
  const Call c(info, "backendInfo", 3);
  State& s = state();
  std::lock_guard lock(s.mutex);
  const TemperBackend& b = load(s, c.text(0), c.text(1), c.text(2));
  int32_t driver = 0, runtime = 0;
  must(b, b.versions(&driver, &runtime));
  Napi::Object out = Napi::Object::New(c.env());
  out.Set("backend", b.name);
  out.Set("builtFor", b.built_for);
  out.Set("driver", driver);
  out.Set("runtime", runtime);
  return out;
}
// listDevices() → descriptions, of the library that backendInfo or openDevice loaded.
Napi::Value list_devices(const Napi::CallbackInfo& info) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  const TemperBackend* library = plan::current() ? plan::device() : s.library;
  require(library != nullptr, "no_device", "listDevices: no backend library is loaded");
  int32_t count = 0;
  must(*library, library->device_count(&count));
  Napi::Array out = Napi::Array::New(info.Env());
  for (int32_t i = 0; i < count; ++i) out.Set(static_cast<uint32_t>(i), describe(info.Env(), *library, i));
  return out;
}
// openDevice(path, driver, build, index, memoryLimit) → description. Index −1: the machine's only kind. Opening the
// open one again sets a limit that is not 0.
Napi::Value open_device(const Napi::CallbackInfo& info) {
  const Call c(info, "openDevice", 5);
  const int64_t index = c.integer(3), limit = c.integer(4);
  require(index >= -1 && index < 1024 && limit >= 0, "bad_argument", "openDevice: device ", index, ", limit ", limit,
          "; wanted a device from 0 (or -1) and a limit from 0");
  if (const TemperBackend* planned = plan::device()) {
    must(*planned, planned->open(static_cast<int32_t>(index), limit));
    return describe(c.env(), *planned, static_cast<int32_t>(std::max<int64_t>(0, index)));
  }
  State& s = state();
  std::lock_guard lock(s.mutex);
  const TemperBackend& b = load(s, c.text(0), c.text(1), c.text(2));
  must(b, b.open(static_cast<int32_t>(index), limit));
  int32_t opened = -1;
  must(b, b.opened(&opened));
  s.open.store(&b, std::memory_order_release);
  return describe(c.env(), b, opened);
}
// live per category, peak per category, total live, total peak, held, peak of held, limit; bytes. All zeros while no
// device is open.
Napi::Value memory(const Napi::CallbackInfo& info) {
  constexpr size_t n = static_cast<size_t>(Category::count);
  TemperDeviceMemory m{};
  if (const TemperBackend* b = device_backend()) must(*b, b->memory(&m));
  const int64_t rest[] = {m.total_live, m.total_peak, m.held, m.held_peak, m.limit};
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), 2 * n + std::size(rest));
  std::copy_n(m.live, n, out.Data());
  std::copy_n(m.peak, n, out.Data() + n);
  std::ranges::copy(rest, out.Data() + 2 * n);
  return out;
}
Napi::Value opened_device(const Napi::CallbackInfo& info) {
  int32_t index = -1;
  if (const TemperBackend* b = device_backend()) must(*b, b->opened(&index));
  return js_number(info.Env(), index);
}
// Waits for the device and raises what its kernels found wrong.
void synchronize(const Napi::CallbackInfo&) {
  if (const TemperBackend* b = device_backend()) must(*b, b->synchronize());
}

// tileNames() → names, of the open device; none: it has no choice.
Napi::Value tile_names(const Napi::CallbackInfo& info) {
  const TemperBackend* b = device_backend();
  return Napi::String::New(info.Env(), b ? b->tiles : "");
}
// setTile(class, tile)
void set_tile(const Napi::CallbackInfo& info) {
  const Call c(info, "setTile", 2);
  const TemperBackend& b = require_device("setTile");
  must(b, b.set_tile(c.text(0).c_str(), c.text(1).c_str()));
}
// tiledProducts() → lines
Napi::Value tiled_products(const Napi::CallbackInfo& info) {
  const TemperBackend& b = require_device("tiledProducts");
  const char* lines = "";
  must(b, b.tiled_products(&lines));
  return Napi::String::New(info.Env(), lines);
}

// A copy under way beside the ops. Its tensors are held until it arrived, whoever frees them meanwhile.
class Transfer {
 public:
  explicit Transfer(const TemperBackend& backend) : backend_(backend) {}
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  ~Transfer() {
    if (ticket_) backend_.arrive(ticket_);  // left behind; what went wrong in it concerns nobody
  }
  // to, from; `up`: to the device
  void start(const char* name, bool up, const double (&handles)[2]) {
    pins_.take(name, handles, 3, 1);
    const TensorRef to = pins_.tensors()[0], from = pins_.tensors()[1];
    require(to && from, "stale_tensor", name, ": 0 is no tensor handle");
    require(plan::on_host(pins_.place(0)) == !up && plan::on_host(pins_.place(1)) == up, "wrong_device", name,
            ": wanted a tensor on the ", up ? "device" : "host", " and one on the ", up ? "host" : "device");
    require(to->dtype == from->dtype && to->numel() == from->numel(), "shape_mismatch", name, ": ", to->numel(),
            " elements of ", name_of(to->dtype), " from ", from->numel(), " of ", name_of(from->dtype));
    must(backend_, (up ? backend_.prefetch : backend_.evict)(to->data, from->data, from->bytes(), &ticket_));
  }
  void arrive() {
    must(backend_, backend_.arrive(std::exchange(ticket_, 0)));
    pins_.require_whole();
  }

 private:
  const TemperBackend& backend_;
  uint64_t ticket_ = 0;
  Pins pins_;
};
Registry<std::unique_ptr<Transfer>>& under_way() {
  static auto* r = new Registry<std::unique_ptr<Transfer>>({"bad_argument", "", " is no copy under way"});
  return *r;
}
Napi::Value start_transfer(const Napi::CallbackInfo& info, const char* name, bool up) {
  const Call c(info, name, 2);
  auto transfer = std::make_unique<Transfer>(require_device(name));
  transfer->start(name, up, {c.number(0), c.number(1)});
  return js_number(c.env(), under_way().add(owner(c.env()), std::move(transfer)));
}
Napi::Value start_prefetch(const Napi::CallbackInfo& info) { return start_transfer(info, "prefetch", true); }
Napi::Value start_evict(const Napi::CallbackInfo& info) { return start_transfer(info, "evict", false); }
void arrived(const Napi::CallbackInfo& info) {
  require_device("arrive");
  under_way().take("arrive", static_cast<Handle>(Call(info, "arrive", 1).size(0)))->arrive();
}
// takeTransfers() → bytes to the device, bytes from it, seconds of copying, seconds that ops waited. Zeros while no
// device is open.
Napi::Value take_transfers(const Napi::CallbackInfo& info) {
  TemperTransfers t{};
  if (const TemperBackend* b = device_backend()) must(*b, b->transfers(&t));
  const double numbers[] = {static_cast<double>(t.to_device), static_cast<double>(t.from_device), t.copying, t.waiting};
  Napi::Float64Array out = Napi::Float64Array::New(info.Env(), std::size(numbers));
  std::ranges::copy(numbers, out.Data());
  return out;
}

}  // namespace

const TemperBackend* device_backend() noexcept {
  return plan::current() ? plan::device() : state().open.load(std::memory_order_acquire);
}

const TemperBackend& require_device(const char* what) {
  const TemperBackend* b = device_backend();
  require(b != nullptr, "no_device", what, ": no device is open; ask for one with device: cuda");
  return *b;
}

void must(const TemperBackend& backend, int status) {
  if (status) throw Error(backend.last_error_code(), backend.last_error_message());
}

void define_device(Napi::Object exports) {
  define<library_info>(exports, "backendInfo");
  define<list_devices>(exports, "listDevices");
  define<open_device>(exports, "openDevice");
  define<memory>(exports, "deviceMemory");
  define<opened_device>(exports, "openedDevice");
  define<synchronize>(exports, "synchronize");
  define<tile_names>(exports, "tileNames");
  define<set_tile>(exports, "setTile");
  define<tiled_products>(exports, "tiledProducts");
  define<start_prefetch>(exports, "prefetch");
  define<start_evict>(exports, "evict");
  define<arrived>(exports, "arrive");
  define<take_transfers>(exports, "takeTransfers");
}

}  // namespace temper::binding
