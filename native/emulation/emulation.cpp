// Fibers, warps, barriers and the runtime calls of emulation/emulation.h.
#include "emulation/emulation.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation/faults.h"
#include "temper/error.h"
#include "temper/threads.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_unpoison_memory_region(void const volatile*, size_t);
#endif
// Sums over arrays of the emulation's own, whose sizes their types say: a sanitizer finds nothing in them and would
// take most of the time. What is read of a kernel's memory is read elsewhere.
#define TEMPER_ARITHMETIC __attribute__((no_sanitize("address"), no_sanitize("undefined")))

#if defined(__x86_64__)
// Saves the callee's registers on the stack that is left, takes those of the stack that is entered.
extern "C" void temper_switch_stack(void** from, void* to);
asm(R"(
.text
.globl temper_switch_stack
.hidden temper_switch_stack
.type temper_switch_stack, @function
temper_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size temper_switch_stack, .-temper_switch_stack
)");
#endif

namespace temper::gpu::emulation {

thread_local Thread* running = nullptr;
thread_local Uint3 block_index{};
thread_local dim3 block_shape, grid_shape;

namespace {

constexpr size_t kStack = 128 * 1024;
constexpr int kMaxThreads = 1024;

// ---- fibers ----
struct Fiber {
  char* stack = nullptr;
#if defined(__x86_64__)
  void* pointer = nullptr;
#else
  ucontext_t context;
#endif
};
struct Copy {
  void* to;
  const void* from;
  bool valid;
};
// registers: of the first operand, null: it is at `a`; fresh: d is not added to
struct Product {
  float* d;
  int n;
  const uint32_t* registers;
  uint64_t a, b;
  bool b_transposed, fresh;
};

// What a thread issued and has not waited for: in groups, of which the last is open until it is committed.
template <class T>
class Groups {
 public:
  void add(const T& item) { items_.push_back(item); }
  void commit() { ends_.push_back(items_.size()); }
  // Takes the oldest groups until `pending` are left.
  template <class F>
  void take(int pending, const F& each) {
    while (static_cast<int>(ends_.size() - groups_) > pending) {
      for (; taken_ < ends_[groups_]; ++taken_) {
        const T item = items_[taken_];
        each(item);
      }
      ++groups_;
    }
    if (taken_ < kKept) return;
    items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(taken_));
    ends_.erase(ends_.begin(), ends_.begin() + static_cast<std::ptrdiff_t>(groups_));
    for (size_t& end : ends_) end -= taken_;
    taken_ = groups_ = 0;
  }
  void clear() {
    items_.clear();
    ends_.clear();
    taken_ = groups_ = 0;
  }

 private:
  static constexpr size_t kKept = 64;  // what was taken stays that long: moving the rest costs more
  std::vector<T> items_;
  std::vector<size_t> ends_;
  size_t taken_ = 0, groups_ = 0;
};

// One condition a thread waits for: *counter moved on from `seen`.
struct Waiting {
  const uint64_t* counter = nullptr;
  uint64_t seen = 0;
};

struct Member : Thread {
  Fiber fiber;
  Waiting waiting;
  bool done = false, returned = false;
  Groups<Copy> copies;       // cp.async
  Groups<Product> products;  // wgmma
};

}  // namespace

struct Meeting {
  unsigned mask = 0, arrived = 0;
  const char* name = nullptr;
  void (*compute)(void* const*, unsigned) = nullptr;
  void* slots[32];
};
struct Warp {
  unsigned lanes = 0;  // those that exist
  uint64_t generation = 0;
  Meeting meetings[4];  // disjoint groups of lanes may meet at once
};
struct Barrier {
  uint64_t generation = 0;
  int arrived = 0, wanted = 0, yes = 0, result = 0;
  int64_t bytes = 0;  // of copies that the phase waits for: expected, less those that have come
};
struct BulkCopy {
  void* to;
  const void* from;
  uint32_t bytes;
  Barrier* counter;
};
struct Block {
  std::vector<std::unique_ptr<Member>> members;
  std::vector<Warp> warps;
  Barrier barriers[17];                     // 0 is __syncthreads, 16 the counting form
  std::map<const void*, Barrier> counters;  // mbarriers, by their place in shared memory
  std::vector<BulkCopy> copies;             // under way
  int live = 0, threads = 0;
  bool moved = false;
  std::exception_ptr error;
  std::vector<char> shared;
  char* shared_base = nullptr;
  const std::function<void()>* body = nullptr;
#if defined(__x86_64__)
  void* scheduler = nullptr;
#else
  ucontext_t scheduler;
#endif
};

namespace {

thread_local Block* current = nullptr;
std::atomic<Order> order{Order::rising};
std::atomic<int64_t> launched{0};

Member& me() { return *static_cast<Member*>(running); }

void leave(Member& m) {
#if defined(__x86_64__)
  temper_switch_stack(&m.fiber.pointer, current->scheduler);
#else
  swapcontext(&m.fiber.context, &current->scheduler);
#endif
}
void enter(Member& m) {
  running = &m;
#if defined(__x86_64__)
  temper_switch_stack(&current->scheduler, m.fiber.pointer);
#else
  swapcontext(&current->scheduler, &m.fiber.context);
#endif
}

void wait_for(const uint64_t& counter) {
  Member& m = me();
  m.waiting = {&counter, counter};
  do leave(m);
  while (counter == m.waiting.seen);
  m.waiting.counter = nullptr;
}

void pass(Barrier& b, Block& block) {
  b.arrived = 0;
  b.result = b.yes;
  b.yes = 0;
  ++b.generation;
  block.moved = true;
}

void pass_when_complete(Barrier& counter, Block& block) {
  if (counter.arrived == counter.wanted && counter.bytes == 0) pass(counter, block);
}
void land(const BulkCopy& copy, Block& block) {
  std::memcpy(copy.to, copy.from, copy.bytes);
  copy.counter->bytes -= copy.bytes;
  pass_when_complete(*copy.counter, block);
}

// A thread that has returned counts as arrived at __syncthreads.
void recheck_barriers(Block& block) {
  for (int i : {0, 16}) {
    Barrier& b = block.barriers[i];
    if (b.arrived > 0 && b.arrived >= block.live) pass(b, block);
  }
}

void fiber_main() {
  Member& m = me();
  try {
    (*current->body)();
    m.returned = true;
  } catch (...) {
    if (!current->error) current->error = std::current_exception();
  }
  m.done = true;
  --current->live;
  current->moved = true;
  m.warp->lanes &= ~(1u << m.lane);
  recheck_barriers(*current);
  for (;;) leave(m);
}

void prepare(Member& m) {
  if (!m.fiber.stack) {
    void* p = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    require(p != MAP_FAILED, "out_of_memory", "emulation: no memory for a fiber's stack");
    m.fiber.stack = static_cast<char*>(p);
  }
#if defined(__SANITIZE_ADDRESS__)
  // What frames left behind that nobody returned from: any of a thread that was abandoned, else those that it ended in.
  char* left = m.fiber.stack;
#if defined(__x86_64__)
  if (m.returned) left = static_cast<char*>(m.fiber.pointer);
#endif
  __asan_unpoison_memory_region(left, static_cast<size_t>(m.fiber.stack + kStack - left));
#endif
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(m.fiber.stack + kStack) - 2;
  *--top = nullptr;  // where fiber_main would return to: it never does
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  m.fiber.pointer = top;
#else
  getcontext(&m.fiber.context);
  m.fiber.context.uc_stack = {m.fiber.stack, 0, kStack};
  m.fiber.context.uc_link = nullptr;
  makecontext(&m.fiber.context, fiber_main, 0);
#endif
  m.done = m.returned = false;
  m.waiting = {};
  m.copies.clear();
  m.products.clear();
}

std::string where(const Block& block) {
  std::string out;
  for (const Warp& w : block.warps)
    for (const Meeting& m : w.meetings)
      if (m.arrived && out.size() < 300)
        out += std::string("; ") + m.name + " wanted lanes " + std::to_string(m.mask) + ", got " +
               std::to_string(m.arrived);
  for (int i = 0; i < 17; ++i)
    if (block.barriers[i].arrived)
      out += "; barrier " + std::to_string(i) + " has " + std::to_string(block.barriers[i].arrived) + " of " +
             std::to_string(block.live) + " threads";
  return out;
}

void run_block(Block& block, Uint3 index, dim3 grid, dim3 shape, size_t shared, const std::function<void()>& body) {
  const int threads = static_cast<int>(shape.x * shape.y * shape.z);
  while (static_cast<int>(block.members.size()) < threads) block.members.push_back(std::make_unique<Member>());
  block.warps.assign(static_cast<size_t>(threads + 31) / 32, Warp{});
  for (Barrier& b : block.barriers) b = {};
  block.counters.clear();
  block.copies.clear();
  block.live = block.threads = threads;
  block.error = nullptr;
  block.body = &body;
  block.shared.assign(shared + 1024, static_cast<char>(0x7f));  // fresh shared memory holds garbage
  block.shared_base = block.shared.data() + (1024 - reinterpret_cast<uintptr_t>(block.shared.data()) % 1024);
  block_index = index;
  block_shape = shape;
  grid_shape = grid;
  current = &block;
  for (int i = 0; i < threads; ++i) {
    Member& m = *block.members[i];
    m.index = {i % shape.x, i / shape.x % shape.y, i / (shape.x * shape.y)};
    m.lane = i % 32;
    m.warp = &block.warps[i / 32];
    m.block = &block;
    m.warp->lanes |= 1u << m.lane;
    prepare(m);
  }
  const bool falling = order == Order::falling;
  while (block.live > 0 && !block.error) {
    block.moved = false;
    for (int i = 0; i < threads && !block.error; ++i) {
      Member& m = *block.members[falling ? threads - 1 - i : i];
      if (m.done || (m.waiting.counter && *m.waiting.counter == m.waiting.seen)) continue;
      block.moved = true;
      enter(m);
    }
    if (!block.moved && !block.copies.empty()) {  // copies take as long as anything else can go on
      const std::vector<BulkCopy> copies = std::move(block.copies);
      block.copies.clear();
      for (const BulkCopy& copy : copies) land(copy, block);
      block.moved = true;
    }
    if (!block.moved)
      block.error = std::make_exception_ptr(
          std::runtime_error("emulated kernel: its threads wait for each other for ever" + where(block)));
  }
  current = nullptr;
  running = nullptr;
  if (block.error) std::rethrow_exception(block.error);
}

void run_grid(dim3 grid, dim3 shape, size_t shared, const std::function<void()>& body) {
  launched.fetch_add(1, std::memory_order_relaxed);
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  parallel_for(blocks, [&](int64_t i) {
    static thread_local std::unique_ptr<Block> block;
    if (!block) block = std::make_unique<Block>();
    const auto x = static_cast<unsigned>(i % grid.x), y = static_cast<unsigned>(i / grid.x % grid.y),
               z = static_cast<unsigned>(i / grid.x / grid.y);
    run_block(*block, {x, y, z}, grid, shape, shared, body);
  });
}

}  // namespace

// ---- what kernels call ----

void* dynamic_shared() { return current->shared_base; }

void barrier() {
  Block& block = *current;
  Barrier& b = block.barriers[0];
  if (++b.arrived >= block.live) return pass(b, block);
  wait_for(b.generation);
}
int barrier_count(bool predicate) {
  Block& block = *current;
  Barrier& b = block.barriers[16];
  b.yes += predicate;
  if (++b.arrived >= block.live) pass(b, block);
  else wait_for(b.generation);
  return b.result;
}
void named_barrier(int id, int threads) {
  Block& block = *current;
  require(id >= 0 && id < 16 && threads % 32 == 0, "internal", "emulation: barrier ", id, " of ", threads,
          " threads; wanted 0 to 15 and whole warps");
  Barrier& b = block.barriers[id];
  b.wanted = threads;
  if (++b.arrived == threads) return pass(b, block);
  wait_for(b.generation);
}

void counter_init(const void* counter, unsigned arrivals) {
  current->counters[counter] = {.wanted = static_cast<int>(arrivals)};
}
namespace {
Barrier& counter_at(const void* counter, const char* what) {
  const auto at = current->counters.find(counter);
  require(at != current->counters.end(), "internal", "emulation: ", what, " a counter that was not set up");
  return at->second;
}
}  // namespace
void counter_arrive(const void* counter) { counter_expect(counter, 0); }
void counter_expect(const void* counter, unsigned bytes) {
  Barrier& b = counter_at(counter, "an arrival at");
  require(b.arrived < b.wanted, "internal", "emulation: more arrivals at a counter than its phase has");
  ++b.arrived;
  b.bytes += bytes;
  pass_when_complete(b, *current);
}
void bulk_copy(void* shared, const void* global, unsigned bytes, const void* counter) {
  require(
      reinterpret_cast<uintptr_t>(shared) % 16 == 0 && reinterpret_cast<uintptr_t>(global) % 16 == 0 && bytes % 16 == 0,
      "internal", "emulation: a bulk copy that is not aligned to 16 bytes");
  const BulkCopy copy{shared, global, bytes, &counter_at(counter, "a copy to")};
  if (order == Order::falling) land(copy, *current);
  else current->copies.push_back(copy);
}
void counter_wait(const void* counter, unsigned parity) {
  const Barrier& b = counter_at(counter, "a wait for");
  while ((b.generation & 1) == parity) wait_for(b.generation);
}

unsigned live_lanes() { return running->warp->lanes; }

void warp_operation(unsigned mask, const char* name, void* mine, void (*compute)(void* const* slots, unsigned mask)) {
  Warp& w = *running->warp;
  mask &= w.lanes;
  require(mask >> running->lane & 1, "internal", "emulation: ", name, " with a mask that leaves out its own lane ",
          running->lane);
  Meeting* m = nullptr;
  for (Meeting& at : w.meetings)
    if (at.arrived && at.mask == mask) m = &at;
  for (Meeting& at : w.meetings)
    if (!m && !at.arrived) {
      at.mask = mask;
      at.name = name;
      at.compute = compute;
      m = &at;
    }
  require(m != nullptr, "internal", "emulation: more than four groups of one warp are under way at once in ", name);
  require(m->compute == compute, "internal", "emulation: lanes of one warp meet in different operations, ", m->name,
          " and ", name);
  require(!(m->arrived >> running->lane & 1), "internal", "emulation: lane ", running->lane, " is twice in one ", name);
  m->slots[running->lane] = mine;
  m->arrived |= 1u << running->lane;
  if (m->arrived == mask) {
    compute(m->slots, mask);
    m->arrived = 0;
    ++w.generation;
    current->moved = true;
    return;
  }
  // The generation is the warp's: another group's meeting wakes us too early, so look at our own again.
  while (m->arrived >> running->lane & 1 && m->slots[running->lane] == mine) wait_for(w.generation);
}

namespace {
struct Vote {
  bool predicate;
  unsigned result;
};
struct Mma {
  float* d;
  const uint32_t *a, *b;
};
struct LoadMatrix {
  uint32_t* r;
  const void* row;
  bool transposed;
};
TEMPER_ARITHMETIC float low(uint32_t x) { return __builtin_bit_cast(float, x << 16); }
TEMPER_ARITHMETIC float high(uint32_t x) { return __builtin_bit_cast(float, x & 0xffff0000u); }
void need_warp(unsigned mask, const char* name) {
  require(mask == 0xffffffffu, "internal", "emulation: ", name, " needs all 32 lanes, has ", mask);
}
}  // namespace

unsigned ballot(unsigned mask, bool predicate) {
  Vote mine{predicate, 0};
  warp_operation(mask, "vote", &mine, [](void* const* slots, unsigned lanes) {
    unsigned all = 0;
    for (int i = 0; i < 32; ++i)
      if (lanes >> i & 1) all |= static_cast<unsigned>(static_cast<Vote*>(slots[i])->predicate) << i;
    for (int i = 0; i < 32; ++i)
      if (lanes >> i & 1) static_cast<Vote*>(slots[i])->result = all;
  });
  return mine.result;
}

namespace {
TEMPER_ARITHMETIC void compute_mma(void* const* slots, unsigned lanes) {
  need_warp(lanes, "mma");
  float A[16][16], B[16][8], D[16][8];  // B by k: sums side by side, each in the order of k
  for (int l = 0; l < 32; ++l) {
    const Mma& m = *static_cast<Mma*>(slots[l]);
    const int g = l / 4, t = 2 * (l % 4);
    for (int i = 0; i < 4; ++i) {
      A[g + (i % 2) * 8][t + (i / 2) * 8] = low(m.a[i]);
      A[g + (i % 2) * 8][t + (i / 2) * 8 + 1] = high(m.a[i]);
      D[g + (i / 2) * 8][t + i % 2] = m.d[i];
    }
    for (int i = 0; i < 2; ++i) {
      B[t + i * 8][g] = low(m.b[i]);
      B[t + i * 8 + 1][g] = high(m.b[i]);
    }
  }
  for (int row = 0; row < 16; ++row) {
    float sums[8];
    for (int column = 0; column < 8; ++column) sums[column] = D[row][column];
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) sums[column] += A[row][k] * B[k][column];
    for (int column = 0; column < 8; ++column) D[row][column] = sums[column];
  }
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) static_cast<Mma*>(slots[l])->d[i] = D[l / 4 + (i / 2) * 8][2 * (l % 4) + i % 2];
}

// rows: as the lanes named them, eight to a matrix.
TEMPER_ARITHMETIC void share_matrices(void* const* slots, const uint16_t (&rows)[32][8]) {
  for (int l = 0; l < 32; ++l) {
    const LoadMatrix& m = *static_cast<LoadMatrix*>(slots[l]);
    const int at = 2 * (l % 4);
    for (int i = 0; i < 4; ++i) {
      const uint16_t (*const matrix)[8] = rows + 8 * i;
      m.r[i] = m.transposed ? matrix[at][l / 4] | static_cast<uint32_t>(matrix[at + 1][l / 4]) << 16
                            : matrix[l / 4][at] | static_cast<uint32_t>(matrix[l / 4][at + 1]) << 16;
    }
  }
}
void load_matrices(void* const* slots, unsigned lanes) {
  need_warp(lanes, "ldmatrix");
  uint16_t rows[32][8];
  for (int l = 0; l < 32; ++l) std::memcpy(rows[l], static_cast<LoadMatrix*>(slots[l])->row, 16);
  share_matrices(slots, rows);
}
}  // namespace

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Mma mine{d, a, b};
  warp_operation(0xffffffffu, "mma", &mine, compute_mma);
}

void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed) {
  require(reinterpret_cast<uintptr_t>(row) % 16 == 0, "internal",
          "emulation: ldmatrix of a row that is not aligned to 16 bytes");
  LoadMatrix mine{r, row, transposed};
  warp_operation(0xffffffffu, "ldmatrix", &mine, load_matrices);
}

void cp_async(void* shared, const void* global, bool valid) {
  require(reinterpret_cast<uintptr_t>(shared) % 16 == 0 && (!valid || reinterpret_cast<uintptr_t>(global) % 16 == 0),
          "internal", "emulation: cp.async of 16 bytes that are not aligned");
  me().copies.add({shared, global, valid});
}
void cp_async_commit() { me().copies.commit(); }
void cp_async_wait(int pending) {
  me().copies.take(pending, [](const Copy& c) {
    if (c.valid) std::memcpy(c.to, c.from, 16);
    else std::memset(c.to, 0, 16);
  });
}

uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const char*>(p) - current->shared_base);
}

namespace {
// Eight neighbours of a matrix under 128-byte swizzle, from (outer, k) on: along k, or along outer where the matrix is
// transposed, which is then a multiple of 8 as k is else. The descriptor's fields as the PTX ISA defines them.
void swizzled_elements(uint64_t descriptor, int outer, int k, bool transposed, uint16_t (&to)[8]) {
  const auto field = [&](int bit) { return static_cast<uint32_t>(descriptor >> bit & 0x3fffu) << 4; };
  require(descriptor >> 62 == 1 && (descriptor >> 49 & 7u) == 0, "internal",
          "emulation: a wgmma descriptor without 128-byte swizzle or with a base offset");
  const uint32_t start = field(0), leading = field(16), stride = field(32);
  uint32_t at = transposed
                    ? start + static_cast<uint32_t>(outer / 64) * leading + static_cast<uint32_t>(k / 8) * stride +
                          static_cast<uint32_t>(k % 8) * 128 + static_cast<uint32_t>(outer % 64) * 2
                    : start + static_cast<uint32_t>(outer / 8) * stride + static_cast<uint32_t>(outer % 8) * 128 +
                          static_cast<uint32_t>(k) * 2;
  at ^= (at >> 7 & 7u) << 4;
  require(at + sizeof to <= current->shared.size(), "internal",
          "emulation: wgmma reads shared memory beyond the block's");
  std::memcpy(to, current->shared_base + at, sizeof to);
}
TEMPER_ARITHMETIC float widen(uint16_t bits) { return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16); }
// to[0], to[step], …
TEMPER_ARITHMETIC void widen(float* to, int step, const uint16_t (&from)[8]) {
  for (int i = 0; i < 8; ++i) to[i * step] = widen(from[i]);
}

std::atomic<int64_t> warp_products{0};
struct WarpProduct {
  const Product* product;
  int warp;
};
constexpr int kMostColumns = 192;
// a by k, b by column: sums side by side, each in the order of k.
TEMPER_ARITHMETIC void add_products(void* const* slots, const float (&a)[16][16], const float (&b)[kMostColumns][16]) {
  const Product& first = *static_cast<WarpProduct*>(slots[0])->product;
  float* d[32];
  for (int l = 0; l < 32; ++l) d[l] = static_cast<WarpProduct*>(slots[l])->product->d;
  for (int column = 0; column < first.n; ++column) {
    const int lane = column % 8 / 2, at = column / 8 * 4 + column % 2;
    float sum[16];
    for (int r = 0; r < 16; ++r) sum[r] = first.fresh ? 0.0f : d[r % 8 * 4 + lane][at + r / 8 * 2];
    for (int k = 0; k < 16; ++k)
      for (int r = 0; r < 16; ++r) sum[r] += a[k][r] * b[column][k];
    for (int r = 0; r < 16; ++r) d[r % 8 * 4 + lane][at + r / 8 * 2] = sum[r];
  }
}
void compute_product(void* const* slots, unsigned lanes) {
  need_warp(lanes, "wgmma");
  warp_products.fetch_add(1, std::memory_order_relaxed);
  const WarpProduct& first = *static_cast<WarpProduct*>(slots[0]);
  const Product& p = *first.product;
  require(p.n % 8 == 0 && p.n <= kMostColumns, "internal", "emulation: wgmma of ", p.n, " columns");
  float a[16][16], b[kMostColumns][16];
  uint16_t some[8];
  for (int r = 0; r < 16; ++r)
    if (p.registers) {
      for (int k = 0; k < 16; ++k) {
        const Product& of = *static_cast<WarpProduct*>(slots[r % 8 * 4 + k % 8 / 2])->product;
        a[k][r] = widen(static_cast<uint16_t>(of.registers[k / 8 * 2 + r / 8] >> (k % 2 * 16)));
      }
    } else {
      for (int k : {0, 8}) {
        swizzled_elements(p.a, first.warp * 16 + r, k, false, some);
        widen(&a[k][r], 16, some);
      }
    }
  if (p.b_transposed) {
    for (int column = 0; column < p.n; column += 8)
      for (int k = 0; k < 16; ++k) {
        swizzled_elements(p.b, column, k, true, some);
        widen(&b[column][k], 16, some);
      }
  } else {
    for (int column = 0; column < p.n; ++column)
      for (int k : {0, 8}) {
        swizzled_elements(p.b, column, k, false, some);
        widen(&b[column][k], 1, some);
      }
  }
  add_products(slots, a, b);
}
}  // namespace

void fence_async_proxy() {}
int64_t warpgroup_products() { return warp_products; }
void wgmma(float* d, int n, uint64_t a, uint64_t b, bool b_transposed) {
  me().products.add({d, n, nullptr, a, b, b_transposed, false});
}
void wgmma(float* d, int n, const uint32_t* a, uint64_t b, bool b_transposed, bool fresh) {
  me().products.add({d, n, a, 0, b, b_transposed, fresh});
}
void wgmma_commit() { me().products.commit(); }
void wgmma_wait(int pending) {
  Member& m = me();
  m.products.take(pending, [&](const Product& p) {
    WarpProduct mine{&p, static_cast<int>(m.index.x) / 32 % 4};
    warp_operation(0xffffffffu, "wgmma", &mine, compute_product);
  });
}

void set_order(Order wanted) { order = wanted; }
int64_t launches() { return launched; }
Faults& faults() {
  static Faults f;
  return f;
}
Machine& machine() {
  // For tests that see the emulation as a library: another machine than the usual one.
  const auto number = [](const char* name, auto usual) {
    const char* text = std::getenv(name);
    return text ? static_cast<decltype(usual)>(std::atoll(text)) : usual;
  };
  static Machine m = [&] {
    Machine from;
    from.devices = number("TEMPER_EMULATED_DEVICES", from.devices);
    from.major = number("TEMPER_EMULATED_MAJOR", from.major);
    from.memory = number("TEMPER_EMULATED_MEMORY", from.memory);
    return from;
  }();
  return m;
}

// ---- streams, graphs ----
struct Graph {
  std::vector<std::function<void()>> work;
};
struct Stream {
  std::unique_ptr<Graph> capturing;
};
struct Event {
  std::chrono::steady_clock::time_point at;
};

namespace {
cudaError_t sticky = cudaSuccess;
void submit(Stream* stream, std::function<void()> work) {
  if (faults().ahead_of_work) faults().ahead_of_work();
  if (stream && stream->capturing) stream->capturing->work.push_back(std::move(work));
  else work();
}
std::set<void*>& device_blocks() {
  static auto* s = new std::set<void*>;
  return *s;
}
std::mutex memory_mutex;
size_t device_bytes = 0;
struct Size {
  size_t bytes;
};
constexpr size_t kBefore = 256;  // alignment of cudaMalloc, and room for the size
}  // namespace

void launch(cudaStream_t stream, dim3 grid, dim3 block, size_t shared, std::function<void()> thread) {
  require(block.x * block.y * block.z >= 1 && block.x * block.y * block.z <= kMaxThreads, "internal",
          "emulation: a block of ", block.x * block.y * block.z, " threads");
  require(shared <= static_cast<size_t>(machine().shared_per_block), "internal", "emulation: ", shared,
          " bytes of shared memory, the device has ", machine().shared_per_block);
  require(grid.y <= 65535 && grid.z <= 65535 && grid.x <= 0x7fffffffu, "internal", "emulation: grid ", grid.x, "×",
          grid.y, "×", grid.z, " is too large");
  if (machine().fail_launch >= 0 && machine().fail_launch-- == 0) {
    sticky = cudaErrorLaunchFailure;
    return;
  }
  submit(stream, [=, thread = std::move(thread)] { run_grid(grid, block, shared, thread); });
}

}  // namespace temper::gpu::emulation

using namespace temper::gpu::emulation;

const char* cudaGetErrorName(cudaError_t e) {
  switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    default: return "cudaErrorInvalidValue";
  }
}
const char* cudaGetErrorString(cudaError_t e) { return cudaGetErrorName(e); }
cudaError_t cudaGetLastError() { return sticky; }
cudaError_t cudaPeekAtLastError() { return sticky; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = machine().devices;
  return machine().devices ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int index) {
  return index >= 0 && index < machine().devices ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int index) {
  if (index < 0 || index >= machine().devices) return cudaErrorInvalidDevice;
  *out = {};
  std::snprintf(out->name, sizeof out->name, "emulated device");
  out->totalGlobalMem = machine().memory;
  out->sharedMemPerBlockOptin = static_cast<size_t>(machine().shared_per_block);
  out->major = machine().major;
  out->minor = machine().minor;
  out->multiProcessorCount = machine().multiprocessors;
  out->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int index) {
  cudaDeviceProp p;
  if (cudaError_t e = cudaGetDeviceProperties(&p, index)) return e;
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(p.sharedMemPerBlockOptin); break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = machine().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  std::lock_guard lock(memory_mutex);
  *total = machine().memory;
  *free = device_bytes < *total ? *total - device_bytes : 0;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** out, size_t bytes) {
  std::lock_guard lock(memory_mutex);
  if (machine().fail_allocation >= 0 && machine().fail_allocation-- == 0) return cudaErrorMemoryAllocation;
  if (bytes > machine().memory || device_bytes + bytes > machine().memory) return cudaErrorMemoryAllocation;
  void* p = nullptr;
  if (posix_memalign(&p, kBefore, bytes + kBefore) != 0) return cudaErrorMemoryAllocation;
  static_cast<Size*>(p)->bytes = bytes;
  device_bytes += bytes;
  *out = static_cast<char*>(p) + kBefore;
  std::memset(*out, 0x7f, bytes < 65536 ? bytes : 65536);  // fresh memory is not zero
  device_blocks().insert(*out);
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
  std::lock_guard lock(memory_mutex);
  if (!device_blocks().erase(p)) return cudaErrorInvalidValue;
  void* whole = static_cast<char*>(p) - kBefore;
  device_bytes -= static_cast<Size*>(whole)->bytes;
  std::free(whole);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  return posix_memalign(out, 4096, bytes ? bytes : 1) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void* p) {
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  *device = host;
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* dst, const void* src, size_t bytes, cudaMemcpyKind) {
  if (bytes) std::memmove(dst, src, bytes);
  return sticky;
}
cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (faults().copy.met()) return cudaErrorInvalidValue;
  submit(stream, [=] {
    if (bytes) std::memmove(dst, src, bytes);
  });
  return sticky;
}
cudaError_t cudaMemsetAsync(void* dst, int value, size_t bytes, cudaStream_t stream) {
  submit(stream, [=] {
    if (bytes) std::memset(dst, value, bytes);
  });
  return sticky;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned) {
  *out = new Stream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  ++faults().synchronizations;
  return stream && stream->capturing ? cudaErrorInvalidValue : sticky;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return faults().wait.met() ? cudaErrorInvalidValue : cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return sticky; }
cudaError_t cudaDeviceReset() {
  sticky = cudaSuccess;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  *out = new Event;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->at = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return sticky; }
cudaError_t cudaEventQuery(cudaEvent_t) { return sticky; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = std::chrono::duration<float, std::milli>(to->at - from->at).count();
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->capturing) return cudaErrorInvalidValue;
  stream->capturing = std::make_unique<Graph>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  if (!stream || !stream->capturing) return cudaErrorInvalidValue;
  *out = stream->capturing.release();
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream && stream->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  *out = new Graph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  for (const auto& work : graph->work) work();
  return sticky;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}
