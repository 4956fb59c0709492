// Operators that move elements of any type: Transpose, Slice, Split, Concat, Expand, Tile, Pad,
// Gather, DepthToSpace, SpaceToDepth.
#include "device/cpu/kernels/moves.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "device/cpu/kernels/box_copy.h"

namespace plexus::cpu {

namespace {

Result<std::vector<int64_t>> Ints(const LoweringContext& context, const Node& node, size_t i) {
  const ValueId v = LoweringContext::In(node, i);
  if (!v.valid()) return std::vector<int64_t>();
  if (!context.IsConstant(v)) return UnimplementedError("sizes are not constant");
  PLEXUS_ASSIGN_OR_RETURN(Tensor contents, context.Contents(v));
  return ToInt64Vector(contents);
}

Result<int64_t> Axis(int64_t axis, size_t rank) {
  if (axis < 0) axis += static_cast<int64_t>(rank);
  if (axis < 0 || axis >= static_cast<int64_t>(rank)) return InvalidArgumentError("axis");
  return axis;
}

// `values` per logical axis, in memory order.
std::vector<int64_t> Ordered(const std::vector<int64_t>& values, Layout layout) {
  std::vector<int64_t> ordered;
  for (size_t axis : MemoryOrder(values.size(), layout)) ordered.push_back(values[axis]);
  return ordered;
}

Status LowerSlice(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& shape = context.shape(x);
  std::vector<int64_t> starts = node.IntsAttr("starts"), axes = node.IntsAttr("axes"), steps;
  if (node.inputs.size() > 1) {
    PLEXUS_ASSIGN_OR_RETURN(starts, Ints(context, node, 1));
    PLEXUS_ASSIGN_OR_RETURN(axes, Ints(context, node, 3));
    PLEXUS_ASSIGN_OR_RETURN(steps, Ints(context, node, 4));
  }
  if (axes.empty()) {
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (axes.size() != starts.size() || (!steps.empty() && steps.size() != starts.size())) {
    return InvalidArgumentError("starts, axes and steps differ in length");
  }
  const Layout layout = context.PreferredLayout(node);
  std::vector<int64_t> strides = DenseStrides(shape, layout);
  int64_t offset = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, Axis(axes[i], shape.size()));
    const int64_t step = steps.empty() ? 1 : steps[i];
    int64_t start = starts[i] < 0 ? starts[i] + shape[axis] : starts[i];
    start = std::clamp<int64_t>(start, 0, step > 0 ? shape[axis] : shape[axis] - 1);
    offset += start * strides[axis];
    strides[axis] *= step;
  }
  return AddBoxCopy(context, node, "slice", x, layout, y, layout,
                    LoweringContext::PhysicalShape(context.shape(y), layout),
                    Ordered(strides, layout), offset);
}

Status LowerSplit(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0);
  const Shape& shape = context.shape(x);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, Axis(node.IntAttr("axis", 0), shape.size()));
  const Layout layout = shape.size() >= 3 ? context.layout(x) : Layout::kRowMajor;
  const std::vector<int64_t> strides = DenseStrides(shape, layout);
  int64_t start = 0;
  for (ValueId y : node.outputs) {
    if (!y.valid()) return UnimplementedError("an output is left out");
  }
  for (ValueId y : node.outputs) {
    if (context.num_elements(y) == 0) {
      PLEXUS_RETURN_IF_ERROR(context.Write(y, Layout::kRowMajor).status());
      continue;
    }
    PLEXUS_RETURN_IF_ERROR(AddBoxCopy(context, node, "split", x, layout, y, layout,
                                      LoweringContext::PhysicalShape(context.shape(y), layout),
                                      Ordered(strides, layout), start * strides[axis]));
    start += context.shape(y)[axis];
  }
  return OkStatus();
}

Status LowerExpand(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& out = context.shape(y);
  if (context.shape(x).size() > out.size()) return UnimplementedError("rank");
  const Layout layout =
      context.shape(x).size() == out.size() ? context.PreferredLayout(node) : Layout::kRowMajor;
  return AddBoxCopy(context, node, "expand", x, layout, y, layout,
                    LoweringContext::PhysicalShape(out, layout),
                    BroadcastStrides(context.shape(x), layout, out, layout), 0);
}

Status LowerTile(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& in = context.shape(x);
  const Shape& out = context.shape(y);
  const Layout layout = context.PreferredLayout(node);
  const std::vector<int64_t> strides = DenseStrides(in, layout);
  std::vector<int64_t> extents, src;
  for (size_t axis : MemoryOrder(in.size(), layout)) {
    extents.push_back(out[axis] / in[axis]);
    src.push_back(0);
    extents.push_back(in[axis]);
    src.push_back(strides[axis]);
  }
  return AddBoxCopy(context, node, "tile", x, layout, y, layout, extents, src, 0);
}

// DepthToSpace and SpaceToDepth are transposes of six axes.
Status LowerDepthSpace(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& in = context.shape(x);
  if (in.size() != 4) return UnimplementedError("rank");
  const int64_t b = node.IntAttr("blocksize", 1);
  const Layout layout = context.PreferredLayout(node);
  const std::vector<int64_t> s = DenseStrides(in, layout);
  // Logical axes of y: n, then (block and channel parts), h (and part), w (and part).
  struct Part {
    int64_t extent, stride;
  };
  std::vector<Part> channel, height, width;
  if (node.op == "DepthToSpace") {
    const int64_t c = in[1] / (b * b);
    const bool crd = node.StringAttr("mode", "DCR") == "CRD";
    channel = {{c, s[1] * (crd ? b * b : 1)}};
    height = {{in[2], s[2]}, {b, s[1] * (crd ? b : b * c)}};
    width = {{in[3], s[3]}, {b, s[1] * (crd ? 1 : c)}};
  } else {
    channel = {{b, s[2]}, {b, s[3]}, {in[1], s[1]}};
    height = {{in[2] / b, s[2] * b}};
    width = {{in[3] / b, s[3] * b}};
  }
  std::vector<Part> parts = {{in[0], s[0]}};
  auto append = [&parts](const std::vector<Part>& more) {
    parts.insert(parts.end(), more.begin(), more.end());
  };
  if (layout == Layout::kRowMajor) append(channel);
  append(height);
  append(width);
  if (layout == Layout::kChannelsLast) append(channel);
  std::vector<int64_t> extents, src;
  for (const Part& part : parts) {
    extents.push_back(part.extent);
    src.push_back(part.stride);
  }
  return AddBoxCopy(context, node, "depth/space", x, layout, y, layout, extents, src, 0);
}

Status LowerConcat(LoweringContext& context, const Node& node) {
  const ValueId y = context.Out(node, 0);
  const Shape& out = context.shape(y);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, Axis(node.IntAttr("axis", 0), out.size()));
  const Layout layout = context.PreferredLayout(node);
  const int64_t size = static_cast<int64_t>(DTypeSizeBytes(context.dtype(y)));
  if (size == 0) return UnimplementedError("element type");
  int64_t inner = size;  // bytes of everything inside the axis
  bool inside = false;
  for (size_t a : MemoryOrder(out.size(), layout)) {
    if (inside) inner *= out[a];
    if (a == static_cast<size_t>(axis)) inside = true;
  }
  struct Piece {
    uint32_t operand;
    int64_t bytes;   // of one row
    int64_t stride;  // from row to row
    int64_t at;      // within y's row
  };
  std::vector<Piece> pieces;
  KernelSpec kernel;
  int64_t at = 0;
  for (ValueId v : node.inputs) {
    if (!v.valid() || context.num_elements(v) == 0) continue;
    Piece piece{static_cast<uint32_t>(kernel.reads.size()), context.shape(v)[axis] * inner, 0, at};
    piece.stride = piece.bytes;
    if (layout == Layout::kChannelsLast && axis == 1) {
      PLEXUS_ASSIGN_OR_RETURN(Operand operand, context.ReadStrided(v));
      if (operand.pixel_stride) piece.stride = operand.pixel_stride * size;
      kernel.reads.push_back(operand);
    } else {
      PLEXUS_ASSIGN_OR_RETURN(Operand operand, context.Read(v, layout));
      kernel.reads.push_back(operand);
    }
    at += piece.bytes;
    pieces.push_back(piece);
  }
  PLEXUS_ASSIGN_OR_RETURN(Operand target, context.Write(y, layout));
  kernel.writes = {target};
  const int64_t row = at, total = context.num_elements(y) * size;
  kernel.name = context.KernelName("concat", node);
  kernel.bytes = 2.0 * static_cast<double>(total);
  // Blocks are ranges of bytes of y, so that one long row can be cut too.
  constexpr int64_t kCut = 64;
  const int64_t cuts = (total + kCut - 1) / kCut;
  kernel.grid = context.GridFor(0, kernel.bytes, cuts);
  kernel.run = [pieces = std::move(pieces), row, total, cuts, grid = int64_t{kernel.grid}](
                   uint32_t first, uint32_t count, const BlockArgs& args) {
    const int64_t begin = std::min(total, cuts * first / grid * kCut);
    const int64_t end = std::min(total, cuts * (int64_t{first} + count) / grid * kCut);
    std::byte* y = args.Out<std::byte>(0);
    for (int64_t r = begin / row; r * row < end; ++r) {
      for (const Piece& piece : pieces) {
        const int64_t start = r * row + piece.at;
        const int64_t low = std::max(begin, start), high = std::min(end, start + piece.bytes);
        if (low >= high) continue;
        std::memcpy(y + low, args.In<std::byte>(piece.operand) + r * piece.stride + (low - start),
                    static_cast<size_t>(high - low));
      }
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

// Constant padding (and cropping), row by row of the innermost axis.
Status LowerPad(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0), c = context.In(node, 2);
  if (node.StringAttr("mode", "constant") != "constant") return UnimplementedError("mode");
  if (node.inputs.size() < 2) return UnimplementedError("old form");
  const Shape& in = context.shape(x);
  const Shape& out = context.shape(y);
  const size_t rank = in.size(), size = DTypeSizeBytes(context.dtype(x));
  if (rank == 0 || rank > 8 || size == 0 || size > 8) return UnimplementedError("rank or type");
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> pads, Ints(context, node, 1));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> axes, Ints(context, node, 3));
  if (axes.empty()) {
    for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (pads.size() != 2 * axes.size()) return InvalidArgumentError("pads do not fit");
  std::vector<int64_t> begin(rank, 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, Axis(axes[i], rank));
    begin[axis] = pads[i];
  }
  std::array<std::byte, 8> value{};
  if (c.valid()) {
    if (!context.IsConstant(c)) return UnimplementedError("value is not constant");
    PLEXUS_ASSIGN_OR_RETURN(Tensor contents, context.Contents(c));
    if (contents.num_elements() != 1) return InvalidArgumentError("padding value");
    std::memcpy(value.data(), contents.raw(), size);
  }
  const Layout layout = context.PreferredLayout(node);
  struct Job {
    std::vector<int64_t> in, out, begin;
  } job{Ordered(in, layout), Ordered(out, layout), Ordered(begin, layout)};
  const int64_t row = job.out.back(), rows = context.num_elements(y) / row;
  KernelSpec kernel;
  kernel.name = context.KernelName("pad", node);
  kernel.bytes = 2.0 * static_cast<double>(context.num_elements(y)) * size;
  kernel.grid = context.GridFor(0, kernel.bytes, rows);
  PLEXUS_ASSIGN_OR_RETURN(Operand source, context.Read(x, layout));
  PLEXUS_ASSIGN_OR_RETURN(Operand target, context.Write(y, layout));
  kernel.reads = {source};
  kernel.writes = {target};
  kernel.run = [job = std::move(job), value, size, row, rows, grid = int64_t{kernel.grid}](
                   uint32_t first, uint32_t count, const BlockArgs& args) {
    const std::byte* x = args.In<std::byte>(0);
    const size_t rank = job.in.size();
    auto fill = [&](std::byte* to, int64_t n) {
      for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * size, value.data(), size);
    };
    // The part of a row that x covers, in y's and x's positions.
    const int64_t shift = job.begin.back();
    const int64_t low = std::clamp<int64_t>(shift, 0, row);
    const int64_t high = std::clamp<int64_t>(shift + job.in.back(), low, row);
    for (int64_t r = rows * first / grid; r < rows * (int64_t{first} + count) / grid; ++r) {
      int64_t left = r, source = 0, stride = job.in.back();
      bool covered = true;
      for (size_t axis = rank - 1; axis-- > 0;) {
        const int64_t at = left % job.out[axis] - job.begin[axis];
        left /= job.out[axis];
        covered = covered && at >= 0 && at < job.in[axis];
        source += at * stride;
        stride *= job.in[axis];
      }
      std::byte* to = args.Out<std::byte>(0) + r * row * static_cast<int64_t>(size);
      if (!covered) {
        fill(to, row);
        continue;
      }
      fill(to, low);
      std::memcpy(to + low * size, x + (source + low - shift) * static_cast<int64_t>(size),
                  static_cast<size_t>(high - low) * size);
      fill(to + high * size, row - high);
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

Status LowerGather(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), indices = context.In(node, 1), y = context.Out(node, 0);
  const Shape& shape = context.shape(x);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, Axis(node.IntAttr("axis", 0), shape.size()));
  const int64_t size = static_cast<int64_t>(DTypeSizeBytes(context.dtype(x)));
  const DType type = context.dtype(indices);
  if (size == 0 || (type != DType::kInt64 && type != DType::kInt32)) {
    return UnimplementedError("element type");
  }
  int64_t outer = 1, inner = size;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (static_cast<int64_t>(i) < axis) outer *= shape[i];
    if (static_cast<int64_t>(i) > axis) inner *= shape[i];
  }
  const int64_t extent = shape[axis], wanted = context.num_elements(indices);
  const int64_t units = outer * wanted;
  KernelSpec kernel;
  kernel.name = context.KernelName("gather", node);
  kernel.bytes = 2.0 * static_cast<double>(units * inner);
  kernel.grid = context.GridFor(0, kernel.bytes, units);
  PLEXUS_ASSIGN_OR_RETURN(Operand table, context.Read(x, Layout::kRowMajor));
  PLEXUS_ASSIGN_OR_RETURN(Operand list, context.Read(indices, Layout::kRowMajor));
  PLEXUS_ASSIGN_OR_RETURN(Operand target, context.Write(y, Layout::kRowMajor));
  kernel.reads = {table, list};
  kernel.writes = {target};
  const bool wide = type == DType::kInt64;
  kernel.run = [=, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                const BlockArgs& args) {
    const std::byte* x = args.In<std::byte>(0);
    std::byte* y = args.Out<std::byte>(0);
    for (int64_t u = units * first / grid; u < units * (int64_t{first} + count) / grid; ++u) {
      const int64_t o = u / wanted, i = u % wanted;
      int64_t at = wide ? args.In<int64_t>(1)[i] : args.In<int32_t>(1)[i];
      if (at < 0) at += extent;
      if (at < 0 || at >= extent) {
        return InvalidArgumentError("index " + std::to_string(at) + " is out of range [0, " +
                                    std::to_string(extent) + ")");
      }
      const std::byte* from = x + (o * extent + at) * inner;
      if (inner == 4) {
        std::memcpy(y + u * 4, from, 4);
      } else {
        std::memcpy(y + u * inner, from, static_cast<size_t>(inner));
      }
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

constexpr std::array kRules = {
    LoweringEntry{"", "Slice", LowerSlice},
    LoweringEntry{"", "Split", LowerSplit},
    LoweringEntry{"", "Expand", LowerExpand},
    LoweringEntry{"", "Tile", LowerTile},
    LoweringEntry{"", "Concat", LowerConcat},
    LoweringEntry{"", "Pad", LowerPad},
    LoweringEntry{"", "Gather", LowerGather},
    LoweringEntry{"", "DepthToSpace", LowerDepthSpace},
    LoweringEntry{"", "SpaceToDepth", LowerDepthSpace},
};

}  // namespace

std::span<const LoweringEntry> MoveRules() { return kRules; }

// views.cc has checked perm. The input may be held in either layout; the output is row-major.
Status LowerTransposeKernel(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& shape = context.shape(x);
  std::vector<int64_t> perm = node.IntsAttr("perm");
  if (perm.empty()) {
    for (size_t i = shape.size(); i-- > 0;) perm.push_back(static_cast<int64_t>(i));
  }
  const Layout layout = shape.size() >= 3 ? context.layout(x) : Layout::kRowMajor;
  const std::vector<int64_t> strides = DenseStrides(shape, layout);
  std::vector<int64_t> src;
  for (int64_t axis : perm) src.push_back(strides[axis]);
  return AddBoxCopy(context, node, "transpose", x, layout, y, Layout::kRowMajor, context.shape(y),
                    src, 0);
}

}  // namespace plexus::cpu
