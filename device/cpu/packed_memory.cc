#include "device/cpu/packed_memory.h"

#include <malloc.h>

#include <atomic>

namespace plexus::cpu {

namespace {

constexpr size_t kWorthwhile = size_t{4} << 20;
std::atomic<size_t> packed{0};  // only a counter: orders nothing

}  // namespace

void NotePacked(size_t bytes) { packed.fetch_add(bytes, std::memory_order_relaxed); }

void ReleaseAfterPacking() {
  if (packed.load(std::memory_order_relaxed) < kWorthwhile) return;
  if (packed.exchange(0, std::memory_order_relaxed) > 0) malloc_trim(0);
}

}  // namespace plexus::cpu
