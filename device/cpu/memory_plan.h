// Dependencies and memory of lowered kernels: which kernel waits for which, and where every arena
// storage lies. Pure functions on indices, tested without any kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace plexus::cpu {

// One use of one storage by one kernel. Accesses with different non-zero parts do not conflict.
struct StorageAccess {
  uint32_t storage = 0;
  uint32_t part = 0;
  bool write = false;
};

struct PlanInput {
  std::vector<std::vector<StorageAccess>> kernels;  // in execution (topological) order
  std::vector<size_t> storage_bytes;                // 0: not in the arena, or empty
};

struct MemoryPlan {
  size_t arena_bytes = 0;
  std::vector<size_t> offsets;  // per storage; 64-byte aligned
  // Per kernel: the earlier kernels it waits for. Covers read-after-write, write-after-read and
  // write-after-write on a storage, and reuse of its memory; transitively reduced.
  std::vector<std::vector<uint32_t>> predecessors;
};

// Storages whose uses do not overlap in kernel order may share memory; the added dependencies make
// that safe when several kernels run at once. O(kernels² / 64 + storages²).
MemoryPlan PlanMemory(const PlanInput& input);

}  // namespace plexus::cpu
