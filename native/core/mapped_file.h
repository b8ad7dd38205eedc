// A mapped file. Whoever holds the shared_ptr keeps the mapping. Checkpoints are read through it without a copy; a
// scratch file is room that the system may write out to disk, for what is needed again only much later.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "core/read_ahead.h"

namespace temper {

class MappedFile {
 public:
  // Throws Error: file_missing, file_unreadable, file_not_regular.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  // A new file in `folder` that has no name and goes with its mapping: shared pages, no anonymous memory. Its blocks
  // are reserved here, so that a full disk is an error now and not a SIGBUS later. Contents are zeros. Throws Error:
  // offload_disk_full, offload_unwritable.
  static std::shared_ptr<const MappedFile> scratch(const std::string& folder, uint64_t bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Bytes [offset, offset + bytes), aligned to `alignment`. Throws file_truncated, file_misaligned.
  // The size is looked at again here, so a file cut before its tensors are taken is an error at once.
  const void* range(uint64_t offset, uint64_t bytes, size_t alignment) const;
  // A file that somebody shortens while it is mapped raises SIGBUS where it is read. A handler puts zeros there
  // instead, so that the host lives on, and the file counts as damaged for ever: who read it must ask here afterwards
  // and throw its results away. Throws Error{"file_changed"}.
  void require_whole() const;
  // Has the file read from its beginning in the background (read_ahead.h), until it is read or this is gone. Once.
  void read_ahead() const;
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  bool writable() const { return writable_; }

 private:
  MappedFile(std::string path, int fd, void* data, uint64_t size, bool writable);
  std::string path_;
  int fd_;
  void* data_;
  uint64_t size_;
  int watch_;  // place in the handler's list
  bool writable_;
  mutable std::once_flag read_ahead_once_;
  mutable std::unique_ptr<ReadAhead> read_ahead_;
};

// Bytes of scratch files mapped now, and at their peak since reset_scratch_peak().
struct ScratchStats {
  int64_t live, peak;
};
ScratchStats scratch_stats();
void reset_scratch_peak();

}  // namespace temper
