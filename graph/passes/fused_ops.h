// The fused operators of domain "plexus" that Optimize produces and every device lowers. Each also
// has a reference implementation (program/reference), so that any device can fall back to it.
//
//   plexus.Conv(x, w, bias?, residual?) attributes of ONNX Conv plus
//       activation: one of the names below ("" none), activation_params: floats
//       y = activation(conv(x, w) + bias + residual); residual has y's shape.
//   plexus.MatMul(a, b, bias?, residual?) trans_a, trans_b: ints; alpha: float; activation...
//       a: [..., M, K] (or transposed), b: [..., K, N] or [K, N]; bias: [N]; residual: y's shape.
//       y = activation(alpha * a·b + bias + residual)
//   plexus.Attention(q, k, v, mask?) q: [B,H,S,D], k: [B,H,T,D], v: [B,H,T,E]; scale: float;
//       mask broadcastable to [B,H,S,T], added to the scaled scores. y: [B,H,S,E]
//   plexus.Elementwise(inputs...) a straight-line pointwise program over broadcast inputs:
//       ops: strings, one per step; args: ints, three per step: indices of operands, where
//       0..n-1 are the inputs and n+i is step i's result, -1 unused; params: floats, two per step
//       (Clip min/max, LeakyRelu alpha, HardSigmoid alpha/beta, ...). The last step is the output.
//       Floating point only (float32); comparison and Where steps use 0/1 floats inside.
//   plexus.QConv / plexus.QMatMul: quantised forms; see fused_ops.md beside this file.
//   plexus.MapRows(inputs...; captures) body: graph — applies body to every row (axis 0, kept as
//       leading 1) of each input and concatenates the results on axis 0, a scalar as one row; zero
//       rows give zero rows. Attributes of a pipeline's `foreach`: limit, the most rows there may
//       be; pad_<i>, a scalar that fills results of output i up where their sizes differ; sizes,
//       ints: one more output per entry, int64[rows], how many rows each gave of that output;
//       concurrency, how many rows run at once; stage, on every node that stands for a stage.
//   plexus.FanOut(inputs...) limit: the inputs themselves; an error where one has more rows, or
//       another number of rows than the first.
//
// Activations (activation_params in brackets): Relu, LeakyRelu(alpha), Sigmoid, Tanh, Gelu,
// GeluTanh, Clip(min,max), HardSigmoid(alpha,beta), HardSwish, Silu, Elu(alpha), Softplus,
// LeakyReluClip(alpha,min,max) = clip(leaky_relu(x, alpha), min, max) and
// HardSwishAffine(scale,shift) = scale * hard_swish(x) + shift. See fused_ops.md for formulas and
// for the names of the steps of plexus.Elementwise.
#pragma once

#include <string_view>

namespace plexus {

inline constexpr std::string_view kPlexusDomain = "plexus";

}  // namespace plexus
