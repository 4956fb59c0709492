// Matrix product for the reference operators: plain, exact order, reasonably quick.
#pragma once

#include <cstdint>

namespace plexus::reference {

// c[m,n] += a[m,k] · b[k,n], all row-major with the given leading dimensions (in elements).
// Matrices must not overlap. Integers wrap.
void GemmAdd(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
             int64_t ldb, float* c, int64_t ldc);
void GemmAdd(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b,
             int64_t ldb, double* c, int64_t ldc);
void GemmAdd(int64_t m, int64_t n, int64_t k, const uint64_t* a, int64_t lda, const uint64_t* b,
             int64_t ldb, uint64_t* c, int64_t ldc);
// Signed integers, with the same wrapping arithmetic.
inline void GemmAdd(int64_t m, int64_t n, int64_t k, const int64_t* a, int64_t lda,
                    const int64_t* b, int64_t ldb, int64_t* c, int64_t ldc) {
  GemmAdd(m, n, k, reinterpret_cast<const uint64_t*>(a), lda, reinterpret_cast<const uint64_t*>(b),
          ldb, reinterpret_cast<uint64_t*>(c), ldc);
}

// out[cols, rows] = transpose of in[rows, cols], both dense.
template <typename T>
void TransposeInto(const T* in, int64_t rows, int64_t cols, T* out) {
  constexpr int64_t kTile = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t r1 = r0 + kTile < rows ? r0 + kTile : rows;
    for (int64_t c = 0; c < cols; ++c) {
      for (int64_t r = r0; r < r1; ++r) out[c * rows + r] = in[r * cols + c];
    }
  }
}

}  // namespace plexus::reference
