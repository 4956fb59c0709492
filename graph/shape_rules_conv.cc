// Convolutions and the sliding window that they share with the pools.
#include <algorithm>

#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

using Int = __int128;  // intermediate sizes: products of two attributes fit

Status CheckExtents(const std::vector<int64_t>& values, size_t count, int64_t least,
                    const char* what) {
  if (values.size() != count) {
    return InvalidArgumentError(std::string(what) + " has " + std::to_string(values.size()) +
                                " entries, wanted " + std::to_string(count));
  }
  for (int64_t v : values) {
    if (v < least || v > kMaxExtent) {
      return InvalidArgumentError(std::string(what) + " has the entry " + std::to_string(v));
    }
  }
  return OkStatus();
}

Result<std::vector<int64_t>> IntsOr(const Node& node, const std::string& name, size_t count,
                                    int64_t fallback, int64_t least) {
  std::vector<int64_t> values = node.IntsAttr(name);
  if (values.empty()) values.assign(count, fallback);
  PLEXUS_RETURN_IF_ERROR(CheckExtents(values, count, least, name.c_str()));
  return values;
}

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b > 0 ? 1 : 0); }

std::span<const int64_t> Spatial(const Shape& shape) {
  return std::span<const int64_t>(shape).subspan(2);
}

Status CheckGroups(const Node& node, const Shape& x, const Shape& w, int64_t* groups) {
  *groups = node.IntAttr("group", 1);
  if (*groups < 1) return InvalidArgumentError("group is " + std::to_string(*groups));
  if (x.size() < 3 || x.size() != w.size()) {
    return InvalidArgumentError("x and w must have one rank of at least 3");
  }
  const std::vector<int64_t> kernel = node.IntsAttr("kernel_shape");
  if (!kernel.empty() && !std::ranges::equal(kernel, Spatial(w))) {
    return InvalidArgumentError("kernel_shape contradicts the weights " + ShapeToString(w));
  }
  return OkStatus();
}

Status ConvLike(RuleContext& c, size_t x_at, size_t w_at, DType dtype) {
  c.Type(0, dtype);
  const Shape* x = c.ShapeOf(x_at);
  const Shape* w = c.ShapeOf(w_at);
  if (!x || !w) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(Shape out, ConvShape(c.node(), *x, *w));
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Conv(RuleContext& c) {
  const Shape* bias = c.ShapeOf(2);
  const Shape* w = c.ShapeOf(1);
  if (bias && w && !w->empty() && (bias->size() != 1 || (*bias)[0] != (*w)[0])) {
    return c.Error("the bias " + ShapeToString(*bias) + " does not match the weights");
  }
  return ConvLike(c, 0, 1, c.TypeOf(0));
}
Status DeformConv(RuleContext& c) { return ConvLike(c, 0, 1, c.TypeOf(0)); }
Status ConvInteger(RuleContext& c) { return ConvLike(c, 0, 1, DType::kInt32); }
Status QLinearConv(RuleContext& c) { return ConvLike(c, 0, 3, c.TypeOf(7)); }

Status ConvTranspose(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* xp = c.ShapeOf(0);
  const Shape* wp = c.ShapeOf(1);
  if (!xp || !wp) return OkStatus();
  const Shape &x = *xp, &w = *wp;
  int64_t groups = 1;
  PLEXUS_RETURN_IF_ERROR(CheckGroups(c.node(), x, w, &groups));
  if (x[1] != w[0] || x[1] % groups != 0) return c.Error("channels do not match the weights");
  const size_t n = x.size() - 2;
  const Node& node = c.node();
  PLEXUS_ASSIGN_OR_RETURN(const auto strides, IntsOr(node, "strides", n, 1, 1));
  PLEXUS_ASSIGN_OR_RETURN(const auto dilations, IntsOr(node, "dilations", n, 1, 1));
  PLEXUS_ASSIGN_OR_RETURN(const auto extra, IntsOr(node, "output_padding", n, 0, 0));
  PLEXUS_ASSIGN_OR_RETURN(auto pads, IntsOr(node, "pads", 2 * n, 0, -kMaxExtent));
  const std::vector<int64_t> wanted = node.IntsAttr("output_shape");
  const std::string auto_pad = node.StringAttr("auto_pad", "NOTSET");
  Shape out = {x[0], static_cast<int64_t>(Int{w[1]} * groups > kMaxExtent ? -1 : w[1] * groups)};
  if (auto_pad == "VALID") pads.assign(2 * n, 0);
  for (size_t i = 0; i < n; ++i) {
    Int extent;
    if (!wanted.empty()) {
      if (wanted.size() != n && wanted.size() != n + 2) return c.Error("output_shape has bad rank");
      extent = wanted[wanted.size() - n + i];
    } else if (auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER") {
      extent = Int{x[2 + i]} * strides[i];
    } else {
      extent = (Int{x[2 + i]} - 1) * strides[i] + extra[i] + (Int{w[2 + i]} - 1) * dilations[i] +
               1 - pads[i] - pads[n + i];
    }
    if (extent < 0 || extent > kMaxExtent) return c.Error("an output extent is out of range");
    out.push_back(static_cast<int64_t>(extent));
  }
  if (out[1] < 0) return c.Error("too many channels");
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Col2Im(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  PLEXUS_ASSIGN_OR_RETURN(const auto image, c.Ints(1));
  PLEXUS_ASSIGN_OR_RETURN(const auto block, c.Ints(2));
  if (!x || !image || !block) return OkStatus();
  if (x->size() != 3) return c.Error("x must have rank 3");
  Int size = 1;
  for (int64_t b : *block) {
    if (b < 1 || b > kMaxExtent || size > kMaxExtent) return c.Error("bad block shape");
    size *= b;
  }
  if (size > kMaxExtent || (*x)[1] % static_cast<int64_t>(size) != 0) {
    return c.Error("the block does not divide the channels");
  }
  Shape out = {(*x)[0], (*x)[1] / static_cast<int64_t>(size)};
  out.insert(out.end(), image->begin(), image->end());
  c.SetShape(0, std::move(out));
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"Conv", Conv},
    {"ConvInteger", ConvInteger},
    {"QLinearConv", QLinearConv},
    {"DeformConv", DeformConv},
    {"ConvTranspose", ConvTranspose},
    {"Col2Im", Col2Im},
};

}  // namespace

Result<WindowParams> ReadWindow(const Node& node, std::span<const int64_t> input,
                                std::span<const int64_t> kernel) {
  const size_t n = input.size();
  if (kernel.size() != n) {
    return InvalidArgumentError("the kernel has " + std::to_string(kernel.size()) +
                                " dimensions for " + std::to_string(n) + " spatial ones");
  }
  PLEXUS_RETURN_IF_ERROR(
      CheckExtents(std::vector<int64_t>(kernel.begin(), kernel.end()), n, 1, "kernel_shape"));
  WindowParams p;
  PLEXUS_ASSIGN_OR_RETURN(p.strides, IntsOr(node, "strides", n, 1, 1));
  PLEXUS_ASSIGN_OR_RETURN(p.dilations, IntsOr(node, "dilations", n, 1, 1));
  PLEXUS_ASSIGN_OR_RETURN(p.pads, IntsOr(node, "pads", 2 * n, 0, -kMaxExtent));
  const std::string auto_pad = node.StringAttr("auto_pad", "NOTSET");
  if (auto_pad == "VALID") p.pads.assign(2 * n, 0);
  if (auto_pad != "SAME_UPPER" && auto_pad != "SAME_LOWER") return p;
  for (size_t i = 0; i < n; ++i) {
    const Int reach = (Int{kernel[i]} - 1) * p.dilations[i] + 1;
    const Int out = CeilDiv(input[i], p.strides[i]);
    const Int wanted = (out - 1) * p.strides[i] + reach - input[i];
    if (wanted > kMaxExtent) return InvalidArgumentError("the kernel is too large");
    const int64_t total = wanted > 0 ? static_cast<int64_t>(wanted) : 0;
    const int64_t small = total / 2, large = total - small;
    p.pads[i] = auto_pad == "SAME_UPPER" ? small : large;
    p.pads[n + i] = auto_pad == "SAME_UPPER" ? large : small;
  }
  return p;
}

Result<std::vector<int64_t>> WindowExtents(const Node& node, std::span<const int64_t> input,
                                           std::span<const int64_t> kernel) {
  PLEXUS_ASSIGN_OR_RETURN(const WindowParams p, ReadWindow(node, input, kernel));
  const size_t n = input.size();
  const bool ceil_mode = node.IntAttr("ceil_mode", 0) != 0;
  std::vector<int64_t> out(n);
  for (size_t i = 0; i < n; ++i) {
    const Int reach = (Int{kernel[i]} - 1) * p.dilations[i] + 1;
    const Int room = Int{input[i]} + p.pads[i] + p.pads[n + i] - reach;
    if (room < 0) {
      return InvalidArgumentError(
          "the kernel reaches beyond the padded input in spatial dimension " + std::to_string(i));
    }
    Int extent = room / p.strides[i] + 1;
    // The last window must start inside the input or its leading padding.
    if (ceil_mode && room % p.strides[i] != 0 &&
        extent * p.strides[i] < Int{input[i]} + p.pads[i]) {
      ++extent;
    }
    if (extent > kMaxExtent) return InvalidArgumentError("an output extent is out of range");
    out[i] = static_cast<int64_t>(extent);
  }
  return out;
}

Result<Shape> ConvShape(const Node& node, const Shape& x, const Shape& w) {
  int64_t groups = 1;
  PLEXUS_RETURN_IF_ERROR(CheckGroups(node, x, w, &groups));
  if (x[1] % groups != 0 || x[1] / groups != w[1] || w[0] % groups != 0) {
    return InvalidArgumentError("x has " + std::to_string(x[1]) + " channels in " +
                                std::to_string(groups) + " groups, the weights want " +
                                std::to_string(w[1]) + " per group");
  }
  PLEXUS_ASSIGN_OR_RETURN(const auto extents, WindowExtents(node, Spatial(x), Spatial(w)));
  Shape out = {x[0], w[0]};
  out.insert(out.end(), extents.begin(), extents.end());
  return out;
}

std::span<const RuleEntry> ConvRules() { return kRules; }

}  // namespace plexus::shape_rules
