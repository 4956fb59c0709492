// Gathers, scatters, one-hot: operators that index.
#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

int64_t RankOf(const Shape& shape) { return static_cast<int64_t>(shape.size()); }

Status Gather(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape *x = c.ShapeOf(0), *indices = c.ShapeOf(1);
  if (!x || !indices) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(c.node().IntAttr("axis", 0), RankOf(*x)));
  Shape out(x->begin(), x->begin() + axis);
  out.insert(out.end(), indices->begin(), indices->end());
  out.insert(out.end(), x->begin() + axis + 1, x->end());
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status GatherElements(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(1));
  const Shape *x = c.ShapeOf(0), *indices = c.ShapeOf(1);
  if (!x || !indices) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(NormalizeAxis(c.node().IntAttr("axis", 0), RankOf(*x)).status());
  if (x->size() != indices->size()) return c.Error("data and indices differ in rank");
  return OkStatus();
}

Status GatherND(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape *x = c.ShapeOf(0), *indices = c.ShapeOf(1);
  if (!x || !indices) return OkStatus();
  const int64_t batch = c.node().IntAttr("batch_dims", 0);
  if (indices->empty() || x->empty() || batch < 0 || batch >= RankOf(*indices) ||
      batch >= RankOf(*x)) {
    return c.Error("batch_dims or a rank is out of range");
  }
  const int64_t depth = indices->back();
  if (depth < 0 || batch + depth > RankOf(*x)) return c.Error("the indices are deeper than data");
  for (int64_t i = 0; i < batch; ++i) {
    if ((*x)[i] != (*indices)[i]) return c.Error("batch dimensions differ");
  }
  Shape out(indices->begin(), indices->end() - 1);
  out.insert(out.end(), x->begin() + batch + depth, x->end());
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status ScatterElements(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  const Shape *x = c.ShapeOf(0), *indices = c.ShapeOf(1), *updates = c.ShapeOf(2);
  if (!x || !indices || !updates) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(NormalizeAxis(c.node().IntAttr("axis", 0), RankOf(*x)).status());
  if (x->size() != indices->size() || *indices != *updates) {
    return c.Error("data, indices and updates do not match");
  }
  return OkStatus();
}

Status ScatterND(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  const Shape *x = c.ShapeOf(0), *indices = c.ShapeOf(1), *updates = c.ShapeOf(2);
  if (!x || !indices || !updates) return OkStatus();
  if (indices->empty() || indices->back() < 0 || indices->back() > RankOf(*x)) {
    return c.Error("the indices do not match data");
  }
  Shape wanted(indices->begin(), indices->end() - 1);
  wanted.insert(wanted.end(), x->begin() + indices->back(), x->end());
  if (wanted != *updates) return c.Error("updates must be " + ShapeToString(wanted));
  return OkStatus();
}

Status TensorScatter(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  return OkStatus();
}

Status OneHot(RuleContext& c) {
  c.Type(0, c.TypeOf(2));
  const Shape* indices = c.ShapeOf(0);
  PLEXUS_ASSIGN_OR_RETURN(const auto depth, c.Ints(1));
  if (!indices || !depth) return OkStatus();
  if (depth->size() != 1) return c.Error("depth must be one number");
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(c.node().IntAttr("axis", -1), RankOf(*indices) + 1));
  Shape out = *indices;
  out.insert(out.begin() + axis, (*depth)[0]);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

// Outputs whose size depends on the data itself: types only.
Status NonZero(RuleContext& c) {
  c.Type(0, DType::kInt64);
  return OkStatus();
}
Status Compress(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  return OkStatus();
}
Status Unique(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  for (size_t i = 1; i < 4; ++i) c.Type(i, DType::kInt64);
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"Gather", Gather},
    {"GatherElements", GatherElements},
    {"GatherND", GatherND},
    {"Scatter", ScatterElements},
    {"ScatterElements", ScatterElements},
    {"ScatterND", ScatterND},
    {"TensorScatter", TensorScatter},
    {"OneHot", OneHot},
    {"NonZero", NonZero},
    {"NonMaxSuppression", NonZero},
    {"Compress", Compress},
    {"Unique", Unique},
};

}  // namespace

std::span<const RuleEntry> GatherRules() { return kRules; }

}  // namespace plexus::shape_rules
