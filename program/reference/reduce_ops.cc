// Operators that work along axes: Reduce*, ArgMax and ArgMin, cumulative sums, the softmax family.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

// --- Reduce*
// ---------------------------------------------------------------------------------------

template <typename T>
using Accumulator = std::conditional_t<std::is_floating_point_v<T>, double, uint64_t>;

struct SumFn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    Accumulator<T> sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<Accumulator<T>>(x[i]);
    return static_cast<T>(sum);
  }
};
struct SumSquareFn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    Accumulator<T> sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      sum += static_cast<Accumulator<T>>(x[i]) * static_cast<Accumulator<T>>(x[i]);
    }
    return static_cast<T>(sum);
  }
};
struct ProdFn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    Accumulator<T> product = 1;
    for (int64_t i = 0; i < n; ++i) product *= static_cast<Accumulator<T>>(x[i]);
    return static_cast<T>(product);
  }
};
struct L1Fn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    Accumulator<T> sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      const Accumulator<T> value = static_cast<Accumulator<T>>(x[i]);
      sum += x[i] < T(0) ? 0 - value : value;
    }
    return static_cast<T>(sum);
  }
};
struct MaxFn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    T best = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity()
                                                  : std::numeric_limits<T>::lowest();
    for (int64_t i = 0; i < n; ++i) best = x[i] != x[i] || x[i] > best ? x[i] : best;
    return best;
  }
};
struct MinFn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    T best = std::numeric_limits<T>::has_infinity ? std::numeric_limits<T>::infinity()
                                                  : std::numeric_limits<T>::max();
    for (int64_t i = 0; i < n; ++i) best = x[i] != x[i] || x[i] < best ? x[i] : best;
    return best;
  }
};
struct MeanFn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
    return static_cast<T>(sum / static_cast<double>(n));
  }
};
struct L2Fn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    return static_cast<T>(std::sqrt(sum));
  }
};
struct LogSumFn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
    return static_cast<T>(std::log(sum));
  }
};
struct LogSumExpFn {
  template <typename T>
  T operator()(const T* x, int64_t n) const {
    double top = -std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < n; ++i) top = std::max(top, static_cast<double>(x[i]));
    if (std::isinf(top)) return static_cast<T>(top);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]) - top);
    return static_cast<T>(top + std::log(sum));
  }
};

// x with `axes` moved to the end, so that each result element reads one contiguous run.
Result<Tensor> AxesLast(const Tensor& x, const std::vector<int64_t>& axes) {
  std::vector<int64_t> perm;
  for (int64_t i = 0; i < x.rank(); ++i) {
    if (!std::binary_search(axes.begin(), axes.end(), i)) perm.push_back(i);
  }
  perm.insert(perm.end(), axes.begin(), axes.end());
  if (std::is_sorted(perm.begin(), perm.end())) return x;
  return TransposeTensor(x, perm);
}

template <typename F>
Status ReduceOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> axes, IntsInputOrAttr(ctx, 1, "axes"));
  if (axes.empty()) {
    if (ctx.node.IntAttr("noop_with_empty_axes", 0) == 0) {
      axes.resize(x.rank());
      std::iota(axes.begin(), axes.end(), 0);
    }
  }
  PLEXUS_ASSIGN_OR_RETURN(axes, NormalizeAxes(axes, x.rank()));
  const bool keep = ctx.node.IntAttr("keepdims", 1) != 0;
  Shape shape;
  int64_t run = 1;
  for (int64_t i = 0; i < x.rank(); ++i) {
    const bool reduced = std::binary_search(axes.begin(), axes.end(), i);
    if (reduced) run *= x.shape()[i];
    if (!reduced || keep) shape.push_back(reduced ? 1 : x.shape()[i]);
  }
  const DType compute = ComputeType(x.dtype());
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(compute, shape));
  PLEXUS_RETURN_IF_ERROR(VisitCompute(compute, [&]<typename T>(T) -> Status {
    PLEXUS_ASSIGN_OR_RETURN(Tensor moved, AxesLast(x, axes));
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(moved, compute));
    const T* in = wide.data<T>().data();
    for (int64_t i = 0; i < y.num_elements(); ++i) y.mutable_data<T>()[i] = F()(in + i * run, run);
    return OkStatus();
  }));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(y, x.dtype()));
  return OkStatus();
}

// --- ArgMax, ArgMin
// ----------------------------------------------------------------------------------

// Position of the first (or last) largest element; NaN counts as largest and smallest.
template <bool kMax, typename T>
int64_t BestIndex(const T* x, int64_t n, int64_t step, bool last) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    const T a = x[i * step], b = x[best * step];
    if (b != b) break;
    if ((kMax ? a > b : a < b) || a != a || (last && a == b)) best = i;
  }
  return best;
}

template <bool kMax>
Status ArgOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(ctx.node.IntAttr("axis", 0), x.rank()));
  const bool last = ctx.node.IntAttr("select_last_index", 0) != 0;
  const int64_t extent = x.shape()[axis];
  Shape shape = x.shape();
  shape[axis] = 1;
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kInt64, shape));
  if (extent == 0 && y.num_elements() > 0) return InvalidArgumentError("the axis is empty");
  const int64_t inner = Product(std::span(shape).subspan(axis + 1));
  const DType compute = ComputeType(x.dtype());
  PLEXUS_RETURN_IF_ERROR(VisitCompute(compute, [&]<typename T>(T) -> Status {
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(x, compute));
    const T* in = wide.data<T>().data();
    for (int64_t i = 0; i < y.num_elements(); ++i) {
      const T* column = in + i / inner * extent * inner + i % inner;
      y.mutable_data<int64_t>()[i] = BestIndex<kMax>(column, extent, inner, last);
    }
    return OkStatus();
  }));
  if (ctx.node.IntAttr("keepdims", 1) == 0) shape.erase(shape.begin() + axis);
  ctx.outputs[0] = y.Reshaped(shape);
  return OkStatus();
}

// --- CumSum, CumProd
// -----------------------------------------------------------------------------------

template <bool kSum>
Status CumulativeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> axes, IntsInput(ctx, 1));
  if (axes.size() != 1) return InvalidArgumentError("axis must be one number");
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(axes[0], x.rank()));
  const bool exclusive = ctx.node.IntAttr("exclusive", 0) != 0;
  const bool reverse = ctx.node.IntAttr("reverse", 0) != 0;
  const int64_t extent = x.shape()[axis];
  const DType compute = ComputeType(x.dtype());
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(compute, x.shape()));
  const int64_t inner = Product(std::span(x.shape()).subspan(axis + 1));
  const int64_t columns = extent == 0 ? 0 : x.num_elements() / extent;
  PLEXUS_RETURN_IF_ERROR(VisitCompute(compute, [&]<typename T>(T) -> Status {
    using W = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(x, compute));
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t base = c / inner * extent * inner + c % inner;
      W total = kSum ? 0 : 1;
      for (int64_t k = 0; k < extent; ++k) {
        const int64_t at = base + (reverse ? extent - 1 - k : k) * inner;
        const W before = total;
        const W value = static_cast<W>(wide.data<T>()[at]);
        total = kSum ? total + value : total * value;
        y.mutable_data<T>()[at] = static_cast<T>(exclusive ? before : total);
      }
    }
    return OkStatus();
  }));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(y, x.dtype()));
  return OkStatus();
}

// --- Softmax, LogSoftmax, Hardmax
// --------------------------------------------------------------------

// A row of n elements, `step` apart.
struct SoftmaxFn {
  template <typename T>
  void operator()(const T* x, T* y, int64_t n, int64_t step) const {
    T top = x[0];
    for (int64_t i = 1; i < n; ++i) top = std::max(top, x[i * step]);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += y[i * step] = std::exp(x[i * step] - top);
    for (int64_t i = 0; i < n; ++i) y[i * step] = static_cast<T>(y[i * step] / sum);
  }
};
struct LogSoftmaxFn {
  template <typename T>
  void operator()(const T* x, T* y, int64_t n, int64_t step) const {
    T top = x[0];
    for (int64_t i = 1; i < n; ++i) top = std::max(top, x[i * step]);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i * step] - top));
    const double log_sum = std::log(sum);
    for (int64_t i = 0; i < n; ++i) y[i * step] = static_cast<T>(x[i * step] - top - log_sum);
  }
};
struct HardmaxFn {
  template <typename T>
  void operator()(const T* x, T* y, int64_t n, int64_t step) const {
    const int64_t best = BestIndex<true>(x, n, step, false);
    for (int64_t i = 0; i < n; ++i) y[i * step] = i == best ? T(1) : T(0);
  }
};

// From opset 13 a row is the axis itself; before, everything from the axis on.
template <typename F, bool kFlatten>
Status SoftmaxOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const int64_t rank = x.rank();
  PLEXUS_ASSIGN_OR_RETURN(
      const int64_t axis,
      NormalizeAxis(ctx.node.IntAttr("axis", kFlatten ? std::min<int64_t>(1, rank - 1) : -1),
                    rank));
  const DType compute = ComputeType(x.dtype());
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(compute, x.shape()));
  const std::span<const int64_t> dims(x.shape());
  const int64_t extent = kFlatten ? Product(dims.subspan(axis)) : dims[axis];
  const int64_t inner = kFlatten ? 1 : Product(dims.subspan(axis + 1));
  const int64_t rows = x.num_elements() == 0 ? 0 : x.num_elements() / extent;
  PLEXUS_RETURN_IF_ERROR(VisitFloat(compute, [&]<typename T>(T) -> Status {
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(x, compute));
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t base = row / inner * extent * inner + row % inner;
      F()(wide.data<T>().data() + base, y.mutable_data<T>().data() + base, extent, inner);
    }
    return OkStatus();
  }));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(y, x.dtype()));
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "ArgMax", 1, kLatest, ArgOp<true>},
    {"", "ArgMin", 1, kLatest, ArgOp<false>},
    {"", "CumProd", 26, kLatest, CumulativeOp<false>},
    {"", "CumSum", 11, kLatest, CumulativeOp<true>},
    {"", "Hardmax", 1, 13, SoftmaxOp<HardmaxFn, true>},
    {"", "Hardmax", 13, kLatest, SoftmaxOp<HardmaxFn, false>},
    {"", "LogSoftmax", 1, 13, SoftmaxOp<LogSoftmaxFn, true>},
    {"", "LogSoftmax", 13, kLatest, SoftmaxOp<LogSoftmaxFn, false>},
    {"", "ReduceL1", 1, kLatest, ReduceOp<L1Fn>},
    {"", "ReduceL2", 1, kLatest, ReduceOp<L2Fn>},
    {"", "ReduceLogSum", 1, kLatest, ReduceOp<LogSumFn>},
    {"", "ReduceLogSumExp", 1, kLatest, ReduceOp<LogSumExpFn>},
    {"", "ReduceMax", 1, kLatest, ReduceOp<MaxFn>},
    {"", "ReduceMean", 1, kLatest, ReduceOp<MeanFn>},
    {"", "ReduceMin", 1, kLatest, ReduceOp<MinFn>},
    {"", "ReduceProd", 1, kLatest, ReduceOp<ProdFn>},
    {"", "ReduceSum", 1, kLatest, ReduceOp<SumFn>},
    {"", "ReduceSumSquare", 1, kLatest, ReduceOp<SumSquareFn>},
    {"", "Softmax", 1, 13, SoftmaxOp<SoftmaxFn, true>},
    {"", "Softmax", 13, kLatest, SoftmaxOp<SoftmaxFn, false>},
};

}  // namespace

std::span<const OpEntry> ReduceOps() { return kOps; }

}  // namespace plexus::reference
