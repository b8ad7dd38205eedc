// The allocator, the thread pool, mapped files and the last error, tested apart from JavaScript so that the sanitizers
// see them.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>
#include "core/arena.h"
#include "core/mapped_file.h"
#include "temper/error.h"
#include "temper/memory.h"
#include "temper/threads.h"
#include "test/harness/harness.h"

namespace temper::test {
namespace {

template <class F>
std::string code_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code;
  }
  return "no error";
}

void check_memory(Tally& tally) {
  const MemoryStats before = memory_stats();
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{4097}, size_t{1} << 20,
                       (size_t{1} << 21) + 3}) {
    void* p = allocate(bytes, Category::kv);
    std::memset(p, 0xff, bytes);
    report(tally, reinterpret_cast<uintptr_t>(p) % 64 == 0,
           "memory: block of " + std::to_string(bytes) + " is not 64-byte aligned");
    report(tally, memory_stats().live[5] - before.live[5] == static_cast<int64_t>(bytes),
           "memory: " + std::to_string(bytes) + " bytes are counted as something else");
    release(p);
  }
  release(nullptr);
  report(tally, memory_stats().total_live == before.total_live, "memory: live bytes do not return");
  reset_peaks();
  report(tally, memory_stats().total_peak == memory_stats().total_live, "memory: reset_peaks leaves a peak");
  report(tally, code_of([] { allocate(size_t{1} << 60, Category::weights); }) == "out_of_memory",
         "memory: an exabyte is granted");
  report(tally, code_of([] { allocate(SIZE_MAX, Category::weights); }) == "out_of_memory",
         "memory: SIZE_MAX bytes are granted");

  std::vector<std::thread> threads;
  std::vector<int> torn(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t, &torn] {
      for (uint64_t i = 0; i < 3000; ++i) {
        const size_t n = random_bits(static_cast<uint64_t>(t), i) % 20000 + 2;
        Scratch<uint8_t> a(n), b(n / 2);
        std::memset(a.data(), t, n);
        std::memset(b.data(), t + 10, n / 2);
        for (size_t k = 0; k < n; k += 997) torn[static_cast<size_t>(t)] += a[k] != t;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  report(tally, torn == std::vector<int>(4, 0), "memory: two threads were given the same block");
  report(tally, memory_stats().total_live == before.total_live, "memory: threads leave live bytes");
  release_cached();
  report(tally, memory_stats().cached == 0, "memory: release_cached keeps blocks");
}

// Blocks that fill what the arena has grown by exactly: nothing of it is lost when it grows again, and the pages of all
// make one block.
void check_full_arena(Tally& tally) {
  constexpr size_t kBlock = size_t{1} << 21;
  Arena arena;
  std::vector<uint8_t*> blocks;
  for (int i = 0; i < 5; ++i) {
    blocks.push_back(static_cast<uint8_t*>(arena.take(kBlock)));
    report(tally, blocks.back() != nullptr, "arena: 2 MiB are refused");
    if (!blocks.back()) return;
    std::memset(blocks.back(), i + 1, kBlock);
  }
  size_t torn = 0;
  for (int i = 0; i < 5; ++i)
    torn += blocks[static_cast<size_t>(i)][0] != i + 1 || blocks[static_cast<size_t>(i)][kBlock - 1] != i + 1;
  report(tally, torn == 0, "arena: full blocks overlap");
  for (uint8_t* block : blocks) arena.give(block);
  report(tally, arena.kept() == 5 * kBlock, "arena: full blocks are not kept");
  auto* whole = static_cast<uint8_t*>(arena.take(5 * kBlock));
  size_t zero = 0;
  for (size_t i = 0; whole && i < 5 * kBlock; i += Arena::page_multiple(1)) zero += whole[i] == 0;
  report(tally, whole && arena.kept() == 0 && zero == 0, "arena: the pages of full blocks do not make one block");
  report(tally, whole && arena.take(size_t{1} << 45) == nullptr, "arena: a full arena grants more than all addresses");
}

// Of a small arena only those pages are in memory that were touched since they were dropped.
void check_small_arena(Tally& tally) {
  constexpr size_t kBlock = size_t{8} << 20;
  const size_t page = Arena::page_multiple(1);
  Arena arena;
  auto* block = static_cast<uint8_t*>(arena.take(kBlock));
  report(tally, block != nullptr, "arena: 8 MiB are refused");
  if (!block) return;
  const auto in_memory = [&] {
    std::vector<unsigned char> pages(kBlock / page);
    if (mincore(block, kBlock, pages.data()) != 0) return size_t{0};
    return static_cast<size_t>(std::ranges::count_if(pages, [](unsigned char p) { return (p & 1) != 0; }));
  };
  for (size_t i = 0; i < 4; ++i) block[i * kBlock / 4] = 1;
  report(tally, in_memory() == 4, "arena: pages of a small arena are in memory that nobody touched");
  std::memset(block, 1, kBlock);
  arena.give(block);
  arena.drop(kBlock);
  report(tally, in_memory() == 0, "arena: dropped pages stay in memory");
  block = static_cast<uint8_t*>(arena.take(kBlock));
  block[kBlock / 2] = 1;
  report(tally, in_memory() == 1, "arena: dropped pages come back with others");
}

// Blocks whose pages never stay are laid over each other's addresses, and not always beyond all of them.
void check_arena_extent(Tally& tally) {
  constexpr size_t kMiB = size_t{1} << 20;
  Arena arena;
  std::vector<uint8_t*> blocks;
  uint8_t *first = nullptr, *last = nullptr;
  for (uint64_t i = 0; i < 4000; ++i) {
    if (blocks.size() == 8 || (!blocks.empty() && random_bits(11, i) % 2 == 0)) {
      const size_t k = random_bits(12, i) % blocks.size();
      arena.give(blocks[k]);
      arena.drop(arena.kept());
      blocks[k] = blocks.back();
      blocks.pop_back();
      continue;
    }
    const size_t bytes = kMiB + random_bits(13, i) % 5 * kMiB / 4;
    auto* at = static_cast<uint8_t*>(arena.take(bytes));
    report(tally, at != nullptr, "arena: 2 MiB are refused");
    if (!at) return;
    if (!first || at < first) first = at;
    last = std::max(last, at + bytes);
    blocks.push_back(at);
  }
  report(tally, static_cast<size_t>(last - first) <= 32 * kMiB, "arena: 16 MiB of blocks take ever more addresses");
}

// Blocks of every size over the same pages: none overlaps another, and a freed page is used before one that is not in
// memory.
void check_arena(Tally& tally) {
  constexpr size_t kMiB = size_t{1} << 20;
  const size_t page = Arena::page_multiple(1);
  Arena arena;
  auto* whole = static_cast<uint8_t*>(arena.take(8 * kMiB));
  report(tally, whole != nullptr, "arena: 8 MiB are refused");
  if (!whole) return;
  std::memset(whole, 0x5a, 8 * kMiB);
  arena.give(whole);
  report(tally, arena.kept() == 8 * kMiB, "arena: a freed block is not kept");
  uint8_t *a = static_cast<uint8_t*>(arena.take(3 * kMiB)), *b = static_cast<uint8_t*>(arena.take(5 * kMiB));
  size_t touched = 0;
  for (size_t i = 0; i < 3 * kMiB; i += page) touched += a[i] == 0x5a;
  for (size_t i = 0; i < 5 * kMiB; i += page) touched += b[i] == 0x5a;
  report(tally, arena.kept() == 0 && touched == 8 * kMiB / page, "arena: two blocks do not lie on the pages of one");
  arena.give(a);
  arena.give(b);
  arena.drop(3 * kMiB + 1);
  report(tally, arena.kept() == 5 * kMiB - page, "arena: drop gives back another number of bytes");
  a = static_cast<uint8_t*>(arena.take(8 * kMiB));
  size_t zero = 0;
  for (size_t i = 0; i < 8 * kMiB; i += page) zero += a[i] == 0;
  report(tally, arena.kept() == 0 && zero == 3 * kMiB / page + 1,
         "arena: dropped pages stay in memory, or kept ones go");
  arena.give(a);
  report(tally, arena.take(size_t{1} << 45) == nullptr, "arena: more than all addresses are granted");

  struct Block {
    uint8_t* at;
    size_t bytes;
    uint8_t mark;
  };
  std::vector<Block> blocks;
  size_t live = 0, held_peak = 8 * kMiB, torn = 0, over = 0;
  for (uint64_t i = 0; i < 4000; ++i) {
    if (blocks.size() > 12 || (!blocks.empty() && random_bits(7, i) % 2 == 0)) {
      size_t k = random_bits(8, i) % blocks.size();
      for (size_t at = 0; at < blocks[k].bytes; at += page) torn += blocks[k].at[at] != blocks[k].mark;
      torn += blocks[k].at[blocks[k].bytes - 1] != blocks[k].mark;
      arena.give(blocks[k].at);
      live -= Arena::page_multiple(blocks[k].bytes);
      blocks[k] = blocks.back();
      blocks.pop_back();
    } else {
      size_t bytes = random_bits(9, i) % (random_bits(10, i) % 4 == 0 ? 6 * kMiB : kMiB) + 1;
      auto* at = static_cast<uint8_t*>(arena.take(bytes));
      if (!at) {
        ++torn;
        break;
      }
      live += Arena::page_multiple(bytes);
      held_peak = std::max(held_peak, live);
      if (arena.kept() > held_peak - live) arena.drop(arena.kept() - (held_peak - live));
      over += live + arena.kept() > held_peak;
      auto mark = static_cast<uint8_t>(i % 251 + 1);
      for (size_t k = 0; k < bytes; k += page) at[k] = mark;
      at[bytes - 1] = mark;
      blocks.push_back({at, bytes, mark});
    }
  }
  report(tally, torn == 0, "arena: blocks overlap");
  report(tally, over == 0, "arena: live and kept exceed the highest live figure");
  for (const Block& block : blocks) arena.give(block.at);
  arena.drop(arena.kept());
  report(tally, arena.kept() == 0, "arena: drop keeps pages");
}

// Small blocks of all sizes, from memory that was kept of others.
void check_kept_blocks(Tally& tally) {
  release_cached();
  size_t torn = 0;
  for (int round = 0; round < 2; ++round)
    for (size_t bytes = 1; bytes < 300'000; bytes += bytes / 5 + 1) {
      Scratch<uint8_t> a(bytes), b(bytes + 1);
      std::memset(a.data(), 1, bytes);
      std::memset(b.data(), 2, bytes + 1);
      torn += a[0] != 1 || a[bytes - 1] != 1;
    }
  report(tally, torn == 0, "memory: kept blocks overlap");
  void* const block = allocate(5000, Category::kv);
  release(block);
  const bool keeps = memory_stats().cached > 0;  // not under a sanitizer
  void* const again = allocate(5050, Category::kv);
  report(tally, !keeps || again == block, "memory: a block of the same class is not handed out again");
  release(again);
}

// Every task once, however many threads there are, sleep, call or throw.
void check_threads(Tally& tally) {
  const int before = thread_count();
  std::atomic<int> wrong{0};
  const auto jobs = [&](int64_t salt, int count) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t tasks = (i * 7 + salt) % 40;
      std::vector<std::atomic<int>> times(static_cast<size_t>(tasks));
      parallel_for(tasks, [&](int64_t t) { times[static_cast<size_t>(t)].fetch_add(1); });
      for (const auto& n : times) wrong += n != 1;
    }
  };
  for (int threads : {1, 2, 3, 7}) {
    set_thread_count(threads);
    jobs(threads, 500);
    std::vector<std::thread> callers;
    for (int64_t c = 0; c < 3; ++c) callers.emplace_back([&jobs, c] { jobs(c, 100); });
    for (std::thread& caller : callers) caller.join();
    for (int i = 0; i < 6; ++i) {  // one of them is waited for asleep, and the others have gone to sleep
      std::atomic<int> done{0};
      parallel_for(threads, [&](int64_t t) {
        std::this_thread::sleep_for(std::chrono::microseconds(t % 2 ? 400 : 10));
        done.fetch_add(1);
      });
      wrong += done != threads;
      std::this_thread::sleep_for(std::chrono::microseconds(i % 2 ? 300 : 0));
    }
    report(tally, code_of([] {
                    parallel_for(50, [](int64_t t) {
                      if (t == 33) fail("internal", "task 33");
                    });
                  }) == "internal",
           "threads: what a task throws is lost");
    // One task alone is no job of the pool: what it calls may still be one. Of two, what they call is done by each.
    for (int64_t outer : {1, 2}) {
      std::atomic<int> nested{0};
      parallel_for(outer, [&](int64_t) { parallel_for(9, [&](int64_t) { nested.fetch_add(1); }); });
      report(tally, nested == 9 * outer, "threads: a job in a job is not done");
    }
  }
  set_thread_count(before);
  report(tally, wrong == 0, "threads: a task ran twice, or never");
}

void check_mapped_file(Tally& tally) {
  char path[] = "/tmp/temper-mapped-XXXXXX";
  const int fd = mkstemp(path);
  const bool written = fd >= 0 && ::write(fd, "0123456789abcdef", 16) == 16;
  report(tally, written, "mapped file: cannot make a temporary file");
  if (!written) return;
  {
    const auto file = MappedFile::open(path);
    report(tally, file->size() == 16 && !std::memcmp(file->range(4, 4, 4), "4567", 4), "mapped file: other bytes");
    report(tally, file->range(16, 0, 1) != nullptr, "mapped file: the empty range at the end");
    report(tally, code_of([&] { file->range(13, 4, 1); }) == "file_truncated", "mapped file: reads past the end");
    report(tally, code_of([&] { file->range(UINT64_MAX, 1, 1); }) == "file_truncated", "mapped file: offset 2^64 − 1");
    report(tally, code_of([&] { file->range(8, UINT64_MAX, 1); }) == "file_truncated",
           "mapped file: a length that wraps around");
    report(tally, code_of([&] { file->range(2, 4, 4); }) == "file_misaligned", "mapped file: an unaligned f32");
    report(tally, ftruncate(fd, 8) == 0 && code_of([&] { file->range(8, 4, 4); }) == "file_truncated",
           "mapped file: does not see that the file was cut");
  }
  report(tally, ftruncate(fd, 0) == 0 && MappedFile::open(path)->size() == 0, "mapped file: an empty file");
  ::close(fd);
  unlink(path);
  report(tally, code_of([&] { MappedFile::open(path); }) == "file_missing", "mapped file: opens what is not there");
  report(tally, code_of([] { MappedFile::open("/tmp"); }) == "file_not_regular", "mapped file: opens a folder");
  report(tally, code_of([] { MappedFile::open("/dev/null"); }) == "file_not_regular", "mapped file: opens a device");
}

// Pages of a mapping that the system's cache holds.
int64_t cached_pages(const void* data, size_t bytes) {
  std::vector<unsigned char> pages(bytes / 4096 + 1);
  if (mincore(const_cast<void*>(data), bytes, pages.data()) != 0) return -1;
  return std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return p & 1; });
}

void check_read_ahead(Tally& tally) {
  char path[] = "/tmp/temper-ahead-XXXXXX";
  const int fd = mkstemp(path);
  const std::vector<char> bytes((9 << 20) + 5, 'x');
  const auto size = static_cast<ssize_t>(bytes.size());
  const bool written = fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == size && fsync(fd) == 0;
  report(tally, written, "read ahead: cannot make a temporary file");
  if (!written) return;
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  {
    const auto file = MappedFile::open(path);
    const void* data = file->range(0, bytes.size(), 1);
    const int64_t before = cached_pages(data, bytes.size());
    file->read_ahead();
    file->read_ahead();
    int64_t now = before;
    for (int i = 0; i < 10'000 && now <= size / 4096; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      now = cached_pages(data, bytes.size());
    }
    // Where a file system lets nothing go, or the system does not tell, there is nothing to be seen.
    report(tally, before < 0 || now > size / 4096, "read ahead: not all of the file comes into the cache");
    report(tally, !std::memcmp(data, bytes.data(), bytes.size()), "read ahead: other bytes");
  }
  for (int i = 0; i < 20; ++i) {  // gone, or cut, while it is read
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    const auto file = MappedFile::open(path);
    file->read_ahead();
    if (i == 19) report(tally, ftruncate(fd, 4096) == 0, "read ahead: cannot cut the file");
  }
  ::close(fd);
  unlink(path);
}

void check_scratch_file(Tally& tally) {
  const ScratchStats before = scratch_stats();
  {
    const auto file = MappedFile::scratch("/tmp", 10000);
    auto* bytes = static_cast<unsigned char*>(const_cast<void*>(file->range(0, 10000, 1)));
    report(tally, file->writable() && bytes[0] == 0 && bytes[9999] == 0, "scratch file: does not begin with zeros");
    std::memset(bytes, 7, 10000);
    report(
        tally,
        bytes[9999] == 7 && scratch_stats().live - before.live == 10000 && scratch_stats().peak >= scratch_stats().live,
        "scratch file: is counted as something else");
    report(tally, code_of([&] { file->range(1, 10000, 1); }) == "file_truncated", "scratch file: reads past the end");
  }
  report(tally, scratch_stats().live == before.live, "scratch file: live bytes do not return");
  reset_scratch_peak();
  report(tally, scratch_stats().peak == before.live, "scratch file: reset_scratch_peak leaves a peak");
  report(tally, code_of([] { MappedFile::scratch("/tmp", uint64_t{1} << 45); }) == "offload_disk_full",
         "scratch file: 32 TiB are granted");
  report(tally, code_of([] { MappedFile::scratch("/tmp/there-is-no-such-folder", 1); }) == "offload_unwritable",
         "scratch file: is made in a folder that is not there");
}

void check_last_error(Tally& tally) {
  set_last_error("here", "main");
  std::thread([] { set_last_error("there", "other"); }).join();
  report(tally, last_error().code == "here" && last_error().message == "main", "last error: another thread's is seen");
}

}  // namespace

void check_core(Tally& tally) {
  check_memory(tally);
  check_arena(tally);
  check_full_arena(tally);
  check_small_arena(tally);
  check_arena_extent(tally);
  check_kept_blocks(tally);
  check_threads(tally);
  check_mapped_file(tally);
  check_read_ahead(tally);
  check_scratch_file(tally);
  check_last_error(tally);
}

}  // namespace temper::test
