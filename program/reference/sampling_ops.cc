// GridSample and AffineGrid, for any number of spatial dimensions.
#include <algorithm>
#include <cmath>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

enum class Mode { kNearest, kLinear, kCubic };
enum class Padding { kZeros, kBorder, kReflection };

// The pixels one coordinate of one dimension reads.
struct Taps {
  int count = 0;
  int64_t index[4];  // -1: outside, reads zero
  double weight[4];
};

// Mirrors `x` at the borders until it lies within [low, high].
double Reflect(double x, double low, double high) {
  const double range = high - low;
  if (!(range > 0)) return low;
  const double past = x < low ? low - x : x - high;
  if (!(past > 0)) return x;
  const double turns = std::floor(past / range);
  const double rest = past - turns * range;
  const bool even = std::fmod(turns, 2) == 0;
  if (x < low) return even ? low + rest : high - rest;
  return even ? high - rest : low + rest;
}

double CubicWeight(double x) {
  constexpr double kA = -0.75;
  x = std::abs(x);
  if (x <= 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
  return x < 2 ? ((kA * x - 5 * kA) * x + 8 * kA) * x - 4 * kA : 0;
}

// Taps of the normalised coordinate `n` in a dimension of `size` pixels.
Taps MakeTaps(double n, int64_t size, Mode mode, Padding padding, bool align_corners) {
  const double d = static_cast<double>(size);
  double x = align_corners ? (n + 1) / 2 * (d - 1) : ((n + 1) * d - 1) / 2;
  if (mode == Mode::kNearest) x = std::nearbyint(x);
  const double low = align_corners ? 0.0 : -0.5;
  const double high = align_corners ? d - 1 : d - 0.5;
  if (padding == Padding::kBorder) x = std::clamp(x, 0.0, d - 1);
  if (padding == Padding::kReflection && (x < low || x > high)) x = Reflect(x, low, high);
  // Far outside reads nothing but zeros (or was brought back above); NaN counts as outside.
  x = std::isnan(x) ? -8 : std::clamp(x, -8.0, d + 8);
  const int64_t base = static_cast<int64_t>(std::floor(x));
  const double ratio = x - static_cast<double>(base);
  Taps taps;
  int64_t first = base;
  if (mode == Mode::kNearest) {
    taps.count = 1;
    taps.weight[0] = 1;
  } else if (mode == Mode::kLinear) {
    taps.count = 2;
    taps.weight[0] = 1 - ratio;
    taps.weight[1] = ratio;
  } else {
    taps.count = 4;
    first = base - 1;
    for (int k = 0; k < 4; ++k) taps.weight[k] = CubicWeight(ratio + 1 - k);
  }
  for (int k = 0; k < taps.count; ++k) {
    int64_t i = first + k;
    if (padding == Padding::kBorder) i = std::clamp<int64_t>(i, 0, size - 1);
    if (padding == Padding::kReflection) {
      i = static_cast<int64_t>(Reflect(static_cast<double>(i), low, high));
    }
    taps.index[k] = i < 0 || i >= size ? -1 : i;
  }
  return taps;
}

// The flat pixel offsets and weights of one output position, zeros left out.
struct Sample {
  std::vector<int64_t> offset;
  std::vector<double> weight;

  void Combine(const std::vector<Taps>& taps, const Shape& spatial) {
    offset.assign(1, 0);
    weight.assign(1, 1.0);
    for (size_t d = 0; d < spatial.size(); ++d) {
      std::vector<int64_t> next_offset;
      std::vector<double> next_weight;
      for (size_t i = 0; i < offset.size(); ++i) {
        for (int k = 0; k < taps[d].count; ++k) {
          if (taps[d].index[k] < 0) continue;
          next_offset.push_back(offset[i] * spatial[d] + taps[d].index[k]);
          next_weight.push_back(weight[i] * taps[d].weight[k]);
        }
      }
      offset.swap(next_offset);
      weight.swap(next_weight);
    }
  }
};

// x: [N, C, d1, ..., dr], grid: [N, o1, ..., or, r] with the last dimension's coordinate first.
Status GridSample(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& grid = ctx.Input(1);
  const int64_t spatial_rank = x.rank() - 2;
  if (spatial_rank < 1 || grid.rank() != x.rank() || grid.shape()[0] != x.shape()[0] ||
      grid.shape().back() != spatial_rank) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " and grid " +
                                ShapeToString(grid.shape()) + " contradict each other");
  }
  const std::string mode_name = ctx.node.StringAttr("mode", "linear");
  const std::string padding_name = ctx.node.StringAttr("padding_mode", "zeros");
  Mode mode = Mode::kLinear;
  Padding padding = Padding::kZeros;
  if (mode_name == "nearest") {
    mode = Mode::kNearest;
  } else if (mode_name == "cubic" || mode_name == "bicubic") {
    mode = Mode::kCubic;
  } else if (mode_name != "linear" && mode_name != "bilinear") {
    return InvalidArgumentError("mode \"" + mode_name + "\" is unknown");
  }
  if (padding_name == "border") {
    padding = Padding::kBorder;
  } else if (padding_name == "reflection") {
    padding = Padding::kReflection;
  } else if (padding_name != "zeros") {
    return InvalidArgumentError("padding_mode \"" + padding_name + "\" is unknown");
  }
  const bool align_corners = ctx.node.IntAttr("align_corners", 0) != 0;
  const Shape spatial(x.shape().begin() + 2, x.shape().end());
  Shape out_shape = {x.shape()[0], x.shape()[1]};
  out_shape.insert(out_shape.end(), grid.shape().begin() + 1, grid.shape().end() - 1);
  const int64_t batch = x.shape()[0], channels = x.shape()[1];
  const int64_t in_size = NumElementsUnchecked(spatial);
  const int64_t out_size = DimsProduct(out_shape, 2, out_shape.size());
  if (in_size == 0) return InvalidArgumentError("the input has an empty spatial dimension");
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto coordinates, Elements<T>::Load(grid));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), out_shape));
    std::vector<Taps> taps(spatial_rank);
    Sample sample;
    for (int64_t i = 0; y.size() > 0 && i < batch * out_size; ++i) {
      for (int64_t d = 0; d < spatial_rank; ++d) {
        const double n = coordinates[i * spatial_rank + spatial_rank - 1 - d];
        taps[d] = MakeTaps(n, spatial[d], mode, padding, align_corners);
      }
      sample.Combine(taps, spatial);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t plane = i / out_size * channels + c;
        double sum = 0;
        for (size_t k = 0; k < sample.offset.size(); ++k) {
          sum += sample.weight[k] * xs[plane * in_size + sample.offset[k]];
        }
        y[plane * out_size + i % out_size] = static_cast<T>(sum);
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

// theta: [N, r, r+1], size: (N, C, d1, ..., dr) → [N, d1, ..., dr, r].
Status AffineGrid(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& theta = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> size, IntsInput(ctx, 1));
  if (size.size() != 4 && size.size() != 5) {
    return InvalidArgumentError("size must have 4 or 5 values");
  }
  for (int64_t v : size) PLEXUS_RETURN_IF_ERROR(CheckRange("size", v, 0, int64_t{1} << 31));
  const int64_t r = static_cast<int64_t>(size.size()) - 2;
  PLEXUS_RETURN_IF_ERROR(CheckShape("theta", theta, {size[0], r, r + 1}));
  const bool align_corners = ctx.node.IntAttr("align_corners", 0) != 0;
  const Shape spatial(size.begin() + 2, size.end());
  Shape shape = {size[0]};
  shape.insert(shape.end(), spatial.begin(), spatial.end());
  shape.push_back(r);
  auto at = [&](int64_t i, int64_t d) {
    const double n = static_cast<double>(spatial[d]);
    if (!align_corners) return -1 + (2 * static_cast<double>(i) + 1) / n;
    return spatial[d] == 1 ? 0.0 : -1 + 2 * static_cast<double>(i) / (n - 1);
  };
  return VisitFloat(ComputeType(theta.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto t, Elements<T>::Load(theta));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(theta.dtype(), shape));
    size_t o = 0;
    for (int64_t n = 0; n < size[0] && y.size() > 0; ++n) {
      for (Odometer walk(spatial, {}); !walk.done(); walk.Next()) {
        for (int64_t row = 0; row < r; ++row) {
          const T* m = t.data() + (n * r + row) * (r + 1);
          double sum = m[r];
          for (int64_t k = 0; k < r; ++k) sum += m[k] * at(walk.index()[r - 1 - k], r - 1 - k);
          y[o++] = static_cast<T>(sum);
        }
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

constexpr OpEntry kOps[] = {
    {"", "AffineGrid", 20, kLatest, AffineGrid},
    {"", "GridSample", 16, kLatest, GridSample},
};

}  // namespace

std::span<const OpEntry> SamplingOps() { return kOps; }

}  // namespace plexus::reference
