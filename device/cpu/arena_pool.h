// ArenaPool: the memory of jobs on the CPU, within a budget.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "device/device.h"

namespace plexus {

class ArenaPool;

// Returns its memory to the pool when destroyed; the pool outlives it.
class CpuArena : public Arena {
 public:
  CpuArena(ArenaPool& pool, std::byte* data, size_t size_bytes, size_t capacity_bytes)
      : pool_(pool), data_(data), size_bytes_(size_bytes), capacity_bytes_(capacity_bytes) {}
  ~CpuArena() override;
  size_t size_bytes() const override { return size_bytes_; }
  std::byte* data() { return data_; }

 private:
  ArenaPool& pool_;
  std::byte* data_;
  size_t size_bytes_, capacity_bytes_;
};

// Last in, first out, so that the next job finds its arena in the cache. Memory in use and memory
// kept for reuse stay below the budget together. Thread-safe.
class ArenaPool {
 public:
  ArenaPool(size_t budget_bytes, const Clock& clock) : budget_bytes_(budget_bytes), clock_(clock) {}
  ~ArenaPool();

  Result<std::unique_ptr<Arena>> Allocate(size_t size_bytes);
  size_t Trim(Duration unused_for);
  size_t pooled_bytes() const;

 private:
  friend class CpuArena;
  struct Block {
    std::byte* data;
    size_t capacity_bytes;
    TimePoint since;
  };
  void Return(std::byte* data, size_t capacity_bytes);
  void FreeOldest();

  const size_t budget_bytes_;
  const Clock& clock_;
  mutable std::mutex mutex_;  // guards everything below
  std::vector<Block> pool_;   // oldest first
  size_t used_bytes_ = 0;
  size_t pooled_bytes_ = 0;
};

// 64-byte aligned, for large sizes 2 MiB aligned and asking for huge pages; nullptr when there is
// none. To be freed with free().
std::byte* AllocateAligned(size_t size_bytes);

}  // namespace plexus
