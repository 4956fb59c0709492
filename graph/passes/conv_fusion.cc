// Convolutions swallow what follows them: normalisation and affine steps into the weights, residual
// and activation into plexus.Conv.
#include <cmath>

#include "graph/passes/fused_ops.h"
#include "graph/passes/pattern.h"

namespace plexus {
namespace {

// y = scale·x + shift, per output channel.
struct Affine {
  std::vector<double> scale;
  std::vector<double> shift;
};

// A constant read as one number per channel of a rank-`rank` value: every dimension 1 but the
// channel's, or one element.
std::optional<std::vector<double>> PerChannel(const GraphEditor& editor, ValueId v, int64_t rank,
                                              int64_t channels) {
  if (!editor.IsConstant(v) || !editor.IsFloat32(v)) return std::nullopt;
  const Constant& c = *editor.value(v).constant;
  const Shape& shape = c.shape();
  const int64_t own_rank = static_cast<int64_t>(shape.size());
  if (own_rank > rank) return std::nullopt;
  for (int64_t i = 0; i < own_rank; ++i) {
    const bool is_channel = rank - own_rank + i == 1;
    if (shape[i] != 1 && !(is_channel && shape[i] == channels)) return std::nullopt;
  }
  const Tensor t = editor.ConstantTensor(v);
  if (!t.defined()) return std::nullopt;
  const auto data = t.data<float>();
  std::vector<double> out(channels);
  for (int64_t i = 0; i < channels; ++i) out[i] = data.size() == 1 ? data[0] : data[i];
  return out;
}

// BatchNormalization in inference form with constant statistics.
std::optional<Affine> BatchNormAffine(const GraphEditor& editor, const Node& bn,
                                      std::optional<int64_t> channels) {
  if (!IsOp(bn, "BatchNormalization") || bn.inputs.size() != 5) return std::nullopt;
  if (bn.IntAttr("training_mode", 0) != 0) return std::nullopt;
  for (size_t i = 1; i < bn.outputs.size(); ++i) {
    const ValueId out = bn.outputs[i];
    if (out.valid() && (!editor.Readers(out).empty() || editor.IsOutput(out))) return std::nullopt;
  }
  Tensor p[4];
  for (int i = 0; i < 4; ++i) {
    if (!editor.IsFloat32(bn.inputs[i + 1])) return std::nullopt;
    p[i] = editor.ConstantTensor(bn.inputs[i + 1]);
    if (!p[i].defined() || p[i].rank() != 1) return std::nullopt;
    if (!channels) channels = p[i].num_elements();
    if (p[i].num_elements() != *channels) return std::nullopt;
  }
  const double epsilon = bn.FloatAttr("epsilon", 1e-5f);
  Affine a{std::vector<double>(*channels), std::vector<double>(*channels)};
  for (int64_t c = 0; c < *channels; ++c) {
    const double inv = 1.0 / std::sqrt(p[3].data<float>()[c] + epsilon);
    a.scale[c] = p[0].data<float>()[c] * inv;
    a.shift[c] = p[1].data<float>()[c] - p[2].data<float>()[c] * a.scale[c];
    if (!std::isfinite(a.scale[c]) || !std::isfinite(a.shift[c])) return std::nullopt;
  }
  return a;
}

// The node as an affine function of its operand `x` with constant coefficients.
std::optional<Affine> MatchAffine(const GraphEditor& editor, const Node& n, ValueId x, int64_t rank,
                                  int64_t channels) {
  if (IsOp(n, "BatchNormalization")) {
    return n.inputs[0] == x ? BatchNormAffine(editor, n, channels) : std::nullopt;
  }
  const bool mul = IsOp(n, "Mul"), div = IsOp(n, "Div"), add = IsOp(n, "Add"), sub = IsOp(n, "Sub");
  if ((!mul && !div && !add && !sub) || n.inputs.size() != 2) return std::nullopt;
  const bool x_first = n.inputs[0] == x;
  if (div && !x_first) return std::nullopt;
  const auto c = PerChannel(editor, n.inputs[x_first ? 1 : 0], rank, channels);
  if (!c) return std::nullopt;
  Affine a{std::vector<double>(channels, 1), std::vector<double>(channels, 0)};
  for (int64_t i = 0; i < channels; ++i) {
    if (mul) a.scale[i] = (*c)[i];
    if (div) a.scale[i] = 1.0 / (*c)[i];
    if (add) a.shift[i] = (*c)[i];
    if (sub) a.shift[i] = x_first ? -(*c)[i] : (*c)[i];
    if (sub && !x_first) a.scale[i] = -1;
    if (!std::isfinite(a.scale[i]) || !std::isfinite(a.shift[i])) return std::nullopt;
  }
  return a;
}

// What the passes need to know of a convolution with constant weights.
struct ConvInfo {
  int64_t rank = 0;
  int64_t channels = 0;  // of the output
  int64_t groups = 1;
  bool transposed = false;
  Tensor weight;
  Tensor bias;  // undefined when absent
};
std::optional<ConvInfo> ReadConv(const GraphEditor& editor, const Node& n) {
  ConvInfo info;
  info.transposed = IsOp(n, "ConvTranspose");
  if ((!info.transposed && !IsOp(n, "Conv")) || n.inputs.size() < 2) return std::nullopt;
  if (!editor.IsConstant(n.inputs[1]) || !editor.IsFloat32(n.inputs[1])) return std::nullopt;
  const Shape& shape = editor.value(n.inputs[1]).constant->shape();
  info.rank = static_cast<int64_t>(shape.size());
  info.groups = n.IntAttr("group", 1);
  if (info.rank < 3 || info.groups < 1) return std::nullopt;
  info.channels = info.transposed ? shape[1] * info.groups : shape[0];
  if (info.channels < 1 || shape[0] % info.groups != 0) return std::nullopt;
  if (n.inputs.size() > 2 && n.inputs[2].valid()) {
    if (!editor.IsFloat32(n.inputs[2])) return std::nullopt;
    info.bias = editor.ConstantTensor(n.inputs[2]);
    if (!info.bias.defined() || info.bias.num_elements() != info.channels) return std::nullopt;
  }
  return info;
}

// Only when the weights are to change: reading packed ones restores their plain bytes.
bool ReadWeight(const GraphEditor& editor, const Node& n, ConvInfo& info) {
  info.weight = editor.ConstantTensor(n.inputs[1]);
  return info.weight.defined();
}

Result<Tensor> ScaleWeights(const ConvInfo& conv, const std::vector<double>& scale) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, conv.weight.Clone());
  const Shape& shape = out.shape();
  const auto data = out.mutable_data<float>();
  const int64_t per_row = shape[0] > 0 ? out.num_elements() / shape[0] : 0;
  for (int64_t row = 0; row < shape[0]; ++row) {
    float* w = data.data() + row * per_row;
    if (!conv.transposed) {
      for (int64_t i = 0; i < per_row; ++i) w[i] = static_cast<float>(w[i] * scale[row]);
      continue;
    }
    // ConvTranspose's weight is [C, M/groups, ...]: row c feeds group c/(C/groups).
    const int64_t first = row / (shape[0] / conv.groups) * shape[1];
    const int64_t taps = shape[1] > 0 ? per_row / shape[1] : 0;
    for (int64_t i = 0; i < per_row; ++i) w[i] = static_cast<float>(w[i] * scale[first + i / taps]);
  }
  return out;
}

Result<Tensor> FloatVector(const std::vector<double>& values) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor t,
                          Tensor::Allocate(DType::kFloat32, {static_cast<int64_t>(values.size())}));
  for (size_t i = 0; i < values.size(); ++i) {
    t.mutable_data<float>()[i] = static_cast<float>(values[i]);
  }
  return t;
}

// Conv followed by constant affine steps: all of them into weight and bias at once.
void FoldAffineAfter(GraphEditor& editor, NodeId conv_id) {
  std::optional<ConvInfo> conv = ReadConv(editor, editor.node(conv_id));
  if (!conv) return;
  const Node& conv_node = editor.node(conv_id);
  std::vector<double> scale(conv->channels, 1);
  std::vector<double> shift(conv->channels, 0);
  if (conv->bias.defined()) {
    for (int64_t c = 0; c < conv->channels; ++c) shift[c] = conv->bias.data<float>()[c];
  }
  NodeId last = conv_id;
  bool scales = false;
  for (;;) {
    const ValueId x = editor.node(last).outputs[0];
    const NodeId reader = editor.OnlyReader(x);
    if (!reader.valid()) break;
    const auto affine = MatchAffine(editor, editor.node(reader), x, conv->rank, conv->channels);
    if (!affine) break;
    // x + 3, clipped and divided by 6, is an activation spelt out, not a bias.
    if (IsOp(editor.node(reader), "Add") && MatchActivation(editor, x)) break;
    for (int64_t c = 0; c < conv->channels; ++c) {
      scale[c] *= affine->scale[c];
      shift[c] = shift[c] * affine->scale[c] + affine->shift[c];
      scales = scales || affine->scale[c] != 1;
    }
    last = reader;
  }
  if (last == conv_id) return;
  Node fused = conv_node;
  const std::string base = editor.value(fused.outputs[0]).name;
  if (scales) {
    if (!ReadWeight(editor, conv_node, *conv)) return;
    Result<Tensor> weight = ScaleWeights(*conv, scale);
    if (!weight.ok()) return;
    fused.inputs[1] = editor.NewConstant(std::move(*weight), base, "weight");
  }
  Result<Tensor> bias = FloatVector(shift);
  if (!bias.ok()) return;
  fused.inputs.resize(3);
  fused.inputs[2] = editor.NewConstant(std::move(*bias), base, "bias");
  fused.outputs = {editor.node(last).outputs[0]};
  editor.Replace(last, std::move(fused));
}

// Scalar affine steps before a convolution without padding: conv(s·x + t) = (s·w)·x + (b + t·Σw).
void FoldAffineBefore(GraphEditor& editor, NodeId conv_id) {
  const Node& node = editor.node(conv_id);
  if (!IsOp(node, "Conv") || node.StringAttr("auto_pad", "NOTSET") != "NOTSET") return;
  for (int64_t p : node.IntsAttr("pads")) {
    if (p != 0) return;
  }
  double scale = 1;
  double shift = 0;
  ValueId x = node.inputs[0];
  for (int steps = 0; steps < 4; ++steps) {
    const Node* n = editor.Producer(x);
    if (n == nullptr || !editor.OnlyReader(x).valid()) break;
    const std::optional<ScalarOperand> match = MatchScalar(editor, *n);
    if (!match || !editor.IsFloat32(match->other)) break;
    if (const std::optional<Scaled> scaled = MatchScaled(editor, *n)) {
      scale *= scaled->scale;
    } else if (IsOp(*n, "Add")) {
      shift += scale * match->scalar;
    } else if (IsOp(*n, "Sub") && !match->scalar_first) {
      shift -= scale * match->scalar;
    } else {
      break;
    }
    x = match->other;
  }
  if (x == node.inputs[0] || !std::isfinite(scale) || !std::isfinite(shift)) return;
  std::optional<ConvInfo> conv = ReadConv(editor, node);
  if (!conv || !ReadWeight(editor, node, *conv)) return;
  std::vector<double> bias(conv->channels, 0);
  const int64_t per_row = conv->weight.num_elements() / conv->channels;
  for (int64_t c = 0; c < conv->channels; ++c) {
    if (conv->bias.defined()) bias[c] = conv->bias.data<float>()[c];
    double sum = 0;
    for (int64_t i = 0; i < per_row; ++i) sum += conv->weight.data<float>()[c * per_row + i];
    bias[c] += shift * sum;
  }
  Result<Tensor> weight = ScaleWeights(*conv, std::vector<double>(conv->channels, scale));
  Result<Tensor> bias_tensor = FloatVector(bias);
  if (!weight.ok() || !bias_tensor.ok()) return;
  Node fused = node;
  const std::string base = editor.value(fused.outputs[0]).name;
  fused.inputs[0] = x;
  fused.inputs[1] = editor.NewConstant(std::move(*weight), base, "weight");
  fused.inputs.resize(3);
  fused.inputs[2] = editor.NewConstant(std::move(*bias_tensor), base, "bias");
  editor.Replace(conv_id, std::move(fused));
}

// BatchNormalization on its own: Mul and Add with per-channel constants, for FuseElementwise.
void SplitBatchNorm(GraphEditor& editor, NodeId id) {
  const Node& bn = editor.node(id);
  const std::optional<int64_t> rank = editor.Rank(bn.inputs[0]);
  if (!rank || *rank < 2 || !editor.IsFloat32(bn.outputs[0])) return;
  const std::optional<Affine> affine = BatchNormAffine(editor, bn, std::nullopt);
  if (!affine) return;
  Result<Tensor> scale = FloatVector(affine->scale);
  Result<Tensor> shift = FloatVector(affine->shift);
  if (!scale.ok() || !shift.ok()) return;
  Shape shape(*rank - 1, 1);
  shape[0] = scale->num_elements();
  Node mul, add;
  mul.op = "Mul";
  add.op = "Add";
  mul.version = add.version = bn.version;
  mul.name = bn.name + "/scale";
  add.name = bn.name;
  const ValueId x = bn.inputs[0];
  const ValueId y = bn.outputs[0];
  const std::string base = editor.value(y).name;
  const ValueId scaled = editor.NewValue(y, "scaled");
  mul.inputs = {x, editor.NewConstant(scale->Reshaped(shape), base, "scale")};
  mul.outputs = {scaled};
  add.inputs = {scaled, editor.NewConstant(shift->Reshaped(shape), base, "shift")};
  add.outputs = {y};
  editor.Append(std::move(mul));
  editor.Replace(id, std::move(add));
}

}  // namespace

void RunFuseConvBatchNorm(GraphEditor& editor) {
  // Each fold leaves the convolution in a later slot, where the walk meets it again and finds
  // nothing left to fold.
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!editor.IsAlive(id)) continue;
    const Node& n = editor.node(id);
    if (IsOp(n, "Conv") || IsOp(n, "ConvTranspose")) {
      FoldAffineBefore(editor, id);
      FoldAffineAfter(editor, id);
    } else if (IsOp(n, "BatchNormalization")) {
      SplitBatchNorm(editor, id);
    }
  }
}

void RunFuseConvEpilogue(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!editor.IsAlive(id) || !IsOp(editor.node(id), "Conv")) continue;
    const Node& conv = editor.node(id);
    if (conv.inputs.size() < 2 || !editor.IsFloat32(conv.inputs[1])) continue;
    NodeId last = id;
    ValueId y = conv.outputs[0];
    ValueId residual;
    const NodeId add_id = editor.OnlyReader(y);
    if (add_id.valid() && IsOp(editor.node(add_id), "Add")) {
      const Node& add = editor.node(add_id);
      const ValueId other = add.inputs[add.inputs[0] == y ? 1 : 0];
      // Of two convolutions that meet in one Add the later one takes the other's result.
      const NodeId other_id = editor.ProducerId(other);
      const bool other_takes_it = other_id.valid() && other_id.value() > i &&
                                  editor.OnlyReader(other).valid() &&
                                  IsOp(editor.node(other_id), "Conv");
      if (!other_takes_it && editor.SameShape(y, other) && editor.IsFloat32(other)) {
        residual = other;
        last = add_id;
        y = add.outputs[0];
      }
    }
    Node fused = conv;
    fused.domain = kPlexusDomain;
    fused.version = 1;
    if (std::optional<Activation> activation = MatchActivation(editor, y)) {
      last = activation->last;
      SetActivation(fused, std::move(*activation));
    }
    if (residual.valid()) {
      fused.inputs.resize(4);
      fused.inputs[3] = residual;
    }
    fused.outputs = {editor.node(last).outputs[0]};
    editor.Replace(last, std::move(fused));
  }
}

}  // namespace plexus
