#include "device/cpu/quantized_kernels.h"

#include "device/cpu/vector.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

// Plain loops: the compiler turns them into vectors of this build's width.

// To nearest even by the magic constant 1.5·2^23, for |v| < 2^22.
inline int32_t Round(float v) {
  const float shifted = v + 12582912.0f;
  return __builtin_bit_cast(int32_t, shifted) - 0x4b400000;
}

template <typename T>
inline T Saturate(float v) {
  constexpr float kLow = T(-1) < T(0) ? -128.0f : 0.0f, kHigh = T(-1) < T(0) ? 127.0f : 255.0f;
  v = v < kLow ? kLow : v;
  v = v > kHigh ? kHigh : v;
  return static_cast<T>(Round(v));
}

// QuantizeLinear rounds x / scale before it adds the zero point.
template <typename T>
void QuantizeAs(const float* x, int64_t count, float scale, float zero_point, T* y) {
  for (int64_t i = 0; i < count; ++i) {
    float v = x[i] / scale;
    v = v < -4194304.0f ? -4194304.0f : v;
    v = v > 4194304.0f ? 4194304.0f : v;
    y[i] = Saturate<T>(static_cast<float>(Round(v)) + zero_point);
  }
}

void Quantize(const float* x, int64_t count, float scale, float zero_point, bool is_signed,
              void* y) {
  if (is_signed) {
    QuantizeAs(x, count, scale, zero_point, static_cast<int8_t*>(y));
  } else {
    QuantizeAs(x, count, scale, zero_point, static_cast<uint8_t*>(y));
  }
}

template <typename T>
void DequantizeFrom(const T* x, int64_t count, float scale, float zero_point, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = (static_cast<float>(x[i]) - zero_point) * scale;
}

void Dequantize(const void* x, int64_t count, float scale, float zero_point, bool is_signed,
                float* y) {
  if (is_signed) {
    DequantizeFrom(static_cast<const int8_t*>(x), count, scale, zero_point, y);
  } else {
    DequantizeFrom(static_cast<const uint8_t*>(x), count, scale, zero_point, y);
  }
}

struct AddScales {
  float a, b, offset, low, high, zero_point;
};

template <typename A, typename B, typename Y>
void AddAs(const void* a_bytes, const void* b_bytes, int64_t count, const AddScales& s,
           void* y_bytes) {
  const A* a = static_cast<const A*>(a_bytes);
  const B* b = static_cast<const B*>(b_bytes);
  Y* y = static_cast<Y*>(y_bytes);
  const AddScales k = s;
  for (int64_t i = 0; i < count; ++i) {
    float v = static_cast<float>(a[i]) * k.a + static_cast<float>(b[i]) * k.b + k.offset;
    v = v < k.low ? k.low : v;
    v = v > k.high ? k.high : v;
    y[i] = Saturate<Y>(v + k.zero_point);
  }
}

template <typename A, typename B>
void AddTo(const void* a, const void* b, int64_t count, const AddScales& s, bool y_signed,
           void* y) {
  if (y_signed) {
    AddAs<A, B, int8_t>(a, b, count, s, y);
  } else {
    AddAs<A, B, uint8_t>(a, b, count, s, y);
  }
}

void Add(const void* a, const void* b, int64_t count, float a_scale, float b_scale, float offset,
         float low, float high, float zero_point, bool a_signed, bool b_signed, bool y_signed,
         void* y) {
  const AddScales s = {a_scale, b_scale, offset, low, high, zero_point};
  if (a_signed && b_signed) {
    AddTo<int8_t, int8_t>(a, b, count, s, y_signed, y);
  } else if (a_signed) {
    AddTo<int8_t, uint8_t>(a, b, count, s, y_signed, y);
  } else if (b_signed) {
    AddTo<uint8_t, int8_t>(a, b, count, s, y_signed, y);
  } else {
    AddTo<uint8_t, uint8_t>(a, b, count, s, y_signed, y);
  }
}

template <typename T>
void MaxAs(const T* x, const int64_t* tap, int64_t taps, int64_t channels, T* y) {
  const T* first = x + tap[0] * channels;
  for (int64_t c = 0; c < channels; ++c) y[c] = first[c];
  for (int64_t t = 1; t < taps; ++t) {
    const T* p = x + tap[t] * channels;
    for (int64_t c = 0; c < channels; ++c) y[c] = p[c] > y[c] ? p[c] : y[c];
  }
}

void MaxOver(const void* x, const int64_t* tap, int64_t taps, int64_t channels, bool is_signed,
             void* y) {
  if (is_signed) {
    MaxAs(static_cast<const int8_t*>(x), tap, taps, channels, static_cast<int8_t*>(y));
  } else {
    MaxAs(static_cast<const uint8_t*>(x), tap, taps, channels, static_cast<uint8_t*>(y));
  }
}

}  // namespace

extern const QuantizedKernels kQuantized;
const QuantizedKernels kQuantized = {Quantize, Dequantize, Add, MaxOver};

}  // namespace plexus::cpu::PLEXUS_ISA
