// The allocator, mapped files and the last error, tested apart from JavaScript so that the sanitizers see them.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>
#include "core/mapped_file.h"
#include "temper/error.h"
#include "temper/memory.h"
#include "test/harness.h"

namespace temper::test {
namespace {

template <class F> std::string code_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.code;
  }
  return "no error";
}

void check_memory(Tally& tally) {
  const MemoryStats before = memory_stats();
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{4097}, size_t{1} << 20, (size_t{1} << 21) + 3}) {
    void* p = allocate(bytes, Category::kv);
    std::memset(p, 0xff, bytes);
    report(tally, reinterpret_cast<uintptr_t>(p) % 64 == 0, "memory: block of " + std::to_string(bytes) + " is not 64-byte aligned");
    report(tally, memory_stats().live[5] - before.live[5] == static_cast<int64_t>(bytes), "memory: " + std::to_string(bytes) + " bytes are counted as something else");
    release(p);
  }
  release(nullptr);
  report(tally, memory_stats().total_live == before.total_live, "memory: live bytes do not return");
  reset_peaks();
  report(tally, memory_stats().total_peak == memory_stats().total_live, "memory: reset_peaks leaves a peak");
  report(tally, code_of([] { allocate(size_t{1} << 60, Category::weights); }) == "out_of_memory", "memory: an exabyte is granted");
  report(tally, code_of([] { allocate(SIZE_MAX, Category::weights); }) == "out_of_memory", "memory: SIZE_MAX bytes are granted");

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
    report(tally, code_of([&] { file->range(8, UINT64_MAX, 1); }) == "file_truncated", "mapped file: a length that wraps around");
    report(tally, code_of([&] { file->range(2, 4, 4); }) == "file_misaligned", "mapped file: an unaligned f32");
    report(tally, ftruncate(fd, 8) == 0 && code_of([&] { file->range(8, 4, 4); }) == "file_truncated", "mapped file: does not see that the file was cut");
  }
  report(tally, ftruncate(fd, 0) == 0 && MappedFile::open(path)->size() == 0, "mapped file: an empty file");
  ::close(fd);
  unlink(path);
  report(tally, code_of([&] { MappedFile::open(path); }) == "file_missing", "mapped file: opens what is not there");
  report(tally, code_of([] { MappedFile::open("/tmp"); }) == "file_not_regular", "mapped file: opens a folder");
  report(tally, code_of([] { MappedFile::open("/dev/null"); }) == "file_not_regular", "mapped file: opens a device");
}

void check_scratch_file(Tally& tally) {
  const ScratchStats before = scratch_stats();
  {
    const auto file = MappedFile::scratch("/tmp", 10000);
    auto* bytes = static_cast<unsigned char*>(const_cast<void*>(file->range(0, 10000, 1)));
    report(tally, file->writable() && bytes[0] == 0 && bytes[9999] == 0, "scratch file: does not begin with zeros");
    std::memset(bytes, 7, 10000);
    report(tally, bytes[9999] == 7 && scratch_stats().live - before.live == 10000 && scratch_stats().peak >= scratch_stats().live, "scratch file: is counted as something else");
    report(tally, code_of([&] { file->range(1, 10000, 1); }) == "file_truncated", "scratch file: reads past the end");
  }
  report(tally, scratch_stats().live == before.live, "scratch file: live bytes do not return");
  reset_scratch_peak();
  report(tally, scratch_stats().peak == before.live, "scratch file: reset_scratch_peak leaves a peak");
  report(tally, code_of([] { MappedFile::scratch("/tmp", uint64_t{1} << 45); }) == "offload_disk_full", "scratch file: 32 TiB are granted");
  report(tally, code_of([] { MappedFile::scratch("/tmp/there-is-no-such-folder", 1); }) == "offload_unwritable", "scratch file: is made in a folder that is not there");
}

void check_last_error(Tally& tally) {
  set_last_error("here", "main");
  std::thread([] { set_last_error("there", "other"); }).join();
  report(tally, last_error().code == "here" && last_error().message == "main", "last error: another thread's is seen");
}

}  // namespace

void check_core(Tally& tally) {
  check_memory(tally);
  check_mapped_file(tally);
  check_scratch_file(tally);
  check_last_error(tally);
}

}  // namespace temper::test
