// Normalisations.
#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

int64_t RankOf(const Shape& shape) { return static_cast<int64_t>(shape.size()); }

// Every per-channel input must have as many entries as x has channels.
Status CheckChannels(const RuleContext& c, size_t first, size_t last) {
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  const int64_t channels = x->size() > 1 ? (*x)[1] : 1;
  for (size_t i = first; i < last; ++i) {
    const Shape* s = c.ShapeOf(i);
    if (s && (s->size() != 1 || (*s)[0] != channels)) {
      return c.Error("input " + std::to_string(i) + " must be [" + std::to_string(channels) + "]");
    }
  }
  return OkStatus();
}

Status BatchNormalization(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  for (size_t i = 1; i < c.num_outputs(); ++i) c.Set(i, c.TypeOf(3), c.ShapeOf(3));
  if (c.node().version < 9 && c.node().IntAttr("spatial", 1) == 0) return OkStatus();
  return CheckChannels(c, 1, 5);
}

Status InstanceNormalization(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 3));
  return CheckChannels(c, 1, 3);
}

Status GroupNormalization(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 2));
  const Shape* x = c.ShapeOf(0);
  const int64_t groups = c.node().IntAttr("num_groups", 0);
  if (groups < 1 || (x && (*x)[1] % groups != 0)) {
    return c.Error("num_groups is " + std::to_string(groups));
  }
  return OkStatus();
}

Status LayerNormalization(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  const auto stash = static_cast<DType>(c.node().IntAttr("stash_type", 1));
  c.Type(1, stash);
  c.Type(2, stash);
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(c.node().IntAttr("axis", -1), RankOf(*x)));
  for (size_t i = 1; i < 3; ++i) {
    if (const Shape* s = c.ShapeOf(i)) {
      PLEXUS_ASSIGN_OR_RETURN(const Shape both, BroadcastShapes(*x, *s));
      if (both != *x) return c.Error("input " + std::to_string(i) + " does not broadcast to x");
    }
  }
  Shape statistics = *x;
  for (int64_t i = axis; i < RankOf(*x); ++i) statistics[i] = 1;
  c.Set(1, stash, &statistics);
  c.Set(2, stash, &statistics);
  return OkStatus();
}

Status SameAsFirst(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"BatchNormalization", BatchNormalization},
    {"InstanceNormalization", InstanceNormalization},
    {"GroupNormalization", GroupNormalization},
    {"LayerNormalization", LayerNormalization},
    {"RMSNormalization", LayerNormalization},
    {"MeanVarianceNormalization", SameAsFirst},
    {"LRN", SameAsFirst},
};

}  // namespace

std::span<const RuleEntry> NormRules() { return kRules; }

}  // namespace plexus::shape_rules
