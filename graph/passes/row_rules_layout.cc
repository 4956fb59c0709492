// Rows through operators that rearrange: where the row axis goes, and which fixed targets need
// rewriting.
#include <algorithm>

#include "graph/passes/row_rules.h"

namespace plexus::row_rules {
namespace {

// Exporters write "up to the end" as some number that no batch reaches.
constexpr int64_t kTakesAll = 1'000'000;

int64_t Product(const Shape& shape, int64_t from, int64_t to) {
  int64_t product = 1;
  for (int64_t i = from; i < to; ++i) product *= shape[i];
  return product;
}

// Reshape's target for one number of rows, resolved; empty when it does not fit.
Shape ResolveTarget(const std::vector<int64_t>& target, const Shape& x, bool allow_zero) {
  Shape out;
  int64_t known = 1;
  int inferred = -1;
  for (size_t i = 0; i < target.size(); ++i) {
    int64_t dim = target[i];
    if (dim == 0 && !allow_zero) {
      if (i >= x.size()) return {};
      dim = x[i];
    }
    if (dim < 0) {
      if (inferred >= 0) return {};
      inferred = static_cast<int>(i);
    } else {
      known *= dim;
    }
    out.push_back(dim);
  }
  const int64_t total = Product(x, 0, static_cast<int64_t>(x.size()));
  if (inferred >= 0) {
    if (known == 0 || total % known != 0) return {};
    out[inferred] = total / known;
  } else if (known != total) {
    return {};
  }
  return out;
}

// The axis along which the target grows with the rows, if it does so cleanly.
std::optional<int64_t> GrowingAxis(const RowStep& s, const Counts& target, bool allow_zero) {
  const RowValue& x = *s.in[0];
  const Shape& one = s.out[0].shape();
  std::optional<int64_t> axis;
  for (size_t n = 1; n < kRowCounts.size(); ++n) {
    Shape shape = x.shape();
    shape[x.axis] *= kRowCounts[n];
    const Shape grown = ResolveTarget(target[n], shape, allow_zero);
    if (grown.size() != one.size()) return std::nullopt;
    for (size_t i = 0; i < one.size(); ++i) {
      if (grown[i] == one[i]) continue;
      if (grown[i] != one[i] * kRowCounts[n]) return std::nullopt;
      if (axis && *axis != static_cast<int64_t>(i)) return std::nullopt;
      axis = static_cast<int64_t>(i);
    }
  }
  return axis;
}

// Rows stay whole where the target has a boundary at the row axis: the dimensions before it have
// the same product in both shapes.
Status Reshape(RowStep& s) {
  const RowValue& x = *s.in[0];
  const Shape& target = s.out[0].shape();
  if (!s.HasRows(0)) return Fail("its shape depends on the number of rows");
  if (Product(x.shape(), 0, x.rank()) == 0) return Fail("reshapes an empty tensor");
  const int64_t before = Product(x.shape(), 0, x.axis);
  const auto is_boundary = [&](int64_t axis) { return Product(target, 0, axis) == before; };
  int64_t wanted = -1;
  for (int64_t axis = 0; axis < s.out[0].rank(); ++axis) {
    if (is_boundary(axis) && (wanted < 0 || axis == x.axis)) wanted = axis;
  }
  if (wanted < 0) return Fail("the new shape splits rows");
  const bool allow_zero = s.node.IntAttr("allowzero", 0) != 0;
  const RowValue& given = *s.in[1];
  if (!given.counts) return Fail("the new shape is not known");
  const std::optional<int64_t> grows = GrowingAxis(s, *given.counts, allow_zero);
  if (grows && is_boundary(*grows) && (given.varies || *grows == wanted)) {
    s.out[0].axis = *grows;
    return OkStatus();
  }
  if (given.varies) return Fail("the new shape splits rows");
  // Fixed at one row: let the wanted dimension follow the rows.
  if (!given.is_constant && !s.prover.shapes_are_real()) {
    return Fail("the new shape depends on unknown dimensions");
  }
  std::vector<int64_t> rewritten = (*given.counts)[0];
  const bool copies = wanted == x.axis && target[wanted] == x.shape()[x.axis];
  for (size_t i = 0; i < rewritten.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    if (at == wanted) {
      rewritten[i] = copies ? 0 : -1;
      continue;
    }
    const bool moves = rewritten[i] == 0 && at == x.axis;
    const bool second = rewritten[i] == -1 && !copies;
    if (!moves && !second) continue;
    if (!s.prover.shapes_are_real()) return Fail("the new shape depends on unknown dimensions");
    rewritten[i] = target[i];
  }
  s.node.attributes.erase("allowzero");
  s.prover.PutInts(s.node, 1, rewritten);
  s.out[0].axis = wanted;
  return OkStatus();
}

Status Flatten(RowStep& s) {
  const RowValue& x = *s.in[0];
  int64_t axis = s.node.IntAttr("axis", 1);
  if (axis < 0) axis += x.rank();
  const bool first = x.axis < axis;
  if (Product(x.shape(), first ? 0 : axis, x.axis) != 1) return Fail("flattening splits rows");
  s.out[0].axis = first ? 0 : 1;
  return OkStatus();
}

Status Squeeze(RowStep& s) {
  const RowValue& x = *s.in[0];
  const auto axes = s.Axes("axes", 1);
  if (!axes) return Fail("its axes are not known");
  int64_t axis = x.axis;
  for (int64_t i = 0; i <= x.axis; ++i) {
    const bool gone =
        axes->empty() ? x.shape()[i] == 1 : std::find(axes->begin(), axes->end(), i) != axes->end();
    if (!gone) continue;
    if (i == x.axis) return Fail("squeezes the row axis away");
    --axis;
  }
  // Without axes, any dimension of one goes; with one row that includes the row axis, caught above.
  s.out[0].axis = axis;
  return OkStatus();
}

Status Unsqueeze(RowStep& s) {
  const auto axes = s.Ints(1);
  std::vector<int64_t> list =
      s.node.HasAttr("axes") ? s.node.IntsAttr("axes") : axes.value_or(std::vector<int64_t>());
  for (int64_t& axis : list) {
    if (axis < 0) axis += s.out[0].rank();
  }
  int64_t left = s.in[0]->axis;
  for (int64_t i = 0; i < s.out[0].rank(); ++i) {
    if (std::find(list.begin(), list.end(), i) != list.end()) continue;
    if (left-- == 0) {
      s.out[0].axis = i;
      return OkStatus();
    }
  }
  return Fail("its axes are not known");
}

Status Transpose(RowStep& s) {
  const RowValue& x = *s.in[0];
  const std::vector<int64_t> perm = s.node.IntsAttr("perm");
  s.out[0].axis = x.rank() - 1 - x.axis;
  for (size_t i = 0; i < perm.size(); ++i) {
    const int64_t from = perm[i] < 0 ? perm[i] + x.rank() : perm[i];
    if (from == x.axis) s.out[0].axis = static_cast<int64_t>(i);
  }
  return OkStatus();
}

Status Concat(RowStep& s) {
  size_t like = 0;
  while (!s.HasRows(like)) {
    if (++like >= s.in.size()) return Fail("joins numbers that depend on the number of rows");
  }
  const RowValue& first = *s.in[like];
  int64_t axis = s.node.IntAttr("axis", 1);
  if (axis < 0) axis += first.rank();
  if (axis == first.axis) return Fail("joins along the row axis");
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (!s.in[i]) return Fail("an input is left out");
    if (s.HasRows(i)) {
      const bool same = s.in[i]->axis == first.axis;
      if (!same) return Fail("its inputs carry rows along different axes");
      continue;
    }
    if (s.in[i]->varies || !s.in[i]->known.shape || s.in[i]->shape()[first.axis] != 1) {
      return Fail("joins rows with something that is not per row");
    }
    s.prover.ExpandRows(s.node, i, first.axis, like);
  }
  s.out[0].axis = first.axis;
  return OkStatus();
}

Status Split(RowStep& s) {
  if (s.AnyRows(1)) return Fail("its sizes depend on rows");
  if (*s.Axis(0) == s.in[0]->axis) return Fail("splits the row axis");
  for (RowValue& out : s.out) out.axis = s.in[0]->axis;
  return OkStatus();
}

Status Slice(RowStep& s) {
  const RowValue& x = *s.in[0];
  if (s.AnyRows(1) || !s.HasRows(0)) return Fail("its bounds depend on rows");
  const auto starts = s.Ints(1), ends = s.Ints(2), steps = s.Ints(4);
  auto axes = s.Axes("axes", 3);
  if (!axes || !starts) return Fail("its axes are not known");
  if (!s.In(3)) {
    for (size_t i = 0; i < starts->size(); ++i) axes->push_back(static_cast<int64_t>(i));
  }
  for (size_t i = 0; i < axes->size(); ++i) {
    if ((*axes)[i] != x.axis) {
      if (!ends) return Fail("its bounds depend on the number of rows");
      continue;
    }
    const bool all = (*starts)[i] == 0 && ends && (*ends)[i] >= kTakesAll &&
                     (!s.In(4) || (steps && (*steps)[i] == 1));
    if (!all) return Fail("slices the row axis");
  }
  s.out[0].axis = x.axis;
  return OkStatus();
}

Status Pad(RowStep& s) {
  const RowValue& x = *s.in[0];
  const auto pads = s.Ints(1);
  auto axes = s.Axes("axes", 3);
  if (s.AnyRows(1) || !pads || !axes) return Fail("its pads are not known");
  if (axes->empty()) {
    for (int64_t i = 0; i < x.rank(); ++i) axes->push_back(i);
  }
  for (size_t i = 0; i < axes->size(); ++i) {
    const bool none = (*pads)[i] == 0 && (*pads)[axes->size() + i] == 0;
    if ((*axes)[i] == x.axis && !none) return Fail("pads the row axis");
  }
  s.out[0].axis = x.axis;
  return OkStatus();
}

Status Tile(RowStep& s) {
  const auto repeats = s.Ints(1);
  if (!s.HasRows(0) || !repeats) return Fail("its repeats depend on the number of rows");
  if ((*repeats)[s.in[0]->axis] != 1) return Fail("repeats the row axis");
  s.out[0].axis = s.in[0]->axis;
  return OkStatus();
}

// A target dimension that is the number of rows makes (or keeps) a row axis there.
std::optional<int64_t> RowDimension(const Counts& counts) {
  std::optional<int64_t> axis;
  for (size_t i = 0; i < counts[0].size(); ++i) {
    if (counts[1][i] == counts[0][i] && counts[2][i] == counts[0][i]) continue;
    const bool scales = counts[1][i] == kRowCounts[1] * counts[0][i] &&
                        counts[2][i] == kRowCounts[2] * counts[0][i];
    if (!scales || axis) return std::nullopt;
    axis = static_cast<int64_t>(i);
  }
  return axis;
}

Status Expand(RowStep& s) {
  if (!s.In(1) || s.HasRows(1) || !s.In(1)->counts) return Fail("the new shape is not known");
  const Counts& target = *s.In(1)->counts;
  const int64_t out_rank = s.out[0].rank();
  const int64_t shift = out_rank - static_cast<int64_t>(target[0].size());
  std::optional<int64_t> made;
  if (s.In(1)->varies) {
    made = RowDimension(target);
    if (!made) return Fail("the new shape is no multiple of the rows");
    made = *made + shift;
  }
  if (s.HasRows(0)) {
    const int64_t axis = s.in[0]->axis + out_rank - s.in[0]->rank();
    if (made && *made != axis) return Fail("expands another axis by the rows");
    const int64_t wanted = axis < shift ? 1 : target[0][axis - shift];
    // A target of one keeps the rows; another fixed number cannot stand for any number of rows.
    if (!made && wanted != 1) return Fail("expands the row axis to a fixed size");
    if (made && wanted != s.in[0]->shape()[s.in[0]->axis]) return Fail("repeats rows");
    s.out[0].axis = axis;
    return OkStatus();
  }
  const int64_t own = *made - (out_rank - s.in[0]->rank());
  if (own >= 0 && s.in[0]->shape()[own] != 1) return Fail("the new shape does not fit its input");
  s.out[0].axis = *made;
  return OkStatus();
}

Status ConstantOfShape(RowStep& s) {
  if (s.HasRows(0) || !s.In(0)->counts) return Fail("its shape is not known");
  const auto axis = RowDimension(*s.In(0)->counts);
  if (!axis) return Fail("its shape is no multiple of the rows");
  s.out[0].axis = *axis;
  return OkStatus();
}

Status DepthSpace(RowStep& s) {
  if (s.in[0]->axis != 0) return Fail("rows are not along axis 0");
  s.out[0].axis = 0;
  return OkStatus();
}

Status Trilu(RowStep& s) {
  if (s.AnyRows(1) || s.in[0]->axis >= s.in[0]->rank() - 2) return Fail("rows span the matrices");
  s.out[0].axis = s.in[0]->axis;
  return OkStatus();
}

Status Gather(RowStep& s) {
  const int64_t axis = s.In(0)->known.shape ? *s.Axis(0) : 0;
  if (s.In(0)->varies || s.In(1)->varies) return Fail("gathers numbers that depend on the rows");
  if (s.HasRows(0) && s.HasRows(1)) return Fail("both data and indices carry rows");
  if (s.HasRows(1)) {
    s.out[0].axis = axis + s.in[1]->axis;
    return OkStatus();
  }
  if (axis == s.in[0]->axis) return Fail("picks from the row axis");
  s.out[0].axis = s.in[0]->axis < axis ? s.in[0]->axis : s.in[0]->axis + s.in[1]->rank() - 1;
  return OkStatus();
}

Status GatherElements(RowStep& s) {
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (!s.HasRows(i) || s.in[i]->axis != s.in[0]->axis) {
      return Fail("data and indices must carry rows along one axis");
    }
  }
  if (*s.Axis(0) == s.in[0]->axis) return Fail("picks from the row axis");
  s.out[0].axis = s.in[0]->axis;
  return OkStatus();
}

Status GatherND(RowStep& s) {
  const int64_t batch = s.node.IntAttr("batch_dims", 0);
  if (!s.HasRows(1)) return Fail("picks from the row axis");
  const int64_t axis = s.in[1]->axis;
  const bool lookup = !s.HasRows(0) && axis >= batch && axis < s.in[1]->rank() - 1;
  const bool batched = s.HasRows(0) && s.in[0]->axis == axis && axis < batch;
  if (!lookup && !batched) return Fail("indices and data do not keep rows apart");
  s.out[0].axis = axis;
  return OkStatus();
}

Status OneHot(RowStep& s) {
  if (s.AnyRows(1) || !s.HasRows(0)) return Fail("depth or values carry rows");
  int64_t axis = s.node.IntAttr("axis", -1);
  if (axis < 0) axis += s.out[0].rank();
  s.out[0].axis = s.in[0]->axis < axis ? s.in[0]->axis : s.in[0]->axis + 1;
  return OkStatus();
}

constexpr RowEntry kRules[] = {
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
    {"ConstantOfShape", ConstantOfShape},
    {"DepthToSpace", DepthSpace},
    {"SpaceToDepth", DepthSpace},
    {"Trilu", Trilu},
    {"Gather", Gather},
    {"GatherElements", GatherElements},
    {"ScatterElements", GatherElements},
    {"GatherND", GatherND},
    {"OneHot", OneHot},
};

}  // namespace

std::span<const RowEntry> LayoutRowRules() { return kRules; }

}  // namespace plexus::row_rules
