#include "program/reference/gemm.h"

#include <algorithm>
#include <cstring>

namespace plexus::reference {
namespace {

// Clones for wider vectors where the build's ifunc support allows it: the resolvers would run
// before a sanitizer's runtime is up.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PLEXUS_VECTOR_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define PLEXUS_VECTOR_CLONES
#endif

constexpr int kVectorBytes = 64;
constexpr int64_t kDepth = 256;  // rows of a packed panel of b

template <typename T>
struct Tile {
  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  static constexpr int64_t kWidth = 2 * kVectorBytes / sizeof(T);
};

// c[R, kWidth] += a[R, depth] · panel[depth, kWidth]; c has leading dimension ldc.
template <typename T, int R>
__attribute__((always_inline)) inline void MicroKernel(int64_t depth, const T* a, int64_t lda,
                                                       const T* panel, T* c, int64_t ldc) {
  using V = typename Tile<T>::Vector;
  constexpr int64_t kHalf = kVectorBytes / sizeof(T);
  V acc[R][2];
  for (int r = 0; r < R; ++r) {
    std::memcpy(&acc[r][0], c + r * ldc, kVectorBytes);
    std::memcpy(&acc[r][1], c + r * ldc + kHalf, kVectorBytes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    V b0, b1;
    std::memcpy(&b0, panel + k * 2 * kHalf, kVectorBytes);
    std::memcpy(&b1, panel + k * 2 * kHalf + kHalf, kVectorBytes);
    for (int r = 0; r < R; ++r) {
      const T x = a[r * lda + k];
      acc[r][0] += x * b0;
      acc[r][1] += x * b1;
    }
  }
  for (int r = 0; r < R; ++r) {
    std::memcpy(c + r * ldc, &acc[r][0], kVectorBytes);
    std::memcpy(c + r * ldc + kHalf, &acc[r][1], kVectorBytes);
  }
}

template <typename T>
__attribute__((always_inline)) inline void Rows(int64_t rows, int64_t depth, const T* a,
                                                int64_t lda, const T* panel, T* c, int64_t ldc) {
  switch (rows) {
    case 1:
      return MicroKernel<T, 1>(depth, a, lda, panel, c, ldc);
    case 2:
      return MicroKernel<T, 2>(depth, a, lda, panel, c, ldc);
    case 3:
      return MicroKernel<T, 3>(depth, a, lda, panel, c, ldc);
    default:
      return MicroKernel<T, 4>(depth, a, lda, panel, c, ldc);
  }
}

template <typename T>
__attribute__((always_inline)) inline void Gemm(int64_t m, int64_t n, int64_t k, const T* a,
                                                int64_t lda, const T* b, int64_t ldb, T* c,
                                                int64_t ldc) {
  constexpr int64_t kWidth = Tile<T>::kWidth;
  alignas(kVectorBytes) T panel[kDepth * kWidth];
  alignas(kVectorBytes) T edge[4 * kWidth];
  for (int64_t k0 = 0; k0 < k; k0 += kDepth) {
    const int64_t depth = std::min(kDepth, k - k0);
    for (int64_t n0 = 0; n0 < n; n0 += kWidth) {
      const int64_t width = std::min(kWidth, n - n0);
      for (int64_t i = 0; i < depth; ++i) {
        T* row = panel + i * kWidth;
        const T* from = b + (k0 + i) * ldb + n0;
        if (width == kWidth) {
          std::memcpy(row, from, sizeof(T) * kWidth);
        } else {
          for (int64_t j = 0; j < kWidth; ++j) row[j] = j < width ? from[j] : T{0};
        }
      }
      for (int64_t m0 = 0; m0 < m; m0 += 4) {
        const int64_t rows = std::min<int64_t>(4, m - m0);
        const T* a_rows = a + m0 * lda + k0;
        T* c_rows = c + m0 * ldc + n0;
        if (width == kWidth) {
          Rows(rows, depth, a_rows, lda, panel, c_rows, ldc);
          continue;
        }
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t j = 0; j < kWidth; ++j) {
            edge[r * kWidth + j] = j < width ? c_rows[r * ldc + j] : T{0};
          }
        }
        Rows(rows, depth, a_rows, lda, panel, edge, kWidth);
        for (int64_t r = 0; r < rows; ++r) {
          std::memcpy(c_rows + r * ldc, edge + r * kWidth, sizeof(T) * width);
        }
      }
    }
  }
}

PLEXUS_VECTOR_CLONES void GemmFloat(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
                                    const float* b, int64_t ldb, float* c, int64_t ldc) {
  Gemm(m, n, k, a, lda, b, ldb, c, ldc);
}
PLEXUS_VECTOR_CLONES void GemmDouble(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda,
                                     const double* b, int64_t ldb, double* c, int64_t ldc) {
  Gemm(m, n, k, a, lda, b, ldb, c, ldc);
}

}  // namespace

void GemmAdd(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
             int64_t ldb, float* c, int64_t ldc) {
  GemmFloat(m, n, k, a, lda, b, ldb, c, ldc);
}
void GemmAdd(int64_t m, int64_t n, int64_t k, const double* a, int64_t lda, const double* b,
             int64_t ldb, double* c, int64_t ldc) {
  GemmDouble(m, n, k, a, lda, b, ldb, c, ldc);
}
void GemmAdd(int64_t m, int64_t n, int64_t k, const uint64_t* a, int64_t lda, const uint64_t* b,
             int64_t ldb, uint64_t* c, int64_t ldc) {
  Gemm(m, n, k, a, lda, b, ldb, c, ldc);
}

}  // namespace plexus::reference
