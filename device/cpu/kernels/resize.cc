#include "device/cpu/kernels/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "device/cpu/kernels/row_kernels.h"

namespace plexus::cpu {

namespace {

// Where one output coordinate reads: (1 - weight) · first + weight · second.
struct Tap {
  int64_t first = 0, second = 0;
  float weight = 0;
};

struct Settings {
  std::string mode, transform, nearest;
};

// The input coordinate of output coordinate `o`; the standard's formulas.
float Source(const Settings& s, int64_t in, float scale, int64_t o) {
  const float x = static_cast<float>(o), width = scale * static_cast<float>(in);
  if (s.transform == "asymmetric") return x / scale;
  if (s.transform == "align_corners") {
    return width == 1 ? 0 : x * static_cast<float>(in - 1) / (width - 1);
  }
  if (s.transform == "pytorch_half_pixel" && width == 1) return -0.5f;
  return (x + 0.5f) / scale - 0.5f;
}

std::vector<Tap> TapsOf(const Settings& s, int64_t in, int64_t out, float scale) {
  std::vector<Tap> taps(static_cast<size_t>(out));
  for (int64_t o = 0; o < out; ++o) {
    Tap& tap = taps[static_cast<size_t>(o)];
    const float x = Source(s, in, scale, o);
    auto inside = [in](float v) {
      return static_cast<int64_t>(std::clamp(v, 0.0f, static_cast<float>(in - 1)));
    };
    if (s.mode == "nearest") {
      const float rounded = s.nearest == "floor"                ? std::floor(x)
                            : s.nearest == "ceil"               ? std::ceil(x)
                            : s.nearest == "round_prefer_floor" ? std::ceil(x - 0.5f)
                                                                : std::floor(x + 0.5f);
      tap.first = tap.second = inside(rounded);
    } else {
      const float low = std::floor(x);
      tap.first = inside(low);
      tap.second = inside(low + 1);
      tap.weight = x - low;
    }
  }
  return taps;
}

Result<std::vector<float>> Floats(const LoweringContext& context, ValueId v) {
  if (!context.IsConstant(v)) return UnimplementedError("sizes are not constant");
  PLEXUS_ASSIGN_OR_RETURN(Tensor contents, context.Contents(v));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<double> values, ToDoubleVector(contents));
  return std::vector<float>(values.begin(), values.end());
}

struct Job {
  std::vector<Tap> rows, columns;
  int64_t in_height = 1, in_width = 1, out_height = 1, out_width = 1;
  int64_t channels = 1;  // floats to a pixel: 1 if row-major
  bool linear = false;
};

// One output row of one image (or plane).
void RunRow(const Job& job, const float* x, float* y, int64_t oy) {
  const Tap& v = job.rows[static_cast<size_t>(oy)];
  const int64_t c = job.channels;
  const float* top = x + v.first * job.in_width * c;
  const float* bottom = x + v.second * job.in_width * c;
  if (!job.linear) {
    for (const Tap& h : job.columns) {
      const float* from = top + h.first * c;
      if (c == 1) {
        *y = *from;
      } else {
        std::memcpy(y, from, static_cast<size_t>(c) * sizeof(float));
      }
      y += c;
    }
    return;
  }
  const auto blend = BestRowKernels().blend;
  for (const Tap& h : job.columns) {
    const float weight[4] = {(1 - v.weight) * (1 - h.weight), (1 - v.weight) * h.weight,
                             v.weight * (1 - h.weight), v.weight * h.weight};
    const float* from[4] = {top + h.first * c, top + h.second * c, bottom + h.first * c,
                            bottom + h.second * c};
    if (c == 1) {
      *y = (from[0][0] * weight[0] + from[1][0] * weight[1]) +
           (from[2][0] * weight[2] + from[3][0] * weight[3]);
    } else {
      blend(from, weight, y, c);
    }
    y += c;
  }
}

}  // namespace

Status LowerResize(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& in = context.shape(x);
  const Shape& out = context.shape(y);
  if (context.dtype(x) != DType::kFloat32 || in.size() < 3 || in.size() > 4 ||
      out.size() != in.size() || in[0] != out[0] || in[1] != out[1]) {
    return UnimplementedError("not float32 images");
  }
  const bool old = node.version < 11;
  Settings s;
  s.mode = node.StringAttr("mode", "nearest");
  s.transform =
      old ? "asymmetric" : node.StringAttr("coordinate_transformation_mode", "half_pixel");
  s.nearest = old ? "floor" : node.StringAttr("nearest_mode", "round_prefer_floor");
  if (s.mode != "nearest" && s.mode != "linear") return UnimplementedError("mode");
  if (s.transform != "asymmetric" && s.transform != "align_corners" &&
      s.transform != "half_pixel" && s.transform != "pytorch_half_pixel") {
    return UnimplementedError("coordinate transformation");
  }
  if (node.IntAttr("antialias", 0) != 0 || node.HasAttr("axes") ||
      node.StringAttr("keep_aspect_ratio_policy", "stretch") != "stretch") {
    return UnimplementedError("antialias, axes or aspect ratio");
  }
  const ValueId scales = context.In(node, old ? 1 : 2), sizes = context.In(node, 3);
  std::vector<float> scale;
  if (!old && sizes.valid() && context.num_elements(sizes) > 0) {
    for (size_t i = 0; i < in.size(); ++i) {
      scale.push_back(static_cast<float>(out[i]) / static_cast<float>(in[i]));
    }
  } else if (scales.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(scale, Floats(context, scales));
  }
  if (scale.size() != in.size()) return UnimplementedError("scales are left out");
  const Layout layout = context.PreferredLayout(node);
  Job job;
  job.linear = s.mode == "linear";
  job.in_width = in.back();
  job.out_width = out.back();
  job.columns = TapsOf(s, job.in_width, job.out_width, scale.back());
  job.rows = {Tap()};
  if (in.size() == 4) {
    job.in_height = in[2];
    job.out_height = out[2];
    job.rows = TapsOf(s, job.in_height, job.out_height, scale[2]);
  }
  const int64_t planes = layout == Layout::kChannelsLast ? in[0] : in[0] * in[1];
  job.channels = layout == Layout::kChannelsLast ? in[1] : 1;
  const int64_t rows = planes * job.out_height;
  KernelSpec kernel;
  kernel.name = context.KernelName("resize " + s.mode, node);
  kernel.flops = job.linear ? 7.0 * static_cast<double>(context.num_elements(y)) : 0;
  kernel.bytes = 4.0 * static_cast<double>(context.num_elements(x) + context.num_elements(y));
  kernel.grid = context.GridFor(kernel.flops * 4, kernel.bytes, rows);
  PLEXUS_ASSIGN_OR_RETURN(Operand source, context.Read(x, layout));
  PLEXUS_ASSIGN_OR_RETURN(Operand target, context.Write(y, layout));
  kernel.reads = {source};
  kernel.writes = {target};
  kernel.run = [job = std::move(job), rows, grid = int64_t{kernel.grid}](
                   uint32_t first, uint32_t count, const BlockArgs& args) {
    for (int64_t r = rows * first / grid; r < rows * (int64_t{first} + count) / grid; ++r) {
      RunRow(job,
             args.In<float>(0) + r / job.out_height * job.in_height * job.in_width * job.channels,
             args.Out<float>(0) + r * job.out_width * job.channels, r % job.out_height);
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace plexus::cpu
