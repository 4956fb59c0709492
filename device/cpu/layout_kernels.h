// Conversions of a value between layouts and between float32 and bfloat16, and the kernel that runs
// a node on its reference implementation.
#pragma once

#include <string>

#include "device/cpu/lowering.h"

namespace plexus::cpu {

struct ConversionSpec {
  Shape shape;  // logical
  Layout from_layout = Layout::kRowMajor;
  Layout to_layout = Layout::kRowMajor;
  DType from_dtype = DType::kUndefined;
  DType to_dtype = DType::kUndefined;
  int64_t from_pixel_stride = 0;  // channels-last source; 0: dense
  int64_t to_pixel_stride = 0;    // channels-last target; 0: dense
};

// Adds the kernel that copies `from` to `to`. The shape has at least one element.
Status AddConversion(LoweringContext& context, const ConversionSpec& spec, Operand from, Operand to,
                     const std::string& value_name);

// The elements of a constant in another layout and dtype (float32 ↔ bfloat16), in a tensor of the
// physical shape.
Result<Tensor> ConvertConstant(const Tensor& plain, Layout layout, DType dtype);

// One block that runs ReferenceEvaluator on tensors that wrap the operands, all row-major.
// kUnimplemented, naming the operator, if there is no reference either.
Status AddReferenceKernel(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
