#include "program/reference/float8.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace plexus::reference {
namespace {

struct Format {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  float max;
  uint8_t nan;       // positive NaN; 0: none
  uint8_t infinity;  // 0: none
  bool negative_zero;
};

Format FormatOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat8E4M3FN:
      return {4, 3, 7, 448.0f, 0x7f, 0, true};
    case DType::kFloat8E4M3FNUZ:
      return {4, 3, 8, 240.0f, 0x80, 0, false};
    case DType::kFloat8E5M2:
      return {5, 2, 15, 57344.0f, 0x7f, 0x7c, true};
    case DType::kFloat8E5M2FNUZ:
      return {5, 2, 16, 57344.0f, 0x80, 0, false};
    default:
      return {2, 1, 1, 6.0f, 0, 0, true};
  }
}

}  // namespace

bool IsSmallFloat(DType dtype) {
  return dtype == DType::kFloat8E4M3FN || dtype == DType::kFloat8E4M3FNUZ ||
         dtype == DType::kFloat8E5M2 || dtype == DType::kFloat8E5M2FNUZ ||
         dtype == DType::kFloat4E2M1;
}

float SmallFloatToFloat(uint8_t bits, DType dtype) {
  const Format f = FormatOf(dtype);
  const int sign_shift = f.exponent_bits + f.mantissa_bits;
  const uint8_t magnitude = bits & ((1 << sign_shift) - 1);
  const float sign = (bits >> sign_shift) & 1 ? -1.0f : 1.0f;
  if (!f.negative_zero && bits == f.nan) return std::numeric_limits<float>::quiet_NaN();
  if (f.infinity != 0 && magnitude == f.infinity) {
    return sign * std::numeric_limits<float>::infinity();
  }
  if (f.negative_zero && f.nan != 0 && magnitude > (f.infinity ? f.infinity : f.nan - 1)) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  const int exponent = magnitude >> f.mantissa_bits;
  int mantissa = magnitude & ((1 << f.mantissa_bits) - 1);
  if (exponent > 0) mantissa += 1 << f.mantissa_bits;
  const int scale = (exponent > 0 ? exponent : 1) - f.bias - f.mantissa_bits;
  return sign * std::ldexp(static_cast<float>(mantissa), scale);
}

uint8_t FloatToSmallFloat(float value, DType dtype, bool saturate) {
  const Format f = FormatOf(dtype);
  const int sign_shift = f.exponent_bits + f.mantissa_bits;
  const uint8_t sign = std::signbit(value) ? 1 << sign_shift : 0;
  const bool four_bits = dtype == DType::kFloat4E2M1;
  if (std::isnan(value)) {
    if (four_bits) return 1 << sign_shift;
    return f.negative_zero ? f.nan | sign : f.nan;
  }
  const float magnitude = std::fabs(value);

  const int lowest = 1 - f.bias;
  int exponent = lowest;
  int64_t units = 0;
  bool overflow = std::isinf(magnitude);
  if (!overflow) {
    if (magnitude > 0) exponent = std::max(lowest, std::ilogb(magnitude));
    // In units of the last place; exact, as the divisor is a power of two. Rounds to even.
    units = std::llrint(std::ldexp(static_cast<double>(magnitude), f.mantissa_bits - exponent));
    if (units == int64_t{2} << f.mantissa_bits) {
      units >>= 1;
      ++exponent;
    }
    overflow = std::ldexp(static_cast<double>(units), exponent - f.mantissa_bits) > f.max;
  }
  if (overflow) {
    if (!saturate && !four_bits) {
      if (f.infinity != 0) return f.infinity | sign;
      return f.negative_zero ? f.nan | sign : f.nan;
    }
    exponent = std::ilogb(f.max);
    units = std::llrint(std::ldexp(static_cast<double>(f.max), f.mantissa_bits - exponent));
  }
  uint8_t bits;
  if (units < int64_t{1} << f.mantissa_bits) {
    bits = static_cast<uint8_t>(units);  // zero and subnormals
  } else {
    bits = static_cast<uint8_t>(((exponent + f.bias) << f.mantissa_bits) |
                                (units - (int64_t{1} << f.mantissa_bits)));
  }
  if (bits == 0 && !f.negative_zero) return 0;
  return bits | sign;
}

}  // namespace plexus::reference
