// Reads a mapped file once from its beginning to its end, in a thread of its own, beside whatever else is done.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>

namespace temper {

// What is met in no order, page by page as products ask for it, comes into the system's cache in small pages and is
// read a quarter to a third slower ever after; what is read in order comes in large ones. Parts that are in the cache
// already are not read again. Either way the mapping's tables are filled, so that no product waits for them. All of it
// is a wish: whatever fails here leaves the file as it was, to be read where it is used.
class ReadAhead {
 public:
  // `data`: where all `size` bytes of `fd` are mapped; both must outlive this.
  ReadAhead(int fd, void* data, uint64_t size);
  ~ReadAhead();  // stops within one part
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

 private:
  void run(int fd, char* data, uint64_t size) const;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace temper
