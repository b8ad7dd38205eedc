// What JavaScript holds of native code is a number, never a pointer: slot and generation of an entry in a registry, so
// that a stale or invented one is a typed error. Entries are process-wide and go with the environment that made them.
#pragma once
#include <cmath>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "temper/error.h"

namespace temper::binding {

using Handle = double;  // an integer below 2^53: generation · 2^24 + slot; 0 is null

// What a JavaScript environment may leave behind. Each one enlists itself when it is made, and is never destroyed: an
// environment may end after static destructors have run.
class LeftBehind {
 public:
  // Drops what `env` made. On the thread of that environment.
  virtual void end(const void* env) noexcept = 0;

 protected:
  LeftBehind();
  ~LeftBehind() = default;

 private:
  friend void end_environment(const void* env) noexcept;
  LeftBehind* older_;
};
// All that `env` left: a worker that was terminated closed nothing.
void end_environment(const void* env) noexcept;

// T: movable, empty when made without arguments or moved from. It is destroyed outside of the lock.
template <class T>
class Registry final : public LeftBehind {
 public:
  // A stale handle is Error{code, "<caller>: <before><handle><after>"}.
  struct Stale {
    const char *code, *before, *after;
  };
  explicit Registry(Stale stale) : stale_(stale) {}

  Handle add(const void* env, T value) {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      require(slots_.size() < static_cast<size_t>(kSlots), "too_many_tensors",
              "16 million tensors are open; close their scopes");
      free_.reserve(slots_.size() + 1);  // so that removing never allocates
      slots_.emplace_back();
      free_.push_back(static_cast<uint32_t>(slots_.size()) - 1);
    }
    const uint32_t index = free_.back();
    free_.pop_back();
    Slot& s = slots_[index];
    s.used = true;
    s.env = env;
    s.value = std::move(value);
    ++count_;
    return static_cast<double>(s.generation) * kSlots + index;
  }
  // A copy. Throws Error{stale}.
  T get(const char* caller, Handle handle) {
    const std::lock_guard lock(mutex_);
    T* found = find(handle);
    if (!found) refuse(caller, handle);
    return *found;
  }
  // The entry itself, which is gone from here. Throws Error{stale}.
  T take(const char* caller, Handle handle) {
    const std::lock_guard lock(mutex_);
    if (!find(handle)) refuse(caller, handle);
    return remove(handle);
  }
  int64_t count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }

  // Guards every entry; `find` needs it, and so does what follows a pointer that it gave.
  std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }
  // Null: stale. Needs the lock.
  T* find(Handle handle) {
    if (!is_handle(handle)) return nullptr;
    const uint32_t index = index_of(handle);
    if (index >= slots_.size() || !slots_[index].used) return nullptr;
    return slots_[index].generation == static_cast<uint64_t>(handle) >> 24 ? &slots_[index].value : nullptr;
  }

  // What `find` found. Needs the lock.
  T remove(Handle handle) { return empty(index_of(handle)); }
  // Whether it can be one at all.
  static bool is_handle(Handle handle) { return handle >= kSlots && handle < kLimit && handle == std::floor(handle); }

  void end(const void* env) noexcept override {
    for (uint32_t i = 0;; ++i) {
      T gone{};  // goes after the lock does
      const std::lock_guard lock(mutex_);
      if (i >= slots_.size()) return;
      if (slots_[i].used && slots_[i].env == env) gone = empty(i);
    }
  }

 private:
  static constexpr double kSlots = 16777216.0;          // 2^24
  static constexpr double kLimit = 9007199254740992.0;  // 2^53
  static constexpr uint32_t kGenerations = 1u << 28;
  struct Slot {
    uint32_t generation = 1;
    bool used = false;
    const void* env = nullptr;
    T value{};
  };

  static uint32_t index_of(Handle handle) { return static_cast<uint32_t>(static_cast<uint64_t>(handle) & 0xffffff); }
  T empty(uint32_t index) {
    Slot& s = slots_[index];
    T gone = std::exchange(s.value, T{});
    s.used = false;
    s.generation = s.generation + 1 < kGenerations ? s.generation + 1 : 1;
    free_.push_back(index);
    --count_;
    return gone;
  }
  [[noreturn]] void refuse(const char* caller, Handle handle) const {
    fail(stale_.code, caller, ": ", stale_.before, static_cast<int64_t>(handle), stale_.after);
  }

  const Stale stale_;
  std::mutex mutex_;
  std::deque<Slot> slots_;
  std::vector<uint32_t> free_;
  int64_t count_ = 0;
};

}  // namespace temper::binding
