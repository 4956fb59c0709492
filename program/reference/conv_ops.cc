// Conv, ConvTranspose, ConvInteger, DeformConv, Col2Im: by unfolding into a matrix product.
#include <algorithm>
#include <cmath>

#include "program/reference/conv.h"
#include "program/reference/element_io.h"
#include "program/reference/gemm.h"

namespace plexus::reference {

Shape ConvGeometry::OutputShape() const {
  Shape shape = {batch, out_channels};
  shape.insert(shape.end(), window.out.begin(), window.out.end());
  return shape;
}

Result<ConvGeometry> MakeConvGeometry(const Node& node, const Shape& x, const Shape& w) {
  if (x.size() < 3 || w.size() != x.size()) {
    return InvalidArgumentError("input " + ShapeToString(x) + " and weight " + ShapeToString(w) +
                                " must have one rank of at least 3");
  }
  ConvGeometry g;
  g.batch = x[0];
  g.in_channels = x[1];
  g.out_channels = w[0];
  g.groups = node.IntAttr("group", 1);
  PLEXUS_RETURN_IF_ERROR(CheckRange("group", g.groups, 1, int64_t{1} << 31));
  if (g.in_channels % g.groups != 0 || g.out_channels % g.groups != 0 ||
      w[1] != g.in_channels / g.groups) {
    return InvalidArgumentError("input " + ShapeToString(x) + ", weight " + ShapeToString(w) +
                                " and group " + std::to_string(g.groups) +
                                " contradict each other");
  }
  PLEXUS_ASSIGN_OR_RETURN(
      g.window, MakeWindow(node, Shape(x.begin() + 2, x.end()), Shape(w.begin() + 2, w.end())));
  return g;
}

namespace {

// Columns per step: keeps the unfolded matrix within the second-level cache.
int64_t ColumnsPerStep(int64_t depth, int64_t columns) {
  const int64_t wanted = std::max<int64_t>(64, (int64_t{1} << 16) / std::max<int64_t>(1, depth));
  return std::min(columns, (wanted + 31) / 32 * 32);
}

bool IsPointwise(const Window& w) {
  for (size_t d = 0; d < w.rank(); ++d) {
    if (w.kernel[d] != 1 || w.stride[d] != 1 || w.pad_begin[d] != 0 || w.pad_end[d] != 0) {
      return false;
    }
  }
  return true;
}

// Adds bias[m] to every element of channel m.
template <typename T>
void AddBias(const Elements<T>& bias, int64_t batch, int64_t channels, int64_t inner, T* y) {
  if (bias.empty()) return;
  for (int64_t i = 0; i < batch * channels; ++i) {
    const T b = bias[i % channels];
    for (int64_t j = 0; j < inner; ++j) y[i * inner + j] += b;
  }
}

}  // namespace

template <typename T>
void ConvolveAdd(const ConvGeometry& g, const T* x, const T* w, T* y) {
  const int64_t channels = g.in_channels / g.groups;
  const int64_t filters = g.out_channels / g.groups;
  const int64_t depth = channels * g.window.KernelSize();
  const int64_t in_size = g.window.InSize();
  const int64_t out_size = g.window.OutSize();
  if (g.batch == 0 || filters == 0 || depth == 0 || in_size == 0 || out_size == 0) return;
  const bool pointwise = IsPointwise(g.window);
  const int64_t step = ColumnsPerStep(depth, out_size);
  std::vector<T> columns(pointwise ? 0 : depth * step);
  for (int64_t i = 0; i < g.batch * g.groups; ++i) {
    const int64_t group = i % g.groups;
    const T* x_group = x + i * channels * in_size;
    const T* w_group = w + group * filters * depth;
    T* y_group = y + i * filters * out_size;
    if (pointwise) {
      GemmAdd(filters, out_size, depth, w_group, depth, x_group, out_size, y_group, out_size);
      continue;
    }
    for (int64_t from = 0; from < out_size; from += step) {
      const int64_t to = std::min(out_size, from + step);
      Unfold(g.window, x_group, channels, from, to, columns.data());
      GemmAdd(filters, to - from, depth, w_group, depth, columns.data(), to - from, y_group + from,
              out_size);
    }
  }
}
template void ConvolveAdd(const ConvGeometry&, const float*, const float*, float*);
template void ConvolveAdd(const ConvGeometry&, const double*, const double*, double*);

namespace {

Status Conv(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& w = ctx.Input(1);
  PLEXUS_RETURN_IF_ERROR(CheckSameDType("the weight", x, w));
  PLEXUS_ASSIGN_OR_RETURN(const ConvGeometry g, MakeConvGeometry(ctx.node, x.shape(), w.shape()));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("the bias", ctx.Input(2), {g.out_channels}));
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto ws, Elements<T>::Load(w));
    PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<T>::Load(ctx.Input(2)));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), g.OutputShape(), true));
    if (y.size() > 0) {
      AddBias(bias, g.batch, g.out_channels, g.window.OutSize(), y.data());
      ConvolveAdd(g, xs.data(), ws.data(), y.data());
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// x: 8-bit [N, C, ...], w: 8-bit [M, C/group, ...]; the zero points are scalars, w's also [M].
Status ConvInteger(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& w = ctx.Input(1);
  PLEXUS_ASSIGN_OR_RETURN(const ConvGeometry g, MakeConvGeometry(ctx.node, x.shape(), w.shape()));
  PLEXUS_ASSIGN_OR_RETURN(auto x_zero, Elements<double>::Load(ctx.Input(2)));
  PLEXUS_ASSIGN_OR_RETURN(auto w_zero, Elements<double>::Load(ctx.Input(3)));
  if (x_zero.size() > 1) return InvalidArgumentError("x_zero_point must be a scalar");
  if (w_zero.size() > 1 && w_zero.size() != static_cast<size_t>(g.out_channels)) {
    return InvalidArgumentError("w_zero_point must be a scalar or have one value per filter");
  }
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<double>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto ws, Elements<double>::Load(w));
  std::vector<double> x_shifted(xs.begin(), xs.end());
  std::vector<double> w_shifted(ws.begin(), ws.end());
  if (!x_zero.empty()) {
    for (double& v : x_shifted) v -= x_zero[0];
  }
  const size_t per_filter = g.out_channels == 0 ? 1 : w_shifted.size() / g.out_channels;
  for (size_t i = 0; i < w_shifted.size() && !w_zero.empty(); ++i) {
    w_shifted[i] -= w_zero[w_zero.size() == 1 ? 0 : i / per_filter];
  }
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(DType::kInt32, g.OutputShape(), true));
  if (y.size() > 0) ConvolveAdd(g, x_shifted.data(), w_shifted.data(), y.data());
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

template <typename T>
Status ConvTransposeAs(OpContext& ctx, const Window& w, int64_t groups) {
  const Tensor& x = ctx.Input(0);
  const int64_t batch = x.shape()[0];
  const int64_t channels = x.shape()[1] / groups;
  const int64_t filters = ctx.Input(1).shape()[1];
  Shape shape = {batch, filters * groups};
  shape.insert(shape.end(), w.out.begin(), w.out.end());
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto ws, Elements<T>::Load(ctx.Input(1)));
  PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<T>::Load(ctx.Input(2)));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), shape, true));
  const int64_t depth = filters * w.KernelSize();  // rows of the unfolded output
  const int64_t in_size = w.InSize();
  const int64_t out_size = w.OutSize();
  if (y.size() > 0) {
    AddBias(bias, batch, filters * groups, out_size, y.data());
    Window fold = w;  // as a convolution from the output back to the input
    std::swap(fold.in, fold.out);
    std::vector<T> w_transposed(ws.size());
    const int64_t step = ColumnsPerStep(depth, in_size);
    std::vector<T> columns(depth * step);
    for (int64_t g = 0; g < groups && channels > 0; ++g) {
      TransposeInto(ws.data() + g * channels * depth, channels, depth,
                    w_transposed.data() + g * channels * depth);
    }
    for (int64_t i = 0; i < batch * groups && channels > 0; ++i) {
      const T* w_group = w_transposed.data() + (i % groups) * channels * depth;
      for (int64_t from = 0; from < in_size; from += step) {
        const int64_t to = std::min(in_size, from + step);
        std::fill(columns.begin(), columns.end(), T{0});
        GemmAdd(depth, to - from, channels, w_group, channels,
                xs.data() + i * channels * in_size + from, in_size, columns.data(), to - from);
        FoldAdd(fold, columns.data(), filters, from, to, y.data() + i * filters * out_size);
      }
    }
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// x: [N, C, ...], w: [C, M/group, k...].
Status ConvTranspose(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& w = ctx.Input(1);
  PLEXUS_RETURN_IF_ERROR(CheckSameDType("the weight", x, w));
  const int64_t groups = ctx.node.IntAttr("group", 1);
  PLEXUS_RETURN_IF_ERROR(CheckRange("group", groups, 1, int64_t{1} << 31));
  if (x.rank() < 3 || w.rank() != x.rank() || w.shape()[0] != x.shape()[1] ||
      x.shape()[1] % groups != 0) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + ", weight " +
                                ShapeToString(w.shape()) + " and group " + std::to_string(groups) +
                                " contradict each other");
  }
  PLEXUS_RETURN_IF_ERROR(NumElements({w.shape()[1], groups}).status());
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("the bias", ctx.Input(2), {w.shape()[1] * groups}));
  PLEXUS_ASSIGN_OR_RETURN(
      const Window window,
      MakeTransposedWindow(ctx.node, Shape(x.shape().begin() + 2, x.shape().end()),
                           Shape(w.shape().begin() + 2, w.shape().end())));
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) {
    return ConvTransposeAs<decltype(zero)>(ctx, window, groups);
  });
}

// input: [N, C·prod(block), L] columns; image_shape and block_shape: int64[r].
Status Col2Im(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& x = ctx.Input(0);
  PLEXUS_RETURN_IF_ERROR(CheckRank("input", x, 3));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> image, IntsInput(ctx, 1));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> block, IntsInput(ctx, 2));
  PLEXUS_ASSIGN_OR_RETURN(const Window w, MakeWindow(ctx.node, image, block));
  const int64_t batch = x.shape()[0];
  const int64_t kernel = w.KernelSize();
  const int64_t columns = w.OutSize();
  if (x.shape()[1] % kernel != 0 || x.shape()[2] != columns) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " does not hold blocks " +
                                ShapeToString(block) + " at " + std::to_string(columns) +
                                " positions of an image " + ShapeToString(image));
  }
  const int64_t channels = x.shape()[1] / kernel;
  Shape shape = {batch, channels};
  shape.insert(shape.end(), image.begin(), image.end());
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), shape, true));
    if (y.size() > 0 && xs.size() > 0) {
      for (int64_t n = 0; n < batch; ++n) {
        FoldAdd(w, xs.data() + n * x.shape()[1] * columns, channels, 0, columns,
                y.data() + n * channels * w.InSize());
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// One value of plane [height, width] between its pixels, zero outside.
template <typename T>
T SampleZeroPadded(const T* plane, int64_t height, int64_t width, T y, T x) {
  if (!(y > -1 && y < static_cast<T>(height) && x > -1 && x < static_cast<T>(width))) return 0;
  const int64_t y0 = static_cast<int64_t>(std::floor(y));
  const int64_t x0 = static_cast<int64_t>(std::floor(x));
  const T fy = y - static_cast<T>(y0);
  const T fx = x - static_cast<T>(x0);
  auto at = [&](int64_t r, int64_t c) {
    return r < 0 || r >= height || c < 0 || c >= width ? T{0} : plane[r * width + c];
  };
  return (1 - fy) * ((1 - fx) * at(y0, x0) + fx * at(y0, x0 + 1)) +
         fy * ((1 - fx) * at(y0 + 1, x0) + fx * at(y0 + 1, x0 + 1));
}

template <typename T>
Status DeformConvAs(OpContext& ctx, const ConvGeometry& g, int64_t offset_groups) {
  PLEXUS_ASSIGN_OR_RETURN(auto x, Elements<T>::Load(ctx.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(auto weight, Elements<T>::Load(ctx.Input(1)));
  PLEXUS_ASSIGN_OR_RETURN(auto offset, Elements<T>::Load(ctx.Input(2)));
  PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<T>::Load(ctx.Input(3)));
  PLEXUS_ASSIGN_OR_RETURN(auto mask, Elements<T>::Load(ctx.Input(4)));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(ctx.Input(0).dtype(), g.OutputShape(), true));
  const Window& w = g.window;
  const int64_t height = w.in[0], width = w.in[1], out = w.OutSize(), taps = w.KernelSize();
  const int64_t channels = g.in_channels / g.groups, filters = g.out_channels / g.groups;
  const int64_t per_offset = g.in_channels / offset_groups;
  if (y.size() > 0) AddBias(bias, g.batch, g.out_channels, out, y.data());
  std::vector<T> columns(y.size() == 0 ? 0 : channels * taps * out);
  for (int64_t i = 0; i < g.batch * g.groups && !columns.empty(); ++i) {
    const int64_t n = i / g.groups, group = i % g.groups;
    T* column = columns.data();
    for (int64_t c = group * channels; c < (group + 1) * channels; ++c) {
      const T* plane = x.data() + (n * g.in_channels + c) * height * width;
      for (int64_t k = 0; k < taps; ++k) {
        const int64_t tap = (n * offset_groups + c / per_offset) * taps + k;
        for (int64_t p = 0; p < out; ++p) {
          const int64_t base_y = w.Start(0, p / w.out[1]) + k / w.kernel[1] * w.dilation[0];
          const int64_t base_x = w.Start(1, p % w.out[1]) + k % w.kernel[1] * w.dilation[1];
          const T at_y = static_cast<T>(base_y) + offset[2 * tap * out + p];
          const T at_x = static_cast<T>(base_x) + offset[(2 * tap + 1) * out + p];
          const T value = SampleZeroPadded(plane, height, width, at_y, at_x);
          *column++ = mask.empty() ? value : value * mask[tap * out + p];
        }
      }
    }
    GemmAdd(filters, out, channels * taps, weight.data() + group * filters * channels * taps,
            channels * taps, columns.data(), out, y.data() + i * filters * out, out);
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// x: [N, C, H, W], w: [M, C/group, kH, kW], offset: [N, offset_group·kH·kW·2, oH, oW],
// mask: [N, offset_group·kH·kW, oH, oW].
Status DeformConv(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& x = ctx.Input(0);
  if (x.rank() != 4) {
    return UnimplementedError("DeformConv is available for 2-D images only, the input is " +
                              ShapeToString(x.shape()));
  }
  PLEXUS_ASSIGN_OR_RETURN(const ConvGeometry g,
                          MakeConvGeometry(ctx.node, x.shape(), ctx.Input(1).shape()));
  const int64_t groups = ctx.node.IntAttr("offset_group", 1);
  PLEXUS_RETURN_IF_ERROR(
      CheckRange("offset_group", groups, 1, std::max<int64_t>(1, g.in_channels)));
  if (g.in_channels % groups != 0) {
    return InvalidArgumentError("offset_group does not divide the channels");
  }
  const int64_t taps = groups * g.window.KernelSize();
  const int64_t rows = g.window.out[0], cols = g.window.out[1];
  PLEXUS_RETURN_IF_ERROR(CheckShape("offset", ctx.Input(2), {g.batch, 2 * taps, rows, cols}));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("the bias", ctx.Input(3), {g.out_channels}));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("mask", ctx.Input(4), {g.batch, taps, rows, cols}));
  return VisitFloat(ComputeType(x.dtype()),
                    [&](auto zero) { return DeformConvAs<decltype(zero)>(ctx, g, groups); });
}

constexpr OpEntry kOps[] = {
    {"", "Conv", 1, kLatest, Conv},
    {"", "ConvInteger", 10, kLatest, ConvInteger},
    {"", "ConvTranspose", 1, kLatest, ConvTranspose},
    {"", "Col2Im", 18, kLatest, Col2Im},
    {"", "DeformConv", 19, kLatest, DeformConv},
};

}  // namespace

std::span<const OpEntry> ConvOps() { return kOps; }

}  // namespace plexus::reference
