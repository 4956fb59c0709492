// A pointwise program as kernels run it: checked, with common pairs of steps joined.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "device/cpu/kernels/elementwise_steps.h"
#include "device/cpu/lowering.h"

namespace plexus::cpu {

struct PointwiseStep {
  StepOp op = StepOp::kCopy;
  int arity = 1;
  int args[3] = {-1, -1, -1};  // 0..inputs-1, or inputs + number of an earlier step
  float p0 = 0, p1 = 0;
};

struct PointwiseProgram {
  int inputs = 0;
  std::vector<PointwiseStep> steps;  // the last is the output
  double cost = 0;                   // per element, in flops of equal duration
  // Per step: the scratch slot of its result; -1 for the last. Filled by AssignSlots.
  std::vector<int> slots;
  int num_slots = 0;
};

// The step of this name (passes/fused_ops.md) if it takes `arity` operands.
std::optional<StepOp> FindStepOp(std::string_view name, int arity);

// From a plexus.Elementwise node, or an ONNX operator of the same name as a step. kUnimplemented
// for steps without a kernel, kInvalidArgument for arguments out of range.
Result<PointwiseProgram> ParsePointwise(const LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
