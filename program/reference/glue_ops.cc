// Pipeline glue, domain plexus: windows, and work on the bytes of a string.
#include <algorithm>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

// Window(x; axis, size, step): overlapping windows along `axis`. x: [..., n, ...] →
// [..., w, size, ...] with w = (n - size) / step + 1, or 0 where n < size.
Status WindowOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(ctx.node.IntAttr("axis", 0), x.rank()));
  const int64_t size = ctx.node.IntAttr("size", 0);
  const int64_t step = ctx.node.IntAttr("step", 1);
  if (size <= 0 || step <= 0) return InvalidArgumentError("size and step must be positive");
  const int64_t extent = x.shape()[axis];
  const int64_t windows = extent < size ? 0 : (extent - size) / step + 1;
  Shape shape = x.shape();
  shape[axis] = windows;
  shape.insert(shape.begin() + axis + 1, size);
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  if (y.num_elements() > 0) {
    std::vector<int64_t> strides = RowMajorStrides(x.shape());
    const int64_t along = strides[axis];
    strides[axis] = windows > 1 ? along * step : 0;
    strides.insert(strides.begin() + axis + 1, along);
    CopyStrided(x, 0, strides, y, 0, RowMajorStrides(shape), shape);
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// Bytes(s): the bytes of one string as uint8[n].
Status BytesOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (x.dtype() != DType::kString || x.num_elements() != 1) {
    return InvalidArgumentError("needs one string");
  }
  const std::string& text = x.strings()[0];
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kUint8, {static_cast<int64_t>(text.size())}));
  std::copy(text.begin(), text.end(), y.mutable_data<uint8_t>().begin());
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// Strip(x uint8[n]; side: left, right or both; bytes: the set to remove, ASCII white space when
// left out): x without the bytes of the set at its ends.
Status StripOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (x.dtype() != DType::kUint8 || x.rank() != 1) return InvalidArgumentError("needs uint8[n]");
  const std::string side = ctx.node.StringAttr("side", "both");
  if (side != "left" && side != "right" && side != "both") {
    return InvalidArgumentError("attribute 'side' is '" + side + "'");
  }
  const std::string set = ctx.node.StringAttr("bytes", "\t\n\v\f\r ");
  auto strips = [&](int64_t i) {
    return set.find(static_cast<char>(x.data<uint8_t>()[i])) != std::string::npos;
  };
  int64_t begin = 0, end = x.num_elements();
  while (side != "right" && begin < end && strips(begin)) ++begin;
  while (side != "left" && end > begin && strips(end - 1)) --end;
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], TakeRange(x, 0, begin, end - begin));
  return OkStatus();
}

Result<int64_t> SizeAttr(const OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const int64_t size = ctx.node.IntAttr("size", -1);
  if (size < 0) return InvalidArgumentError("attribute 'size' is missing or negative");
  if (ctx.Input(0).rank() < 1) return InvalidArgumentError("a scalar has no axis");
  return size;
}

// Head(x; size), Tail(x; size): the first or last `size` entries of axis 0, or all if there are
// fewer.
Status HeadOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const int64_t size, SizeAttr(ctx));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], TakeRange(x, 0, 0, std::min(size, x.shape()[0])));
  return OkStatus();
}

Status TailOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const int64_t size, SizeAttr(ctx));
  const Tensor& x = ctx.Input(0);
  const int64_t count = std::min(size, x.shape()[0]);
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], TakeRange(x, 0, x.shape()[0] - count, count));
  return OkStatus();
}

// PadTo(x; size, side: left or right, value): axis 0 filled up to `size` entries;
// a longer x stays as it is.
Status PadToOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const int64_t size, SizeAttr(ctx));
  const Tensor& x = ctx.Input(0);
  const std::string side = ctx.node.StringAttr("side", "right");
  if (side != "left" && side != "right") {
    return InvalidArgumentError("attribute 'side' is '" + side + "'");
  }
  const int64_t count = x.shape()[0];
  if (count >= size) {
    ctx.outputs[0] = x;
    return OkStatus();
  }
  // The value may be written as an integer or a float.
  const auto it = ctx.node.attributes.find("value");
  double value = 0;
  if (it != ctx.node.attributes.end()) {
    value = std::holds_alternative<int64_t>(it->second)
                ? static_cast<double>(ctx.node.IntAttr("value", 0))
                : ctx.node.FloatAttr("value", 0);
  }
  PLEXUS_ASSIGN_OR_RETURN(
      Tensor fill, ConvertTensor(Tensor::Of<double>(DType::kFloat64, {}, {value}), x.dtype()));
  Shape shape = x.shape();
  shape[0] = size;
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  FillWith(y, fill);
  const int64_t row = size == 0 ? 0 : y.num_elements() / size;
  CopyElements(x, 0, y, side == "left" ? (size - count) * row : 0, count * row);
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// LabelLookup(indices; labels: strings): the label of every index.
Status LabelLookupOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> indices, IntsInput(ctx, 0));
  const auto it = ctx.node.attributes.find("labels");
  if (it == ctx.node.attributes.end() ||
      !std::holds_alternative<std::vector<std::string>>(it->second)) {
    return InvalidArgumentError("attribute 'labels' is missing");
  }
  const auto& labels = std::get<std::vector<std::string>>(it->second);
  std::vector<std::string> found;
  for (int64_t index : indices) {
    if (index < 0 || index >= static_cast<int64_t>(labels.size())) {
      return InvalidArgumentError("index " + std::to_string(index) + " has no label; there are " +
                                  std::to_string(labels.size()));
    }
    found.push_back(labels[index]);
  }
  ctx.outputs[0] = Tensor::FromStrings(ctx.Input(0).shape(), std::move(found));
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"plexus", "Bytes", 1, kLatest, BytesOp},
    {"plexus", "Head", 1, kLatest, HeadOp},
    {"plexus", "LabelLookup", 1, kLatest, LabelLookupOp},
    {"plexus", "PadTo", 1, kLatest, PadToOp},
    {"plexus", "Strip", 1, kLatest, StripOp},
    {"plexus", "Tail", 1, kLatest, TailOp},
    {"plexus", "Window", 1, kLatest, WindowOp},
};

}  // namespace

std::span<const OpEntry> GlueOps() { return kOps; }

}  // namespace plexus::reference
