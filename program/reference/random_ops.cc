// RandomNormal, RandomUniform, their Like forms, Bernoulli, Multinomial, Dropout.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <numbers>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

// SplitMix64: small, fast, and good enough for sampling; the sequence is part of no contract.
class Generator {
 public:
  // The node's seed attribute fixes the sequence; without one every run draws another.
  explicit Generator(const Node& node) {
    static std::atomic<uint64_t> run{0x9e3779b97f4a7c15};
    state_ = node.HasAttr("seed") ? std::bit_cast<uint32_t>(node.FloatAttr("seed", 0))
                                  // Relaxed: only the numbers' distinctness matters.
                                  : run.fetch_add(0xd1342543de82ef95, std::memory_order_relaxed);
  }

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // In [0, 1).
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }

 private:
  uint64_t state_;
};

// The dtype attribute, or `fallback`.
Result<DType> ReadDType(const Node& node, DType fallback) {
  if (!node.HasAttr("dtype")) return fallback;
  const int64_t value = node.IntAttr("dtype", 0);
  const DType dtype = value > 0 && value < 256 ? static_cast<DType>(value) : DType::kUndefined;
  if (ComputeType(dtype) == DType::kUndefined) {
    return InvalidArgumentError("dtype " + std::to_string(value) + " is not a number type");
  }
  return dtype;
}

template <bool kNormal, bool kLike>
Status Random(OpContext& ctx) {
  if (kLike) PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& like = ctx.Input(0);
  const Shape shape = kLike ? like.shape() : ctx.node.IntsAttr("shape");
  PLEXUS_ASSIGN_OR_RETURN(
      const DType dtype,
      ReadDType(ctx.node, kLike && IsFloatLike(like.dtype()) ? like.dtype() : DType::kFloat32));
  const double a = kNormal ? ctx.node.FloatAttr("mean", 0) : ctx.node.FloatAttr("low", 0);
  const double b = kNormal ? ctx.node.FloatAttr("scale", 1) : ctx.node.FloatAttr("high", 1);
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(dtype, shape));
  Generator generator(ctx.node);
  for (double& v : y) v = kNormal ? a + b * generator.Normal() : a + (b - a) * generator.Uniform();
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// 1 with the input's probability, else 0.
Status Bernoulli(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  PLEXUS_ASSIGN_OR_RETURN(const DType dtype, ReadDType(ctx.node, ctx.Input(0).dtype()));
  PLEXUS_ASSIGN_OR_RETURN(auto p, Elements<double>::Load(ctx.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(dtype, ctx.Input(0).shape()));
  Generator generator(ctx.node);
  for (size_t i = 0; i < y.size(); ++i) y[i] = generator.Uniform() < p[i] ? 1 : 0;
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// x: [N, classes] unnormalised log-probabilities → [N, sample_size] class indices.
Status Multinomial(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  PLEXUS_RETURN_IF_ERROR(CheckRank("input", x, 2));
  const int64_t classes = x.shape()[1];
  const int64_t samples = ctx.node.IntAttr("sample_size", 1);
  PLEXUS_RETURN_IF_ERROR(CheckRange("sample_size", samples, 0, int64_t{1} << 31));
  if (classes == 0) return InvalidArgumentError("there are no classes to draw from");
  PLEXUS_ASSIGN_OR_RETURN(const DType dtype, ReadDType(ctx.node, DType::kInt32));
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<double>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<int64_t>::Make(dtype, {x.shape()[0], samples}));
  Generator generator(ctx.node);
  std::vector<double> sums(classes);
  for (int64_t n = 0; n < x.shape()[0]; ++n) {
    const double* row = xs.data() + n * classes;
    const double top = *std::max_element(row, row + classes);
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) sums[c] = sum += std::exp(row[c] - top);
    for (int64_t s = 0; s < samples; ++s) {
      const auto at = std::upper_bound(sums.begin(), sums.end(), generator.Uniform() * sum);
      y[n * samples + s] = std::min<int64_t>(at - sums.begin(), classes - 1);
    }
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// Inputs x, ratio, training_mode (inputs from version 12 on). Outside training it passes x on.
// Output 1, the mask of what was kept, is bool from version 10 on.
Status Dropout(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const int version = ctx.node.version;
  PLEXUS_ASSIGN_OR_RETURN(const double ratio, ScalarInput(ctx, 1, 0.5));
  PLEXUS_ASSIGN_OR_RETURN(const double mode, ScalarInput(ctx, 2, 0));
  const bool training = version >= 12 && mode != 0 && ratio != 0;
  if (!(ratio >= 0 && ratio < 1)) return InvalidArgumentError("ratio must lie in [0, 1)");
  const DType mask_type = version >= 10 ? DType::kBool : x.dtype();
  PLEXUS_ASSIGN_OR_RETURN(auto mask, Output<int64_t>::Make(mask_type, x.shape()));
  Generator generator(ctx.node);
  for (int64_t& kept : mask) kept = !training || generator.Uniform() >= ratio ? 1 : 0;
  if (!training) {
    ctx.outputs[0] = x;
  } else {
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<double>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(x.dtype(), x.shape()));
    for (size_t i = 0; i < y.size(); ++i) y[i] = mask[i] != 0 ? xs[i] / (1 - ratio) : 0;
    PLEXUS_RETURN_IF_ERROR(std::move(y).FinishInto(&ctx.outputs[0]));
  }
  if (ctx.WantsOutput(1)) return std::move(mask).FinishInto(&ctx.outputs[1]);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "Bernoulli", 15, kLatest, Bernoulli},
    {"", "Dropout", 1, kLatest, Dropout},
    {"", "Multinomial", 7, kLatest, Multinomial},
    {"", "RandomNormal", 1, kLatest, Random<true, false>},
    {"", "RandomNormalLike", 1, kLatest, Random<true, true>},
    {"", "RandomUniform", 1, kLatest, Random<false, false>},
    {"", "RandomUniformLike", 1, kLatest, Random<false, true>},
};

}  // namespace

std::span<const OpEntry> RandomOps() { return kOps; }

}  // namespace plexus::reference
