// Copies of strided boxes: what transposes, slices, expansions and tilings come down to.
#pragma once

#include "device/cpu/kernels/strided.h"

namespace plexus::cpu {

// dst[dst_strides · i] = src[src_offset + src_strides · i] for all i below `extents`, elements of
// 1, 2, 4 or 8 bytes. Any range of units may be copied by itself.
class BoxCopy {
 public:
  // Axes in the order of dst's memory, innermost last.
  BoxCopy(std::vector<int64_t> extents, std::vector<int64_t> src_strides,
          std::vector<int64_t> dst_strides, int64_t src_offset, size_t element_bytes);
  int64_t units() const { return units_; }
  void Run(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const;

 private:
  template <typename T>
  void RunTyped(const T* src, T* dst, int64_t begin, int64_t end) const;

  LoopNest nest_;  // operand 0 src, 1 dst
  int64_t src_offset_;
  size_t element_bytes_;
  bool transposes_ = false;  // the last axis but one is src's contiguous one
  int64_t tiles_ = 1;        // of that axis
  int64_t units_ = 0;
};

// dst[i · dst_stride + j] = src[j · src_stride + i] for i < rows, j < columns; quick while both
// tiles fit the first-level cache.
void TransposeFloats(const float* src, int64_t src_stride, float* dst, int64_t dst_stride,
                     int64_t rows, int64_t columns);

// Adds a kernel that fills y (dense in `layout`) from x (dense in `x_layout`) by one box copy:
// axis k of y in memory order reads x with stride src_strides[k].
Status AddBoxCopy(LoweringContext& context, const Node& node, const char* what, ValueId x,
                  Layout x_layout, ValueId y, Layout layout, std::vector<int64_t> extents,
                  std::vector<int64_t> src_strides, int64_t src_offset);

}  // namespace plexus::cpu
