// Program: a region of a model compiled for one device kind and one shape class.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "base/ids.h"
#include "graph/dtype.h"
#include "graph/graph.h"

namespace plexus {

using ProgramId = Id<struct ProgramTag, uint64_t>;
using KernelId = Id<struct KernelTag>;

// What one block holds while it runs (on a GPU, of a multiprocessor's room). On a CPU a block holds
// its worker.
struct BlockResources {
  int32_t threads = 1;
  int32_t registers_per_thread = 0;
  int32_t shared_bytes = 0;
};

// Device code of one kernel; only the device kind that made it knows what is inside.
class KernelCode {
 public:
  virtual ~KernelCode() = default;
};

struct Kernel {
  std::string name;   // "conv 3x3 64→64 relu (layer1.0.conv1)"
  uint32_t grid = 1;  // independent blocks; any order, any subset at a time
  BlockResources resources;
  double flops = 0;  // whole grid
  double bytes = 0;  // whole grid, read and written
  // The compiler's estimate of one block, > 0: the cold start of learned times.
  Duration estimated_block_time{1};
  uint32_t dependencies = 0;         // how many kernels must finish first
  std::vector<KernelId> successors;  // who waits for this one
  std::shared_ptr<const KernelCode> code;
};

// An input or output of a Program: dtype and concrete shape, row-major in its own memory.
struct ProgramValue {
  std::string name;
  DType dtype = DType::kUndefined;
  Shape shape;
};

// Immutable and shared between jobs; thread-safe to read.
struct Program {
  ProgramId id;
  std::string name;             // model and region
  ContentHash signature;        // graph, shapes, device kind and precision: the profile store's key
  std::string device_kind;      // "cpu", "sim", "cuda"
  std::vector<Kernel> kernels;  // topological order
  std::vector<ProgramValue> inputs;
  std::vector<ProgramValue> outputs;
  size_t arena_bytes = 0;     // scratch of one job; offsets are the kernels' own
  size_t constant_bytes = 0;  // derived constants this Program keeps alive
  double flops = 0;

  Duration EstimatedTime() const;  // sum over kernels of grid × estimated_block_time
};
using ProgramPtr = std::shared_ptr<const Program>;

// kInternal when dependencies and successors disagree, are cyclic, or an estimate is not > 0.
Status ValidateProgram(const Program& program);

}  // namespace plexus
