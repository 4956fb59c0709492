// NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.
#include <algorithm>
#include <cmath>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

// x: log-probabilities [N, C, d...] as doubles, target: [N, d...], weight: [C].
Status Loss(OpContext& ctx, const double* log_prob) {
  const Tensor& x = ctx.Input(0);
  const Tensor& target = ctx.Input(1);
  const int64_t classes = x.shape()[1];
  const int64_t inner = DimsProduct(x.shape(), 2, x.shape().size());
  const std::string reduction = ctx.node.StringAttr("reduction", "mean");
  if (reduction != "none" && reduction != "sum" && reduction != "mean") {
    return InvalidArgumentError("reduction \"" + reduction + "\" is unknown");
  }
  const bool has_ignored = ctx.node.HasAttr("ignore_index");
  const int64_t ignored = ctx.node.IntAttr("ignore_index", 0);
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("the weight", ctx.Input(2), {classes}));
  PLEXUS_ASSIGN_OR_RETURN(auto weights, Elements<double>::Load(ctx.Input(2)));
  PLEXUS_ASSIGN_OR_RETURN(auto targets, Elements<int64_t>::Load(target));
  std::vector<double> losses(targets.size());
  double total = 0, total_weight = 0;
  for (size_t i = 0; i < losses.size(); ++i) {
    const int64_t c = targets[i];
    if (has_ignored && c == ignored) continue;
    PLEXUS_RETURN_IF_ERROR(CheckRange("target", c, 0, classes - 1));
    const double w = weights.empty() ? 1 : weights[c];
    const int64_t n = static_cast<int64_t>(i) / inner, j = static_cast<int64_t>(i) % inner;
    losses[i] = -w * log_prob[(n * classes + c) * inner + j];
    total += losses[i];
    total_weight += w;
  }
  const bool whole = reduction == "none";
  PLEXUS_ASSIGN_OR_RETURN(auto y,
                          Output<double>::Make(x.dtype(), whole ? target.shape() : Shape()));
  if (whole) {
    std::copy(losses.begin(), losses.end(), y.data());
  } else {
    y[0] = reduction == "sum" ? total : total / total_weight;
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

Status CheckTarget(const OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  Shape wanted = ctx.Input(0).shape();
  if (wanted.size() < 2) {
    return InvalidArgumentError("input " + ShapeToString(wanted) + " must have rank 2 or more");
  }
  if (!IsFloatLike(ctx.Input(0).dtype()) || !IsInteger(ctx.Input(1).dtype())) {
    return InvalidArgumentError("the input must be floating point and the target integral");
  }
  wanted.erase(wanted.begin() + 1);
  return CheckShape("the target", ctx.Input(1), wanted);
}

Status NegativeLogLikelihoodLoss(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(CheckTarget(ctx));
  PLEXUS_ASSIGN_OR_RETURN(auto x, Elements<double>::Load(ctx.Input(0)));
  return Loss(ctx, x.data());
}

// Output 1: the log-probabilities.
Status SoftmaxCrossEntropyLoss(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(CheckTarget(ctx));
  const Tensor& x = ctx.Input(0);
  const int64_t classes = x.shape()[1];
  const int64_t inner = DimsProduct(x.shape(), 2, x.shape().size());
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<double>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto log_prob, Output<double>::Make(x.dtype(), x.shape()));
  for (int64_t i = 0; !xs.empty() && i < x.shape()[0] * inner; ++i) {
    const int64_t at = i / inner * classes * inner + i % inner;
    double top = xs[at], sum = 0;
    for (int64_t c = 1; c < classes; ++c) top = std::max(top, xs[at + c * inner]);
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(xs[at + c * inner] - top);
    const double shift = top + std::log(sum);
    for (int64_t c = 0; c < classes; ++c) log_prob[at + c * inner] = xs[at + c * inner] - shift;
  }
  PLEXUS_RETURN_IF_ERROR(Loss(ctx, log_prob.data()));
  if (ctx.WantsOutput(1)) return std::move(log_prob).FinishInto(&ctx.outputs[1]);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "NegativeLogLikelihoodLoss", 12, kLatest, NegativeLogLikelihoodLoss},
    {"", "SoftmaxCrossEntropyLoss", 12, kLatest, SoftmaxCrossEntropyLoss},
};

}  // namespace

std::span<const OpEntry> LossOps() { return kOps; }

}  // namespace plexus::reference
