// MaxPool, AveragePool and the global pools, channels-last float32.
#include <algorithm>
#include <array>

#include "device/cpu/conv_geometry.h"
#include "device/cpu/cpu_features.h"
#include "device/cpu/pool_kernels.h"
#include "device/cpu/quantized_kernels.h"

namespace plexus::cpu {

namespace baseline {
extern const PoolKernels kPool;
}
namespace avx2 {
extern const PoolKernels kPool;
}
namespace avx512 {
extern const PoolKernels kPool;
}

const PoolKernels& BestPool() {
  switch (BestIsa()) {
    case Isa::kAvx512:
      return avx512::kPool;
    case Isa::kAvx2:
      return avx2::kPool;
    case Isa::kBaseline:
      break;
  }
  return baseline::kPool;
}

namespace {

constexpr int64_t kMaxTaps = 1024;

struct PoolJob {
  WindowGeometry g;
  bool average = false;
  bool include_pad = false;  // divide by the whole window, padding (as far as declared) included
  int64_t declared_bottom = 0, declared_right = 0;
  DType dtype = DType::kFloat32;          // or (u)int8, maximum only
  int64_t in_stride = 0, out_stride = 0;  // elements from one pixel to the next
};

// How many positions of a window count: inside the input, or inside input plus declared padding.
int64_t CountPositions(int64_t start, int64_t kernel, int64_t dilation, int64_t low, int64_t high) {
  int64_t count = 0;
  for (int64_t k = 0; k < kernel; ++k) {
    const int64_t at = start + k * dilation;
    if (at >= low && at < high) ++count;
  }
  return count;
}

void PoolRow(const PoolJob& job, int64_t image, int64_t row, const std::byte* x_bytes,
             std::byte* y_bytes) {
  const WindowGeometry& g = job.g;
  const int64_t channels = g.in_channels;
  const int64_t size = static_cast<int64_t>(DTypeSizeBytes(job.dtype));
  const int64_t in_stride = job.in_stride, out_stride = job.out_stride;
  x_bytes += image * g.in_height * g.in_width * in_stride * size;
  y_bytes += (image * g.out_height + row) * g.out_width * out_stride * size;
  const float* x = reinterpret_cast<const float*>(x_bytes);
  const PoolKernels& kernels = BestPool();
  int64_t taps[kMaxTaps];
  const int64_t top = row * g.stride_height - g.pad_top;
  for (int64_t column = 0; column < g.out_width; ++column) {
    const int64_t left = column * g.stride_width - g.pad_left;
    int64_t count = 0;
    for (int64_t ky = 0; ky < g.kernel_height; ++ky) {
      const int64_t iy = top + ky * g.dilation_height;
      if (iy < 0 || iy >= g.in_height) continue;
      for (int64_t kx = 0; kx < g.kernel_width; ++kx) {
        const int64_t ix = left + kx * g.dilation_width;
        if (ix >= 0 && ix < g.in_width) taps[count++] = iy * g.in_width + ix;
      }
    }
    float* out = reinterpret_cast<float*>(y_bytes) + column * out_stride;
    if (size == 1) {
      std::byte* bytes = y_bytes + column * out_stride;
      if (count == 0) {
        std::fill(bytes, bytes + channels, std::byte(job.dtype == DType::kInt8 ? 0x80 : 0));
      } else {
        BestQuantized().max(x_bytes, taps, count, channels, job.dtype == DType::kInt8, bytes);
      }
    } else if (count == 0) {
      std::fill(out, out + channels, job.average ? 0.0f : -3.4028235e38f);
    } else if (job.average) {
      int64_t divisor = count;
      if (job.include_pad) {
        divisor = CountPositions(top, g.kernel_height, g.dilation_height, -g.pad_top,
                                 g.in_height + job.declared_bottom) *
                  CountPositions(left, g.kernel_width, g.dilation_width, -g.pad_left,
                                 g.in_width + job.declared_right);
      }
      kernels.sum(x, taps, count, in_stride, channels, 1.0f / static_cast<float>(divisor), out);
    } else {
      kernels.max(x, taps, count, in_stride, channels, out);
    }
  }
}

Status LowerWindowPool(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const bool average = node.op == "AveragePool";
  const DType dtype = context.dtype(x);
  const bool bytes = dtype == DType::kUint8 || dtype == DType::kInt8;
  if (dtype != DType::kFloat32 && (average || !bytes)) return UnimplementedError("not float32");
  if (context.Out(node, 1).valid()) return UnimplementedError("indices wanted");
  PoolJob job;
  PLEXUS_ASSIGN_OR_RETURN(job.g, GeometryOf(context, node, x, ValueId(), y));
  const WindowGeometry& g = job.g;
  if (g.kernel_height * g.kernel_width > kMaxTaps) return UnimplementedError("huge window");
  job.average = average;
  job.dtype = dtype;
  job.include_pad = node.IntAttr("count_include_pad", 0) != 0;
  const std::vector<int64_t> pads = node.IntsAttr("pads");
  if (pads.size() == 4) job.declared_bottom = pads[2];
  if (!pads.empty()) job.declared_right = pads.back();
  if (node.StringAttr("auto_pad", "NOTSET") != "NOTSET") {
    job.declared_bottom = g.pad_bottom;
    job.declared_right = g.pad_right;
  }
  KernelSpec kernel;
  kernel.name =
      context.KernelName((job.average ? "average pool " : "max pool ") +
                             std::to_string(g.kernel_height) + "x" + std::to_string(g.kernel_width),
                         node);
  const double outputs = static_cast<double>(context.num_elements(y));
  kernel.flops = outputs * g.kernel_height * g.kernel_width;
  kernel.bytes = DTypeSizeBytes(dtype) * (context.num_elements(x) + outputs);
  const int64_t rows = g.images * g.out_height;
  kernel.grid = context.GridFor(kernel.flops * 4, kernel.bytes, rows);
  job.in_stride = job.out_stride = g.in_channels;
  Operand in, out;
  if (bytes) {
    PLEXUS_ASSIGN_OR_RETURN(in, context.Read(x, Layout::kChannelsLast));
    PLEXUS_ASSIGN_OR_RETURN(out, context.Write(y, Layout::kChannelsLast));
  } else {
    PLEXUS_ASSIGN_OR_RETURN(in, context.ReadStrided(x));
    PLEXUS_ASSIGN_OR_RETURN(out, context.WriteStrided(y));
    if (in.pixel_stride) job.in_stride = in.pixel_stride;
    if (out.pixel_stride) job.out_stride = out.pixel_stride;
  }
  kernel.reads = {in};
  kernel.writes = {out};
  kernel.run = [job, rows, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                        const BlockArgs& args) {
    for (int64_t r = rows * first / grid; r < rows * (int64_t{first} + count) / grid; ++r) {
      PoolRow(job, r / job.g.out_height, r % job.g.out_height, args.In<std::byte>(0),
              args.Out<std::byte>(0));
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

Status LowerGlobalPool(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& shape = context.shape(x);
  if (context.dtype(x) != DType::kFloat32) return UnimplementedError("not float32");
  if (shape.size() < 3) return UnimplementedError("no spatial dimensions");
  const int64_t images = shape[0], channels = shape[1];
  const int64_t pixels = context.num_elements(x) / (images * channels);
  const bool average = node.op == "GlobalAveragePool";
  KernelSpec kernel;
  kernel.name = context.KernelName(average ? "global average pool" : "global max pool", node);
  kernel.flops = static_cast<double>(context.num_elements(x));
  kernel.bytes = 4.0 * context.num_elements(x);
  const int64_t chunk = 64;  // channels; a multiple of every vector
  const int64_t chunks = (channels + chunk - 1) / chunk;
  kernel.grid = context.GridFor(kernel.flops, kernel.bytes, images * chunks);
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, Layout::kChannelsLast));
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.Write(y, Layout::kChannelsLast));
  kernel.reads = {in};
  kernel.writes = {out};
  kernel.run = [=, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                const BlockArgs& args) {
    const int64_t units = images * chunks;
    const float scale = 1.0f / static_cast<float>(pixels);
    for (int64_t u = units * first / grid; u < units * (int64_t{first} + count) / grid; ++u) {
      const int64_t image = u / chunks, c = u % chunks * chunk;
      const float* from = args.In<float>(0) + image * pixels * channels + c;
      float* to = args.Out<float>(0) + image * channels + c;
      const int64_t width = std::min(chunk, channels - c);
      if (average) {
        BestPool().global_sum(from, pixels, channels, width, scale, to);
      } else {
        BestPool().global_max(from, pixels, channels, width, to);
      }
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

constexpr std::array kRules = {
    LoweringEntry{"", "MaxPool", LowerWindowPool},
    LoweringEntry{"", "AveragePool", LowerWindowPool},
    LoweringEntry{"", "GlobalAveragePool", LowerGlobalPool},
    LoweringEntry{"", "GlobalMaxPool", LowerGlobalPool},
};

}  // namespace

std::span<const LoweringEntry> PoolRules() { return kRules; }

}  // namespace plexus::cpu
