#include "device/cpu/heap_trimmer.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace plexus {

size_t HeapTrimmer::Unused(const Use& use) {
  // Memory that was never touched is used and not resident.
  return use.resident_bytes - std::min(use.resident_bytes, use.used_bytes);
}

bool HeapTrimmer::IsDue(const Use& use) {
  const size_t unused = Unused(use);
  least_ = std::min(least_, unused);
  return unused - least_ >= kWorthwhile;
}

void HeapTrimmer::Trimmed(const Use& after) { least_ = Unused(after); }

HeapTrimmer::Use HeapTrimmer::Read() {
  std::ifstream statm("/proc/self/statm");
  size_t size = 0, resident = 0, shared = 0;
  if (!(statm >> size >> resident >> shared)) return {};
  const struct mallinfo2 heap = mallinfo2();
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return {(resident - std::min(resident, shared)) * page, heap.uordblks + heap.hblkhd};
}

bool HeapTrimmer::Tidy() {
  if (!IsDue(Read())) return false;
  malloc_trim(0);
  Trimmed(Read());
  return true;
}

}  // namespace plexus
