// MatMul, Gemm and Det.
#include <cmath>

#include "program/reference/gemm.h"
#include "program/reference/matmul.h"

namespace plexus::reference {

Result<MatMulGeometry> MakeMatMulGeometry(const Shape& a, const Shape& b) {
  if (a.empty() || b.empty()) return InvalidArgumentError("a matrix product needs rank 1 or more");
  MatMulGeometry g;
  const bool a_vector = a.size() == 1, b_vector = b.size() == 1;
  g.m = a_vector ? 1 : a[a.size() - 2];
  g.k = a.back();
  g.n = b_vector ? 1 : b.back();
  if (g.k != (b_vector ? b[0] : b[b.size() - 2])) {
    return InvalidArgumentError("shapes " + ShapeToString(a) + " and " + ShapeToString(b) +
                                " do not multiply");
  }
  const Shape a_lead(a.begin(), a.end() - (a_vector ? 1 : 2));
  const Shape b_lead(b.begin(), b.end() - (b_vector ? 1 : 2));
  PLEXUS_ASSIGN_OR_RETURN(g.batch, BroadcastShapes(a_lead, b_lead));
  g.a_batch = BroadcastStrides(a_lead, g.batch);
  g.b_batch = BroadcastStrides(b_lead, g.batch);
  g.output = g.batch;
  if (!a_vector) g.output.push_back(g.m);
  if (!b_vector) g.output.push_back(g.n);
  if (b_lead.empty() && !a_vector) {
    // One b for all: the leading dimensions are just more rows.
    PLEXUS_ASSIGN_OR_RETURN(const int64_t rows, NumElements(g.batch));
    if (__builtin_mul_overflow(rows, g.m, &g.m)) {
      return ResourceExhaustedError("the product of " + ShapeToString(a) + " is too large");
    }
    g.batch.clear();
    g.a_batch.clear();
    g.b_batch.clear();
  }
  return g;
}

template <typename T>
void MatMulAdd(const MatMulGeometry& g, const T* a, const T* b, T* y) {
  if (g.m == 0 || g.n == 0 || g.k == 0) return;
  for (Odometer at(g.batch, {g.a_batch, g.b_batch}); !at.done(); at.Next()) {
    GemmAdd(g.m, g.n, g.k, a + at.offset(0) * g.m * g.k, g.k, b + at.offset(1) * g.k * g.n, g.n, y,
            g.n);
    y += g.m * g.n;
  }
}
template void MatMulAdd(const MatMulGeometry&, const float*, const float*, float*);
template void MatMulAdd(const MatMulGeometry&, const double*, const double*, double*);
template void MatMulAdd(const MatMulGeometry&, const int64_t*, const int64_t*, int64_t*);
template void MatMulAdd(const MatMulGeometry&, const uint64_t*, const uint64_t*, uint64_t*);

namespace {

Status MatMul(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& a = ctx.Input(0);
  const Tensor& b = ctx.Input(1);
  PLEXUS_RETURN_IF_ERROR(CheckSameDType("the second factor", a, b));
  PLEXUS_ASSIGN_OR_RETURN(const MatMulGeometry g, MakeMatMulGeometry(a.shape(), b.shape()));
  return VisitCompute(ComputeType(a.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto as, Elements<T>::Load(a));
    PLEXUS_ASSIGN_OR_RETURN(auto bs, Elements<T>::Load(b));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(a.dtype(), g.output, true));
    MatMulAdd(g, as.data(), bs.data(), y.data());
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// alpha · a' · b' + beta · c, where ' transposes on request and c broadcasts to [M, N].
Status Gemm(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& a = ctx.Input(0);
  const Tensor& b = ctx.Input(1);
  const Tensor& c = ctx.Input(2);
  PLEXUS_RETURN_IF_ERROR(CheckRank("A", a, 2));
  PLEXUS_RETURN_IF_ERROR(CheckRank("B", b, 2));
  PLEXUS_RETURN_IF_ERROR(CheckSameDType("B", a, b));
  const bool trans_a = ctx.node.IntAttr("transA", 0) != 0;
  const bool trans_b = ctx.node.IntAttr("transB", 0) != 0;
  const int64_t m = a.shape()[trans_a ? 1 : 0], k = a.shape()[trans_a ? 0 : 1];
  const int64_t n = b.shape()[trans_b ? 0 : 1];
  if (k != b.shape()[trans_b ? 1 : 0]) {
    return InvalidArgumentError("A " + ShapeToString(a.shape()) + " and B " +
                                ShapeToString(b.shape()) + " do not multiply");
  }
  std::vector<int64_t> c_strides = {0, 0};
  if (c.defined()) {
    PLEXUS_RETURN_IF_ERROR(CheckSameDType("C", a, c));
    PLEXUS_ASSIGN_OR_RETURN(const Shape joined, BroadcastShapes(c.shape(), {m, n}));
    if (joined != Shape{m, n}) {
      return InvalidArgumentError("C " + ShapeToString(c.shape()) + " does not broadcast to " +
                                  ShapeToString({m, n}));
    }
    c_strides = BroadcastStrides(c.shape(), {m, n});
  }
  const float alpha = ctx.node.FloatAttr("alpha", 1.0f);
  const float beta = ctx.node.FloatAttr("beta", 1.0f);
  return VisitCompute(ComputeType(a.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto as, Elements<T>::Load(a));
    PLEXUS_ASSIGN_OR_RETURN(auto bs, Elements<T>::Load(b));
    PLEXUS_ASSIGN_OR_RETURN(auto cs, Elements<T>::Load(c));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(a.dtype(), {m, n}, true));
    if (y.size() > 0 && k > 0) {
      std::vector<T> at(trans_a ? as.size() : 0), bt(trans_b ? bs.size() : 0);
      if (trans_a) TransposeInto(as.data(), k, m, at.data());
      if (trans_b) TransposeInto(bs.data(), n, k, bt.data());
      GemmAdd(m, n, k, trans_a ? at.data() : as.data(), k, trans_b ? bt.data() : bs.data(), n,
              y.data(), n);
    }
    auto scaled = [](T value, float by) {
      return by == 1.0f ? value : static_cast<T>(static_cast<T>(value) * by);
    };
    for (int64_t i = 0; i < m && n > 0; ++i) {
      T* row = y.data() + i * n;
      for (int64_t j = 0; j < n; ++j) {
        row[j] = scaled(row[j], alpha);
        if (c.defined()) row[j] += scaled(cs[i * c_strides[0] + j * c_strides[1]], beta);
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// Determinant of `m` [n, n] by elimination with row pivots; overwrites it.
double Determinant(double* m, int64_t n) {
  double det = 1;
  for (int64_t c = 0; c < n; ++c) {
    int64_t pivot = c;
    for (int64_t r = c + 1; r < n; ++r) {
      if (std::abs(m[r * n + c]) > std::abs(m[pivot * n + c])) pivot = r;
    }
    if (m[pivot * n + c] == 0) return 0;
    if (pivot != c) {
      for (int64_t j = c; j < n; ++j) std::swap(m[pivot * n + j], m[c * n + j]);
      det = -det;
    }
    det *= m[c * n + c];
    for (int64_t r = c + 1; r < n; ++r) {
      const double factor = m[r * n + c] / m[c * n + c];
      for (int64_t j = c + 1; j < n; ++j) m[r * n + j] -= factor * m[c * n + j];
    }
  }
  return det;
}

Status Det(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const int64_t rank = x.rank();
  if (rank < 2 || x.shape()[rank - 1] != x.shape()[rank - 2]) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) +
                                " does not hold square matrices");
  }
  const int64_t n = x.shape().back();
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<double>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(
      auto y, Output<double>::Make(x.dtype(), Shape(x.shape().begin(), x.shape().end() - 2)));
  for (size_t i = 0; i < y.size(); ++i) {
    std::vector<double> m(xs.begin() + i * n * n, xs.begin() + (i + 1) * n * n);
    y[i] = Determinant(m.data(), n);
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

constexpr OpEntry kOps[] = {
    {"", "Det", 11, kLatest, Det},
    {"", "Gemm", 1, kLatest, Gemm},
    {"", "MatMul", 1, kLatest, MatMul},
};

}  // namespace

std::span<const OpEntry> LinearOps() { return kOps; }

}  // namespace plexus::reference
