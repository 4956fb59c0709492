// Reductions, arg-reductions, TopK and operators along one axis that keep the shape.
#include <algorithm>

#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

int64_t RankOf(const Shape& shape) { return static_cast<int64_t>(shape.size()); }

Status Reduce(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto axes, c.AttrOrInput("axes", 1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !axes.known) return OkStatus();
  const bool keep = c.node().IntAttr("keepdims", 1) != 0;
  if (axes.values.empty() && c.node().IntAttr("noop_with_empty_axes", 0) != 0) {
    c.SetShape(0, *x);
    return OkStatus();
  }
  std::vector<bool> reduced(x->size(), axes.values.empty());
  for (int64_t value : axes.values) {
    PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(value, RankOf(*x)));
    reduced[axis] = true;
  }
  Shape out;
  for (size_t i = 0; i < x->size(); ++i) {
    if (!reduced[i]) {
      out.push_back((*x)[i]);
    } else if (keep) {
      out.push_back(1);
    }
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status ArgReduce(RuleContext& c) {
  c.Type(0, DType::kInt64);
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(c.node().IntAttr("axis", 0), RankOf(*x)));
  if ((*x)[axis] == 0) return c.Error("the axis is empty");
  Shape out = *x;
  if (c.node().IntAttr("keepdims", 1) != 0) {
    out[axis] = 1;
  } else {
    out.erase(out.begin() + axis);
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status TopK(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  c.Type(1, DType::kInt64);
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(c.node().IntAttr("axis", -1), RankOf(*x)));
  int64_t k = c.node().IntAttr("k", -1);
  if (!c.node().HasAttr("k")) {
    PLEXUS_ASSIGN_OR_RETURN(const auto input, c.Ints(1));
    if (!input) return OkStatus();
    if (input->size() != 1) return c.Error("k must be one number");
    k = (*input)[0];
  }
  if (k < 0 || k > (*x)[axis]) return c.Error("k is " + std::to_string(k));
  Shape out = *x;
  out[axis] = k;
  c.Set(1, DType::kInt64, &out);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

// Softmax and friends: an axis that must exist, a shape that stays.
Status AlongAxis(RuleContext& c, int64_t fallback) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x || x->empty()) return OkStatus();
  return NormalizeAxis(c.node().IntAttr("axis", fallback), RankOf(*x)).status();
}
Status Softmax(RuleContext& c) {
  const Shape* x = c.ShapeOf(0);
  const int64_t fallback = c.node().version < 13 ? 1 : -1;
  // Before opset 13 the axis may be one past the end.
  if (x && c.node().version < 13 && c.node().IntAttr("axis", fallback) == RankOf(*x)) {
    c.Set(0, c.TypeOf(0), x);
    return OkStatus();
  }
  return AlongAxis(c, fallback);
}
Status LpNormalization(RuleContext& c) { return AlongAxis(c, -1); }
Status Cumulative(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto axis, c.Ints(1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !axis) return OkStatus();
  if (axis->size() != 1) return c.Error("axis must be one number");
  return NormalizeAxis((*axis)[0], RankOf(*x)).status();
}

// scores: [N, C, d1...]; labels: [N, d1...]
Status Loss(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  if (c.node().op == "SoftmaxCrossEntropyLoss") c.Set(1, c.TypeOf(0), c.ShapeOf(0));
  const Shape* labels = c.ShapeOf(1);
  if (c.node().StringAttr("reduction", "mean") != "none") {
    c.SetShape(0, {});
  } else if (labels) {
    c.SetShape(0, *labels);
  }
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"ReduceL1", Reduce},
    {"ReduceL2", Reduce},
    {"ReduceLogSum", Reduce},
    {"ReduceLogSumExp", Reduce},
    {"ReduceMax", Reduce},
    {"ReduceMean", Reduce},
    {"ReduceMin", Reduce},
    {"ReduceProd", Reduce},
    {"ReduceSum", Reduce},
    {"ReduceSumSquare", Reduce},
    {"ArgMax", ArgReduce},
    {"ArgMin", ArgReduce},
    {"TopK", TopK},
    {"Softmax", Softmax},
    {"LogSoftmax", Softmax},
    {"Hardmax", Softmax},
    {"LpNormalization", LpNormalization},
    {"CumSum", Cumulative},
    {"CumProd", Cumulative},
    {"NegativeLogLikelihoodLoss", Loss},
    {"SoftmaxCrossEntropyLoss", Loss},
};

}  // namespace

std::span<const RuleEntry> ReduceRules() { return kRules; }

}  // namespace plexus::shape_rules
