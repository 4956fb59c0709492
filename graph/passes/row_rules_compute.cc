// Rows through operators that compute: they may mix everything but rows.
#include <algorithm>

#include "graph/passes/row_rules.h"

namespace plexus::row_rules {
namespace {

Status Keep(RowStep& s) {
  if (s.AnyRows(1)) return Fail("a parameter carries rows");
  for (RowValue& out : s.out) out.axis = s.in[0]->axis;
  return OkStatus();
}

// One axis is computed along; it must not be the rows'.
Status Along(RowStep& s, std::optional<int64_t> axis) {
  if (!s.HasRows(0) || s.AnyRows(1) || !axis) return Fail("its axis is not known");
  if (*axis == s.in[0]->axis) return Fail("computes along the row axis");
  return Keep(s);
}

Status Softmax(RowStep& s) {
  if (s.node.version >= 13) return Along(s, s.Axis(-1));
  if (*s.Axis(1) <= s.in[0]->axis) return Fail("computes along the row axis");
  return Keep(s);
}
Status LpNormalization(RowStep& s) { return Along(s, s.Axis(-1)); }
Status TopK(RowStep& s) { return Along(s, s.Axis(-1)); }

Status CumSum(RowStep& s) {
  auto axis = s.Ints(1);
  if (!axis || axis->size() != 1) return Fail("its axis is not known");
  return Along(s, (*axis)[0] < 0 ? (*axis)[0] + s.in[0]->rank() : (*axis)[0]);
}

// From `axis` on, everything is normalised together.
Status LayerNorm(RowStep& s) {
  if (!s.HasRows(0) || *s.Axis(-1) <= s.in[0]->axis) return Fail("normalises over the row axis");
  for (size_t i = 1; i < s.in.size(); ++i) {
    const RowValue* p = s.in[i];
    if (!p) continue;
    const int64_t at = p->known.shape ? s.in[0]->axis - (s.in[0]->rank() - p->rank()) : -1;
    if (s.HasRows(i) || (at >= 0 && p->shape()[at] != 1)) return Fail("a parameter carries rows");
  }
  return Keep(s);
}

Status MeanVariance(RowStep& s) {
  std::vector<int64_t> axes = s.node.IntsAttr("axes");
  if (axes.empty()) axes = {0, 2, 3};
  for (int64_t axis : axes) {
    if ((axis < 0 ? axis + s.in[0]->rank() : axis) == s.in[0]->axis) {
      return Fail("normalises over the row axis");
    }
  }
  return Keep(s);
}

Status DropAxes(RowStep& s, const std::vector<int64_t>& axes) {
  const int64_t rows = s.in[0]->axis;
  int64_t before = 0;
  for (int64_t axis : axes) {
    if (axis == rows) return Fail("reduces over the row axis");
    if (axis < rows) ++before;
  }
  s.out[0].axis = s.node.IntAttr("keepdims", 1) != 0 ? rows : rows - before;
  return OkStatus();
}

Status Reduce(RowStep& s) {
  const auto axes = s.Axes("axes", 1);
  if (!s.HasRows(0) || s.AnyRows(1) || !axes) return Fail("its axes are not known");
  if (!axes->empty()) return DropAxes(s, *axes);
  if (s.node.IntAttr("noop_with_empty_axes", 0) == 0) {
    return Fail("reduces over all axes, the row axis too");
  }
  return Keep(s);
}

Status ArgReduce(RowStep& s) { return DropAxes(s, {*s.Axis(0)}); }

Status Conv(RowStep& s) { return BatchRows(s, {0}); }
Status DeformConv(RowStep& s) { return BatchRows(s, {0, 2, 4}); }
Status Pool(RowStep& s) {
  if (s.node.outputs.size() > 1 && s.node.outputs[1].valid()) {
    return Fail("its indices count over all rows");
  }
  return BatchRows(s, {0});
}
Status GridSample(RowStep& s) { return BatchRows(s, {0, 1}); }

// Statistics are parameters; only the channel axis must not be the rows'.
Status BatchNorm(RowStep& s) {
  const bool training = s.node.IntAttr("training_mode", 0) != 0;
  if (training || s.node.outputs.size() > 1) return Fail("computes statistics over the rows");
  if (s.in[0]->axis == 1) return Fail("rows are along the channels");
  return Keep(s);
}

Status Resize(RowStep& s) {
  const RowValue& x = *s.in[0];
  if (!s.HasRows(0) || s.AnyRows(1)) return Fail("its sizes depend on rows");
  if (s.out[0].shape()[x.axis] != x.shape()[x.axis]) return Fail("resizes the row axis");
  if (s.node.StringAttr("coordinate_transformation_mode", "") == "tf_crop_and_resize") {
    return Fail("crops");
  }
  s.out[0].axis = x.axis;
  std::vector<int64_t> axes = s.node.IntsAttr("axes");
  const bool all_axes = axes.empty();
  for (int64_t i = 0; all_axes && i < x.rank(); ++i) axes.push_back(i);
  const auto row = std::find_if(axes.begin(), axes.end(),
                                [&](int64_t a) { return a == x.axis || a + x.rank() == x.axis; });
  if (row == axes.end()) return OkStatus();
  const size_t at = static_cast<size_t>(row - axes.begin());
  const bool by_size = s.In(3) != nullptr;
  if (!by_size) {
    const RowValue* scales = s.In(2);
    if (!scales || !scales->known.contents) return Fail("its scales are not known");
    const auto values = ToDoubleVector(*scales->known.contents);
    if (!values.ok() || values->size() <= at || (*values)[at] != 1.0) {
      return Fail("resizes the row axis");
    }
    return OkStatus();
  }
  if (!s.In(3)->counts) return Fail("its sizes are not known");
  const Counts& sizes = *s.In(3)->counts;
  if (s.node.HasAttr("keep_aspect_ratio_policy")) return Fail("its sizes depend on each other");
  std::vector<int64_t> others;
  bool follows = true;
  for (size_t i = 0; i < axes.size(); ++i) {
    for (size_t n = 1; n < kRowCounts.size(); ++n) {
      if (i == at) {
        follows &= sizes[n][i] == kRowCounts[n] * sizes[0][i];
      } else if (sizes[n][i] != sizes[0][i]) {
        return Fail("its sizes depend on the number of rows");
      }
    }
    if (i != at) others.push_back(sizes[0][i]);
  }
  if (follows) return OkStatus();
  if (sizes[0][at] != sizes[1][at]) return Fail("resizes the row axis");
  if (!s.In(3)->is_constant && !s.prover.shapes_are_real()) {
    return Fail("its sizes depend on unknown dimensions");
  }
  axes.erase(row);
  s.node.attributes["axes"] = axes;
  s.prover.PutInts(s.node, 3, others);
  return OkStatus();
}

Status MatMul(RowStep& s) { return MatMulRows(s, 0, 1, false, false); }
Status QLinearMatMul(RowStep& s) { return MatMulRows(s, 0, 3, false, false); }

Status Gemm(RowStep& s) {
  const bool trans_a = s.node.IntAttr("transA", 0) != 0;
  if (!s.HasRows(0) || s.HasRows(1) || s.in[0]->axis != (trans_a ? 1 : 0)) {
    return Fail("rows are summed over or meet in the second factor");
  }
  s.out[0].axis = 0;
  return JoinResidual(s, 2);
}

// The letter of the rows must stay, and whatever lacks rows must lack it too.
Status Einsum(RowStep& s) {
  std::string equation = s.node.StringAttr("equation", "");
  std::erase(equation, ' ');
  const size_t arrow = equation.find("->");
  if (arrow == std::string::npos || equation.find('.') != std::string::npos) {
    return Fail("its equation is not spelt out");
  }
  const std::string result = equation.substr(arrow + 2);
  std::vector<std::string> terms(1);
  for (char ch : equation.substr(0, arrow)) {
    if (ch == ',') {
      terms.emplace_back();
    } else {
      terms.back() += ch;
    }
  }
  char letter = 0;
  for (size_t i = 0; i < s.in.size() && i < terms.size(); ++i) {
    if (!s.HasRows(i)) continue;
    const char here = terms[i][s.in[i]->axis];
    if (letter && here != letter) return Fail("rows have different indices");
    letter = here;
  }
  for (size_t i = 0; i < terms.size(); ++i) {
    const auto uses = std::count(terms[i].begin(), terms[i].end(), letter);
    if (uses != (s.HasRows(i) ? 1 : 0)) return Fail("the rows' index is shared");
  }
  const size_t at = result.find(letter);
  if (at == std::string::npos) return Fail("sums over the rows");
  s.out[0].axis = static_cast<int64_t>(at);
  return OkStatus();
}

// Per-tensor scales keep rows apart; so do per-axis scales along any other axis.
Status Quantize(RowStep& s) {
  if (!s.HasRows(0) || s.AnyRows(1)) return Fail("a scale carries rows");
  const RowValue* scale = s.In(1);
  if (!scale || !scale->known.shape) return Fail("its scale is not known");
  const bool per_axis = NumElementsUnchecked(scale->shape()) != 1;
  if (per_axis && (scale->rank() != 1 || *s.Axis(1) == s.in[0]->axis)) {
    return Fail("scales differ along the row axis");
  }
  return Keep(s);
}

Status Recurrent(RowStep& s) {
  const bool batch_first = s.node.IntAttr("layout", 0) != 0;
  if (!s.HasRows(0) || s.in[0]->axis != (batch_first ? 0 : 1)) return Fail("rows are time steps");
  for (size_t i : {size_t{1}, size_t{2}, size_t{3}, size_t{7}}) {
    if (s.HasRows(i)) return Fail("a weight carries rows");
  }
  const int64_t state_axis = batch_first ? 0 : 1;
  for (size_t i = 4; i < std::min<size_t>(s.in.size(), 7); ++i) {
    if (!s.In(i)) continue;
    const int64_t axis = i == 4 ? 0 : state_axis;
    if (s.HasRows(i)) {
      if (s.in[i]->axis != axis) return Fail("a state carries rows along another axis");
      continue;
    }
    if (!s.in[i]->known.shape || s.in[i]->shape()[axis] != 1) return Fail("a state is not per row");
    s.prover.ExpandRows(s.node, i, axis, 0);
  }
  for (size_t i = 0; i < s.out.size(); ++i) {
    s.out[i].axis = batch_first ? 0 : i == 0 ? 2 : 1;
  }
  return OkStatus();
}

// Queries, keys, values and caches carry rows on axis 0; a mask may, or is the same for all.
Status Attention(RowStep& s) {
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (!s.In(i)) continue;
    if (i == 3) {
      const bool per_row = s.HasRows(3) && s.in[3]->rank() == 4 && s.in[3]->axis == 0;
      const bool shared = !s.HasRows(3) && s.in[3]->known.shape &&
                          (s.in[3]->rank() < 4 || s.in[3]->shape()[0] == 1);
      if (!per_row && !shared) return Fail("the mask does not keep rows apart");
    } else if (!s.HasRows(i) || s.in[i]->axis != 0) {
      return Fail("an input does not carry rows on axis 0");
    }
  }
  for (RowValue& out : s.out) out.axis = 0;
  return OkStatus();
}

constexpr RowEntry kRules[] = {
    {"Abs", Keep},
    {"Acos", Keep},
    {"Acosh", Keep},
    {"Asin", Keep},
    {"Asinh", Keep},
    {"Atan", Keep},
    {"Atanh", Keep},
    {"BitwiseNot", Keep},
    {"Cast", Keep},
    {"CastLike", Keep},
    {"Ceil", Keep},
    {"Celu", Keep},
    {"Clip", Keep},
    {"Cos", Keep},
    {"Cosh", Keep},
    {"Elu", Keep},
    {"Erf", Keep},
    {"Exp", Keep},
    {"Floor", Keep},
    {"Gelu", Keep},
    {"HardSigmoid", Keep},
    {"HardSwish", Keep},
    {"Identity", Keep},
    {"IsInf", Keep},
    {"IsNaN", Keep},
    {"LeakyRelu", Keep},
    {"Log", Keep},
    {"Mish", Keep},
    {"Neg", Keep},
    {"Not", Keep},
    {"Reciprocal", Keep},
    {"Relu", Keep},
    {"Round", Keep},
    {"Selu", Keep},
    {"Shrink", Keep},
    {"Sigmoid", Keep},
    {"Sign", Keep},
    {"Sin", Keep},
    {"Sinh", Keep},
    {"Softplus", Keep},
    {"Softsign", Keep},
    {"Sqrt", Keep},
    {"Swish", Keep},
    {"Tan", Keep},
    {"Tanh", Keep},
    {"ThresholdedRelu", Keep},
    {"Add", Broadcast},
    {"And", Broadcast},
    {"BitShift", Broadcast},
    {"BitwiseAnd", Broadcast},
    {"BitwiseOr", Broadcast},
    {"BitwiseXor", Broadcast},
    {"Div", Broadcast},
    {"Equal", Broadcast},
    {"Greater", Broadcast},
    {"GreaterOrEqual", Broadcast},
    {"Less", Broadcast},
    {"LessOrEqual", Broadcast},
    {"Max", Broadcast},
    {"Mean", Broadcast},
    {"Min", Broadcast},
    {"Mod", Broadcast},
    {"Mul", Broadcast},
    {"Or", Broadcast},
    {"PRelu", Broadcast},
    {"Pow", Broadcast},
    {"Sub", Broadcast},
    {"Sum", Broadcast},
    {"Where", Broadcast},
    {"Xor", Broadcast},
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
    {"Softmax", Softmax},
    {"LogSoftmax", Softmax},
    {"Hardmax", Softmax},
    {"LpNormalization", LpNormalization},
    {"TopK", TopK},
    {"CumSum", CumSum},
    {"LayerNormalization", LayerNorm},
    {"RMSNormalization", LayerNorm},
    {"MeanVarianceNormalization", MeanVariance},
    {"BatchNormalization", BatchNorm},
    {"InstanceNormalization", Conv},
    {"GroupNormalization", Conv},
    {"LRN", Conv},
    {"Conv", Conv},
    {"ConvInteger", Conv},
    {"QLinearConv", Conv},
    {"ConvTranspose", Conv},
    {"DeformConv", DeformConv},
    {"MaxPool", Pool},
    {"AveragePool", Pool},
    {"LpPool", Pool},
    {"GlobalAveragePool", Pool},
    {"GlobalMaxPool", Pool},
    {"GlobalLpPool", Pool},
    {"GridSample", GridSample},
    {"Resize", Resize},
    {"MatMul", MatMul},
    {"MatMulInteger", MatMul},
    {"QLinearMatMul", QLinearMatMul},
    {"Gemm", Gemm},
    {"Einsum", Einsum},
    {"QuantizeLinear", Quantize},
    {"DequantizeLinear", Quantize},
    {"LSTM", Recurrent},
    {"GRU", Recurrent},
    {"RNN", Recurrent},
    {"Attention", Attention},
};

}  // namespace

// Inputs align at their last dimensions. All that carry rows must do so along one aligned axis and
// in equal number; what does not carry them must be 1 (or absent) there.
Status Broadcast(RowStep& s) {
  const int64_t rank = s.out[0].rank();
  int64_t axis = -1, extent = 0;
  for (const RowValue* value : s.in) {
    if (!value || !value->HasRows()) continue;
    const int64_t here = value->axis + rank - value->rank();
    const int64_t size = value->shape()[value->axis];
    if (axis >= 0 && here != axis) return Fail("its inputs carry rows along different axes");
    if (axis >= 0 && size != extent) return Fail("its inputs have different numbers per row");
    axis = here;
    extent = size;
  }
  if (axis < 0) return Fail("computes with the number of rows");
  for (const RowValue* value : s.in) {
    if (!value || value->HasRows()) continue;
    if (value->varies) return Fail("computes with the number of rows");
    if (!value->known.shape) return Fail("an input's shape is not known");
    const int64_t at = axis - (rank - value->rank());
    if (at >= 0 && value->shape()[at] != 1) {
      return Fail("an input that is not per row has " + std::to_string(value->shape()[at]) +
                  " entries along the row axis");
    }
  }
  s.out[0].axis = axis;
  return OkStatus();
}

Status BatchRows(RowStep& s, std::initializer_list<size_t> with_rows) {
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (!s.In(i)) continue;
    const bool wanted = std::find(with_rows.begin(), with_rows.end(), i) != with_rows.end();
    if (!wanted && s.HasRows(i)) return Fail("a parameter carries rows");
    if (wanted && (!s.HasRows(i) || s.in[i]->axis != 0)) {
      return Fail("input " + std::to_string(i) + " does not carry rows on axis 0");
    }
  }
  for (RowValue& out : s.out) out.axis = 0;
  return OkStatus();
}

// a: [..., M, K], b: [..., K, N]. Rows may run along M, N or a batch dimension, never along K.
Status MatMulRows(RowStep& s, size_t a, size_t b, bool trans_a, bool trans_b) {
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (i != a && i != b && s.HasRows(i)) return Fail("a parameter carries rows");
  }
  const RowValue &left = *s.In(a), &right = *s.In(b);
  if (!left.known.shape || !right.known.shape) return Fail("an input's shape is not known");
  if (left.rank() < 2 || right.rank() < 2) return Fail("multiplies by a vector");
  const int64_t rank = s.out[0].rank();
  // Where the rows of an operand land in the output; -2 when they are summed over.
  const auto lands = [&](const RowValue& x, bool is_left, bool transposed) -> int64_t {
    const int64_t from_end = x.rank() - 1 - x.axis;  // 0 last, 1 last but one
    if (from_end > 1) return x.axis + rank - x.rank();
    const bool is_outer = is_left ? (from_end == 1) != transposed : (from_end == 0) != transposed;
    if (!is_outer) return -2;
    return is_left ? rank - 2 : rank - 1;
  };
  const auto extent_at = [&](const RowValue& x, int64_t axis) {
    const int64_t at = axis - (rank - x.rank());
    return at >= 0 ? x.shape()[at] : 1;
  };
  const int64_t from_left = left.HasRows() ? lands(left, true, trans_a) : -1;
  const int64_t from_right = right.HasRows() ? lands(right, false, trans_b) : -1;
  if (from_left == -2 || from_right == -2) return Fail("sums over the rows");
  if (from_left >= 0 && from_right >= 0) {
    if (from_left != from_right) return Fail("its factors carry rows along different axes");
    if (left.shape()[left.axis] != right.shape()[right.axis]) {
      return Fail("its factors have different numbers per row");
    }
  }
  const int64_t axis = std::max(from_left, from_right);
  if (axis < 0) return Fail("computes with the number of rows");
  if (axis < rank - 2) {
    const RowValue& other = from_left >= 0 ? right : left;
    if (!other.HasRows() && extent_at(other, axis) != 1) {
      return Fail("the other factor is not per row");
    }
  }
  s.out[0].axis = axis;
  return OkStatus();
}

Status JoinResidual(RowStep& s, size_t residual) {
  const RowValue* r = s.In(residual);
  if (!r) return OkStatus();
  if (!r->known.shape) return Fail("an input's shape is not known");
  const int64_t at = s.out[0].axis - (s.out[0].rank() - r->rank());
  if (s.HasRows(residual)) {
    const bool fits = r->axis == at && r->shape()[at] == s.out[0].shape()[s.out[0].axis];
    return fits ? OkStatus() : Fail("what is added carries rows along another axis");
  }
  if (at >= 0 && r->shape()[at] != 1) return Fail("what is added is not per row");
  return OkStatus();
}

std::span<const RowEntry> ComputeRowRules() { return kRules; }

}  // namespace plexus::row_rules
