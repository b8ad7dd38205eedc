#include "core/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "temper/error.h"

namespace temper {
namespace {

// What the SIGBUS handler may look at: plain atomics only. A range is published by its begin and withdrawn before the mapping ends.
struct Watch { std::atomic<uintptr_t> begin{0}, end{0}; std::atomic<bool> damaged{false}; };
constexpr int kWatches = 4096;
Watch watches[kWatches];
std::mutex watch_mutex;
struct sigaction previous_action;
uintptr_t page_size;

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Watch& w : watches) {
    const uintptr_t begin = w.begin.load(), end = w.end.load();
    if (begin == 0 || at < begin || at >= end) continue;
    w.damaged.store(true);
    // All from here to the end: what lies beyond a page that is gone is gone too, and one mapping per page would run into the system's limit.
    const uintptr_t page = at / page_size * page_size;
    if (mmap(reinterpret_cast<void*>(page), end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED) return;
  }
  // Not ours: as if this handler were not there.
  if (previous_action.sa_flags & SA_SIGINFO) previous_action.sa_sigaction(signal, info, context);
  else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) previous_action.sa_handler(signal);
  else sigaction(SIGBUS, &previous_action, nullptr);  // the read is tried again and meets the default action
}

int start_watching(void* data, uint64_t size) {
  std::lock_guard lock(watch_mutex);
  if (page_size == 0) {
    page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
  }
  for (int i = 0; i < kWatches; ++i) {
    if (watches[i].begin.load() != 0) continue;
    watches[i].damaged.store(false);
    watches[i].end.store(reinterpret_cast<uintptr_t>(data) + (size + page_size - 1) / page_size * page_size);
    watches[i].begin.store(reinterpret_cast<uintptr_t>(data));
    return i;
  }
  fail("too_many_files", kWatches, " files are mapped; close checkpoints that are no longer used");
}

void stop_watching(int watch) {
  std::lock_guard lock(watch_mutex);
  watches[watch].begin.store(0);
}

}  // namespace

MappedFile::MappedFile(std::string path, int fd, void* data, uint64_t size)
    : path_(std::move(path)), fd_(fd), data_(data), size_(size), watch_(data ? start_watching(data, size) : -1) {}

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  require(path.find('\0') == std::string::npos, "file_missing", "path contains a zero byte");
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // NONBLOCK: a named pipe must not hang us
  if (fd < 0) {
    int error = errno;
    fail(error == ENOENT || error == ENOTDIR ? "file_missing" : "file_unreadable", path, ": ", std::strerror(error));
  }
  struct stat st {};
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    fail("file_not_regular", path, ": not a regular file; wanted a file that can be mapped");
  }
  auto size = static_cast<uint64_t>(st.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
      int error = errno;
      ::close(fd);
      fail("file_unreadable", path, ": cannot be mapped (", size, " bytes): ", std::strerror(error));
    }
  }
  MappedFile* file;
  try {
    file = new MappedFile(path, fd, data, size);
  } catch (...) {
    if (data) munmap(data, size);
    ::close(fd);
    throw;
  }
  return std::shared_ptr<const MappedFile>(file);  // deletes the file itself should its own allocation fail
}

MappedFile::~MappedFile() {
  if (watch_ >= 0) stop_watching(watch_);
  if (data_) munmap(data_, size_);
  ::close(fd_);
}

const void* MappedFile::range(uint64_t offset, uint64_t bytes, size_t alignment) const {
  struct stat st {};
  uint64_t now = fstat(fd_, &st) == 0 ? static_cast<uint64_t>(st.st_size) : 0;
  uint64_t end = now < size_ ? now : size_;
  require(offset <= end && bytes <= end - offset, "file_truncated", path_, ": bytes [", offset, ", ", offset + bytes,
          ") wanted, the file has ", end, "; download it again");
  require(offset % alignment == 0, "file_misaligned", path_, ": offset ", offset, " is not a multiple of ", alignment);
  return static_cast<const char*>(data_) + offset;
}

void MappedFile::require_whole() const {
  require(watch_ < 0 || !watches[watch_].damaged.load(), "file_changed", path_, ": was shortened while in use; nothing computed from it counts, restore the file and open it again");
}

}  // namespace temper
