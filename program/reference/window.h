// Sliding windows over spatial dimensions: what convolutions and pools have in common.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace plexus::reference {

// One entry per spatial dimension in every vector; all values validated and small enough that
// sums of products of two of them fit int64_t.
struct Window {
  std::vector<int64_t> in, kernel, stride, dilation, pad_begin, pad_end, out;

  size_t rank() const { return in.size(); }
  int64_t Extent(size_t d) const { return dilation[d] * (kernel[d] - 1) + 1; }
  int64_t KernelSize() const;  // product over the dimensions
  int64_t InSize() const;
  int64_t OutSize() const;
  // First input coordinate under output coordinate `o` of dimension d; negative in the padding.
  int64_t Start(size_t d, int64_t o) const { return o * stride[d] - pad_begin[d]; }
};

// Reads strides, dilations, pads, auto_pad and (for pools) ceil_mode of `node`; checks them against
// the spatial sizes `in` and `kernel`; computes pads and output sizes. A convolution's kernel_shape
// attribute, when given, must equal `kernel`. kInvalidArgument names what contradicts.
Result<Window> MakeWindow(const Node& node, std::vector<int64_t> in, std::vector<int64_t> kernel);

// The same for a transposed convolution: `in` is the input of ConvTranspose, `out` its output
// (from output_shape, output_padding, pads and auto_pad).
Result<Window> MakeTransposedWindow(const Node& node, std::vector<int64_t> in,
                                    std::vector<int64_t> kernel);

// Attribute `name` of one integer per spatial dimension, each within [lowest, 2^31]; `fallback`
// repeated when absent.
Result<std::vector<int64_t>> SpatialAttr(const Node& node, const char* name, size_t rank,
                                         int64_t fallback, int64_t lowest);

// Steps `index` to the next coordinate within `shape`, last dimension fastest; false at the end.
bool NextIndex(const std::vector<int64_t>& shape, std::vector<int64_t>* index);

// Unfolds columns [from, to) of one image `x` [channels, in...] into `columns`
// [channels · kernel, to - from], zero where the window reads padding.
template <typename T>
void Unfold(const Window& w, const T* x, int64_t channels, int64_t from, int64_t to, T* columns);
// The reverse, adding: every column element goes to the place Unfold read it from. The image here
// is [channels, in...].
template <typename T>
void FoldAdd(const Window& w, const T* columns, int64_t channels, int64_t from, int64_t to, T* x);

}  // namespace plexus::reference
