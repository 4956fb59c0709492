// Operators that rearrange elements: Reshape, Transpose, Concat, Slice, Pad, Tile ...
#include <algorithm>

#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

int64_t RankOf(const Shape& shape) { return static_cast<int64_t>(shape.size()); }

// Sorted, checked, without duplicates; relative to `rank`.
Result<std::vector<int64_t>> Axes(std::vector<int64_t> axes, int64_t rank) {
  for (int64_t& axis : axes) {
    PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(axis, rank));
  }
  std::sort(axes.begin(), axes.end());
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end()) {
    return InvalidArgumentError("an axis is named twice");
  }
  return axes;
}

Status Reshape(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(auto target, c.Ints(1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !target) return OkStatus();
  const bool allow_zero = c.node().IntAttr("allowzero", 0) != 0;
  int inferred = -1;
  __int128 known = 1;
  for (size_t i = 0; i < target->size(); ++i) {
    int64_t& dim = (*target)[i];
    if (dim == 0 && !allow_zero) {
      if (i >= x->size()) return c.Error("the target copies a dimension that x does not have");
      dim = (*x)[i];
    }
    if (dim == -1) {
      if (inferred >= 0) return c.Error("the target has two -1");
      inferred = static_cast<int>(i);
      continue;
    }
    if (dim < 0 || dim > kMaxExtent || known > kMaxExtent) return c.Error("bad target shape");
    known *= dim;
  }
  const int64_t elements = NumElementsUnchecked(*x);
  if (inferred >= 0) {
    if (known == 0 ? elements != 0 : elements % known != 0) {
      return c.Error("cannot reshape to " + ShapeToString(*target));
    }
    (*target)[inferred] = known == 0 ? 0 : static_cast<int64_t>(elements / known);
  } else if (known != elements) {
    return c.Error("cannot reshape to " + ShapeToString(*target));
  }
  c.SetShape(0, std::move(*target));
  return OkStatus();
}

Status Flatten(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  int64_t axis = c.node().IntAttr("axis", 1);
  if (axis < -RankOf(*x) || axis > RankOf(*x)) return c.Error("axis is out of range");
  if (axis < 0) axis += RankOf(*x);
  c.SetShape(0, {NumElementsUnchecked(Shape(x->begin(), x->begin() + axis)),
                 NumElementsUnchecked(Shape(x->begin() + axis, x->end()))});
  return OkStatus();
}

Status Squeeze(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto list, c.AttrOrInput("axes", 1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !list.known) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const auto axes, Axes(list.values, RankOf(*x)));
  Shape out;
  for (int64_t i = 0; i < RankOf(*x); ++i) {
    const bool named = std::binary_search(axes.begin(), axes.end(), i);
    if (list.present && named && (*x)[i] != 1) {
      return c.Error("dimension " + std::to_string(i) + " is not 1");
    }
    if (list.present ? !named : (*x)[i] != 1) out.push_back((*x)[i]);
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Unsqueeze(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto list, c.AttrOrInput("axes", 1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !list.known) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const auto axes,
                          Axes(list.values, RankOf(*x) + static_cast<int64_t>(list.values.size())));
  Shape out = *x;
  for (int64_t axis : axes) out.insert(out.begin() + axis, 1);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Transpose(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  std::vector<int64_t> perm = c.node().IntsAttr("perm");
  if (perm.empty()) {
    for (int64_t i = RankOf(*x); i-- > 0;) perm.push_back(i);
  }
  PLEXUS_ASSIGN_OR_RETURN(const auto sorted, Axes(perm, RankOf(*x)));
  if (sorted.size() != x->size()) return c.Error("perm does not match the rank");
  Shape out;
  for (int64_t axis : perm) out.push_back((*x)[axis < 0 ? axis + RankOf(*x) : axis]);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Concat(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  if (c.num_inputs() == 0) return c.Error("needs at least one input");
  Shape out;
  int64_t axis = 0;
  bool all_known = true;
  const Shape* first = nullptr;
  for (size_t i = 0; i < c.num_inputs(); ++i) {
    if (c.TypeOf(i) != c.TypeOf(0) && c.TypeOf(i) != DType::kUndefined &&
        c.TypeOf(0) != DType::kUndefined) {
      return c.Error("inputs of different types");
    }
    const Shape* x = c.ShapeOf(i);
    if (!x) {
      all_known = false;
      continue;
    }
    if (!first) {
      first = x;
      out = *x;
      PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(c.node().IntAttr("axis", 1), RankOf(*x)));
      continue;
    }
    if (x->size() != out.size()) return c.Error("inputs of different ranks");
    for (int64_t d = 0; d < RankOf(out); ++d) {
      if (d == axis) {
        out[d] += (*x)[d];
      } else if ((*x)[d] != out[d]) {
        return c.Error("inputs differ in dimension " + std::to_string(d));
      }
    }
  }
  if (all_known) c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Split(RuleContext& c) {
  const size_t count = c.num_outputs();
  for (size_t i = 0; i < count; ++i) c.Type(i, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(auto list, c.AttrOrInput("split", 1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !list.known || count == 0) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(c.node().IntAttr("axis", 0), RankOf(*x)));
  const int64_t extent = (*x)[axis];
  if (!list.present || list.values.empty()) {
    const int64_t parts = static_cast<int64_t>(count);
    if (c.node().IntAttr("num_outputs", parts) != parts) {
      return c.Error("num_outputs does not match the number of outputs");
    }
    const int64_t chunk = (extent + parts - 1) / parts;
    list.values.clear();
    for (int64_t i = 0; i < parts; ++i) {
      list.values.push_back(std::max<int64_t>(0, std::min(chunk, extent - i * chunk)));
    }
  }
  if (list.values.size() != count) return c.Error("split does not match the number of outputs");
  int64_t left = extent;
  for (int64_t part : list.values) {
    if (part < 0 || part > left) return c.Error("split does not add up to the dimension");
    left -= part;
  }
  if (left != 0) return c.Error("split does not add up to the dimension");
  for (size_t i = 0; i < count; ++i) {
    Shape out = *x;
    out[axis] = list.values[i];
    c.SetShape(i, std::move(out));
  }
  return OkStatus();
}

// How many elements start:end:step takes from `extent`, by ONNX's clamping.
int64_t SliceExtent(int64_t extent, int64_t start, int64_t end, int64_t step) {
  if (extent == 0) return 0;
  if (start < 0) start += extent;
  if (end < 0) end += extent;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, extent);
    end = std::clamp<int64_t>(end, 0, extent);
    return end > start ? (end - start - 1) / step + 1 : 0;
  }
  start = std::clamp<int64_t>(start, 0, extent - 1);
  end = std::clamp<int64_t>(end, -1, extent - 1);
  // A step of the most negative number cannot be negated; it takes one element.
  return start > end ? (start - end - 1) / -std::max(step, -kMaxExtent) + 1 : 0;
}

Status Slice(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto starts, c.AttrOrInput("starts", 1));
  PLEXUS_ASSIGN_OR_RETURN(const auto ends, c.AttrOrInput("ends", 2));
  PLEXUS_ASSIGN_OR_RETURN(auto axes, c.AttrOrInput("axes", 3));
  PLEXUS_ASSIGN_OR_RETURN(auto steps, c.AttrOrInput("steps", 4));
  const Shape* x = c.ShapeOf(0);
  if (!x || !starts.known || !ends.known || !axes.known || !steps.known) return OkStatus();
  const size_t count = starts.values.size();
  if (!axes.present) {
    for (size_t i = 0; i < count; ++i) axes.values.push_back(static_cast<int64_t>(i));
  }
  if (!steps.present) steps.values.assign(count, 1);
  if (ends.values.size() != count || axes.values.size() != count || steps.values.size() != count) {
    return c.Error("starts, ends, axes and steps differ in length");
  }
  PLEXUS_RETURN_IF_ERROR(Axes(axes.values, RankOf(*x)).status());
  Shape out = *x;
  for (size_t i = 0; i < count; ++i) {
    const int64_t axis = axes.values[i] < 0 ? axes.values[i] + RankOf(*x) : axes.values[i];
    if (steps.values[i] == 0) return c.Error("a step is 0");
    out[axis] = SliceExtent((*x)[axis], starts.values[i], ends.values[i], steps.values[i]);
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Pad(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto pads, c.AttrOrInput("pads", 1));
  PLEXUS_ASSIGN_OR_RETURN(auto axes, c.AttrOrInput("axes", 3));
  const Shape* x = c.ShapeOf(0);
  if (!x || !pads.known || !axes.known) return OkStatus();
  if (!axes.present) {
    for (int64_t i = 0; i < RankOf(*x); ++i) axes.values.push_back(i);
  }
  const size_t count = axes.values.size();
  if (pads.values.size() != 2 * count) return c.Error("pads has the wrong number of entries");
  PLEXUS_RETURN_IF_ERROR(Axes(axes.values, RankOf(*x)).status());
  Shape out = *x;
  for (size_t i = 0; i < count; ++i) {
    const int64_t axis = axes.values[i] < 0 ? axes.values[i] + RankOf(*x) : axes.values[i];
    const int64_t before = pads.values[i], after = pads.values[count + i];
    if (std::max(before, after) > kMaxExtent || std::min(before, after) < -kMaxExtent) {
      return c.Error("a pad is out of range");
    }
    out[axis] += before + after;
    if (out[axis] < 0) return c.Error("padding takes away more than there is");
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Tile(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto repeats, c.Ints(1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !repeats) return OkStatus();
  if (repeats->size() != x->size()) return c.Error("repeats does not match the rank");
  Shape out = *x;
  for (size_t i = 0; i < out.size(); ++i) {
    const __int128 extent = __int128{out[i]} * (*repeats)[i];
    if (extent < 0 || extent > kMaxExtent) return c.Error("a repeat is out of range");
    out[i] = static_cast<int64_t>(extent);
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Expand(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto target, c.Ints(1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !target) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(Shape out, BroadcastShapes(*x, *target));
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status CenterCropPad(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto target, c.Ints(1));
  const Shape* x = c.ShapeOf(0);
  if (!x || !target) return OkStatus();
  std::vector<int64_t> axes = c.node().IntsAttr("axes");
  if (axes.empty()) {
    for (int64_t i = 0; i < RankOf(*x); ++i) axes.push_back(i);
  }
  if (axes.size() != target->size()) return c.Error("shape does not match the axes");
  Shape out = *x;
  for (size_t i = 0; i < axes.size(); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(axes[i], RankOf(*x)));
    out[axis] = (*target)[i];
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status SameAsFirst(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"Reshape", Reshape},
    {"Flatten", Flatten},
    {"Squeeze", Squeeze},
    {"Unsqueeze", Unsqueeze},
    {"Transpose", Transpose},
    {"Concat", Concat},
    {"Split", Split},
    {"Slice", Slice},
    {"Pad", Pad},
    {"Tile", Tile},
    {"Expand", Expand},
    {"CenterCropPad", CenterCropPad},
    {"Trilu", SameAsFirst},
    {"ReverseSequence", SameAsFirst},
};

}  // namespace

std::span<const RuleEntry> LayoutRules() { return kRules; }

}  // namespace plexus::shape_rules
