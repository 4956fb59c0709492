#include "graph/passes/pattern.h"

#include <algorithm>
#include <cmath>

namespace plexus {

GraphEditor::GraphEditor(Graph& graph) : graph_(graph) { Index(); }

void GraphEditor::Index() {
  producers_ = graph_.Producers();
  readers_.assign(graph_.num_values(), {});
  output_uses_.assign(graph_.num_values(), 0);
  dead_.assign(graph_.num_nodes(), false);
  for (ValueId v : graph_.outputs()) ++output_uses_[v.value()];
  for (size_t n = 0; n < graph_.num_nodes(); ++n) AddReads(NodeId(static_cast<uint32_t>(n)));
}

void GraphEditor::AddReads(NodeId id) {
  const Node& n = graph_.node(id);
  for (const auto* list : {&n.inputs, &n.implicit_inputs}) {
    for (ValueId v : *list) {
      if (v.valid()) readers_[v.value()].push_back(id);
    }
  }
}

void GraphEditor::DropReads(NodeId id) {
  // A copy: dying producers must not disturb the walk.
  std::vector<ValueId> reads = graph_.node(id).inputs;
  const auto& implicit = graph_.node(id).implicit_inputs;
  reads.insert(reads.end(), implicit.begin(), implicit.end());
  for (ValueId v : reads) {
    if (v.valid()) DropRead(v, id);
  }
}

void GraphEditor::DropRead(ValueId v, NodeId reader) {
  auto& list = readers_[v.value()];
  auto it = std::find(list.begin(), list.end(), reader);
  if (it != list.end()) list.erase(it);
  KillIfUnread(v);
}

void GraphEditor::KillIfUnread(ValueId v) {
  const NodeId id = producers_[v.value()];
  if (!id.valid() || dead_[id.value()]) return;
  for (ValueId out : graph_.node(id).outputs) {
    if (!out.valid()) continue;
    if (!readers_[out.value()].empty() || output_uses_[out.value()] > 0) return;
  }
  dead_[id.value()] = true;
  changed_ = true;
  DropReads(id);
}

NodeId GraphEditor::ProducerId(ValueId v) const {
  return v.valid() ? producers_[v.value()] : NodeId();
}

const Node* GraphEditor::Producer(ValueId v) const {
  const NodeId id = ProducerId(v);
  return id.valid() && !dead_[id.value()] ? &graph_.node(id) : nullptr;
}

const Node* GraphEditor::Producer(ValueId v, std::string_view op) const {
  const Node* n = Producer(v);
  return n != nullptr && IsOp(*n, op) ? n : nullptr;
}

NodeId GraphEditor::OnlyReader(ValueId v) const {
  if (!v.valid() || IsOutput(v) || readers_[v.value()].size() != 1) return NodeId();
  return readers_[v.value()][0];
}

bool GraphEditor::ReadOnlyInside(std::span<const NodeId> nodes, NodeId last) const {
  for (NodeId id : nodes) {
    if (id == last) continue;
    for (ValueId out : node(id).outputs) {
      if (!out.valid()) continue;
      if (IsOutput(out)) return false;
      for (NodeId reader : Readers(out)) {
        if (std::find(nodes.begin(), nodes.end(), reader) == nodes.end()) return false;
      }
    }
  }
  return true;
}

namespace {

// Operators whose first operand has the rank of the result.
bool KeepsRank(const Node& n) {
  static constexpr std::string_view kOps[] = {"BatchNormalization",
                                              "Relu",
                                              "MaxPool",
                                              "AveragePool",
                                              "GlobalAveragePool",
                                              "Clip",
                                              "Concat",
                                              "Sigmoid",
                                              "LeakyRelu",
                                              "HardSigmoid",
                                              "HardSwish",
                                              "Softmax",
                                              "Erf",
                                              "Sqrt",
                                              "Resize",
                                              "Tanh",
                                              "Cast",
                                              "Slice",
                                              "Pad",
                                              "LayerNormalization"};
  return n.domain.empty() && std::find(std::begin(kOps), std::end(kOps), n.op) != std::end(kOps);
}

std::optional<int64_t> RankOf(const GraphEditor& editor, ValueId v, int* budget) {
  while (v.valid() && --*budget > 0) {
    const Value& val = editor.value(v);
    if (val.IsConstant()) return static_cast<int64_t>(val.constant->shape().size());
    if (val.shape.has_rank) return static_cast<int64_t>(val.shape.dims.size());
    const Node* n = editor.Producer(v);
    if (n == nullptr || n->inputs.empty()) return std::nullopt;
    if (IsOp(*n, "Add") || IsOp(*n, "Mul") || IsOp(*n, "Div") || IsOp(*n, "Sub")) {
      const auto a = RankOf(editor, n->inputs[0], budget);
      const auto b = RankOf(editor, n->inputs[1], budget);
      if (!a || !b) return std::nullopt;
      return std::max(*a, *b);
    }
    if (n->op == "Conv" || n->op == "ConvTranspose") {
      v = n->inputs[1];
    } else if (KeepsRank(*n)) {
      v = n->inputs[0];
    } else {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> GraphEditor::Rank(ValueId v) const {
  int budget = 64;
  return RankOf(*this, v, &budget);
}

bool GraphEditor::SameShape(ValueId a, ValueId b) const {
  const auto& x = value(a).shape;
  const auto& y = value(b).shape;
  if (!x.has_rank || !y.has_rank || x.dims.size() != y.dims.size()) return false;
  for (size_t i = 0; i < x.dims.size(); ++i) {
    if (!x.dims[i].value || !y.dims[i].value || *x.dims[i].value != *y.dims[i].value) return false;
  }
  return true;
}

Tensor GraphEditor::ConstantTensor(ValueId v) const {
  if (!IsConstant(v)) return Tensor();
  Result<Tensor> plain = value(v).constant->Plain();
  return plain.ok() ? *plain : Tensor();
}

std::optional<float> GraphEditor::Scalar(ValueId v) const {
  if (!IsConstant(v) || value(v).constant->num_elements() != 1 || !IsFloat32(v)) {
    return std::nullopt;
  }
  const Tensor t = ConstantTensor(v);
  if (!t.defined()) return std::nullopt;
  return t.data<float>()[0];
}

std::optional<std::vector<int64_t>> GraphEditor::Ints(ValueId v) const {
  if (!IsConstant(v) || !IsInteger(value(v).dtype)) return std::nullopt;
  const Tensor t = ConstantTensor(v);
  if (!t.defined()) return std::nullopt;
  Result<std::vector<int64_t>> ints = ToInt64Vector(t);
  if (!ints.ok()) return std::nullopt;
  return std::move(*ints);
}

std::string GraphEditor::UniqueName(std::string_view base, std::string_view suffix) {
  if (names_.empty()) {
    for (const Value& v : graph_.values()) names_.insert(v.name);
  }
  std::string name = std::string(base) + "/" + std::string(suffix);
  for (int i = 2; !names_.insert(name).second; ++i) {
    name = std::string(base) + "/" + std::string(suffix) + std::to_string(i);
  }
  return name;
}

ValueId GraphEditor::NewValue(ValueId like, std::string_view suffix) {
  Value v;
  v.name = UniqueName(value(like).name, suffix);
  v.dtype = value(like).dtype;
  v.shape = value(like).shape;
  producers_.emplace_back();
  readers_.emplace_back();
  output_uses_.push_back(0);
  return graph_.AddValue(std::move(v));
}

ValueId GraphEditor::NewConstant(Tensor tensor, std::string_view base, std::string_view suffix) {
  producers_.emplace_back();
  readers_.emplace_back();
  output_uses_.push_back(0);
  return graph_.AddConstant(UniqueName(base, suffix),
                            ConstantStore::Get().Intern(std::move(tensor)));
}

void GraphEditor::Replace(NodeId slot, Node node) {
  changed_ = true;
  const bool was_alive = !dead_[slot.value()];
  // The old reads go after the new ones are there, so that what both read stays alive.
  std::vector<ValueId> old_reads;
  if (was_alive) {
    const Node& old = graph_.node(slot);
    old_reads = old.inputs;
    old_reads.insert(old_reads.end(), old.implicit_inputs.begin(), old.implicit_inputs.end());
  }
  if (node.fusion_group == 0) node.fusion_group = graph_.node(slot).fusion_group;
  graph_.node(slot) = std::move(node);
  dead_[slot.value()] = false;
  for (ValueId out : graph_.node(slot).outputs) {
    if (out.valid()) producers_[out.value()] = slot;
  }
  AddReads(slot);
  for (ValueId v : old_reads) {
    if (v.valid()) DropRead(v, slot);
  }
}

void GraphEditor::Append(Node node) {
  changed_ = true;
  needs_sort_ = true;
  const NodeId id = graph_.AddNode(std::move(node));
  dead_.push_back(false);
  for (ValueId out : graph_.node(id).outputs) {
    if (out.valid()) producers_[out.value()] = id;
  }
  AddReads(id);
}

bool GraphEditor::ReplaceValue(ValueId from, ValueId to) {
  if (IsOutput(from)) {
    const NodeId maker = ProducerId(to);
    if (IsOutput(to) || !maker.valid() || dead_[maker.value()]) return false;
    // The maker of `to` makes `from` instead; the old maker of `from` is forgotten.
    const NodeId old = ProducerId(from);
    if (!old.valid() || node(old).outputs.size() != 1) return false;
    dead_[old.value()] = true;
    changed_ = true;
    graph_.node(old).outputs[0] = ValueId();
    const std::vector<ValueId> reads = node(old).inputs;
    graph_.node(old).inputs.clear();
    for (ValueId& out : graph_.node(maker).outputs) {
      if (out == to) out = from;
    }
    producers_[from.value()] = maker;
    producers_[to.value()] = NodeId();
    for (ValueId v : reads) {
      if (v.valid()) DropRead(v, old);
    }
    std::swap(from, to);  // the readers of the vanished value move over
  }
  changed_ = true;
  const std::vector<NodeId> readers(Readers(from).begin(), Readers(from).end());
  for (NodeId reader : readers) {
    Node& n = graph_.node(reader);
    for (auto* list : {&n.inputs, &n.implicit_inputs}) {
      for (ValueId& v : *list) {
        if (v == from) v = to;
      }
    }
    readers_[to.value()].push_back(reader);
  }
  readers_[from.value()].clear();
  KillIfUnread(from);
  return true;
}

void GraphEditor::SetInput(NodeId id, size_t index, ValueId to) {
  changed_ = true;
  const ValueId from = node(id).inputs[index];
  if (from == to) return;
  graph_.node(id).inputs[index] = to;
  readers_[to.value()].push_back(id);
  if (from.valid()) DropRead(from, id);
}

Status GraphEditor::Finish() {
  if (needs_sort_) PLEXUS_RETURN_IF_ERROR(graph_.SortTopologically());
  if (changed_) graph_.RemoveDead();
  return OkStatus();
}

Status GraphEditor::Refresh() {
  if (!needs_sort_) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(Finish());
  needs_sort_ = false;
  Index();
  return OkStatus();
}

bool IsOp(const Node& node, std::string_view op) { return node.op == op && node.domain.empty(); }

bool Near(double a, double b, double relative) {
  return std::fabs(a - b) <= relative * std::fabs(b);
}

std::optional<ScalarOperand> MatchScalar(const GraphEditor& editor, const Node& node) {
  if (node.inputs.size() != 2 || !node.inputs[0].valid() || !node.inputs[1].valid()) {
    return std::nullopt;
  }
  for (size_t i = 2; i-- > 0;) {
    const std::optional<float> scalar = editor.Scalar(node.inputs[i]);
    const ValueId other = node.inputs[1 - i];
    if (!scalar || editor.IsConstant(other)) continue;
    const size_t scalar_rank = editor.value(node.inputs[i]).constant->shape().size();
    if (scalar_rank > 0) {
      const std::optional<int64_t> rank = editor.Rank(other);
      if (!rank || static_cast<int64_t>(scalar_rank) > *rank) return std::nullopt;
    }
    return ScalarOperand{other, *scalar, i == 0};
  }
  return std::nullopt;
}

std::optional<Scaled> MatchScaled(const GraphEditor& editor, const Node& node) {
  const bool is_div = IsOp(node, "Div");
  if (!is_div && !IsOp(node, "Mul")) return std::nullopt;
  const std::optional<ScalarOperand> match = MatchScalar(editor, node);
  if (!match || (is_div && (match->scalar_first || match->scalar == 0))) return std::nullopt;
  return Scaled{match->other, is_div ? 1.0f / match->scalar : match->scalar};
}

std::optional<std::vector<int64_t>> ReduceAxes(const GraphEditor& editor, const Node& node) {
  std::vector<int64_t> axes;
  if (node.inputs.size() > 1 && node.inputs[1].valid()) {
    std::optional<std::vector<int64_t>> ints = editor.Ints(node.inputs[1]);
    if (!ints) return std::nullopt;
    axes = std::move(*ints);
  } else {
    axes = node.IntsAttr("axes");
  }
  if (const std::optional<int64_t> rank = editor.Rank(node.inputs[0])) {
    for (int64_t& axis : axes) axis = axis < 0 ? axis + *rank : axis;
  }
  std::sort(axes.begin(), axes.end());
  return axes;
}

}  // namespace plexus
