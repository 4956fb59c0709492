// MaxPool, AveragePool, LpPool, their global forms, MaxUnpool, MaxRoiPool.
#include <algorithm>
#include <cmath>
#include <limits>

#include "program/reference/element_io.h"
#include "program/reference/window.h"

namespace plexus::reference {
namespace {

// x: [N, C, d1, ...] and the window over it.
struct Pool {
  Window window;
  Shape output_shape;
  int64_t planes = 0;  // N·C
};

Result<Pool> MakePool(const OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Shape& x = ctx.Input(0).shape();
  if (x.size() < 3) {
    return InvalidArgumentError("input " + ShapeToString(x) + " must have rank 3 or more");
  }
  Pool pool;
  PLEXUS_ASSIGN_OR_RETURN(pool.window, MakeWindow(ctx.node, Shape(x.begin() + 2, x.end()),
                                                  ctx.node.IntsAttr("kernel_shape")));
  pool.output_shape = {x[0], x[1]};
  pool.output_shape.insert(pool.output_shape.end(), pool.window.out.begin(), pool.window.out.end());
  PLEXUS_ASSIGN_OR_RETURN(pool.planes, NumElements({x[0], x[1]}));
  return pool;
}

// The part of one output's window that lies inside the input.
class Inside {
 public:
  explicit Inside(const Window& w) : w_(w), begin_(w.rank()), count_(w.rank()), at_(w.rank()) {}

  void Place(const std::vector<int64_t>& o) {
    empty_ = false;
    for (size_t d = 0; d < w_.rank(); ++d) {
      const int64_t start = w_.Start(d, o[d]);
      const int64_t step = w_.dilation[d];
      const int64_t first = start >= 0 ? 0 : (-start + step - 1) / step;
      const int64_t end =
          start >= w_.in[d] ? 0 : std::min(w_.kernel[d], (w_.in[d] - start + step - 1) / step);
      begin_[d] = start + first * step;
      count_[d] = end - first;
      if (end <= first) empty_ = true;
    }
  }

  // Calls f(offset) for every input offset, row-major.
  template <typename F>
  void ForEach(F&& f) {
    if (empty_) return;
    const size_t last = w_.rank() - 1;
    std::fill(at_.begin(), at_.end(), 0);
    for (;;) {
      int64_t row = 0;
      for (size_t d = 0; d < last; ++d) {
        row = row * w_.in[d] + begin_[d] + at_[d] * w_.dilation[d];
      }
      int64_t offset = row * w_.in[last] + begin_[last];
      for (int64_t i = 0; i < count_[last]; ++i, offset += w_.dilation[last]) f(offset);
      size_t d = last;
      for (; d-- > 0;) {
        if (++at_[d] < count_[d]) break;
        at_[d] = 0;
      }
      if (d == static_cast<size_t>(-1)) return;
    }
  }

 private:
  const Window& w_;
  std::vector<int64_t> begin_, count_, at_;
  bool empty_ = false;
};

// Calls f(plane, output offset, inside) for every output element.
template <typename F>
void ForEachOutput(const Pool& pool, F&& f) {
  const int64_t out_size = pool.window.OutSize();
  if (out_size == 0 || pool.planes == 0) return;
  Inside inside(pool.window);
  std::vector<int64_t> o(pool.window.rank(), 0);
  for (int64_t p = 0; p < out_size; ++p) {
    inside.Place(o);
    for (int64_t plane = 0; plane < pool.planes; ++plane) f(plane, plane * out_size + p, inside, o);
    NextIndex(pool.window.out, &o);
  }
}

// Row-major offset to the column-major one (first spatial dimension fastest).
int64_t ColumnMajor(const std::vector<int64_t>& shape, int64_t offset) {
  int64_t result = 0;
  for (size_t d = shape.size(); d-- > 0;) {
    int64_t stride = 1;
    for (size_t i = 0; i < d; ++i) stride *= shape[i];
    result += offset % shape[d] * stride;
    offset /= shape[d];
  }
  return result;
}

// Y, and Indices: int64, flat positions in the whole input.
Status MaxPool(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Pool pool, MakePool(ctx));
  const Tensor& x = ctx.Input(0);
  const bool column_major = ctx.node.IntAttr("storage_order", 0) != 0;
  const bool want_indices = ctx.num_outputs() > 1 && ctx.WantsOutput(1);
  Tensor indices;
  if (want_indices) {
    PLEXUS_ASSIGN_OR_RETURN(indices, NewTensor(DType::kInt64, pool.output_shape));
  }
  std::span<int64_t> index = want_indices ? indices.mutable_data<int64_t>() : std::span<int64_t>();
  const int64_t in_size = pool.window.InSize();
  PLEXUS_RETURN_IF_ERROR(VisitCompute(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), pool.output_shape));
    ForEachOutput(pool, [&](int64_t plane, int64_t at, Inside& inside, const auto&) {
      const T* in = xs.data() + plane * in_size;
      T best = std::numeric_limits<T>::lowest();
      int64_t where = -1;
      inside.ForEach([&](int64_t offset) {
        if (in[offset] > best || where < 0) {
          best = in[offset];
          where = offset;
        }
      });
      y[at] = best;
      if (!want_indices) return;
      if (column_major && where >= 0) where = ColumnMajor(pool.window.in, where);
      index[at] = where < 0 ? -1 : plane * in_size + where;
    });
    return std::move(y).FinishInto(&ctx.outputs[0]);
  }));
  if (want_indices) ctx.outputs[1] = std::move(indices);
  return OkStatus();
}

// How many window positions lie within the input and its padding.
int64_t CountWithPadding(const Window& w, const std::vector<int64_t>& o) {
  int64_t count = 1;
  for (size_t d = 0; d < w.rank(); ++d) {
    const int64_t room = w.in[d] + w.pad_end[d] - w.Start(d, o[d]);
    count *= std::min(w.kernel[d], (room + w.dilation[d] - 1) / w.dilation[d]);
  }
  return count;
}

Status AveragePool(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Pool pool, MakePool(ctx));
  const Tensor& x = ctx.Input(0);
  const bool include_pad = ctx.node.IntAttr("count_include_pad", 0) != 0;
  const int64_t in_size = pool.window.InSize();
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), pool.output_shape));
    ForEachOutput(pool, [&](int64_t plane, int64_t at, Inside& inside, const auto& o) {
      const T* in = xs.data() + plane * in_size;
      T sum = 0;
      int64_t count = 0;
      inside.ForEach([&](int64_t offset) {
        sum += in[offset];
        ++count;
      });
      if (include_pad) count = CountWithPadding(pool.window, o);
      y[at] = count == 0 ? T{0} : sum / static_cast<T>(count);
    });
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// The exponent: an integer attribute, a float in version 1.
Result<double> ReadP(const Node& node) {
  const auto it = node.attributes.find("p");
  double p = 2;
  if (it != node.attributes.end()) {
    if (const float* f = std::get_if<float>(&it->second)) p = *f;
    if (const int64_t* i = std::get_if<int64_t>(&it->second)) p = static_cast<double>(*i);
  }
  if (!(p > 0)) return InvalidArgumentError("p must be greater than 0");
  return p;
}

template <typename T>
T Power(T value, double p) {
  value = std::abs(value);
  if (p == 1) return value;
  if (p == 2) return value * value;
  return static_cast<T>(std::pow(value, p));
}

template <typename T>
T Root(T value, double p) {
  if (p == 1) return value;
  if (p == 2) return std::sqrt(value);
  return static_cast<T>(std::pow(value, 1 / p));
}

Status LpPool(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Pool pool, MakePool(ctx));
  PLEXUS_ASSIGN_OR_RETURN(const double p, ReadP(ctx.node));
  const Tensor& x = ctx.Input(0);
  const int64_t in_size = pool.window.InSize();
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), pool.output_shape));
    ForEachOutput(pool, [&](int64_t plane, int64_t at, Inside& inside, const auto&) {
      const T* in = xs.data() + plane * in_size;
      T sum = 0;
      inside.ForEach([&](int64_t offset) { sum += Power(in[offset], p); });
      y[at] = Root(sum, p);
    });
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

enum class Global { kMax, kAverage, kLp };

template <Global kKind>
Status GlobalPool(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (x.rank() < 2) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " must have rank 2 or more");
  }
  double p = 2;
  if (kKind == Global::kLp) {
    PLEXUS_ASSIGN_OR_RETURN(p, ReadP(ctx.node));
  }
  Shape shape(x.rank(), 1);
  shape[0] = x.shape()[0];
  shape[1] = x.shape()[1];
  const int64_t inner = DimsProduct(x.shape(), 2, x.shape().size());
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), shape, true));
    if (xs.empty() && y.size() > 0) {
      return InvalidArgumentError("input " + ShapeToString(x.shape()) +
                                  " has nothing to pool over");
    }
    for (size_t i = 0; i < y.size(); ++i) {
      const T* in = xs.data() + i * inner;
      T value = kKind == Global::kMax ? in[0] : T{0};
      for (int64_t j = 0; j < inner; ++j) {
        if (kKind == Global::kMax) value = std::max(value, in[j]);
        if (kKind == Global::kAverage) value += in[j];
        if (kKind == Global::kLp) value += Power(in[j], p);
      }
      if (kKind == Global::kAverage) value /= static_cast<T>(inner);
      y[i] = kKind == Global::kLp ? Root(value, p) : value;
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// x, indices: [N, C, ...]; an index is a flat position in the output as the window makes it; an
// explicit output_shape only adds zeros at the ends.
Status MaxUnpool(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  PLEXUS_RETURN_IF_ERROR(CheckShape("indices", ctx.Input(1), x.shape()));
  if (x.rank() < 3) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " must have rank 3 or more");
  }
  PLEXUS_ASSIGN_OR_RETURN(
      const Window w, MakeTransposedWindow(ctx.node, Shape(x.shape().begin() + 2, x.shape().end()),
                                           ctx.node.IntsAttr("kernel_shape")));
  Shape inferred = {x.shape()[0], x.shape()[1]};
  inferred.insert(inferred.end(), w.out.begin(), w.out.end());
  PLEXUS_ASSIGN_OR_RETURN(const int64_t inferred_size, NumElements(inferred));
  Shape shape = inferred;
  if (ctx.HasInput(2)) {
    PLEXUS_ASSIGN_OR_RETURN(shape, IntsInput(ctx, 2));
  }
  bool fits = shape.size() == inferred.size();
  for (size_t d = 0; fits && d < shape.size(); ++d) fits = shape[d] >= inferred[d];
  if (!fits) {
    return InvalidArgumentError("output_shape " + ShapeToString(shape) +
                                " must be at least the unpooled " + ShapeToString(inferred));
  }
  PLEXUS_ASSIGN_OR_RETURN(auto indices, Elements<int64_t>::Load(ctx.Input(1)));
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), shape, true));
    for (size_t i = 0; i < xs.size(); ++i) {
      PLEXUS_RETURN_IF_ERROR(CheckRange("index", indices[i], 0, inferred_size - 1));
      int64_t rest = indices[i], offset = 0, stride = 1;
      for (size_t d = shape.size(); d-- > 0;) {
        offset += rest % inferred[d] * stride;
        rest /= inferred[d];
        stride *= shape[d];
      }
      y[offset] = xs[i];
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// x: [N, C, H, W], rois: [R, 5] of batch index, x1, y1, x2, y2 → [R, C, pooled_h, pooled_w].
Status MaxRoiPool(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& rois = ctx.Input(1);
  PLEXUS_RETURN_IF_ERROR(CheckRank("input", x, 4));
  PLEXUS_RETURN_IF_ERROR(CheckRank("rois", rois, 2));
  PLEXUS_RETURN_IF_ERROR(CheckShape("rois", rois, {rois.shape()[0], 5}));
  const std::vector<int64_t> pooled = ctx.node.IntsAttr("pooled_shape");
  if (pooled.size() != 2) return InvalidArgumentError("pooled_shape must have two values");
  for (int64_t v : pooled) {
    PLEXUS_RETURN_IF_ERROR(CheckRange("pooled_shape", v, 1, int64_t{1} << 31));
  }
  const double scale = ctx.node.FloatAttr("spatial_scale", 1.0f);
  const int64_t batch = x.shape()[0], channels = x.shape()[1];
  const int64_t height = x.shape()[2], width = x.shape()[3];
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto boxes, Elements<double>::Load(rois));
    PLEXUS_ASSIGN_OR_RETURN(
        auto y,
        Output<T>::Make(x.dtype(), {rois.shape()[0], channels, pooled[0], pooled[1]}, true));
    for (int64_t r = 0; r < rois.shape()[0] && y.size() > 0; ++r) {
      const double* box = boxes.data() + 5 * r;
      for (int i = 0; i < 5; ++i) {
        if (!(std::abs(box[i] * scale) < 1e9 && std::abs(box[i]) < 1e9)) {
          return InvalidArgumentError("roi " + std::to_string(r) + " is not finite");
        }
      }
      const int64_t n = static_cast<int64_t>(box[0]);
      PLEXUS_RETURN_IF_ERROR(CheckRange("roi batch index", n, 0, batch - 1));
      const int64_t x1 = std::llround(box[1] * scale), y1 = std::llround(box[2] * scale);
      const int64_t x2 = std::llround(box[3] * scale), y2 = std::llround(box[4] * scale);
      const double bin_h = static_cast<double>(std::max<int64_t>(y2 - y1 + 1, 1)) / pooled[0];
      const double bin_w = static_cast<double>(std::max<int64_t>(x2 - x1 + 1, 1)) / pooled[1];
      auto bound = [](double v, int64_t start, int64_t size) {
        return std::clamp<int64_t>(static_cast<int64_t>(v) + start, 0, size);
      };
      for (int64_t i = 0; i < pooled[0]; ++i) {
        const int64_t h0 = bound(std::floor(i * bin_h), y1, height);
        const int64_t h1 = bound(std::ceil((i + 1) * bin_h), y1, height);
        for (int64_t j = 0; j < pooled[1]; ++j) {
          const int64_t w0 = bound(std::floor(j * bin_w), x1, width);
          const int64_t w1 = bound(std::ceil((j + 1) * bin_w), x1, width);
          if (h1 <= h0 || w1 <= w0) continue;
          for (int64_t c = 0; c < channels; ++c) {
            const T* plane = xs.data() + (n * channels + c) * height * width;
            T best = plane[h0 * width + w0];
            for (int64_t h = h0; h < h1; ++h) {
              for (int64_t w = w0; w < w1; ++w) best = std::max(best, plane[h * width + w]);
            }
            y[((r * channels + c) * pooled[0] + i) * pooled[1] + j] = best;
          }
        }
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

constexpr OpEntry kOps[] = {
    {"", "AveragePool", 1, kLatest, AveragePool},
    {"", "GlobalAveragePool", 1, kLatest, GlobalPool<Global::kAverage>},
    {"", "GlobalLpPool", 1, kLatest, GlobalPool<Global::kLp>},
    {"", "GlobalMaxPool", 1, kLatest, GlobalPool<Global::kMax>},
    {"", "LpPool", 1, kLatest, LpPool},
    {"", "MaxPool", 1, kLatest, MaxPool},
    {"", "MaxRoiPool", 1, kLatest, MaxRoiPool},
    {"", "MaxUnpool", 9, kLatest, MaxUnpool},
};

}  // namespace

std::span<const OpEntry> PoolOps() { return kOps; }

}  // namespace plexus::reference
