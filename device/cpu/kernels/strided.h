// Loops over strided operands: strides of broadcast and permuted values, and joining of axes.
#pragma once

#include <cstdint>
#include <vector>

#include "device/cpu/lowering.h"

namespace plexus::cpu {

// Element strides per axis of a dense value of `shape` held in `layout`, axes in logical order.
std::vector<int64_t> DenseStrides(const Shape& shape, Layout layout);
// The logical axes in memory order: 0, 2, .., 1 for channels-last.
std::vector<size_t> MemoryOrder(size_t rank, Layout layout);
// Strides with which a value of `shape` (held in `layout`) is read along the memory-order axes of
// `out` (held in `out_layout`) under broadcasting: 0 where it repeats.
std::vector<int64_t> BroadcastStrides(const Shape& shape, Layout layout, const Shape& out,
                                      Layout out_layout);

// Nested loops, outermost first; strides[operand][axis] in elements.
struct LoopNest {
  std::vector<int64_t> extents;
  std::vector<std::vector<int64_t>> strides;
};
// The same loops in the same order with axes of extent 1 dropped and neighbours joined where every
// operand allows; at least one axis is left.
LoopNest Joined(const LoopNest& nest);

// Walks the loops of a nest but its innermost `skip`, keeping one operand offset each for at most
// kMaxOperands operands. No allocation.
class NestCursor {
 public:
  static constexpr size_t kMaxOperands = 13;
  static constexpr size_t kMaxAxes = 12;
  NestCursor(const LoopNest& nest, size_t skip, int64_t start);
  int64_t offset(size_t operand) const { return offsets_[operand]; }
  void Next();

 private:
  const LoopNest& nest_;
  size_t axes_;
  int64_t index_[kMaxAxes];
  int64_t offsets_[kMaxOperands];
};

}  // namespace plexus::cpu
