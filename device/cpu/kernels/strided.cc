#include "device/cpu/kernels/strided.h"

namespace plexus::cpu {

std::vector<size_t> MemoryOrder(size_t rank, Layout layout) {
  std::vector<size_t> order;
  for (size_t i = 0; i < rank; ++i) order.push_back(i);
  if (layout == Layout::kChannelsLast && rank >= 3) {
    order.erase(order.begin() + 1);
    order.push_back(1);
  }
  return order;
}

std::vector<int64_t> DenseStrides(const Shape& shape, Layout layout) {
  std::vector<int64_t> strides(shape.size());
  const std::vector<size_t> order = MemoryOrder(shape.size(), layout);
  int64_t stride = 1;
  for (size_t i = order.size(); i-- > 0;) {
    strides[order[i]] = stride;
    stride *= shape[order[i]];
  }
  return strides;
}

std::vector<int64_t> BroadcastStrides(const Shape& shape, Layout layout, const Shape& out,
                                      Layout out_layout) {
  const std::vector<int64_t> own = DenseStrides(shape, layout);
  std::vector<int64_t> strides;
  const size_t missing = out.size() - shape.size();
  for (size_t axis : MemoryOrder(out.size(), out_layout)) {
    const bool repeats = axis < missing || shape[axis - missing] == 1;
    strides.push_back(repeats ? 0 : own[axis - missing]);
  }
  return strides;
}

LoopNest Joined(const LoopNest& nest) {
  LoopNest joined;
  joined.strides.resize(nest.strides.size());
  for (size_t axis = 0; axis < nest.extents.size(); ++axis) {
    const int64_t extent = nest.extents[axis];
    if (extent == 1) continue;
    bool join = !joined.extents.empty();
    for (size_t o = 0; join && o < nest.strides.size(); ++o) {
      join = joined.strides[o].back() == nest.strides[o][axis] * extent;
    }
    if (join) {
      joined.extents.back() *= extent;
    } else {
      joined.extents.push_back(extent);
    }
    for (size_t o = 0; o < nest.strides.size(); ++o) {
      if (join) {
        joined.strides[o].back() = nest.strides[o][axis];
      } else {
        joined.strides[o].push_back(nest.strides[o][axis]);
      }
    }
  }
  if (joined.extents.empty()) {
    joined.extents.push_back(1);
    for (auto& strides : joined.strides) strides.push_back(1);
  }
  return joined;
}

NestCursor::NestCursor(const LoopNest& nest, size_t skip, int64_t start)
    : nest_(nest), axes_(nest.extents.size() - skip) {
  for (size_t o = 0; o < nest.strides.size(); ++o) offsets_[o] = 0;
  for (size_t axis = axes_; axis-- > 0;) {
    index_[axis] = start % nest.extents[axis];
    start /= nest.extents[axis];
    for (size_t o = 0; o < nest.strides.size(); ++o) {
      offsets_[o] += index_[axis] * nest.strides[o][axis];
    }
  }
}

void NestCursor::Next() {
  for (size_t axis = axes_; axis-- > 0;) {
    const bool wraps = ++index_[axis] == nest_.extents[axis];
    const int64_t steps = wraps ? 1 - nest_.extents[axis] : 1;
    for (size_t o = 0; o < nest_.strides.size(); ++o) {
      offsets_[o] += steps * nest_.strides[o][axis];
    }
    if (!wraps) return;
    index_[axis] = 0;
  }
}

}  // namespace plexus::cpu
