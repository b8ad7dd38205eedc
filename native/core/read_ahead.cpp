#include "core/read_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <new>

namespace temper {
namespace {

constexpr uint64_t kPart = 4 << 20, kSmallestPage = 4096;

// Whether the system's cache holds all of a part; true where it does not say, as then nothing is to be done.
bool cached(void* at, uint64_t bytes, uint64_t page) {
  unsigned char pages[kPart / kSmallestPage];
  if (mincore(at, bytes, pages) != 0) return true;
  return std::all_of(pages, pages + (bytes + page - 1) / page, [](unsigned char p) { return p & 1; });
}

}  // namespace

ReadAhead::ReadAhead(int fd, void* data, uint64_t size) {
  try {
    thread_ = std::thread([this, fd, data, size] { run(fd, static_cast<char*>(data), size); });
  } catch (...) {  // no thread to be had: the file is read where it is used
  }
}

ReadAhead::~ReadAhead() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void ReadAhead::run(int fd, char* data, uint64_t size) const {
  const std::unique_ptr<char[]> room(new (std::nothrow) char[kPart]);
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (!room || page < kSmallestPage) return;
  for (uint64_t at = 0; at < size && !stop_; at += kPart) {
    const uint64_t bytes = std::min(kPart, size - at);
    if (!cached(data + at, bytes, page) && pread(fd, room.get(), bytes, static_cast<off_t>(at)) <= 0) return;
#ifdef MADV_POPULATE_READ
    madvise(data + at, bytes, MADV_POPULATE_READ);
#endif
  }
}

}  // namespace temper
