// Compiler: what turns a static region into a Program; one per device kind.
#pragma once

#include <string>

#include "base/status.h"
#include "graph/graph.h"
#include "program/program.h"

namespace plexus {

enum class Precision { kFloat32, kBFloat16 };

struct CompileOptions {
  Precision precision = Precision::kFloat32;
  std::string name;  // for messages and traces
};

// Thread-safe; Compile may take milliseconds and never runs on a device's worker.
class Compiler {
 public:
  virtual ~Compiler() = default;
  virtual std::string device_kind() const = 0;
  // `region`: optimised, every value concrete (see Specialize), no control flow. Operators without
  // a fast kernel run on their reference implementation as one block. Errors name the node.
  virtual Result<ProgramPtr> Compile(const Graph& region, const CompileOptions& options) = 0;
};

}  // namespace plexus
