// Picks the build of a table of functions that fits this CPU.
#pragma once

#include "device/cpu/cpu_features.h"

// Declares `const Type Best##Type()` over the constant `name` that a file built by
// plexus_multi_isa defines in each of its namespaces. Use it inside namespace plexus::cpu.
#define PLEXUS_DEFINE_BEST(Type, name)                                    \
  namespace baseline {                                                    \
  extern const Type name;                                                 \
  }                                                                       \
  namespace avx2 {                                                        \
  extern const Type name;                                                 \
  }                                                                       \
  namespace avx512 {                                                      \
  extern const Type name;                                                 \
  }                                                                       \
  const Type& Best##Type() {                                              \
    static const Type& best = BestIsa() == Isa::kAvx512 ? avx512::name    \
                              : BestIsa() == Isa::kAvx2 ? avx2::name      \
                                                        : baseline::name; \
    return best;                                                          \
  }
