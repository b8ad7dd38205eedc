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

// What the SIGBUS handler may look at: plain atomics only. A range is published by its begin and withdrawn before the
// mapping ends.
struct Watch {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<int> access{0};
  std::atomic<bool> damaged{false};
};
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
    // All from here to the end: what lies beyond a page that is gone is gone too, and one mapping per page would run
    // into the system's limit.
    const uintptr_t page = at / page_size * page_size;
    if (mmap(reinterpret_cast<void*>(page), end - page, w.access.load(),
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED)
      return;
  }
  // Not ours: as if this handler were not there.
  if (previous_action.sa_flags & SA_SIGINFO) previous_action.sa_sigaction(signal, info, context);
  else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN)
    previous_action.sa_handler(signal);
  else sigaction(SIGBUS, &previous_action, nullptr);  // the read is tried again and meets the default action
}

int start_watching(void* data, uint64_t size, int access) {
  std::lock_guard lock(watch_mutex);
  if (page_size == 0) {
    page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action{};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
  }
  for (int i = 0; i < kWatches; ++i) {
    if (watches[i].begin.load() != 0) continue;
    watches[i].damaged.store(false);
    watches[i].access.store(access);
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

std::atomic<int64_t> scratch_live{0}, scratch_peak{0};

}  // namespace

MappedFile::MappedFile(std::string path, int fd, void* data, uint64_t size, bool writable)
    : path_(std::move(path)),
      fd_(fd),
      data_(data),
      size_(size),
      watch_(data ? start_watching(data, size, writable ? PROT_READ | PROT_WRITE : PROT_READ) : -1),
      writable_(writable) {
  if (!writable_) return;
  const int64_t live = scratch_live += static_cast<int64_t>(size_);
  for (int64_t peak = scratch_peak; live > peak && !scratch_peak.compare_exchange_weak(peak, live);) {}
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  require(path.find('\0') == std::string::npos, "file_missing", "path contains a zero byte");
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // NONBLOCK: a named pipe must not hang us
  if (fd < 0) {
    int error = errno;
    fail(error == ENOENT || error == ENOTDIR ? "file_missing" : "file_unreadable", path, ": ", std::strerror(error));
  }
  struct stat st{};
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
    file = new MappedFile(path, fd, data, size, false);
  } catch (...) {
    if (data) munmap(data, size);
    ::close(fd);
    throw;
  }
  return std::shared_ptr<const MappedFile>(file);  // deletes the file itself should its own allocation fail
}

std::shared_ptr<const MappedFile> MappedFile::scratch(const std::string& folder, uint64_t bytes) {
  require(folder.find('\0') == std::string::npos, "offload_unwritable",
          "the folder for offloaded tensors contains a zero byte");
  int fd = -1;
#ifdef O_TMPFILE
  fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
#endif
  if (fd < 0) {  // a file system without nameless files
    std::string name = folder + "/.temper-offload-XXXXXX";
    fd = mkostemp(name.data(), O_CLOEXEC);
    if (fd >= 0) unlink(name.c_str());
  }
  if (fd < 0)
    fail("offload_unwritable", folder, ": no file can be made there for offloaded tensors: ", std::strerror(errno),
         "; choose another folder, or do not offload");
  const uint64_t size = bytes ? bytes : 1;
  int error;
  do error = posix_fallocate(fd, 0, static_cast<off_t>(size));
  while (error == EINTR);
  if (error) {
    ::close(fd);
    fail(error == ENOSPC || error == EDQUOT || error == EFBIG ? "offload_disk_full" : "offload_unwritable", folder,
         ": no room for ", size, " bytes of offloaded tensors: ", std::strerror(error),
         "; free space there, or lower the tokens per batch");
  }
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    error = errno;
    ::close(fd);
    fail("offload_unwritable", folder, ": ", size,
         " bytes for offloaded tensors cannot be mapped: ", std::strerror(error));
  }
  MappedFile* file;
  try {
    file = new MappedFile(folder, fd, data, size, true);
  } catch (...) {
    munmap(data, size);
    ::close(fd);
    throw;
  }
  return std::shared_ptr<const MappedFile>(file);
}

MappedFile::~MappedFile() {
  read_ahead_.reset();
  if (writable_) scratch_live -= static_cast<int64_t>(size_);
  if (watch_ >= 0) stop_watching(watch_);
  if (data_) munmap(data_, size_);
  ::close(fd_);
}

const void* MappedFile::range(uint64_t offset, uint64_t bytes, size_t alignment) const {
  struct stat st{};
  uint64_t now = fstat(fd_, &st) == 0 ? static_cast<uint64_t>(st.st_size) : 0;
  uint64_t end = now < size_ ? now : size_;
  require(offset <= end && bytes <= end - offset, "file_truncated", path_, ": bytes [", offset, ", ", offset + bytes,
          ") wanted, the file has ", end, "; download it again");
  require(offset % alignment == 0, "file_misaligned", path_, ": offset ", offset, " is not a multiple of ", alignment);
  return static_cast<const char*>(data_) + offset;
}

void MappedFile::read_ahead() const {
  if (data_) std::call_once(read_ahead_once_, [this] { read_ahead_ = std::make_unique<ReadAhead>(fd_, data_, size_); });
}

void MappedFile::require_whole() const {
  if (watch_ < 0 || !watches[watch_].damaged.load()) return;
  require(!writable_, "offload_lost", path_,
          ": offloaded tensors could not be read back from this disk; look at the system's log, and start again from "
          "the last checkpoint");
  fail("file_changed", path_,
       ": was shortened while in use; nothing computed from it counts, restore the file and open it again");
}

ScratchStats scratch_stats() { return {scratch_live, scratch_peak}; }
void reset_scratch_peak() { scratch_peak = scratch_live.load(); }

}  // namespace temper
