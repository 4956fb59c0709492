// Canonicalize: one form for what different exporters and opsets write differently.
#include <algorithm>

#include "graph/passes/level.h"
#include "graph/passes/pass_util.h"
#include "graph/passes/passes.h"
#include "graph/shape_rules.h"

namespace plexus {
namespace {

// Outputs of these that nobody reads may simply be left out.
bool HasOptionalOutputs(const std::string& op) {
  return op == "BatchNormalization" || op == "Dropout" || op == "MaxPool" ||
         op == "LayerNormalization" || op == "LSTM" || op == "GRU" || op == "RNN";
}

class Canonicalizer {
 public:
  Canonicalizer(Graph& graph, const Evaluator& evaluator)
      : graph_(graph), evaluator_(evaluator), names_(graph), leveler_(graph, names_) {}

  Status Run();

 private:
  void CountReads();
  ValueId Resolve(ValueId id) const;
  Status RunNode(Node node);
  bool TakeConstant(Node& node);
  bool IsIdentity(const Node& node) const;
  bool RemoveIdentity(const Node& node);
  void DropUnreadOutputs(Node& node) const;
  void PullConstants(Node& node);
  void DropUnusedCaptures(Node& node);
  Status RunSubgraphs(Node& node);
  void InferTypes(const Node& node);

  // Calls fn(Graph&) on a copy of each subgraph, then puts the copy in its place.
  template <typename Fn>
  Status EditSubgraphs(Node& node, Fn fn) {
    for (auto& [name, attribute] : node.attributes) {
      auto* graph = std::get_if<GraphPtr>(&attribute);
      if (graph == nullptr) continue;
      Graph copy = **graph;
      PLEXUS_RETURN_IF_ERROR(fn(copy));
      *graph = std::make_shared<const Graph>(std::move(copy));
    }
    return OkStatus();
  }

  Graph& graph_;
  const Evaluator& evaluator_;
  NameTable names_;
  Leveler leveler_;
  std::vector<Node> kept_;
  std::vector<ValueId> replaced_by_;  // per value; invalid: stays
  std::vector<bool> is_output_, is_read_, made_by_node_;
};

void Canonicalizer::CountReads() {
  const size_t n = graph_.num_values();
  replaced_by_.resize(n);
  is_output_.resize(n, false);
  is_read_.resize(n, false);
  made_by_node_.resize(n, false);
  for (ValueId id : graph_.outputs()) is_output_[id.value()] = is_read_[id.value()] = true;
  for (const Node& node : graph_.nodes()) {
    for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
      for (ValueId id : *list) {
        if (id.valid()) is_read_[id.value()] = true;
      }
    }
  }
}

ValueId Canonicalizer::Resolve(ValueId id) const {
  while (id.valid() && id.value() < replaced_by_.size() && replaced_by_[id.value()].valid()) {
    id = replaced_by_[id.value()];
  }
  return id;
}

bool Canonicalizer::TakeConstant(Node& node) {
  if (node.op != "Constant" || !node.domain.empty() || node.outputs.size() != 1) return false;
  Tensor value;
  if (const Tensor* t = node.TensorAttr("value")) value = *t;
  if (node.HasAttr("value_int")) value = Tensor::ScalarInt64(node.IntAttr("value_int", 0));
  if (node.HasAttr("value_ints")) value = Tensor::VectorInt64(node.IntsAttr("value_ints"));
  if (node.HasAttr("value_float")) value = Tensor::Scalar(node.FloatAttr("value_float", 0));
  if (node.HasAttr("value_floats")) {
    const std::vector<float> floats = node.FloatsAttr("value_floats");
    value = Tensor::Of<float>(DType::kFloat32, {static_cast<int64_t>(floats.size())}, floats);
  }
  if (node.HasAttr("value_string")) {
    value = Tensor::FromStrings({}, {node.StringAttr("value_string", "")});
  }
  const auto strings = node.attributes.find("value_strings");
  if (strings != node.attributes.end()) {
    if (const auto* list = std::get_if<std::vector<std::string>>(&strings->second)) {
      value = Tensor::FromStrings({static_cast<int64_t>(list->size())}, *list);
    }
  }
  if (!value.defined()) return false;
  ConstantPtr constant = ConstantStore::Get().Intern(std::move(value));
  const ValueId id = node.outputs[0];
  graph_.value(id).dtype = constant->dtype();
  graph_.value(id).shape = SymbolicShape::FromConcrete(constant->shape());
  if (!is_output_[id.value()]) {
    graph_.value(id).constant = std::move(constant);
    return true;
  }
  const std::string name = names_.Fresh(graph_.value(id).name + "_value");
  const ValueId source = graph_.AddConstant(name, std::move(constant));
  kept_.push_back({"Identity", "", kCanonicalOpset, node.name, {source}, {id}, {}, {}, 0});
  return true;
}

bool Canonicalizer::IsIdentity(const Node& node) const {
  if (!node.domain.empty() || node.inputs.empty() || !node.inputs[0].valid()) return false;
  if (node.op == "Identity") return true;
  if (node.op != "Dropout") return false;
  if (node.outputs.size() > 1 && node.outputs[1].valid()) return false;  // somebody reads the mask
  if (node.inputs.size() < 3 || !node.inputs[2].valid()) return true;
  const auto training = ConstantInts(graph_, node.inputs[2]);
  return training && training->size() == 1 && (*training)[0] == 0;
}

// y = Identity(x): readers of y read x. Where y is a graph output its name must stay, so x, if a
// node makes it and it is no output itself, becomes y instead.
bool Canonicalizer::RemoveIdentity(const Node& node) {
  const ValueId x = node.inputs[0], y = node.outputs[0];
  if (!is_output_[y.value()]) {
    replaced_by_[y.value()] = x;
    return true;
  }
  const bool movable =
      x.value() < is_output_.size() && made_by_node_[x.value()] && !is_output_[x.value()];
  if (!movable) return false;
  replaced_by_[x.value()] = y;
  made_by_node_[y.value()] = true;
  Value& to = graph_.value(y);
  if (to.dtype == DType::kUndefined) to.dtype = graph_.value(x).dtype;
  return true;
}

void Canonicalizer::DropUnreadOutputs(Node& node) const {
  if (!node.domain.empty() || !HasOptionalOutputs(node.op)) return;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    ValueId& id = node.outputs[i];
    if (id.valid() && !is_read_[id.value()] &&
        (i > 0 || node.op == "LSTM" || node.op == "GRU" || node.op == "RNN")) {
      id = ValueId();
    }
  }
  while (node.outputs.size() > 1 && !node.outputs.back().valid()) node.outputs.pop_back();
}

// A captured constant becomes a constant of the subgraph, so that folding reaches it.
void Canonicalizer::PullConstants(Node& node) {
  for (size_t i = node.implicit_inputs.size(); i-- > 0;) {
    const ValueId outer = node.implicit_inputs[i];
    if (!outer.valid() || !graph_.value(outer).IsConstant()) continue;
    const Value constant = graph_.value(outer);
    (void)EditSubgraphs(node, [&](Graph& sub) {
      const ValueId inner = sub.captures()[i];
      if (inner.valid()) {
        sub.value(inner).dtype = constant.dtype;
        sub.value(inner).shape = constant.shape;
        sub.value(inner).constant = constant.constant;
      }
      sub.captures().erase(sub.captures().begin() + static_cast<ptrdiff_t>(i));
      return OkStatus();
    });
    node.implicit_inputs.erase(node.implicit_inputs.begin() + static_cast<ptrdiff_t>(i));
  }
}

void Canonicalizer::DropUnusedCaptures(Node& node) {
  std::vector<bool> used(node.implicit_inputs.size(), false);
  for (const auto& [name, attribute] : node.attributes) {
    const auto* sub = std::get_if<GraphPtr>(&attribute);
    if (sub == nullptr) continue;
    std::vector<bool> read((*sub)->num_values(), false);
    for (ValueId id : (*sub)->outputs()) read[id.value()] = true;
    for (const Node& inner : (*sub)->nodes()) {
      for (const auto* list : {&inner.inputs, &inner.implicit_inputs}) {
        for (ValueId id : *list) {
          if (id.valid()) read[id.value()] = true;
        }
      }
    }
    for (size_t i = 0; i < used.size(); ++i) {
      const ValueId id = (*sub)->captures()[i];
      if (id.valid() && read[id.value()]) used[i] = true;
    }
  }
  if (std::find(used.begin(), used.end(), false) == used.end()) return;
  const auto keep_used = [&](std::vector<ValueId>& ids) {
    std::vector<ValueId> kept;
    for (size_t i = 0; i < used.size(); ++i) {
      if (used[i]) kept.push_back(ids[i]);
    }
    ids = std::move(kept);
  };
  (void)EditSubgraphs(node, [&](Graph& sub) {
    keep_used(sub.captures());
    sub.RemoveDead();
    return OkStatus();
  });
  keep_used(node.implicit_inputs);
}

Status Canonicalizer::RunSubgraphs(Node& node) {
  if (!HasSubgraph(node)) return OkStatus();
  PullConstants(node);
  PLEXUS_RETURN_IF_ERROR(
      EditSubgraphs(node, [&](Graph& sub) { return Canonicalize(sub, evaluator_); }));
  DropUnusedCaptures(node);
  return OkStatus();
}

// Element types follow without shapes; levelling later nodes needs them.
void Canonicalizer::InferTypes(const Node& node) {
  const bool wanted = std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId id) {
    return id.valid() && graph_.value(id).dtype == DType::kUndefined;
  });
  if (!wanted || !HasShapeRule(node)) return;
  std::vector<KnownValue> known(node.inputs.size());
  std::vector<const KnownValue*> pointers(node.inputs.size(), nullptr);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid()) continue;
    known[i].dtype = graph_.value(node.inputs[i]).dtype;
    pointers[i] = &known[i];
  }
  std::vector<KnownValue> outputs;
  if (!shape_rules::InferInto(graph_, node, pointers, outputs).ok()) return;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    DType& dtype = graph_.value(node.outputs[i]).dtype;
    if (dtype == DType::kUndefined) dtype = outputs[i].dtype;
  }
}

Status Canonicalizer::RunNode(Node node) {
  for (ValueId& id : node.inputs) id = Resolve(id);
  for (ValueId& id : node.implicit_inputs) id = Resolve(id);
  DropUnreadOutputs(node);
  if (TakeConstant(node)) return OkStatus();
  if (IsIdentity(node)) {
    if (RemoveIdentity(node)) return OkStatus();
    node.op = "Identity";  // an inference Dropout that makes a graph output from an input
    node.inputs.resize(1);
    node.outputs.resize(1);
    node.attributes.clear();
  }
  leveler_.Level(node);
  PLEXUS_RETURN_IF_ERROR(RunSubgraphs(node));
  InferTypes(node);
  for (ValueId id : node.outputs) {
    if (id.valid()) made_by_node_[id.value()] = true;
  }
  kept_.push_back(std::move(node));
  return OkStatus();
}

Status Canonicalizer::Run() {
  CountReads();
  std::vector<Node> nodes = std::move(graph_.nodes());
  kept_.reserve(nodes.size());
  for (Node& node : nodes) PLEXUS_RETURN_IF_ERROR(RunNode(std::move(node)));
  for (Node& node : kept_) {  // earlier readers and makers of a value that became an output
    for (auto* list : {&node.inputs, &node.implicit_inputs, &node.outputs}) {
      for (ValueId& id : *list) id = Resolve(id);
    }
  }
  graph_.nodes() = std::move(kept_);
  return FoldConstants(graph_, evaluator_);
}

}  // namespace

Status Canonicalize(Graph& graph, const Evaluator& evaluator) {
  return Canonicalizer(graph, evaluator).Run();
}

}  // namespace plexus
