// PagePool: large memory that came back, kept for a while for whoever asks next.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

namespace plexus {

// Pages that are new from the system cost a fault and a clearing each, which for an image's tensor
// takes longer than many a kernel that works on it. What comes back is handed out again as it is;
// what nobody took between two calls of Tidy goes back to the system. Thread-safe.
class PagePool {
 public:
  // Keeps at most so many bytes that nobody uses.
  explicit PagePool(size_t most_kept_bytes) : most_kept_bytes_(most_kept_bytes) {}
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // At least so many bytes, more than 0, at the begin of a page; whatever is in them, or zeros
  // unless `kept_will_do`. Null when the system has no more. `bytes` must be given again to
  // Free; `keep`: for whoever asks next.
  void* Allocate(size_t bytes, bool kept_will_do = true);
  void Free(void* data, size_t bytes, bool keep = true);
  // Gives back what has not been used since the last Tidy.
  void Tidy();
  size_t kept_bytes() const;

  // The process's own, for tensors. Keeps nothing where a sanitizer watches addresses: whoever
  // reads what was freed is to be caught.
  static PagePool& Process();

 private:
  // Equal for sizes that differ by an eighth at most: so much of what is reused may be resident
  // beyond what was asked for.
  static size_t Capacity(size_t bytes);

  const size_t most_kept_bytes_;
  mutable std::mutex mutex_;  // guards what follows
  size_t kept_bytes_ = 0;
  struct Kept {
    std::vector<void*> blocks;  // the youngest last
    size_t least = 0;           // that lay here since the last Tidy
  };
  std::map<size_t, Kept> kept_;  // by capacity
};

}  // namespace plexus
