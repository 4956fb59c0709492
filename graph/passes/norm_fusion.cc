// LayerNormalization, GELU and Softmax that exporters spelt out, back into one ONNX node each.
#include <algorithm>
#include <cmath>

#include "graph/passes/pattern.h"

namespace plexus {
namespace {

// Walks up a pattern from its last node. `nodes` gathers what the pattern consists of. Reshapes are
// looked through where only scalars and reductions stand between (exporters reduce without keeping
// the axis and reshape back); whoever joins two branches checks the shape there.
class Upward {
 public:
  explicit Upward(const GraphEditor& editor) : editor_(&editor) {}

  // The producer of *v if it is `op`, reshapes skipped.
  const Node* Take(ValueId v, std::string_view op) {
    v = SkipReshapes(v);
    const Node* n = editor_->Producer(v, op);
    if (n != nullptr) Add(editor_->ProducerId(v));
    return n;
  }
  ValueId SkipReshapes(ValueId v) {
    for (;;) {
      const Node* n = editor_->Producer(v);
      if (n == nullptr || !n->domain.empty()) return v;
      const bool reshape = n->op == "Reshape" || n->op == "Unsqueeze" || n->op == "Squeeze";
      const bool same_expand = n->op == "Expand" && editor_->SameShape(v, n->inputs[0]);
      if (!reshape && !same_expand) return v;
      Add(editor_->ProducerId(v));
      loose_ = true;
      v = n->inputs[0];
    }
  }
  void Add(NodeId id) {
    if (std::find(nodes_.begin(), nodes_.end(), id) == nodes_.end()) nodes_.push_back(id);
  }
  std::vector<NodeId>& nodes() { return nodes_; }
  // Loose: a reduction that drops its axis, or a reshape, was passed, so the shape must be checked
  // where the branch joins x again.
  bool loose() const { return loose_; }
  void set_loose(bool loose) { loose_ = loose; }

 private:
  const GraphEditor* editor_;
  std::vector<NodeId> nodes_;
  bool loose_ = false;
};

// `small` broadcasts against `x` the way a reduction of x over `axes` with kept axes does.
bool HasKeptShape(const GraphEditor& editor, ValueId small, ValueId x,
                  const std::vector<int64_t>& axes) {
  if (!editor.HasShape(small) || !editor.HasShape(x)) return false;
  Shape expected = editor.GetShape(x);
  for (int64_t axis : axes) {
    if (axis < 0 || axis >= static_cast<int64_t>(expected.size())) return false;
    expected[axis] = 1;
  }
  return editor.GetShape(small) == expected;
}

// A mean or sum of `x` over `axes`: ReduceMean, or ReduceSum times a scalar 1/n.
struct Reduction {
  ValueId x;
  std::vector<int64_t> axes;
};
// The branch that ended in `small` may join x.
bool Joins(const GraphEditor& editor, const Upward& up, ValueId small, const Reduction& of) {
  return !up.loose() || HasKeptShape(editor, small, of.x, of.axes);
}

std::optional<Reduction> TakeReduce(const GraphEditor& editor, Upward& up, ValueId v,
                                    std::string_view op) {
  const Node* n = up.Take(v, op);
  if (n == nullptr) return std::nullopt;
  auto axes = ReduceAxes(editor, *n);
  if (!axes || axes->empty()) return std::nullopt;
  if (n->IntAttr("keepdims", 1) == 0) up.set_loose(true);
  return Reduction{n->inputs[0], std::move(*axes)};
}

int64_t Extent(const GraphEditor& editor, ValueId x, const std::vector<int64_t>& axes) {
  const auto& shape = editor.value(x).shape;
  int64_t n = 1;
  for (int64_t axis : axes) {
    if (!shape.has_rank || axis < 0 || axis >= static_cast<int64_t>(shape.dims.size()) ||
        !shape.dims[axis].value) {
      return 0;
    }
    n *= *shape.dims[axis].value;
  }
  return n;
}

std::optional<Reduction> TakeMean(const GraphEditor& editor, Upward& up, ValueId v) {
  if (auto mean = TakeReduce(editor, up, v, "ReduceMean")) return mean;
  const ValueId base = up.SkipReshapes(v);
  const Node* scale = editor.Producer(base);
  if (scale == nullptr) return std::nullopt;
  const std::optional<Scaled> scaled = MatchScaled(editor, *scale);
  if (!scaled) return std::nullopt;
  auto sum = TakeReduce(editor, up, scaled->other, "ReduceSum");
  if (!sum) return std::nullopt;
  const int64_t n = Extent(editor, sum->x, sum->axes);
  if (n <= 0 || !Near(scaled->scale, 1.0 / static_cast<double>(n))) return std::nullopt;
  up.Add(editor.ProducerId(base));
  return sum;
}

// v = x − mean(x): gives x and the mean's axes.
std::optional<Reduction> TakeCentred(const GraphEditor& editor, Upward& up, ValueId v) {
  const Node* sub = editor.Producer(v, "Sub");
  if (sub == nullptr) return std::nullopt;
  up.Add(editor.ProducerId(v));
  const bool outer_loose = up.loose();
  up.set_loose(false);
  auto mean = TakeMean(editor, up, sub->inputs[1]);
  if (!mean || mean->x != sub->inputs[0]) return std::nullopt;
  if (!Joins(editor, up, sub->inputs[1], *mean)) return std::nullopt;
  up.set_loose(outer_loose);
  return mean;
}

// v = y² as Pow(y, 2) or Mul(y, y).
ValueId TakeSquare(const GraphEditor& editor, Upward& up, ValueId v) {
  const Node* n = editor.Producer(v);
  if (n == nullptr) return ValueId();
  const bool mul = IsOp(*n, "Mul") && n->inputs[0] == n->inputs[1];
  const bool pow = IsOp(*n, "Pow") && editor.Scalar(n->inputs[1]) == 2.0f;
  const auto ints = IsOp(*n, "Pow") ? editor.Ints(n->inputs[1]) : std::nullopt;
  if (!mul && !pow && !(ints && ints->size() == 1 && (*ints)[0] == 2)) return ValueId();
  up.Add(editor.ProducerId(v));
  return n->inputs[0];
}

// The variance of x over axes: mean((x−mean)²), or mean(x²) − mean(x)², at least 0.
bool TakeVariance(const GraphEditor& editor, Upward& up, ValueId v, const Reduction& of) {
  Upward trial = up;
  if (auto mean = TakeMean(editor, trial, v); mean && mean->axes == of.axes) {
    const ValueId centred = TakeSquare(editor, trial, mean->x);
    if (centred.valid()) {
      auto again = TakeCentred(editor, trial, centred);
      if (again && again->x == of.x && again->axes == of.axes) {
        up = trial;
        return true;
      }
    }
  }
  v = up.SkipReshapes(v);
  if (const Node* max = editor.Producer(v, "Max")) {
    const std::optional<ScalarOperand> zero = MatchScalar(editor, *max);
    if (!zero || zero->scalar != 0) return false;
    up.Add(editor.ProducerId(v));
    v = zero->other;
  }
  const Node* sub = up.Take(v, "Sub");
  if (sub == nullptr) return false;
  auto mean_of_square = TakeMean(editor, up, sub->inputs[0]);
  if (!mean_of_square || mean_of_square->axes != of.axes) return false;
  if (TakeSquare(editor, up, mean_of_square->x) != of.x) return false;
  const ValueId mean = TakeSquare(editor, up, up.SkipReshapes(sub->inputs[1]));
  if (!mean.valid()) return false;
  auto plain_mean = TakeMean(editor, up, mean);
  return plain_mean && plain_mean->x == of.x && plain_mean->axes == of.axes;
}

// sqrt(variance + epsilon). `joined` is the value that meets x again.
std::optional<float> TakeDeviation(const GraphEditor& editor, Upward& up, ValueId v,
                                   const Reduction& of, ValueId joined) {
  up.set_loose(false);
  const Node* sqrt = up.Take(v, "Sqrt");
  if (sqrt == nullptr) return std::nullopt;
  const Node* add = up.Take(sqrt->inputs[0], "Add");
  if (add == nullptr) return std::nullopt;
  const std::optional<ScalarOperand> epsilon = MatchScalar(editor, *add);
  if (!epsilon || !(epsilon->scalar >= 0)) return std::nullopt;
  if (!TakeVariance(editor, up, epsilon->other, of)) return std::nullopt;
  if (!Joins(editor, up, joined, of)) return std::nullopt;
  return epsilon->scalar;
}

struct Norm {
  Reduction of;
  float epsilon = 0;
  ValueId gamma;  // constant, may be absent
  NodeId last;
};

// (x−mean)/deviation, with gamma where it is multiplied into the reciprocal first.
std::optional<Norm> TakeNorm(const GraphEditor& editor, Upward& up, NodeId id) {
  const Node& n = editor.node(id);
  up.Add(id);
  Norm norm;
  norm.last = id;
  if (IsOp(n, "Div")) {
    auto of = TakeCentred(editor, up, n.inputs[0]);
    if (!of) return std::nullopt;
    norm.of = std::move(*of);
    auto epsilon = TakeDeviation(editor, up, n.inputs[1], norm.of, n.inputs[1]);
    if (!epsilon) return std::nullopt;
    norm.epsilon = *epsilon;
    return norm;
  }
  for (int i = 0; i < 2; ++i) {
    Upward trial = up;
    if (editor.Producer(n.inputs[i], "Sub") == nullptr) continue;
    auto of = TakeCentred(editor, trial, n.inputs[i]);
    if (!of) continue;
    norm.of = std::move(*of);
    ValueId inverse = n.inputs[1 - i];
    if (const Node* mul = editor.Producer(inverse, "Mul")) {
      const int constant = editor.IsConstant(mul->inputs[0]) ? 0 : 1;
      if (!editor.IsConstant(mul->inputs[constant])) continue;
      trial.Add(editor.ProducerId(inverse));
      norm.gamma = mul->inputs[constant];
      inverse = mul->inputs[1 - constant];
    }
    const Node* reciprocal = editor.Producer(inverse, "Reciprocal");
    if (reciprocal == nullptr) continue;
    trial.Add(editor.ProducerId(inverse));
    auto epsilon = TakeDeviation(editor, trial, reciprocal->inputs[0], norm.of, inverse);
    if (!epsilon) continue;
    norm.epsilon = *epsilon;
    up = trial;
    return norm;
  }
  return std::nullopt;
}

// A constant as a tensor of shape `dims`, the normalised dimensions at the end of a value of rank
// `rank`: leading ones dropped, one number spread. An invalid id when it varies otherwise.
ValueId AsNormParameter(GraphEditor& editor, ValueId v, const Shape& dims, int64_t rank,
                        std::string_view base, std::string_view suffix) {
  if (!editor.IsConstant(v) || !editor.IsFloat32(v)) return ValueId();
  Shape shape = editor.value(v).constant->shape();
  if (shape == dims) return v;
  if (static_cast<int64_t>(shape.size()) > rank) return ValueId();
  const Tensor t = editor.ConstantTensor(v);
  if (!t.defined()) return ValueId();
  if (t.num_elements() != 1 || NumElementsUnchecked(dims) == 1) {
    while (shape.size() > dims.size() && shape.front() == 1) shape.erase(shape.begin());
    if (shape != dims) return ValueId();
    return editor.NewConstant(t.Reshaped(dims), base, suffix);
  }
  Result<Tensor> spread = Tensor::Allocate(DType::kFloat32, dims);
  if (!spread.ok()) return ValueId();
  for (float& f : spread->mutable_data<float>()) f = t.data<float>()[0];
  return editor.NewConstant(std::move(*spread), base, suffix);
}

// Add or Mul of `y` with something: the something.
ValueId OtherOperand(const GraphEditor& editor, ValueId y, std::string_view op, NodeId* id) {
  *id = editor.OnlyReader(y);
  if (!id->valid() || !IsOp(editor.node(*id), op)) return ValueId();
  const Node& n = editor.node(*id);
  return n.inputs[n.inputs[0] == y ? 1 : 0];
}

// The parameter moved to the end: [1, 512, 1] at axis 1 of a rank-3 value is [512] behind a
// transpose.
Tensor AxisVector(const Tensor& t, int64_t rank, int64_t axis, int64_t extent) {
  if (!t.defined() || t.rank() > rank || t.num_elements() != extent) return Tensor();
  const int64_t at = axis - (rank - t.rank());
  if (at < 0 || t.shape()[at] != extent) return Tensor();
  return t.Reshaped({extent});
}

// Normalisation over one axis that is not the last: transposes around LayerNormalization, which
// often cancel against the transposes that made the exporter normalise there.
void EmitTransposed(GraphEditor& editor, const Norm& norm, ValueId gamma, ValueId beta, NodeId last,
                    int version) {
  const ValueId x = norm.of.x;
  if (!editor.HasShape(x)) return;
  const Shape shape = editor.GetShape(x);
  const int64_t rank = static_cast<int64_t>(shape.size());
  const int64_t axis = norm.of.axes[0];
  const ValueId y = editor.node(last).outputs[0];
  const std::string base = editor.value(y).name;
  const Tensor scale = AxisVector(editor.ConstantTensor(gamma), rank, axis, shape[axis]);
  const Tensor shift =
      beta.valid() ? AxisVector(editor.ConstantTensor(beta), rank, axis, shape[axis]) : Tensor();
  if (!scale.defined() || (beta.valid() && !shift.defined())) return;
  std::vector<int64_t> perm, inverse(rank);
  for (int64_t i = 0; i < rank; ++i) {
    if (i != axis) perm.push_back(i);
  }
  perm.push_back(axis);
  Shape moved;
  for (int64_t i = 0; i < rank; ++i) {
    inverse[perm[i]] = i;
    moved.push_back(shape[perm[i]]);
  }
  const ValueId before = editor.NewValue(x, "axis_last");
  const ValueId after = editor.NewValue(y, "axis_last");
  editor.SetShape(before, SymbolicShape::FromConcrete(moved));
  editor.SetShape(after, SymbolicShape::FromConcrete(moved));
  Node in, norm_node, out;
  in.op = out.op = "Transpose";
  in.version = out.version = norm_node.version = version;
  in.name = base + "/axis_last";
  out.name = base + "/axis_back";
  norm_node.op = "LayerNormalization";
  norm_node.name = editor.node(last).name;
  in.inputs = {x};
  in.outputs = {before};
  in.attributes["perm"] = perm;
  norm_node.inputs = {before, editor.NewConstant(scale, base, "gamma")};
  if (shift.defined()) norm_node.inputs.push_back(editor.NewConstant(shift, base, "beta"));
  norm_node.outputs = {after};
  norm_node.attributes["axis"] = int64_t{-1};
  norm_node.attributes["epsilon"] = norm.epsilon;
  out.inputs = {after};
  out.outputs = {y};
  out.attributes["perm"] = inverse;
  editor.Append(std::move(in));
  editor.Append(std::move(norm_node));
  editor.Replace(last, std::move(out));
}

void FuseNormAt(GraphEditor& editor, NodeId id) {
  Upward up(editor);
  std::optional<Norm> norm = TakeNorm(editor, up, id);
  if (!norm) return;
  if (!editor.ReadOnlyInside(up.nodes(), id)) return;
  const ValueId x = norm->of.x;
  const std::optional<int64_t> rank = editor.Rank(x);
  const std::vector<int64_t>& axes = norm->of.axes;
  // Trailing axes: -k..-1, or the last k where the rank is known.
  const int64_t k = static_cast<int64_t>(axes.size());
  const int64_t end = axes.back() < 0 ? 0 : (rank ? *rank : -1);
  bool trailing = true;
  for (int64_t i = 0; i < k; ++i) trailing = trailing && axes[i] == end - k + i;
  const bool one_inner = k == 1 && !trailing && rank && axes[0] >= 0;
  if (!trailing && !one_inner) return;

  // Gamma and beta behind it.
  ValueId y = editor.node(id).outputs[0];
  NodeId last = id;
  NodeId next;
  ValueId gamma = norm->gamma;
  if (!gamma.valid()) {
    const ValueId other = OtherOperand(editor, y, "Mul", &next);
    if (editor.IsConstant(other)) {
      gamma = other;
      last = next;
      y = editor.node(last).outputs[0];
    }
  }
  ValueId beta = OtherOperand(editor, y, "Add", &next);
  if (!editor.IsConstant(beta)) beta = ValueId();
  const NodeId beta_node = next;

  const int version = std::max(editor.node(id).version, 17);
  if (one_inner) {
    if (!gamma.valid()) return;
    EmitTransposed(editor, *norm, gamma, beta, beta.valid() ? beta_node : last, version);
    return;
  }
  Shape dims;
  for (int64_t i = 0; i < k; ++i) {
    const int64_t extent = Extent(editor, x, {rank ? *rank - k + i : -1});
    if (extent > 0) dims.push_back(extent);
  }
  // Without known dimensions gamma's own shape tells, if it has one number per element.
  if (dims.empty() && gamma.valid()) dims = editor.value(gamma).constant->shape();
  if (static_cast<int64_t>(dims.size()) != k) return;
  const std::string base = editor.value(editor.node(id).outputs[0]).name;
  const int64_t max_rank = rank.value_or(k);
  ValueId scale;
  if (gamma.valid()) scale = AsNormParameter(editor, gamma, dims, max_rank, base, "gamma");
  if (!scale.valid()) {
    // What multiplies the result is no gamma: leave it and scale by one.
    if (norm->gamma.valid()) return;
    Result<Tensor> ones = Tensor::Allocate(DType::kFloat32, dims);
    if (!ones.ok()) return;
    for (float& f : ones->mutable_data<float>()) f = 1;
    scale = editor.NewConstant(std::move(*ones), base, "gamma");
    last = id;
    beta = ValueId();
  }
  Node fused;
  fused.op = "LayerNormalization";
  fused.version = version;
  fused.name = editor.node(id).name;
  fused.inputs = {x, scale};
  if (beta.valid()) {
    const ValueId shift = AsNormParameter(editor, beta, dims, max_rank, base, "beta");
    if (shift.valid()) {
      fused.inputs.push_back(shift);
      last = beta_node;
    }
  }
  fused.attributes["axis"] = -k;
  fused.attributes["epsilon"] = norm->epsilon;
  fused.outputs = {editor.node(last).outputs[0]};
  editor.Replace(last, std::move(fused));
}

}  // namespace

void RunFuseLayerNorm(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!editor.IsAlive(id)) continue;
    const Node& n = editor.node(id);
    if ((IsOp(n, "Div") || IsOp(n, "Mul")) && n.inputs.size() == 2 &&
        editor.IsFloat32(n.outputs[0])) {
      FuseNormAt(editor, id);
    }
  }
}

void RunFuseSoftmax(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!editor.IsAlive(id) || !IsOp(editor.node(id), "Div")) continue;
    const Node& div = editor.node(id);
    Upward up(editor);
    up.Add(id);
    const Node* exp = editor.Producer(div.inputs[0], "Exp");
    if (exp == nullptr) continue;
    up.Add(editor.ProducerId(div.inputs[0]));
    auto sum = TakeReduce(editor, up, div.inputs[1], "ReduceSum");
    if (!sum || sum->x != div.inputs[0] || sum->axes.size() != 1) continue;
    if (!Joins(editor, up, div.inputs[1], *sum)) continue;
    up.set_loose(false);
    const Node* sub = editor.Producer(exp->inputs[0], "Sub");
    if (sub == nullptr) continue;
    up.Add(editor.ProducerId(exp->inputs[0]));
    ValueId top = up.SkipReshapes(sub->inputs[1]);
    if (const Node* max = editor.Producer(top, "Max")) {  // max(−inf, ·)
      const std::optional<ScalarOperand> bound = MatchScalar(editor, *max);
      if (!bound || bound->scalar != -INFINITY) continue;
      up.Add(editor.ProducerId(top));
      top = bound->other;
    }
    auto max = TakeReduce(editor, up, top, "ReduceMax");
    if (!max || max->x != sub->inputs[0] || max->axes != sum->axes) continue;
    if (!Joins(editor, up, sub->inputs[1], *max)) continue;
    if (!editor.ReadOnlyInside(up.nodes(), id)) continue;
    Node fused;
    fused.op = "Softmax";
    fused.version = std::max(div.version, 13);
    fused.name = div.name;
    fused.inputs = {max->x};
    fused.outputs = div.outputs;
    fused.attributes["axis"] = max->axes[0];
    editor.Replace(id, std::move(fused));
  }
}

}  // namespace plexus
