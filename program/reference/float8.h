// The 8-bit and 4-bit floating point formats of ONNX.
#pragma once

#include <cstdint>

#include "graph/dtype.h"

namespace plexus::reference {

// True for the four float8 types and float4e2m1.
bool IsSmallFloat(DType dtype);
// `bits` of such a type (4-bit: in the low half) as float.
float SmallFloatToFloat(uint8_t bits, DType dtype);
// Round to nearest even. Out of range: the largest finite value when `saturate`, else infinity, or
// NaN in formats without infinity; float4e2m1 always saturates and turns NaN into -0. Source: ONNX,
// "Float stored in 8 bits".
uint8_t FloatToSmallFloat(float value, DType dtype, bool saturate);

}  // namespace plexus::reference
