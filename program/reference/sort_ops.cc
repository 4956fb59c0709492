// Operators that order elements or whose result size depends on them: TopK, NonZero, Unique.
#include <algorithm>
#include <numeric>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

Status TopKWith(OpContext& ctx, int64_t k) {
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(ctx.node.IntAttr("axis", -1), x.rank()));
  const bool largest = ctx.node.IntAttr("largest", 1) != 0;
  const int64_t extent = x.shape()[axis];
  if (k < 0 || k > extent) {
    return InvalidArgumentError("k = " + std::to_string(k) + " for an axis of " +
                                std::to_string(extent));
  }
  Shape shape = x.shape();
  shape[axis] = k;
  PLEXUS_ASSIGN_OR_RETURN(Tensor values, NewTensor(x.dtype(), shape));
  PLEXUS_ASSIGN_OR_RETURN(Tensor indices, NewTensor(DType::kInt64, shape));
  const int64_t inner = Product(std::span(shape).subspan(axis + 1));
  const int64_t rows = k == 0 ? 0 : indices.num_elements() / k;
  const DType compute = ComputeType(x.dtype());
  PLEXUS_RETURN_IF_ERROR(VisitCompute(compute, [&]<typename T>(T) -> Status {
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(x, compute));
    std::vector<int64_t> order(extent);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t base = row / inner * extent * inner + row % inner;
      const T* in = wide.data<T>().data() + base;
      std::iota(order.begin(), order.end(), 0);
      // NaN sorts last, equal elements by index: a strict weak order on any data.
      std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int64_t a, int64_t b) {
        const T va = in[a * inner], vb = in[b * inner];
        if ((va != va) != (vb != vb)) return vb != vb;
        if (va == vb || va != va) return a < b;
        return largest ? va > vb : va < vb;
      });
      const int64_t out = row / inner * k * inner + row % inner;
      for (int64_t i = 0; i < k; ++i) {
        CopyElements(x, base + order[i] * inner, values, out + i * inner, 1);
        indices.mutable_data<int64_t>()[out + i * inner] = order[i];
      }
    }
    return OkStatus();
  }));
  ctx.outputs[0] = std::move(values);
  if (ctx.num_outputs() > 1) ctx.outputs[1] = std::move(indices);
  return OkStatus();
}

Status TopKOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> k, IntsInput(ctx, 1));
  if (k.size() != 1) return InvalidArgumentError("k must be one number");
  return TopKWith(ctx, k[0]);
}

// Before opset 10 k is an attribute.
Status TopKOp1(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  return TopKWith(ctx, ctx.node.IntAttr("k", -1));
}

Status NonZeroOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(Tensor flags, ConvertTensor(x, DType::kBool));
  const std::span<const uint8_t> set = flags.data<uint8_t>();
  const int64_t count = std::count_if(set.begin(), set.end(), [](uint8_t f) { return f != 0; });
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kInt64, {x.rank(), count}));
  int64_t found = 0, i = 0;
  for (Odometer at(x.shape(), {}); !at.done(); at.Next(), ++i) {
    if (set[i] == 0) continue;
    for (int64_t axis = 0; axis < x.rank(); ++axis) {
      y.mutable_data<int64_t>()[axis * count + found] = at.index()[axis];
    }
    ++found;
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// For each slice along the (first) axis of x [slices, size]: the order that sorts them.
template <typename T>
std::vector<int64_t> SortSlices(const T* x, int64_t slices, int64_t size) {
  std::vector<int64_t> order(slices);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return std::lexicographical_compare(x + a * size, x + (a + 1) * size, x + b * size,
                                        x + (b + 1) * size);
  });
  return order;
}

struct Groups {
  std::vector<int64_t> first;    // per group: its first slice
  std::vector<int64_t> inverse;  // per slice: its group
  std::vector<int64_t> counts;   // per group
};

template <typename T>
Groups GroupSlices(const T* x, int64_t slices, int64_t size, bool sorted) {
  const std::vector<int64_t> order = SortSlices(x, slices, size);
  Groups groups;
  groups.inverse.resize(slices);
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t slice = order[i];
    if (i == 0 || !std::equal(x + slice * size, x + (slice + 1) * size, x + order[i - 1] * size)) {
      groups.first.push_back(slice);
      groups.counts.push_back(0);
    }
    groups.inverse[slice] = groups.first.size() - 1;
    ++groups.counts.back();
  }
  if (sorted) return groups;
  // Renumber in order of first appearance.
  std::vector<int64_t> by_first(groups.first.size());
  std::iota(by_first.begin(), by_first.end(), 0);
  std::sort(by_first.begin(), by_first.end(),
            [&](int64_t a, int64_t b) { return groups.first[a] < groups.first[b]; });
  std::vector<int64_t> renumbered(by_first.size());
  Groups result;
  for (size_t i = 0; i < by_first.size(); ++i) {
    renumbered[by_first[i]] = i;
    result.first.push_back(groups.first[by_first[i]]);
    result.counts.push_back(groups.counts[by_first[i]]);
  }
  for (int64_t group : groups.inverse) result.inverse.push_back(renumbered[group]);
  return result;
}

Status UniqueOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  Tensor x = ctx.Input(0);
  int64_t axis = 0;
  if (ctx.node.HasAttr("axis")) {
    PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(ctx.node.IntAttr("axis", 0), x.rank()));
  } else {
    x = x.Reshaped({x.num_elements()});
  }
  // Slices along the axis made contiguous.
  std::vector<int64_t> perm(x.rank());
  std::iota(perm.begin(), perm.end(), 0);
  std::rotate(perm.begin(), perm.begin() + axis, perm.begin() + axis + 1);
  PLEXUS_ASSIGN_OR_RETURN(Tensor moved, TransposeTensor(x, perm));
  const int64_t slices = x.shape()[axis];
  const int64_t size = slices == 0 ? 0 : x.num_elements() / slices;
  const bool sorted = ctx.node.IntAttr("sorted", 1) != 0;
  Groups groups;
  if (x.dtype() == DType::kString) {
    groups = GroupSlices(moved.strings().data(), slices, size, sorted);
  } else {
    const DType compute = ComputeType(x.dtype());
    PLEXUS_RETURN_IF_ERROR(VisitCompute(compute, [&]<typename T>(T) -> Status {
      PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(moved, compute));
      for (T value : wide.data<T>()) {
        if (value != value) return InvalidArgumentError("NaN has no place in an order");
      }
      groups = GroupSlices(wide.data<T>().data(), slices, size, sorted);
      return OkStatus();
    }));
  }
  Shape shape = moved.shape();
  shape[0] = groups.first.size();
  PLEXUS_ASSIGN_OR_RETURN(Tensor picked, NewTensor(x.dtype(), shape));
  for (size_t i = 0; i < groups.first.size(); ++i) {
    CopyElements(moved, groups.first[i] * size, picked, i * size, size);
  }
  std::vector<int64_t> back(x.rank());
  for (int64_t i = 0; i < x.rank(); ++i) back[perm[i]] = i;
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], TransposeTensor(picked, back));
  if (ctx.num_outputs() > 1) ctx.outputs[1] = Tensor::VectorInt64(groups.first);
  if (ctx.num_outputs() > 2) ctx.outputs[2] = Tensor::VectorInt64(groups.inverse);
  if (ctx.num_outputs() > 3) ctx.outputs[3] = Tensor::VectorInt64(groups.counts);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "NonZero", 9, kLatest, NonZeroOp},
    {"", "TopK", 1, 10, TopKOp1},
    {"", "TopK", 10, kLatest, TopKOp},
    {"", "Unique", 11, kLatest, UniqueOp},
};

}  // namespace

std::span<const OpEntry> SortOps() { return kOps; }

}  // namespace plexus::reference
