// HeapTrimmer: gives memory back that was freed but that the allocator keeps.
#pragma once

#include <cstddef>

namespace plexus {

// After a burst, small pieces that live on keep large free stretches of the heap between them,
// which the allocator gives back only when told to. Trimming takes milliseconds, and what is needed
// again must be had from the system again: so only when it is worth it. Thread-compatible.
class HeapTrimmer {
 public:
  static constexpr size_t kWorthwhile = size_t{32} << 20;

  struct Use {
    size_t resident_bytes = 0;  // private to the process
    size_t used_bytes = 0;      // of the allocator's, by the program
  };

  // Whether a trim could give back much: what is resident and not used (free heap, but also code
  // and stacks) has grown by so much since it was least.
  bool IsDue(const Use& use);
  // What the trim has left is no reason for another.
  void Trimmed(const Use& after);

  // Of this process; zeros where the system does not tell.
  static Use Read();
  // Trims if it is due; whether it was. Now and then, from a thread that nobody waits for.
  bool Tidy();

 private:
  static size_t Unused(const Use& use);
  size_t least_ = 0;
};

}  // namespace plexus
