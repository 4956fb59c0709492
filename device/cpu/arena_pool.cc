#include "device/cpu/arena_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>

namespace plexus {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMaxPooled = 64;

std::unique_ptr<Arena> MakeArena(ArenaPool& pool, std::byte* data, size_t size_bytes,
                                 size_t capacity_bytes) {
  return std::make_unique<CpuArena>(pool, data, size_bytes, capacity_bytes);
}
}  // namespace

std::byte* AllocateAligned(size_t size_bytes) {
  const size_t alignment = size_bytes >= kHugePage ? kHugePage : 64;
  if (size_bytes > std::numeric_limits<size_t>::max() - alignment) return nullptr;
  void* data = nullptr;
  if (posix_memalign(&data, alignment, size_bytes) != 0) return nullptr;
  // A hint; without huge pages it runs all the same.
  if (size_bytes >= kHugePage) madvise(data, size_bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(data);
}

CpuArena::~CpuArena() {
  if (data_ != nullptr) pool_.Return(data_, capacity_bytes_);
}

ArenaPool::~ArenaPool() { Trim(Duration{-1}); }

Result<std::unique_ptr<Arena>> ArenaPool::Allocate(size_t size_bytes) {
  if (size_bytes == 0) return MakeArena(*this, nullptr, 0, 0);
  std::lock_guard lock(mutex_);
  // The youngest block that fits without wasting more than half of itself.
  for (size_t i = pool_.size(); i-- > 0;) {
    const Block block = pool_[i];
    if (block.capacity_bytes < size_bytes || block.capacity_bytes / 2 > size_bytes) continue;
    pool_.erase(pool_.begin() + static_cast<ptrdiff_t>(i));
    pooled_bytes_ -= block.capacity_bytes;
    used_bytes_ += block.capacity_bytes;
    return MakeArena(*this, block.data, size_bytes, block.capacity_bytes);
  }
  const size_t rounded = size_bytes <= budget_bytes_ ? (size_bytes + 63) / 64 * 64 : size_bytes;
  const size_t capacity = std::min(rounded, std::max(budget_bytes_, size_bytes));
  if (used_bytes_ > budget_bytes_ || capacity > budget_bytes_ - used_bytes_) {
    return ResourceExhaustedError("arena of " + std::to_string(size_bytes) +
                                  " bytes: " + std::to_string(used_bytes_) + " of " +
                                  std::to_string(budget_bytes_) + " bytes are in use");
  }
  while (!pool_.empty() && capacity > budget_bytes_ - used_bytes_ - pooled_bytes_) FreeOldest();
  std::byte* data = AllocateAligned(capacity);
  if (data == nullptr) {
    return ResourceExhaustedError("no memory for an arena of " + std::to_string(size_bytes) +
                                  " bytes");
  }
  used_bytes_ += capacity;
  return MakeArena(*this, data, size_bytes, capacity);
}

void ArenaPool::Return(std::byte* data, size_t capacity_bytes) {
  const TimePoint now = clock_.Now();
  std::lock_guard lock(mutex_);
  used_bytes_ -= capacity_bytes;
  pooled_bytes_ += capacity_bytes;
  pool_.push_back({data, capacity_bytes, now});
  if (pool_.size() > kMaxPooled) FreeOldest();
}

void ArenaPool::FreeOldest() {
  pooled_bytes_ -= pool_.front().capacity_bytes;
  std::free(pool_.front().data);
  pool_.erase(pool_.begin());
}

size_t ArenaPool::Trim(Duration unused_for) {
  const TimePoint now = clock_.Now();
  std::lock_guard lock(mutex_);
  const size_t before = pooled_bytes_;
  while (!pool_.empty() && now - pool_.front().since > unused_for) FreeOldest();
  return before - pooled_bytes_;
}

size_t ArenaPool::pooled_bytes() const {
  std::lock_guard lock(mutex_);
  return pooled_bytes_;
}

}  // namespace plexus
