// Tensors and mapped files as JavaScript sees them.
#include <sys/mman.h>
#include <unistd.h>
#include <cstring>
#include <memory>

#include "binding/device.h"
#include "binding/environment.h"
#include "binding/js.h"
#include "binding/recording.h"
#include "binding/registry.h"
#include "binding/tensor_table.h"
#include "plan/plan.h"

namespace temper::binding {
namespace {

using File = std::shared_ptr<const MappedFile>;
Registry<File>& files() {
  static auto* r = new Registry<File>({"stale_file", "file ", " is not open"});
  return *r;
}

Napi::Value alloc(const Napi::CallbackInfo& info) {
  Call c(info, "alloc", 4);
  Tensor shape = c.shape(0, 1);
  int64_t category = c.integer(2);
  require(category >= 0 && category < static_cast<int64_t>(Category::count), "bad_argument", "alloc: category ",
          category, ", wanted 0…5");
  const int64_t place = c.integer(3);
  require(place == 0 || place == 1, "bad_argument", "alloc: place ", place, ", wanted 0 (host) or 1 (device)");
  const auto kind = static_cast<Category>(category);
  const TemperBackend* at = place ? &require_device("alloc") : plan::host();
  const Recording* r = recording();
  const auto memory = r && r->place() == at ? r->memory() : nullptr;
  return js_number(c.env(), alloc_tensor(owner(c.env()), shape, kind, at, memory));
}
Napi::Value reserve_one(const Napi::CallbackInfo& info) {
  Call c(info, "reserve", 3);
  const Tensor shape = c.shape(0, 1);
  const int64_t category = c.integer(2);
  require(category >= 0 && category < static_cast<int64_t>(Category::count), "bad_argument", "reserve: category ",
          category, ", wanted 0…5");
  if (plan::Plan* run = plan::current()) {
    run->reserve_next();
    return js_number(c.env(),
                     alloc_tensor(owner(c.env()), shape, static_cast<Category>(category), plan::host(), nullptr));
  }
  return js_number(c.env(), reserve_tensor(owner(c.env()), shape, static_cast<Category>(category)));
}
void commit_one(const Napi::CallbackInfo& info) {
  Call c(info, "commit", 2);
  commit_tensor(c.number(0), c.size(1));
}
void free_one(const Napi::CallbackInfo& info) { free_tensor(Call(info, "free", 1).number(0)); }
Napi::Value view(const Napi::CallbackInfo& info) {
  Call c(info, "view", 3);
  int64_t shape[kMaxDims];
  int n = c.shape_values(2, shape);
  return js_number(c.env(), view_tensor(owner(c.env()), c.number(0), c.size(1), {shape, static_cast<size_t>(n)}));
}

// A tensor over the memory of a typed array: src/native/borrow.ts says for how long.
Napi::Value borrow_one(const Napi::CallbackInfo& info) {
  refuse_while_recording("borrow");
  const Call c(info, "borrow", 3);
  require(plan::current() == nullptr, "bad_argument", "borrow: a dry run has no memory to lay a tensor over");
  const Tensor shape = c.shape(1, 2);
  const Call::Bytes b = c.bytes(0);
  require(b.size == shape.bytes() && b.element == static_cast<int>(size_of(shape.dtype)), "shape_mismatch",
          "borrow: got ", b.size, " bytes in elements of ", b.element, ", the ", name_of(shape.dtype), " tensor has ",
          shape.bytes());
  return js_number(c.env(), borrow_tensor(owner(c.env()), b.data, shape));
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
void write(const Napi::CallbackInfo& info) {
  refuse_while_recording("write");
  Call c(info, "write", 2);
  Pins pins;
  double handle = c.number(0);
  pins.take("write", &handle, 1, 1);
  auto b = transfer(c, pins, "write");
  if (const TemperBackend* d = pins.place(0)) must(*d, d->upload(pins.tensors()[0]->data, b.data, b.size));
  else if (b.size) std::memcpy(pins.tensors()[0]->data, b.data, b.size);
}
void read(const Napi::CallbackInfo& info) {
  refuse_while_recording("read");
  Call c(info, "read", 2);
  Pins pins;
  double handle = c.number(0);
  pins.take("read", &handle, 1, 0);
  auto b = transfer(c, pins, "read");
  if (const TemperBackend* d = pins.place(0)) must(*d, d->download(b.data, pins.tensors()[0]->data, b.size));
  else if (b.size) std::memcpy(b.data, pins.tensors()[0]->data, b.size);
  pins.require_whole();
}
void zero(const Napi::CallbackInfo& info) {
  refuse_while_recording("zero");
  Pins pins;
  double handle = Call(info, "zero", 1).number(0);
  pins.take("zero", &handle, 1, 1);
  TensorRef t = pins.tensors()[0];
  require(t != nullptr, "stale_tensor", "zero: 0 is no tensor handle");
  if (const TemperBackend* d = pins.place(0)) must(*d, d->zero(t->data, t->bytes()));
  else std::memset(t->data, 0, t->bytes());
}
// copy(to, from): the same dtype and number of elements, each in either place.
void copy(const Napi::CallbackInfo& info) {
  refuse_while_recording("copy");
  Call c(info, "copy", 2);
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
}

Napi::Value map_file(const Napi::CallbackInfo& info) {
  auto file = MappedFile::open(Call(info, "mapFile", 1).text(0));
  return js_number(info.Env(), files().add(owner(info.Env()), std::move(file)));
}
File file_of(const Call& c, const char* name) { return files().get(name, static_cast<Handle>(c.integer(0))); }
Napi::Value file_size(const Napi::CallbackInfo& info) {
  const File file = file_of(Call(info, "fileSize", 1), "fileSize");
  return js_number(info.Env(), static_cast<double>(file->size()));
}
Napi::Value map_one(const Napi::CallbackInfo& info) {
  const Call c(info, "mapTensor", 4);
  const Tensor shape = c.shape(2, 3);
  if (plan::Plan* run = plan::current()) run->map(shape.bytes());
  return js_number(c.env(), map_tensor(owner(c.env()), file_of(c, "mapTensor"), c.size(1), shape, plan::host()));
}
// A tensor in a scratch file of its own, which goes with it.
Napi::Value alloc_scratch(const Napi::CallbackInfo& info) {
  const Call c(info, "allocScratch", 3);
  const Tensor shape = c.shape(1, 2);
  if (plan::Plan* run = plan::current()) {
    run->offload_next();
    return js_number(c.env(), alloc_tensor(owner(c.env()), shape, Category::activations, plan::host(), nullptr));
  }
  auto file = MappedFile::scratch(c.text(0), shape.bytes());
  return js_number(c.env(), map_tensor(owner(c.env()), std::move(file), 0, shape, nullptr));
}
// Copies bytes of a mapped file into a typed array: headers, and tensors that lie unaligned.
void read_file(const Napi::CallbackInfo& info) {
  const Call c(info, "readFile", 3);
  const File file = file_of(c, "readFile");
  auto b = c.bytes(2);
  if (b.size) std::memcpy(b.data, file->range(c.size(1), b.size, 1), b.size);
  file->require_whole();
}
// A wish: that the file is read in order in the background.
void read_ahead(const Napi::CallbackInfo& info) { file_of(Call(info, "readAhead", 1), "readAhead")->read_ahead(); }
void unmap_file(const Napi::CallbackInfo& info) {
  files().take("unmapFile", static_cast<Handle>(Call(info, "unmapFile", 1).integer(0)));
}
// A wish: that what a host tensor is mapped from is read ahead of its use.
void will_need(const Napi::CallbackInfo& info) {
  refuse_while_recording("willNeed");
  Pins pins;
  const double handle = Call(info, "willNeed", 1).number(0);
  pins.take("willNeed", &handle, 1, 0);
  TensorRef t = pins.tensors()[0];
  require(t != nullptr, "stale_tensor", "willNeed: 0 is no tensor handle");
  if (pins.place(0) || t->bytes() == 0) return;
  const auto first = reinterpret_cast<uintptr_t>(t->data), page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t from = first / page * page;
  madvise(reinterpret_cast<void*>(from), first + t->bytes() - from, MADV_WILLNEED);
}
// Whether there is memory behind a tensor: not in a dry run.
Napi::Value has_contents(const Napi::CallbackInfo& info) {
  Pins pins;
  const double handle = Call(info, "hasContents", 1).number(0);
  pins.take("hasContents", &handle, 1, 0);
  return Napi::Boolean::New(info.Env(), !plan::is_plan(pins.place(0)));
}
Napi::Value tensor_count(const Napi::CallbackInfo& info) {
  return js_number(info.Env(), static_cast<double>(live_tensors()));
}

}  // namespace

void define_tensors(Napi::Object exports) {
  define<alloc>(exports, "alloc");
  define<reserve_one>(exports, "reserve");
  define<commit_one>(exports, "commit");
  define<free_one>(exports, "free");
  define<view>(exports, "view");
  define<borrow_one>(exports, "borrow");
  define<write>(exports, "write");
  define<read>(exports, "read");
  define<will_need>(exports, "willNeed");
  define<zero>(exports, "zero");
  define<copy>(exports, "copy");
  define<map_file>(exports, "mapFile");
  define<file_size>(exports, "fileSize");
  define<map_one>(exports, "mapTensor");
  define<alloc_scratch>(exports, "allocScratch");
  define<read_file>(exports, "readFile");
  define<read_ahead>(exports, "readAhead");
  define<unmap_file>(exports, "unmapFile");
  define<has_contents>(exports, "hasContents");
  define<tensor_count>(exports, "tensorCount");
}

}  // namespace temper::binding
