// The batched matrix product that MatMul and its quantised forms share.
#pragma once

#include "program/reference/element_io.h"

namespace plexus::reference {

// numpy.matmul of shapes a [..., m, k] and b [..., k, n]: leading dimensions broadcast, a vector
// counts as a row (a) or a column (b) and loses that dimension in the result.
struct MatMulGeometry {
  Shape output;  // as numpy gives it
  int64_t m = 0, n = 0, k = 0;
  Shape batch;                            // broadcast leading dimensions
  std::vector<int64_t> a_batch, b_batch;  // strides over `batch`, in matrices
};

// kInvalidArgument where the shapes do not multiply.
Result<MatMulGeometry> MakeMatMulGeometry(const Shape& a, const Shape& b);

// y += a · b; y holds the output's elements. T: float, double, int64_t, uint64_t.
template <typename T>
void MatMulAdd(const MatMulGeometry& g, const T* a, const T* b, T* y);

}  // namespace plexus::reference
