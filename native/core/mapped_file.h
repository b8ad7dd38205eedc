// A file mapped read-only. Whoever holds the shared_ptr keeps the mapping; checkpoints are read through it without a copy.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace temper {

class MappedFile {
 public:
  // Throws Error: file_missing, file_unreadable, file_not_regular.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Bytes [offset, offset + bytes), aligned to `alignment`. Throws file_truncated, file_misaligned.
  // Hazard: a file that somebody shortens while it is mapped raises SIGBUS on access; the size is looked at again here, so a file cut
  // before its tensors are taken is an error.
  const void* range(uint64_t offset, uint64_t bytes, size_t alignment) const;
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, int fd, void* data, uint64_t size) : path_(std::move(path)), fd_(fd), data_(data), size_(size) {}
  std::string path_;
  int fd_;
  void* data_;
  uint64_t size_;
};

}  // namespace temper
