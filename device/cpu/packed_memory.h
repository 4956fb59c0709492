// Packing weights frees their plain bytes piece by piece, which leaves holes in the heap: they are
// given back to the system once a program is compiled.
#pragma once

#include <cstddef>

namespace plexus::cpu {

// Says that so many bytes were packed. Thread-safe.
void NotePacked(size_t bytes);
// Returns free heap pages to the system if much was packed since the last call. Milliseconds then,
// else nothing. Thread-safe.
void ReleaseAfterPacking();

}  // namespace plexus::cpu
