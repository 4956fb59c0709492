// Operators that only rename or reshape: no kernel where the layout allows it.
#include <array>

#include "device/cpu/lowering.h"

namespace plexus::cpu {

namespace {

Status LowerReshape(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  if (context.shape(x) == context.shape(y)) {
    return context.Alias(y, context.layout(x), x, context.layout(x));
  }
  return context.Alias(y, Layout::kRowMajor, x, Layout::kRowMajor);
}

Status LowerIdentity(LoweringContext& context, const Node& node) {
  if (context.Out(node, 1).valid()) return UnimplementedError("Dropout with a mask");
  const ValueId x = context.In(node, 0);
  return context.Alias(context.Out(node, 0), context.layout(x), x, context.layout(x));
}

// A transpose that only moves axes of extent 1, or one between the two layouts, is a view; others
// are a kernel (kernels/).
Status LowerTranspose(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& shape = context.shape(x);
  const size_t rank = shape.size();
  std::vector<int64_t> perm = node.IntsAttr("perm");
  if (perm.empty()) {
    for (size_t i = 0; i < rank; ++i) perm.push_back(static_cast<int64_t>(rank - 1 - i));
  }
  if (perm.size() != rank) return InvalidArgumentError("perm has another rank than the input");
  // The logical axes of x in its memory order.
  std::vector<int64_t> held;
  const Layout from = context.layout(x);
  for (size_t i = 0; i < rank; ++i) held.push_back(static_cast<int64_t>(i));
  if (from == Layout::kChannelsLast) {
    held.erase(held.begin() + 1);
    held.push_back(1);
  }
  // y's axis i is x's axis perm[i]; compare the orders of the axes longer than one.
  auto order = [&](const std::vector<int64_t>& axes) {
    std::vector<int64_t> kept;
    for (int64_t axis : axes) {
      if (shape[axis] != 1) kept.push_back(axis);
    }
    return kept;
  };
  for (int64_t axis : perm) {
    if (axis < 0 || axis >= static_cast<int64_t>(rank)) {
      return InvalidArgumentError("perm is out of range");
    }
  }
  if (order(held) == order(perm)) return context.Alias(y, Layout::kRowMajor, x, from);
  if (rank >= 3) {
    std::vector<int64_t> last = perm;
    last.erase(last.begin() + 1);
    last.push_back(perm[1]);
    if (order(held) == order(last)) return context.Alias(y, Layout::kChannelsLast, x, from);
  }
  return LowerTransposeKernel(context, node);
}

constexpr std::array kRules = {
    LoweringEntry{"", "Reshape", LowerReshape},     LoweringEntry{"", "Flatten", LowerReshape},
    LoweringEntry{"", "Squeeze", LowerReshape},     LoweringEntry{"", "Unsqueeze", LowerReshape},
    LoweringEntry{"", "Identity", LowerIdentity},   LoweringEntry{"", "Dropout", LowerIdentity},
    LoweringEntry{"", "Transpose", LowerTranspose},
};

}  // namespace

std::span<const LoweringEntry> ViewRules() { return kRules; }

}  // namespace plexus::cpu
