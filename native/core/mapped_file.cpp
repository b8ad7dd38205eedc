#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "temper/error.h"

namespace temper {

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
  MappedFile* file = new (std::nothrow) MappedFile(path, fd, data, size);
  if (!file) {
    if (data) munmap(data, size);
    ::close(fd);
    throw std::bad_alloc();
  }
  return std::shared_ptr<const MappedFile>(file);  // deletes the file itself should its own allocation fail
}

MappedFile::~MappedFile() {
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

}  // namespace temper
