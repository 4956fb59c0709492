#include "base/page_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace plexus {
namespace {

constexpr size_t kPageBytes = 4096;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kMostKeptBytes = 0;
#else
constexpr size_t kMostKeptBytes = size_t{64} << 20;
#endif

}  // namespace

PagePool::~PagePool() {
  Tidy();
  Tidy();
}

size_t PagePool::Capacity(size_t bytes) {
  const size_t step = std::max(kPageBytes, std::bit_floor(bytes) / 8);
  return (bytes + step - 1) / step * step;
}

void* PagePool::Allocate(size_t bytes, bool kept_will_do) {
  const size_t capacity = Capacity(bytes);
  if (kept_will_do) {
    std::lock_guard lock(mutex_);
    const auto it = kept_.find(capacity);
    if (it != kept_.end() && !it->second.blocks.empty()) {
      Kept& kept = it->second;
      void* const data = kept.blocks.back();
      kept.blocks.pop_back();
      kept.least = std::min(kept.least, kept.blocks.size());
      kept_bytes_ -= capacity;
      return data;
    }
  }
  void* const data =
      mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}

void PagePool::Free(void* data, size_t bytes, bool keep) {
  const size_t capacity = Capacity(bytes);
  if (keep) {
    std::lock_guard lock(mutex_);
    if (capacity <= most_kept_bytes_ - kept_bytes_) {
      kept_[capacity].blocks.push_back(data);
      kept_bytes_ += capacity;
      return;
    }
  }
  munmap(data, capacity);
}

void PagePool::Tidy() {
  std::vector<std::pair<void*, size_t>> unused;
  {
    std::lock_guard lock(mutex_);
    for (auto it = kept_.begin(); it != kept_.end();) {
      auto& [capacity, kept] = *it;
      for (size_t i = 0; i < kept.least; ++i) unused.emplace_back(kept.blocks[i], capacity);
      kept.blocks.erase(kept.blocks.begin(),
                        kept.blocks.begin() + static_cast<ptrdiff_t>(kept.least));
      kept_bytes_ -= kept.least * capacity;
      kept.least = kept.blocks.size();
      it = kept.blocks.empty() ? kept_.erase(it) : std::next(it);
    }
  }
  for (const auto& [data, capacity] : unused) munmap(data, capacity);  // may take a while
}

size_t PagePool::kept_bytes() const {
  std::lock_guard lock(mutex_);
  return kept_bytes_;
}

PagePool& PagePool::Process() {
  // Never destroyed: tensors of static storage may be freed late.
  static PagePool* const pool = new PagePool(kMostKeptBytes);
  return *pool;
}

}  // namespace plexus
