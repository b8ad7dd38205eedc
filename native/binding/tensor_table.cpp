#include "binding/tensor_table.h"

#include <mutex>
#include <utility>

#include "binding/device.h"
#include "plan/plan.h"
#include "temper/error.h"

namespace temper::binding {

// Memory of an allocated tensor or a mapped range. `users`: the owning handle while it lives, and each op that runs on
// it.
struct Block {
  void* data = nullptr;
  bool alive = true;  // false once the owner was freed: views are stale from then on
  bool writable = true;
  bool reserved = false;  // its memory is taken as commit_tensor says
  bool borrowed = false;  // its memory is not ours to release
  int users = 1;
  int handles = 1;  // the owner and its views; the record itself goes with the last of handles and users
  std::shared_ptr<const MappedFile> file;
  const TemperBackend* place = nullptr;    // null: host memory
  std::shared_ptr<RecordedMemory> memory;  // of a recording; null: of its own
};

namespace {

// An entry: the owner of a block, or a view of it.
class Held {
 public:
  Held() = default;
  Held(Block* block, bool owner, const Tensor& tensor) : tensor(tensor), block_(block), owner_(owner) {}
  Held(Held&& other) noexcept
      : tensor(other.tensor), block_(std::exchange(other.block_, nullptr)), owner_(other.owner_) {}
  Held& operator=(Held&& other) noexcept {
    std::swap(tensor, other.tensor);
    std::swap(block_, other.block_);
    std::swap(owner_, other.owner_);
    return *this;
  }
  ~Held();
  Block* block() const { return block_; }

  Tensor tensor;

 private:
  Block* block_ = nullptr;
  bool owner_ = false;
};

// Its lock guards the blocks too.
Registry<Held>& table() {
  static auto* r = new Registry<Held>({"stale_tensor", "", " is no tensor handle"});
  return *r;
}

void* allocate_at(const TemperBackend* place, size_t bytes, Category category) {
  if (!place) return allocate(bytes, category);
  void* data = nullptr;
  must(*place, place->allocate(&data, bytes, static_cast<int32_t>(category)));
  return data;
}
void release_at(const TemperBackend* place, void* data) noexcept {
  if (place) place->release(data);
  else release(data);
}

// The two below need the lock.

void drop_user(Block* b) {
  if (--b->users == 0) {
    if (b->memory) b->memory->give(b->data);
    else if (!b->file && !b->borrowed) release_at(b->place, b->data);
    b->memory.reset();
    b->file.reset();
    b->data = nullptr;
    if (b->handles == 0) delete b;
  }
}

void require_handle(const char* op, Handle handle, const char* name = "tensor") {
  require(Registry<Held>::is_handle(handle), "stale_tensor", op, ": ", name, " is ", handle,
          ", which is no tensor handle");
}
Held& find(const char* op, Handle handle, const char* name = "tensor") {
  require_handle(op, handle, name);
  Held* held = table().find(handle);
  require(held && held->block()->alive, "stale_tensor", op, ": ", name,
          " was freed; keep its scope open while it is used");
  return *held;
}

Held::~Held() {
  if (!block_) return;
  const auto lock = table().lock();
  --block_->handles;
  if (owner_) {
    block_->alive = false;
    drop_user(block_);
  } else if (block_->handles == 0 && block_->users == 0) {
    delete block_;
  }
}

}  // namespace

Handle alloc_tensor(const void* env, const Tensor& shape, Category category, const TemperBackend* place,
                    std::shared_ptr<RecordedMemory> memory) {
  auto block = std::make_unique<Block>();
  Tensor tensor = shape;
  block->data = memory ? memory->take(shape.bytes(), category) : allocate_at(place, shape.bytes(), category);
  tensor.data = block->data;
  block->place = place;
  block->memory = std::move(memory);
  return table().add(env, Held(block.release(), true, tensor));
}

Handle reserve_tensor(const void* env, const Tensor& shape, Category category) {
  auto block = std::make_unique<Block>();
  Tensor tensor = shape;
  tensor.data = block->data = reserve(shape.bytes(), category);
  block->reserved = true;
  return table().add(env, Held(block.release(), true, tensor));
}

void commit_tensor(Handle handle, size_t bytes) {
  const auto lock = table().lock();
  const Held& held = find("commit", handle);
  const Block* block = held.block();
  if (plan::is_plan(block->place)) {
    if (plan::Plan* run = plan::current()) run->commit(block->data, bytes);
    return;
  }
  require(block->reserved && bytes <= held.tensor.bytes(), "bad_argument", "commit: ", bytes, " bytes of a tensor of ",
          held.tensor.bytes(), block->reserved ? "" : " that was not reserved");
  commit(block->data, bytes);
}

Handle map_tensor(const void* env, std::shared_ptr<const MappedFile> file, uint64_t offset, const Tensor& shape,
                  const TemperBackend* place) {
  auto block = std::make_unique<Block>();
  Tensor tensor = shape;
  // The op table's tensors are writable in type; `writable` is what keeps ops from writing here.
  tensor.data = block->data = const_cast<void*>(file->range(offset, shape.bytes(), size_of(shape.dtype)));
  block->writable = file->writable();
  block->place = place;
  block->file = std::move(file);
  return table().add(env, Held(block.release(), true, tensor));
}

Handle borrow_tensor(const void* env, void* data, const Tensor& shape) {
  auto block = std::make_unique<Block>();
  Tensor tensor = shape;
  tensor.data = block->data = data;
  block->borrowed = true;
  return table().add(env, Held(block.release(), true, tensor));
}

Handle view_tensor(const void* env, Handle base, uint64_t offset, std::span<const int64_t> shape) {
  Held view;
  {
    const auto lock = table().lock();
    const Held& from = find("view", base);
    Tensor tensor = from.tensor;
    tensor.ndim = static_cast<int32_t>(shape.size());
    for (int i = 0; i < kMaxDims; ++i) tensor.shape[i] = i < tensor.ndim ? shape[i] : 1;
    auto have = static_cast<uint64_t>(from.tensor.numel()), want = static_cast<uint64_t>(tensor.numel());
    require(offset <= have && want <= have - offset, "shape_mismatch", "view: elements [", offset, ", ", offset + want,
            ") of a tensor of ", have);
    tensor.data = static_cast<char*>(from.tensor.data) + offset * size_of(tensor.dtype);
    ++from.block()->handles;
    view = Held(from.block(), false, tensor);
  }
  return table().add(env, std::move(view));
}

// A view whose base went first may still be freed: its entry is there although its memory is gone.
void free_tensor(Handle handle) {
  require_handle("free", handle);
  Held gone;  // goes after the lock does
  const auto lock = table().lock();
  require(table().find(handle) != nullptr, "stale_tensor", "free: the tensor was freed before");
  gone = table().remove(handle);
}

int64_t live_tensors() { return table().count(); }

void Pins::take(const char* op, const double* handles, uint32_t is_tensor, uint32_t written,
                std::span<const contract::Arg> args) {
  const auto lock = table().lock();
  for (int i = 0; is_tensor >> i; ++i) {
    if (!((is_tensor >> i) & 1) || handles[i] == 0) continue;
    const char* name = static_cast<size_t>(i) < args.size() ? args[static_cast<size_t>(i)].name.c_str() : "tensor";
    const Held& held = find(op, handles[i], name);
    Block* block = held.block();
    require(block->writable || !((written >> i) & 1), "read_only_tensor", op, ": ", name,
            " is written, but lies in a mapped file; copy it into a tensor first");
    if (block->file) block->file->require_whole();
    tensors_[i] = held.tensor;
    refs_[i] = &tensors_[i];
    places_[i] = block->place;
    ++block->users;
    blocks_[count_++] = block;
  }
}

void Pins::require_whole() const {
  for (int i = 0; i < count_; ++i)
    if (blocks_[i]->file) blocks_[i]->file->require_whole();
}

Pins::~Pins() {
  if (count_ == 0) return;
  const auto lock = table().lock();
  for (int i = 0; i < count_; ++i) drop_user(blocks_[i]);
}

RecordedMemory::~RecordedMemory() {
  for (const Piece& piece : pieces_) release_at(place_, piece.data);
}

void* RecordedMemory::take(size_t bytes, Category category) {
  std::lock_guard lock(mutex_);
  Piece* best = nullptr;
  for (Piece& piece : pieces_)
    if (piece.free && piece.bytes >= bytes && piece.bytes / 2 <= bytes && (!best || piece.bytes < best->bytes))
      best = &piece;
  if (!best) {
    pieces_.reserve(pieces_.size() + 1);
    pieces_.push_back({allocate_at(place_, bytes, category), bytes, true});
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
  const auto lock = table().lock();
  for (Block* b : pins.blocks()) {
    if (b->memory.get() == own || known_.contains(b)) continue;
    blocks_.reserve(blocks_.size() + 1);
    known_.insert(b);
    blocks_.push_back(b);
    ++b->handles;  // its record stays, not its memory
  }
}

Outside::~Outside() {
  const auto lock = table().lock();
  for (Block* b : blocks_)
    if (--b->handles == 0 && b->users == 0) delete b;
}

Outside::Use::Use(const Outside& outside, const char* what) : outside_(outside) {
  const auto lock = table().lock();
  for (const Block* b : outside.blocks_) {
    require(b->alive, "stale_tensor", what,
            ": a tensor of the recorded ops was freed; keep its scope open, or record them again");
    if (b->file) b->file->require_whole();
  }
  for (Block* b : outside.blocks_) ++b->users;
}

Outside::Use::~Use() {
  const auto lock = table().lock();
  for (Block* b : outside_.blocks_) drop_user(b);
}

void Outside::require_whole() const {
  for (const Block* b : blocks_)
    if (b->file) b->file->require_whole();
}

}  // namespace temper::binding
