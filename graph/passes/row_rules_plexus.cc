// Rows through domain "plexus": fused operators and pipeline glue.
#include "graph/passes/row_rules.h"

namespace plexus::row_rules {
namespace {

// The residual is the one input besides x that may carry rows.
Status ConvForm(RowStep& s, size_t residual) {
  for (size_t i = 1; i < s.in.size(); ++i) {
    if (i != residual && s.HasRows(i)) return Fail("a parameter carries rows");
  }
  if (!s.HasRows(0) || s.in[0]->axis != 0) return Fail("input 0 does not carry rows on axis 0");
  s.out[0].axis = 0;
  return JoinResidual(s, residual);
}

Status Conv(RowStep& s) { return ConvForm(s, 3); }
Status QConv(RowStep& s) { return ConvForm(s, 9); }

Status MatMulForm(RowStep& s, size_t b, size_t residual) {
  for (size_t i = 1; i < s.in.size(); ++i) {
    if (i != b && i != residual && s.HasRows(i)) return Fail("a parameter carries rows");
  }
  const bool trans_a = s.node.IntAttr("trans_a", 0) != 0;
  const bool trans_b = s.node.IntAttr("trans_b", 0) != 0;
  RowStep product{s.prover, s.node, s.in, s.out};
  if (residual < product.in.size()) product.in[residual] = nullptr;
  PLEXUS_RETURN_IF_ERROR(MatMulRows(product, 0, b, trans_a, trans_b));
  return JoinResidual(s, residual);
}

Status MatMul(RowStep& s) {
  if (s.In(2) && s.HasRows(1) && s.in[1]->axis == s.in[1]->rank() - 1) {
    return Fail("the bias runs along the rows");
  }
  return MatMulForm(s, 1, 3);
}
Status QMatMul(RowStep& s) { return MatMulForm(s, 3, 9); }

Status QAdd(RowStep& s) {
  for (size_t i : {1, 2, 4, 5, 6, 7}) {
    if (s.HasRows(i)) return Fail("a parameter carries rows");
  }
  RowStep sum{s.prover, s.node, {s.In(0), s.In(3)}, s.out};
  return Broadcast(sum);
}

Status Attention(RowStep& s) {
  for (size_t i = 0; i < 3; ++i) {
    if (!s.HasRows(i) || s.in[i]->axis != 0) return Fail("rows are not along axis 0");
  }
  s.out[0].axis = 0;
  const RowValue* mask = s.In(3);
  if (!mask) return OkStatus();
  if (!mask->known.shape) return Fail("the mask's shape is not known");
  const bool per_row = mask->rank() == 4 && mask->axis == 0;
  const bool shared = !mask->HasRows() && (mask->rank() < 4 || mask->shape()[0] == 1);
  return per_row || shared ? OkStatus() : Fail("the mask does not keep rows apart");
}

// Maps every row by itself, whatever its body does.
Status MapRows(RowStep& s) {
  if (s.node.HasAttr("limit")) return Fail("how many rows it may have is limited");
  for (size_t i = 0; i < s.in.size(); ++i) {
    if (!s.HasRows(i) || s.in[i]->axis != 0) {
      return Fail("input " + std::to_string(i) + " does not carry rows on axis 0");
    }
  }
  for (RowValue& out : s.out) out.axis = 0;
  return OkStatus();
}

Status Window(RowStep& s) {
  const int64_t axis = *s.Axis(0), rows = s.in[0]->axis;
  if (axis == rows) return Fail("windows run along the row axis");
  s.out[0].axis = rows < axis ? rows : rows + 1;
  return OkStatus();
}

constexpr RowEntry kRules[] = {
    {"Conv", Conv},     {"MatMul", MatMul},       {"QConv", QConv},           {"QMatMul", QMatMul},
    {"QAdd", QAdd},     {"Attention", Attention}, {"Elementwise", Broadcast}, {"MapRows", MapRows},
    {"Window", Window},
};

}  // namespace

std::span<const RowEntry> PlexusRowRules() { return kRules; }

}  // namespace plexus::row_rules
