#include "binding/tensor_table.h"

#include <cmath>
#include <deque>
#include <mutex>
#include <vector>

#include "binding/device.h"
#include "temper/error.h"

namespace temper::binding {

// Memory of an allocated tensor or a mapped range. `users`: the owning handle while it lives, and each op that runs on
// it.
struct Block {
  void* data = nullptr;
  bool alive = true;  // false once the owner was freed: views are stale from then on
  bool writable = true;
  int users = 1;
  int handles = 1;  // the owner and its views; the record itself goes with the last of handles and users
  std::shared_ptr<const MappedFile> file;
  const TemperBackend* place = nullptr;    // null: host memory
  std::shared_ptr<RecordedMemory> memory;  // of a recording; null: of its own
};

namespace {

constexpr double kSlots = 16777216.0;  // 2^24
constexpr uint32_t kGenerations = 1u << 28;

struct Slot {
  uint32_t generation = 1;
  bool used = false, owner = false;
  Block* block = nullptr;
  const void* env = nullptr;
  Tensor tensor;
};

struct Table {
  std::mutex mutex;
  std::deque<Slot> slots;
  std::vector<uint32_t> free_slots;
  int64_t live = 0;
};
// Never destroyed: an environment may end after static destructors have run.
Table& table() {
  static Table* t = new Table;
  return *t;
}

// All below need the table's mutex.

void drop_user(Block* b) {
  if (--b->users == 0) {
    if (b->place) b->place->release(b->data);
    else if (b->memory) b->memory->give(b->data);
    else if (!b->file) release(b->data);
    b->memory.reset();
    b->file.reset();
    b->data = nullptr;
    if (b->handles == 0) delete b;
  }
}

Slot& find(Table& t, const char* op, double handle, const char* name = "tensor") {
  require(handle >= kSlots && handle < 9007199254740992.0 && handle == std::floor(handle), "stale_tensor", op, ": ",
          name, " is ", handle, ", which is no tensor handle");
  auto whole = static_cast<uint64_t>(handle);
  auto index = static_cast<uint32_t>(whole & 0xffffff);
  auto generation = static_cast<uint32_t>(whole >> 24);
  require(index < t.slots.size() && t.slots[index].used && t.slots[index].generation == generation &&
              t.slots[index].block->alive,
          "stale_tensor", op, ": ", name, " was freed; keep its scope open while it is used");
  return t.slots[index];
}

Handle insert(Table& t, const void* env, Block* block, bool owner, const Tensor& tensor) {
  uint32_t index;
  if (!t.free_slots.empty()) {
    index = t.free_slots.back();
    t.free_slots.pop_back();
  } else {
    require(t.slots.size() < static_cast<size_t>(kSlots), "too_many_tensors",
            "16 million tensors are open; close their scopes");
    t.free_slots.reserve(t.slots.size() + 1);  // so that freeing never allocates
    t.slots.emplace_back();
    index = static_cast<uint32_t>(t.slots.size()) - 1;
  }
  Slot& s = t.slots[index];
  s.used = true;
  s.owner = owner;
  s.block = block;
  s.env = env;
  s.tensor = tensor;
  ++t.live;
  return static_cast<double>(s.generation) * kSlots + index;
}

void remove(Table& t, uint32_t index) {
  Slot& s = t.slots[index];
  Block* b = s.block;
  s.used = false;
  s.block = nullptr;
  s.generation = s.generation + 1 < kGenerations ? s.generation + 1 : 1;
  t.free_slots.push_back(index);
  --t.live;
  bool owner = s.owner;
  if (owner) b->alive = false;
  --b->handles;
  if (owner) drop_user(b);
  else if (b->handles == 0 && b->users == 0) delete b;
}

}  // namespace

Handle alloc_tensor(const void* env, const Tensor& shape, Category category, const TemperBackend* place,
                    std::shared_ptr<RecordedMemory> memory) {
  auto block = std::make_unique<Block>();
  Tensor tensor = shape;
  if (place) must(*place, place->allocate(&block->data, shape.bytes(), static_cast<int32_t>(category)));
  else block->data = memory ? memory->take(shape.bytes(), category) : allocate(shape.bytes(), category);
  tensor.data = block->data;
  block->place = place;
  block->memory = std::move(memory);
  Table& t = table();
  std::lock_guard lock(t.mutex);
  try {
    Handle h = insert(t, env, block.get(), true, tensor);
    block.release();
    return h;
  } catch (...) {
    if (place) place->release(tensor.data);
    else if (block->memory) block->memory->give(tensor.data);
    else release(tensor.data);
    throw;
  }
}

Handle map_tensor(const void* env, std::shared_ptr<const MappedFile> file, uint64_t offset, const Tensor& shape) {
  auto block = std::make_unique<Block>();
  Tensor tensor = shape;
  // The op table's tensors are writable in type; `writable` is what keeps ops from writing here.
  tensor.data = block->data = const_cast<void*>(file->range(offset, shape.bytes(), size_of(shape.dtype)));
  block->writable = file->writable();
  block->file = std::move(file);
  Table& t = table();
  std::lock_guard lock(t.mutex);
  Handle h = insert(t, env, block.get(), true, tensor);
  block.release();
  return h;
}

Handle view_tensor(const void* env, Handle base, uint64_t offset, std::span<const int64_t> shape) {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  const Slot& from = find(t, "view", base);
  Tensor tensor = from.tensor;
  tensor.ndim = static_cast<int32_t>(shape.size());
  for (int i = 0; i < kMaxDims; ++i) tensor.shape[i] = i < tensor.ndim ? shape[i] : 1;
  auto have = static_cast<uint64_t>(from.tensor.numel()), want = static_cast<uint64_t>(tensor.numel());
  require(offset <= have && want <= have - offset, "shape_mismatch", "view: elements [", offset, ", ", offset + want,
          ") of a tensor of ", have);
  tensor.data = static_cast<char*>(from.tensor.data) + offset * size_of(tensor.dtype);
  Block* block = from.block;
  Handle h = insert(t, env, block, false, tensor);
  ++block->handles;
  return h;
}

void free_tensor(Handle handle) {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  require(handle >= kSlots && handle < 9007199254740992.0 && handle == std::floor(handle), "stale_tensor",
          "free: ", handle, " is no tensor handle");
  auto whole = static_cast<uint64_t>(handle);
  auto index = static_cast<uint32_t>(whole & 0xffffff);
  // A view whose base went first may still be freed: its slot is in use although its memory is gone.
  require(
      index < t.slots.size() && t.slots[index].used && t.slots[index].generation == static_cast<uint32_t>(whole >> 24),
      "stale_tensor", "free: the tensor was freed before");
  remove(t, index);
}

void free_env(const void* env) noexcept {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  for (uint32_t i = 0; i < t.slots.size(); ++i) {
    if (t.slots[i].used && t.slots[i].env == env) remove(t, i);
  }
}

int64_t live_tensors() {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  return t.live;
}

void Pins::take(const char* op, const double* handles, uint32_t is_tensor, uint32_t written,
                std::span<const contract::Arg> args) {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  for (int i = 0; is_tensor >> i; ++i) {
    if (!((is_tensor >> i) & 1) || handles[i] == 0) continue;
    const char* name = static_cast<size_t>(i) < args.size() ? args[static_cast<size_t>(i)].name.c_str() : "tensor";
    Slot& s = find(t, op, handles[i], name);
    require(s.block->writable || !((written >> i) & 1), "read_only_tensor", op, ": ", name,
            " is written, but lies in a mapped file; copy it into a tensor first");
    if (s.block->file) s.block->file->require_whole();
    tensors_[i] = s.tensor;
    refs_[i] = &tensors_[i];
    places_[i] = s.block->place;
    ++s.block->users;
    blocks_[count_++] = s.block;
  }
}

void Pins::require_whole() const {
  for (int i = 0; i < count_; ++i)
    if (blocks_[i]->file) blocks_[i]->file->require_whole();
}

Pins::~Pins() {
  if (count_ == 0) return;
  Table& t = table();
  std::lock_guard lock(t.mutex);
  for (int i = 0; i < count_; ++i) drop_user(blocks_[i]);
}

RecordedMemory::~RecordedMemory() {
  for (const Piece& piece : pieces_) release(piece.data);
}

void* RecordedMemory::take(size_t bytes, Category category) {
  std::lock_guard lock(mutex_);
  Piece* best = nullptr;
  for (Piece& piece : pieces_)
    if (piece.free && piece.bytes >= bytes && piece.bytes / 2 <= bytes && (!best || piece.bytes < best->bytes))
      best = &piece;
  if (!best) {
    pieces_.reserve(pieces_.size() + 1);
    pieces_.push_back({allocate(bytes, category), bytes, true});
    best = &pieces_.back();
  }
  best->free = false;
  return best->data;
}

void RecordedMemory::give(void* data) noexcept {
  std::lock_guard lock(mutex_);
  for (Piece& piece : pieces_)
    if (piece.data == data) piece.free = true;
}

void Outside::add(const Pins& pins, const RecordedMemory* own) {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  for (Block* b : pins.blocks()) {
    if (b->memory.get() == own || known_.contains(b)) continue;
    blocks_.reserve(blocks_.size() + 1);
    known_.insert(b);
    blocks_.push_back(b);
    ++b->handles;  // its record stays, not its memory
  }
}

Outside::~Outside() {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  for (Block* b : blocks_)
    if (--b->handles == 0 && b->users == 0) delete b;
}

Outside::Use::Use(const Outside& outside, const char* what) : outside_(outside) {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  for (const Block* b : outside.blocks_) {
    require(b->alive, "stale_tensor", what,
            ": a tensor of the recorded ops was freed; keep its scope open, or record them again");
    if (b->file) b->file->require_whole();
  }
  for (Block* b : outside.blocks_) ++b->users;
}

Outside::Use::~Use() {
  Table& t = table();
  std::lock_guard lock(t.mutex);
  for (Block* b : outside_.blocks_) drop_user(b);
}

void Outside::require_whole() const {
  for (const Block* b : blocks_)
    if (b->file) b->file->require_whole();
}

}  // namespace temper::binding
