// A convolution through oneDNN, cut into tiles: what f32, bf16 and int8 convolutions share.
#pragma once

#include <string>
#include <vector>

#include "device/cpu/conv_geometry.h"
#include "device/cpu/dnnl_adapter.h"
#include "device/cpu/lowering.h"

namespace plexus::cpu {

// An activation by its name in passes/fused_ops.h; "" is none.
struct Activation {
  std::string name;
  std::vector<float> params;
  float Param(size_t i, float fallback) const { return i < params.size() ? params[i] : fallback; }
};
Activation ActivationOf(const Node& node);
// True if oneDNN can apply it as a post-op.
bool DnnlKnows(const Activation& activation);
// Appends activation(x · scale) / scale. Requires DnnlKnows; scale is 1 unless the activation is
// piecewise linear (IsScalable).
void AppendActivation(const Activation& activation, float scale, dnnl::post_ops& ops);
bool IsScalable(const Activation& activation);

// The arithmetic of a convolution, without its sizes.
struct DnnlConvMath {
  DType source = DType::kFloat32, weights = DType::kFloat32, target = DType::kFloat32;
  DType bias = DType::kUndefined;  // kUndefined: none
  int64_t groups = 1;
  bool weights_by_input = false;  // plain weights are [in, out], as a MatMul's; one group, 1×1
  Activation activation;
  float activation_scale = 1;
  bool sum = false;  // the target holds the residual beforehand
  float sum_scale = 1;
  int32_t sum_zero_point = 0;
  DType sum_type = DType::kUndefined;
  std::vector<float> output_scales;  // empty, one, or one per output channel
  int32_t source_zero_point = 0, target_zero_point = 0;
  float final_scale = 1;  // after the activation
};

dnnl::memory::data_type DnnlType(DType dtype);

// The primitive for one geometry. `weights_desc`: nullptr lets oneDNN choose; else it is
// prescribed. *chosen (optional) gets the packed weights' descriptor. kUnimplemented if oneDNN has
// only its reference implementation.
Result<DnnlPrimitivePtr> MakeDnnlConv(const WindowGeometry& geometry, const DnnlConvMath& math,
                                      const dnnl::memory::desc* weights_desc,
                                      dnnl::memory::desc* chosen);
// The ONNX weights of a convolution as oneDNN sees them.
dnnl::memory::desc PlainWeightsDesc(const WindowGeometry& geometry, const DnnlConvMath& math,
                                    DType stored);

// Operands of the kernel that AddDnnlConv adds.
struct DnnlConvOperands {
  std::string name;
  Operand source, target;
  bool copy_residual = false;  // residual is to be copied into target first
  Operand residual;
  ConstantPtr weights;
  Tensor bias;  // undefined: none; math.bias's type
};

// Chooses tiles, makes their primitives, packs the weights and adds the kernel.
Status AddDnnlConv(LoweringContext& context, const WindowGeometry& geometry,
                   const DnnlConvMath& math, DnnlConvOperands operands);
// AddDnnlConv would succeed: to be asked before the first Write. Makes the primitives.
Status CheckDnnlConv(const LoweringContext& context, const WindowGeometry& geometry,
                     const DnnlConvMath& math);

}  // namespace plexus::cpu
