#include "device/cpu/kernels/box_copy.h"

#include <xmmintrin.h>

#include <algorithm>
#include <cstring>

namespace plexus::cpu {

namespace {

constexpr int64_t kTile = 16;

// dst[i · dst_stride + j] = src[j · src_stride + i] for i < rows, j < columns.
template <typename T>
void TransposeTile(const T* src, int64_t src_stride, T* dst, int64_t dst_stride, int64_t rows,
                   int64_t columns) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) dst[i * dst_stride + j] = src[j * src_stride + i];
  }
}

}  // namespace

void TransposeFloats(const float* src, int64_t src_stride, float* dst, int64_t dst_stride,
                     int64_t rows, int64_t columns) {
  const int64_t whole_columns = columns / 4 * 4, whole_rows = rows / 4 * 4;
  for (int64_t j = 0; j < whole_columns; j += 4) {
    for (int64_t i = 0; i < whole_rows; i += 4) {
      const float* s = src + j * src_stride + i;
      float* d = dst + i * dst_stride + j;
      __m128 a = _mm_loadu_ps(s), b = _mm_loadu_ps(s + src_stride);
      __m128 c = _mm_loadu_ps(s + 2 * src_stride), e = _mm_loadu_ps(s + 3 * src_stride);
      _MM_TRANSPOSE4_PS(a, b, c, e);
      _mm_storeu_ps(d, a);
      _mm_storeu_ps(d + dst_stride, b);
      _mm_storeu_ps(d + 2 * dst_stride, c);
      _mm_storeu_ps(d + 3 * dst_stride, e);
    }
  }
  if (whole_rows < rows) {
    TransposeTile(src + whole_rows, src_stride, dst + whole_rows * dst_stride, dst_stride,
                  rows - whole_rows, columns);
  }
  if (whole_columns < columns) {
    TransposeTile(src + whole_columns * src_stride, src_stride, dst + whole_columns, dst_stride,
                  whole_rows, columns - whole_columns);
  }
}

BoxCopy::BoxCopy(std::vector<int64_t> extents, std::vector<int64_t> src_strides,
                 std::vector<int64_t> dst_strides, int64_t src_offset, size_t element_bytes)
    : src_offset_(src_offset), element_bytes_(element_bytes) {
  nest_.extents = std::move(extents);
  nest_.strides = {std::move(src_strides), std::move(dst_strides)};
  nest_ = Joined(nest_);
  const size_t rank = nest_.extents.size();
  if (rank >= 2 && nest_.strides[1].back() == 1 && nest_.strides[0].back() != 1) {
    for (size_t axis = 0; axis + 1 < rank; ++axis) {
      if (nest_.strides[0][axis] != 1) continue;
      auto move = [axis, rank](std::vector<int64_t>& v) {
        std::rotate(v.begin() + axis, v.begin() + axis + 1, v.begin() + rank - 1);
      };
      move(nest_.extents);
      move(nest_.strides[0]);
      move(nest_.strides[1]);
      transposes_ = true;
      tiles_ = (nest_.extents[rank - 2] + kTile - 1) / kTile;
      break;
    }
  }
  units_ = tiles_;
  for (size_t axis = 0; axis + (transposes_ ? 2 : 1) < rank; ++axis) units_ *= nest_.extents[axis];
}

template <typename T>
void BoxCopy::RunTyped(const T* src, T* dst, int64_t begin, int64_t end) const {
  const size_t rank = nest_.extents.size();
  const int64_t n = nest_.extents.back(), from = nest_.strides[0].back();
  const int64_t to = nest_.strides[1].back();
  src += src_offset_;
  if (transposes_) {
    NestCursor cursor(nest_, 2, begin / tiles_);
    const int64_t rows = nest_.extents[rank - 2], row_stride = nest_.strides[1][rank - 2];
    int64_t tile = begin % tiles_;
    for (int64_t u = begin; u < end; ++u) {
      const int64_t row = tile * kTile, count = std::min(kTile, rows - row);
      const T* s = src + cursor.offset(0) + row;
      T* d = dst + cursor.offset(1) + row * row_stride;
      for (int64_t j = 0; j < n; j += kTile) {
        const int64_t columns = std::min(kTile, n - j);
        if constexpr (sizeof(T) == 4) {
          TransposeFloats(reinterpret_cast<const float*>(s + j * from), from,
                          reinterpret_cast<float*>(d + j), row_stride, count, columns);
        } else {
          TransposeTile(s + j * from, from, d + j, row_stride, count, columns);
        }
      }
      if (++tile == tiles_) {
        tile = 0;
        cursor.Next();
      }
    }
    return;
  }
  NestCursor cursor(nest_, 1, begin);
  for (int64_t u = begin; u < end; ++u, cursor.Next()) {
    const T* s = src + cursor.offset(0);
    T* d = dst + cursor.offset(1);
    if (to == 1 && from == 1) {
      std::memcpy(d, s, static_cast<size_t>(n) * sizeof(T));
    } else if (to == 1 && from == 0) {
      std::fill_n(d, n, *s);
    } else {
      for (int64_t i = 0; i < n; ++i) d[i * to] = s[i * from];
    }
  }
}

void BoxCopy::Run(const std::byte* src, std::byte* dst, int64_t begin, int64_t end) const {
  switch (element_bytes_) {
    case 1:
      return RunTyped(reinterpret_cast<const uint8_t*>(src), reinterpret_cast<uint8_t*>(dst), begin,
                      end);
    case 2:
      return RunTyped(reinterpret_cast<const uint16_t*>(src), reinterpret_cast<uint16_t*>(dst),
                      begin, end);
    case 4:
      return RunTyped(reinterpret_cast<const uint32_t*>(src), reinterpret_cast<uint32_t*>(dst),
                      begin, end);
    default:
      return RunTyped(reinterpret_cast<const uint64_t*>(src), reinterpret_cast<uint64_t*>(dst),
                      begin, end);
  }
}

Status AddBoxCopy(LoweringContext& context, const Node& node, const char* what, ValueId x,
                  Layout x_layout, ValueId y, Layout layout, std::vector<int64_t> extents,
                  std::vector<int64_t> src_strides, int64_t src_offset) {
  const size_t size = DTypeSizeBytes(context.dtype(x));
  if (size != 1 && size != 2 && size != 4 && size != 8) return UnimplementedError("element size");
  if (extents.size() > NestCursor::kMaxAxes) return UnimplementedError("rank");
  std::vector<int64_t> dst_strides(extents.size());
  int64_t stride = 1;
  for (size_t axis = extents.size(); axis-- > 0;) {
    dst_strides[axis] = stride;
    stride *= extents[axis];
  }
  BoxCopy copy(std::move(extents), std::move(src_strides), std::move(dst_strides), src_offset,
               size);
  KernelSpec kernel;
  kernel.name = context.KernelName(what, node);
  kernel.bytes = 2.0 * static_cast<double>(context.num_elements(y) * size);
  kernel.grid = context.GridFor(0, kernel.bytes, copy.units());
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, x_layout));
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.Write(y, layout));
  kernel.reads = {in};
  kernel.writes = {out};
  kernel.run = [copy = std::move(copy), grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                                     const BlockArgs& args) {
    copy.Run(args.In<std::byte>(0), args.Out<std::byte>(0), copy.units() * first / grid,
             copy.units() * (int64_t{first} + count) / grid);
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace plexus::cpu
