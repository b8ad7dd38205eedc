// Tensors and mapped files as JavaScript sees them.
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "binding/device.h"
#include "binding/js.h"
#include "binding/recording.h"
#include "binding/tensor_table.h"

namespace temper::binding {
namespace {

struct OpenFile {
  const void* env;
  std::shared_ptr<const MappedFile> file;
};
struct Files {
  std::mutex mutex;
  std::unordered_map<int64_t, OpenFile> open;
  int64_t next = 1;
};
Files& files() {
  static Files* f = new Files;
  return *f;
}

napi_value alloc(napi_env env, napi_callback_info info) {
  Call c(env, info, "alloc", 4);
  Tensor shape = c.shape(0, 1);
  int64_t category = c.integer(2);
  require(category >= 0 && category < static_cast<int64_t>(Category::count), "bad_argument", "alloc: category ",
          category, ", wanted 0…5");
  const int64_t place = c.integer(3);
  require(place == 0 || place == 1, "bad_argument", "alloc: place ", place, ", wanted 0 (host) or 1 (device)");
  const auto kind = static_cast<Category>(category);
  if (place) return js_number(env, alloc_tensor(env_key(env), shape, kind, &require_device("alloc"), nullptr));
  return js_number(env,
                   alloc_tensor(env_key(env), shape, kind, nullptr, recording() ? recording()->memory() : nullptr));
}
napi_value free_one(napi_env env, napi_callback_info info) {
  free_tensor(Call(env, info, "free", 1).number(0));
  return nullptr;
}
napi_value view(napi_env env, napi_callback_info info) {
  Call c(env, info, "view", 3);
  int64_t shape[kMaxDims];
  int n = c.shape_values(2, shape);
  return js_number(env, view_tensor(env_key(env), c.number(0), c.size(1), {shape, static_cast<size_t>(n)}));
}

Call::Bytes transfer(const Call& c, const Pins& pins, const char* name) {
  TensorRef t = pins.tensors()[0];
  require(t != nullptr, "stale_tensor", name, ": 0 is no tensor handle");
  Call::Bytes b = c.bytes(1);
  require(b.size == t->bytes() && (b.element == 1 || b.element == static_cast<int>(size_of(t->dtype))),
          "shape_mismatch", name, ": got ", b.size, " bytes in elements of ", b.element, ", the ", name_of(t->dtype),
          " tensor has ", t->bytes());
  return b;
}
napi_value write(napi_env env, napi_callback_info info) {
  refuse_while_recording("write");
  Call c(env, info, "write", 2);
  Pins pins;
  double handle = c.number(0);
  pins.take("write", &handle, 1, 1);
  auto b = transfer(c, pins, "write");
  if (const TemperBackend* d = pins.place(0)) must(*d, d->upload(pins.tensors()[0]->data, b.data, b.size));
  else if (b.size) std::memcpy(pins.tensors()[0]->data, b.data, b.size);
  return nullptr;
}
napi_value read(napi_env env, napi_callback_info info) {
  refuse_while_recording("read");
  Call c(env, info, "read", 2);
  Pins pins;
  double handle = c.number(0);
  pins.take("read", &handle, 1, 0);
  auto b = transfer(c, pins, "read");
  if (const TemperBackend* d = pins.place(0)) must(*d, d->download(b.data, pins.tensors()[0]->data, b.size));
  else if (b.size) std::memcpy(b.data, pins.tensors()[0]->data, b.size);
  pins.require_whole();
  return nullptr;
}
napi_value zero(napi_env env, napi_callback_info info) {
  refuse_while_recording("zero");
  Pins pins;
  double handle = Call(env, info, "zero", 1).number(0);
  pins.take("zero", &handle, 1, 1);
  TensorRef t = pins.tensors()[0];
  require(t != nullptr, "stale_tensor", "zero: 0 is no tensor handle");
  if (const TemperBackend* d = pins.place(0)) must(*d, d->zero(t->data, t->bytes()));
  else std::memset(t->data, 0, t->bytes());
  return nullptr;
}
// copy(to, from): the same dtype and number of elements, each in either place.
napi_value copy(napi_env env, napi_callback_info info) {
  refuse_while_recording("copy");
  Call c(env, info, "copy", 2);
  Pins pins;
  double handles[2] = {c.number(0), c.number(1)};
  pins.take("copy", handles, 3, 1);
  TensorRef to = pins.tensors()[0], from = pins.tensors()[1];
  require(to && from, "stale_tensor", "copy: 0 is no tensor handle");
  require(to->dtype == from->dtype && to->numel() == from->numel(), "shape_mismatch", "copy: from ", from->numel(),
          " elements of ", name_of(from->dtype), " to ", to->numel(), " of ", name_of(to->dtype),
          "; wanted one dtype and number");
  const TemperBackend *d = pins.place(0), *s = pins.place(1);
  if (d && s) must(*d, d->copy(to->data, from->data, to->bytes()));
  else if (d) must(*d, d->upload(to->data, from->data, to->bytes()));
  else if (s) must(*s, s->download(to->data, from->data, to->bytes()));
  else if (to->bytes()) std::memmove(to->data, from->data, to->bytes());
  pins.require_whole();
  return nullptr;
}

napi_value map_file(napi_env env, napi_callback_info info) {
  auto file = MappedFile::open(Call(env, info, "mapFile", 1).text(0));
  Files& f = files();
  std::lock_guard lock(f.mutex);
  int64_t id = f.next++;
  f.open[id] = {env_key(env), std::move(file)};
  return js_number(env, static_cast<double>(id));
}
std::shared_ptr<const MappedFile> file_of(const char* name, int64_t id) {
  Files& f = files();
  std::lock_guard lock(f.mutex);
  auto at = f.open.find(id);
  require(at != f.open.end(), "stale_file", name, ": file ", id, " is not open");
  return at->second.file;
}
napi_value file_size(napi_env env, napi_callback_info info) {
  return js_number(env, static_cast<double>(file_of("fileSize", Call(env, info, "fileSize", 1).integer(0))->size()));
}
napi_value map_one(napi_env env, napi_callback_info info) {
  Call c(env, info, "mapTensor", 4);
  return js_number(env, map_tensor(env_key(env), file_of("mapTensor", c.integer(0)), c.size(1), c.shape(2, 3)));
}
// A tensor in a scratch file of its own, which goes with it.
napi_value alloc_scratch(napi_env env, napi_callback_info info) {
  Call c(env, info, "allocScratch", 3);
  const Tensor shape = c.shape(1, 2);
  return js_number(env, map_tensor(env_key(env), MappedFile::scratch(c.text(0), shape.bytes()), 0, shape));
}
// Copies bytes of a mapped file into a typed array: headers, and tensors that lie unaligned.
napi_value read_file(napi_env env, napi_callback_info info) {
  Call c(env, info, "readFile", 3);
  auto file = file_of("readFile", c.integer(0));
  auto b = c.bytes(2);
  if (b.size) std::memcpy(b.data, file->range(c.size(1), b.size, 1), b.size);
  file->require_whole();
  return nullptr;
}
napi_value unmap_file(napi_env env, napi_callback_info info) {
  int64_t id = Call(env, info, "unmapFile", 1).integer(0);
  Files& f = files();
  std::lock_guard lock(f.mutex);
  require(f.open.erase(id) == 1, "stale_file", "unmapFile: file ", id, " is not open");
  return nullptr;
}
napi_value tensor_count(napi_env env, napi_callback_info) {
  return js_number(env, static_cast<double>(live_tensors()));
}

// The environment ends: a worker that was terminated runs no `close()`.
void cleanup(void* data) {
  free_recordings(data);
  free_env(data);
  Files& f = files();
  {
    std::lock_guard lock(f.mutex);
    std::erase_if(f.open, [data](const auto& entry) { return entry.second.env == data; });
  }
  delete static_cast<Env*>(data);
}

}  // namespace

void define_tensors(napi_env env, napi_value exports) {
  void* block = nullptr;
  napi_value buffer, args;
  ok(napi_create_arraybuffer(env, Pins::kMax * sizeof(double), &block, &buffer), "args");
  ok(napi_create_typedarray(env, napi_float64_array, Pins::kMax, buffer, 0, &args), "args");
  napi_ref keep;
  // strong: native code reads the block as long as the environment lives
  ok(napi_create_reference(env, buffer, 1, &keep), "args");
  auto* mine = new Env{static_cast<double*>(block)};
  ok(napi_set_instance_data(env, mine, nullptr, nullptr), "args");
  ok(napi_add_env_cleanup_hook(env, cleanup, mine), "cleanup");
  set(env, exports, "args", args);

  define<alloc>(env, exports, "alloc");
  define<free_one>(env, exports, "free");
  define<view>(env, exports, "view");
  define<write>(env, exports, "write");
  define<read>(env, exports, "read");
  define<zero>(env, exports, "zero");
  define<copy>(env, exports, "copy");
  define<map_file>(env, exports, "mapFile");
  define<file_size>(env, exports, "fileSize");
  define<map_one>(env, exports, "mapTensor");
  define<alloc_scratch>(env, exports, "allocScratch");
  define<read_file>(env, exports, "readFile");
  define<unmap_file>(env, exports, "unmapFile");
  define<tensor_count>(env, exports, "tensorCount");
}

}  // namespace temper::binding
