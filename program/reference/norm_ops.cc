// Normalisations: batch, instance, layer, group, RMS, Lp, local response, mean-variance.
#include <algorithm>
#include <cmath>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

struct Moments {
  double mean = 0, variance = 0;
};

template <typename T>
Moments MomentsOf(const T* x, int64_t count) {
  Moments m;
  if (count == 0) return m;
  for (int64_t i = 0; i < count; ++i) m.mean += x[i];
  m.mean /= static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) m.variance += (x[i] - m.mean) * (x[i] - m.mean);
  m.variance /= static_cast<double>(count);
  return m;
}

// y = x · scale + shift over `count` elements.
template <typename T>
void ScaleShift(const T* x, int64_t count, double scale, double shift, T* y) {
  const T a = static_cast<T>(scale), b = static_cast<T>(shift);
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * a + b;
}

// [N, C, ...] as batch × channels × inner.
struct Planes {
  int64_t batch = 1, channels = 1, inner = 1;
};
Result<Planes> MakePlanes(const Tensor& x, int64_t lowest_rank) {
  if (x.rank() < lowest_rank) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " must have rank " +
                                std::to_string(lowest_rank) + " or more");
  }
  return Planes{x.shape()[0], x.shape()[1], DimsProduct(x.shape(), 2, x.shape().size())};
}

Status WriteMoments(const Tensor& like, const std::vector<double>& values, Tensor* out) {
  PLEXUS_ASSIGN_OR_RETURN(auto o, Output<double>::Make(like.dtype(), like.shape()));
  std::copy(values.begin(), values.end(), o.data());
  return std::move(o).FinishInto(out);
}

// x: [N, C, ...]; scale, bias, mean, var: [C]. In training mode (version 14 on) the batch's own
// moments normalise and the running ones come out as outputs 1 and 2.
template <typename T>
Status BatchNormAs(OpContext& ctx, const Planes& p, bool training) {
  PLEXUS_ASSIGN_OR_RETURN(auto x, Elements<T>::Load(ctx.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(auto scale, Elements<double>::Load(ctx.Input(1)));
  PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<double>::Load(ctx.Input(2)));
  PLEXUS_ASSIGN_OR_RETURN(auto mean_in, Elements<double>::Load(ctx.Input(3)));
  PLEXUS_ASSIGN_OR_RETURN(auto var_in, Elements<double>::Load(ctx.Input(4)));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(ctx.Input(0).dtype(), ctx.Input(0).shape()));
  const double epsilon = ctx.node.FloatAttr("epsilon", 1e-5f);
  const double momentum = ctx.node.FloatAttr("momentum", 0.9f);
  std::vector<double> running_mean(mean_in.begin(), mean_in.end());
  std::vector<double> running_var(var_in.begin(), var_in.end());
  for (int64_t c = 0; c < p.channels && y.size() > 0; ++c) {
    Moments m{mean_in[c], var_in[c]};
    if (training) {
      m = Moments();
      for (int64_t n = 0; n < p.batch; ++n) {
        const T* in = x.data() + (n * p.channels + c) * p.inner;
        for (int64_t i = 0; i < p.inner; ++i) m.mean += in[i];
      }
      m.mean /= static_cast<double>(p.batch * p.inner);
      for (int64_t n = 0; n < p.batch; ++n) {
        const T* in = x.data() + (n * p.channels + c) * p.inner;
        for (int64_t i = 0; i < p.inner; ++i) m.variance += (in[i] - m.mean) * (in[i] - m.mean);
      }
      m.variance /= static_cast<double>(p.batch * p.inner);
      running_mean[c] = running_mean[c] * momentum + m.mean * (1 - momentum);
      running_var[c] = running_var[c] * momentum + m.variance * (1 - momentum);
    }
    const double factor = scale[c] / std::sqrt(m.variance + epsilon);
    for (int64_t n = 0; n < p.batch; ++n) {
      const int64_t at = (n * p.channels + c) * p.inner;
      ScaleShift(x.data() + at, p.inner, factor, bias[c] - m.mean * factor, y.data() + at);
    }
  }
  if (training && ctx.WantsOutput(1)) {
    PLEXUS_RETURN_IF_ERROR(WriteMoments(ctx.Input(3), running_mean, &ctx.outputs[1]));
  }
  if (training && ctx.WantsOutput(2)) {
    PLEXUS_RETURN_IF_ERROR(WriteMoments(ctx.Input(4), running_var, &ctx.outputs[2]));
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

Status BatchNormalization(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 5));
  PLEXUS_ASSIGN_OR_RETURN(const Planes p, MakePlanes(ctx.Input(0), 2));
  if (ctx.node.IntAttr("spatial", 1) == 0) {
    return UnimplementedError("BatchNormalization with spatial = 0 is not supported");
  }
  const bool training = ctx.node.version >= 14 && ctx.node.IntAttr("training_mode", 0) != 0;
  for (size_t i = 1; i < ctx.num_outputs() && !training; ++i) {
    if (ctx.WantsOutput(i)) {
      return UnimplementedError(
          "BatchNormalization gives its moments in training mode of version 14 only");
    }
  }
  const char* const names[] = {"", "scale", "bias", "mean", "variance"};
  for (size_t i = 1; i < 5; ++i) {
    PLEXUS_RETURN_IF_ERROR(CheckShape(names[i], ctx.Input(i), {p.channels}));
  }
  return VisitFloat(ComputeType(ctx.Input(0).dtype()),
                    [&](auto zero) { return BatchNormAs<decltype(zero)>(ctx, p, training); });
}

// x: [N, C, ...]; scale, bias: [C].
Status InstanceNormalization(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const Planes p, MakePlanes(x, 3));
  PLEXUS_RETURN_IF_ERROR(CheckShape("scale", ctx.Input(1), {p.channels}));
  PLEXUS_RETURN_IF_ERROR(CheckShape("bias", ctx.Input(2), {p.channels}));
  const double epsilon = ctx.node.FloatAttr("epsilon", 1e-5f);
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto scale, Elements<double>::Load(ctx.Input(1)));
    PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<double>::Load(ctx.Input(2)));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), x.shape()));
    for (int64_t i = 0; i < p.batch * p.channels && y.size() > 0; ++i) {
      const Moments m = MomentsOf(xs.data() + i * p.inner, p.inner);
      const double factor = scale[i % p.channels] / std::sqrt(m.variance + epsilon);
      ScaleShift(xs.data() + i * p.inner, p.inner, factor, bias[i % p.channels] - m.mean * factor,
                 y.data() + i * p.inner);
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// x: [N, C, ...]; scale, bias: [num_groups] before version 21, [C] from it on.
Status GroupNormalization(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const Planes p, MakePlanes(x, 3));
  const int64_t groups = ctx.node.IntAttr("num_groups", 0);
  if (groups < 1 || p.channels % groups != 0) {
    return InvalidArgumentError("num_groups " + std::to_string(groups) + " does not divide " +
                                std::to_string(p.channels) + " channels");
  }
  const int64_t per_group = p.channels / groups;
  const bool by_group = ctx.node.version < 21;
  const Shape wanted = {by_group ? groups : p.channels};
  PLEXUS_RETURN_IF_ERROR(CheckShape("scale", ctx.Input(1), wanted));
  PLEXUS_RETURN_IF_ERROR(CheckShape("bias", ctx.Input(2), wanted));
  const double epsilon = ctx.node.FloatAttr("epsilon", 1e-5f);
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto scale, Elements<double>::Load(ctx.Input(1)));
    PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<double>::Load(ctx.Input(2)));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), x.shape()));
    for (int64_t i = 0; i < p.batch * groups && y.size() > 0; ++i) {
      const Moments m = MomentsOf(xs.data() + i * per_group * p.inner, per_group * p.inner);
      for (int64_t c = 0; c < per_group; ++c) {
        const int64_t group = i % groups;
        const int64_t which = by_group ? group : group * per_group + c;
        const double factor = scale[which] / std::sqrt(m.variance + epsilon);
        const int64_t at = (i * per_group + c) * p.inner;
        ScaleShift(xs.data() + at, p.inner, factor, bias[which] - m.mean * factor, y.data() + at);
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// scale or bias broadcast to the whole of x, expanded over one slice [axis...] where it does not
// vary over the leading dimensions (the only case in practice), else over all of x.
template <typename T>
Result<std::vector<T>> ExpandTo(std::string_view what, const Tensor& t, const Shape& x,
                                int64_t axis, bool* per_slice) {
  std::vector<T> values;
  if (!t.defined()) return values;
  PLEXUS_ASSIGN_OR_RETURN(const Shape joined, BroadcastShapes(t.shape(), x));
  if (joined != x) {
    return InvalidArgumentError(std::string(what) + " " + ShapeToString(t.shape()) +
                                " does not broadcast to " + ShapeToString(x));
  }
  const std::vector<int64_t> strides = BroadcastStrides(t.shape(), x);
  *per_slice =
      std::all_of(strides.begin(), strides.begin() + axis, [](int64_t s) { return s == 0; });
  PLEXUS_ASSIGN_OR_RETURN(auto elements, Elements<T>::Load(t));
  const size_t from = *per_slice ? axis : 0;
  for (Odometer at(Shape(x.begin() + from, x.end()),
                   {std::vector<int64_t>(strides.begin() + from, strides.end())});
       !at.done(); at.Next()) {
    values.push_back(elements[at.offset(0)]);
  }
  return values;
}

// LayerNormalization (kCentre) and RMSNormalization: over all axes from `axis` on.
template <bool kCentre, typename T>
Status NormalizeFrom(OpContext& ctx, int64_t axis) {
  const Tensor& x = ctx.Input(0);
  bool scale_slice = true, bias_slice = true;
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), x.shape()));
  Shape outer_shape = x.shape();
  std::fill(outer_shape.begin() + axis, outer_shape.end(), 1);
  const DType stash = ctx.node.IntAttr("stash_type", 1) == 1 ? DType::kFloat32 : x.dtype();
  PLEXUS_ASSIGN_OR_RETURN(auto means, Output<double>::Make(stash, outer_shape, true));
  PLEXUS_ASSIGN_OR_RETURN(auto inverses, Output<double>::Make(stash, outer_shape, true));
  PLEXUS_ASSIGN_OR_RETURN(const auto scale,
                          ExpandTo<T>("scale", ctx.Input(1), x.shape(), axis, &scale_slice));
  PLEXUS_ASSIGN_OR_RETURN(const auto bias, ExpandTo<T>("bias", kCentre ? ctx.Input(2) : Tensor(),
                                                       x.shape(), axis, &bias_slice));
  const double epsilon = ctx.node.FloatAttr("epsilon", 1e-5f);
  const int64_t inner = DimsProduct(x.shape(), axis, x.shape().size());
  for (size_t o = 0; o < means.size() && !xs.empty(); ++o) {
    const T* in = xs.data() + o * inner;
    T* out = y.data() + o * inner;
    Moments m;
    if (kCentre) {
      m = MomentsOf(in, inner);
    } else {
      for (int64_t i = 0; i < inner; ++i) m.variance += static_cast<double>(in[i]) * in[i];
      m.variance /= static_cast<double>(inner);
    }
    const double inverse = 1 / std::sqrt(m.variance + epsilon);
    means[o] = m.mean;
    inverses[o] = inverse;
    ScaleShift(in, inner, inverse, -m.mean * inverse, out);
    const T* s = scale.data() + (scale_slice ? 0 : o * inner);
    for (int64_t i = 0; i < inner; ++i) out[i] *= s[i];
    if (bias.empty()) continue;
    const T* b = bias.data() + (bias_slice ? 0 : o * inner);
    for (int64_t i = 0; i < inner; ++i) out[i] += b[i];
  }
  if (ctx.WantsOutput(1)) PLEXUS_RETURN_IF_ERROR(std::move(means).FinishInto(&ctx.outputs[1]));
  if (ctx.WantsOutput(2)) PLEXUS_RETURN_IF_ERROR(std::move(inverses).FinishInto(&ctx.outputs[2]));
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

template <bool kCentre>
Status LayerNormalization(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(ctx.node.IntAttr("axis", -1), x.rank()));
  return VisitFloat(ComputeType(x.dtype()),
                    [&](auto zero) { return NormalizeFrom<kCentre, decltype(zero)>(ctx, axis); });
}

Status LpNormalization(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const int64_t p = ctx.node.IntAttr("p", 2);
  PLEXUS_RETURN_IF_ERROR(CheckRange("p", p, 1, 2));
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(ctx.node.IntAttr("axis", -1), x.rank()));
  const int64_t count = x.shape()[axis];
  const int64_t inner = DimsProduct(x.shape(), axis + 1, x.shape().size());
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), x.shape()));
    const int64_t slices = xs.empty() ? 0 : static_cast<int64_t>(xs.size()) / count;
    for (int64_t i = 0; i < slices; ++i) {
      const int64_t base = i / inner * count * inner + i % inner;
      double norm = 0;
      for (int64_t j = 0; j < count; ++j) {
        const double v = xs[base + j * inner];
        norm += p == 1 ? std::abs(v) : v * v;
      }
      if (p == 2) norm = std::sqrt(norm);
      for (int64_t j = 0; j < count; ++j) {
        const int64_t at = base + j * inner;
        y[at] = norm == 0 ? T{0} : static_cast<T>(xs[at] / norm);
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// y = x / (bias + alpha / size · Σ x²)^beta, the sum over `size` neighbouring channels.
Status Lrn(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const Planes p, MakePlanes(x, 2));
  const int64_t size = ctx.node.IntAttr("size", 0);
  PLEXUS_RETURN_IF_ERROR(CheckRange("size", size, 1, int64_t{1} << 31));
  const double alpha = ctx.node.FloatAttr("alpha", 1e-4f);
  const double beta = ctx.node.FloatAttr("beta", 0.75f);
  const double bias = ctx.node.FloatAttr("bias", 1.0f);
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), x.shape()));
    for (int64_t i = 0; i < p.batch * p.channels && y.size() > 0; ++i) {
      const int64_t c = i % p.channels;
      const int64_t first = std::max<int64_t>(0, c - (size - 1) / 2);
      const int64_t last = std::min(p.channels - 1, c + size / 2);
      for (int64_t j = 0; j < p.inner; ++j) {
        double sum = 0;
        for (int64_t k = first; k <= last; ++k) {
          const double v = xs[(i - c + k) * p.inner + j];
          sum += v * v;
        }
        const int64_t at = i * p.inner + j;
        y[at] = static_cast<T>(xs[at] / std::pow(bias + alpha / size * sum, beta));
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

Status MeanVarianceNormalization(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  std::vector<int64_t> axes = ctx.node.IntsAttr("axes");
  if (axes.empty()) axes = {0, 2, 3};
  PLEXUS_ASSIGN_OR_RETURN(axes, NormalizeAxes(axes, x.rank()));
  Shape outer = x.shape();  // what stays, and what is averaged over
  Shape inner(x.rank(), 1);
  for (int64_t axis : axes) {
    inner[axis] = x.shape()[axis];
    outer[axis] = 1;
  }
  const std::vector<int64_t> strides = RowMajorStrides(x.shape());
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), x.shape()));
    std::vector<T> slice;
    for (Odometer at(outer, {strides}); !at.done() && !xs.empty(); at.Next()) {
      slice.clear();
      for (Odometer in(inner, {strides}); !in.done(); in.Next()) {
        slice.push_back(xs[at.offset(0) + in.offset(0)]);
      }
      const Moments m = MomentsOf(slice.data(), static_cast<int64_t>(slice.size()));
      const double inverse = 1 / (std::sqrt(m.variance) + 1e-9);
      for (Odometer in(inner, {strides}); !in.done(); in.Next()) {
        const int64_t i = at.offset(0) + in.offset(0);
        y[i] = static_cast<T>((xs[i] - m.mean) * inverse);
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

constexpr OpEntry kOps[] = {
    {"", "BatchNormalization", 1, kLatest, BatchNormalization},
    {"", "GroupNormalization", 18, kLatest, GroupNormalization},
    {"", "InstanceNormalization", 1, kLatest, InstanceNormalization},
    {"", "LRN", 1, kLatest, Lrn},
    {"", "LayerNormalization", 17, kLatest, LayerNormalization<true>},
    {"", "LpNormalization", 1, kLatest, LpNormalization},
    {"", "MeanVarianceNormalization", 9, kLatest, MeanVarianceNormalization},
    {"", "RMSNormalization", 23, kLatest, LayerNormalization<false>},
};

}  // namespace

std::span<const OpEntry> NormOps() { return kOps; }

}  // namespace plexus::reference
