// Steps of pointwise programs over strips of floats, built once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace plexus::cpu {

// In the order of kStepNames (elementwise_program.cc). The last four are joined pairs and triples.
enum class StepOp : uint8_t {
  kAbs,
  kNeg,
  kExp,
  kLog,
  kSqrt,
  kReciprocal,
  kErf,
  kSigmoid,
  kTanh,
  kSin,
  kCos,
  kFloor,
  kCeil,
  kRound,
  kSign,
  kRelu,
  kSoftplus,
  kSoftsign,
  kHardSwish,
  kSilu,
  kGelu,
  kGeluTanh,
  kMish,
  kNot,
  kLeakyRelu,
  kElu,
  kCelu,
  kSelu,
  kThresholdedRelu,
  kHardSigmoid,
  kClip,
  kAdd,
  kSub,
  kMul,
  kDiv,
  kPow,
  kMin,
  kMax,
  kPRelu,
  kEqual,
  kLess,
  kLessOrEqual,
  kGreater,
  kGreaterOrEqual,
  kAnd,
  kOr,
  kXor,
  kWhere,
  kCopy,
  kAddRelu,
  kMulAdd,
  kMulAddRelu,
};
inline constexpr size_t kNumStepOps = static_cast<size_t>(StepOp::kMulAddRelu) + 1;

// out[i] = f(in[0][i], in[1][i], in[2][i]) for i < n. An operand whose `advance` is 0 is one vector
// (64 bytes, 16 equal floats) for all i. out may be one of the operands, not overlap them shifted.
struct StepArgs {
  const float* in[3] = {nullptr, nullptr, nullptr};
  int64_t advance[3] = {1, 1, 1};  // 0 or 1
  float* out = nullptr;
  int64_t n = 0;
  float p0 = 0, p1 = 0;
};

struct StepKernels {
  void (*run[kNumStepOps])(const StepArgs&);
};
const StepKernels& BestStepKernels();

}  // namespace plexus::cpu
