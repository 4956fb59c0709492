// FoldConstants: what follows from constants alone is computed once, here.
#include <algorithm>

#include "graph/passes/pass_util.h"
#include "graph/passes/passes.h"
#include "graph/shape_rules.h"

namespace plexus {
namespace {

class Folder {
 public:
  // `budget` is what may still be made, in bytes; subgraphs draw on the same.
  Folder(Graph& graph, const Evaluator& evaluator, size_t max_result_bytes, size_t& budget)
      : graph_(graph), evaluator_(evaluator), max_result_bytes_(max_result_bytes), budget_(budget) {
    is_output_.assign(graph.num_values(), false);
    for (ValueId id : graph.outputs()) is_output_[id.value()] = true;
  }

  Status Run();
  bool changed() const { return changed_; }

 private:
  bool IsCandidate(const Node& node) const;
  // A result as large as its inputs is no loss, but a chain of those may double at every node.
  bool MayMake(size_t bytes, size_t input_bytes) const {
    return bytes <= budget_ && (bytes <= max_result_bytes_ || bytes <= input_bytes);
  }
  // False before any work when the rules already know that the result is too large.
  bool MayFit(const Node& node, size_t input_bytes);
  Result<bool> Fold(const Node& node, std::vector<Node>& kept);
  Status FoldSubgraphs(Node& node);

  Graph& graph_;
  const Evaluator& evaluator_;
  const size_t max_result_bytes_;
  size_t& budget_;
  std::vector<bool> is_output_;
  bool changed_ = false;
};

bool Folder::IsCandidate(const Node& node) const {
  const auto constant = [&](ValueId id) { return !id.valid() || graph_.value(id).IsConstant(); };
  if (node.inputs.empty() && node.attributes.empty()) return false;
  if (!std::all_of(node.inputs.begin(), node.inputs.end(), constant)) return false;
  if (!std::all_of(node.implicit_inputs.begin(), node.implicit_inputs.end(), constant)) {
    return false;
  }
  // The one way to make a graph output from a constant.
  if (node.op == "Identity" && is_output_[node.outputs[0].value()]) return false;
  return MayFold(node) && evaluator_.Supports(node);
}

bool Folder::MayFit(const Node& node, size_t input_bytes) {
  if (!HasShapeRule(node)) return true;
  std::vector<KnownValue> known(node.inputs.size());
  std::vector<const KnownValue*> pointers(node.inputs.size(), nullptr);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid()) continue;
    const Constant& constant = *graph_.value(node.inputs[i]).constant;
    known[i] = {constant.dtype(), constant.shape(), std::nullopt};
    if (constant.size_bytes() <= 4096) {
      Tensor plain = constant.PlainIfResident();
      if (plain.defined()) known[i].contents = std::move(plain);
    }
    pointers[i] = &known[i];
  }
  std::vector<KnownValue> outputs;
  if (!shape_rules::InferInto(graph_, node, pointers, outputs).ok()) return false;
  size_t bytes = 0;
  for (const KnownValue& output : outputs) {
    if (!output.shape) continue;
    const size_t element = std::max<size_t>(1, DTypeSizeBytes(output.dtype));
    const auto count = static_cast<size_t>(NumElementsUnchecked(*output.shape));
    if (count > SIZE_MAX / 64 / element) return false;
    bytes += count * element;
  }
  return MayMake(bytes, input_bytes);
}

// A node that fails is left for the run to report: it may never be reached.
Result<bool> Folder::Fold(const Node& node, std::vector<Node>& kept) {
  size_t input_bytes = 0;
  for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
    for (ValueId id : *list) {
      if (id.valid()) input_bytes += graph_.value(id).constant->size_bytes();
    }
  }
  if (!MayFit(node, input_bytes)) return false;
  const auto read = [&](const std::vector<ValueId>& ids) -> Result<std::vector<Tensor>> {
    std::vector<Tensor> tensors(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      if (!ids[i].valid()) continue;
      PLEXUS_ASSIGN_OR_RETURN(tensors[i], graph_.value(ids[i]).constant->Plain());
    }
    return tensors;
  };
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<Tensor> inputs, read(node.inputs));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<Tensor> captures, read(node.implicit_inputs));
  Result<std::vector<Tensor>> results = evaluator_.Evaluate(graph_, node, inputs, captures);
  if (!results.ok() || results->size() != node.outputs.size()) return false;
  size_t bytes = 0;
  for (size_t i = 0; i < results->size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    if (!(*results)[i].defined()) return false;
    bytes += (*results)[i].size_bytes();
  }
  if (!MayMake(bytes, input_bytes)) return false;
  budget_ -= bytes;
  for (size_t i = 0; i < results->size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    ConstantPtr constant = ConstantStore::Get().Intern(std::move((*results)[i]));
    const ValueId id = node.outputs[i];
    Value& value = graph_.value(id);
    value.dtype = constant->dtype();
    value.shape = SymbolicShape::FromConcrete(constant->shape());
    if (!is_output_[id.value()]) {
      value.constant = std::move(constant);
      continue;
    }
    const std::string name = value.name;
    const ValueId source = graph_.AddConstant(name + "_value", std::move(constant));
    is_output_.resize(graph_.num_values(), false);
    kept.push_back({"Identity", "", node.version, node.name, {source}, {id}, {}, {}, 0});
  }
  return true;
}

Status Folder::FoldSubgraphs(Node& node) {
  for (auto& [name, attribute] : node.attributes) {
    auto* graph = std::get_if<GraphPtr>(&attribute);
    if (graph == nullptr) continue;
    Graph copy = **graph;
    Folder folder(copy, evaluator_, max_result_bytes_, budget_);
    PLEXUS_RETURN_IF_ERROR(folder.Run());
    if (!folder.changed()) continue;  // the same object: its plans are known by it
    changed_ = true;
    *graph = std::make_shared<const Graph>(std::move(copy));
  }
  return OkStatus();
}

Status Folder::Run() {
  std::vector<Node> kept;
  kept.reserve(graph_.num_nodes());
  for (Node& node : graph_.nodes()) {
    if (IsCandidate(node)) {
      PLEXUS_ASSIGN_OR_RETURN(const bool folded, Fold(node, kept));
      changed_ |= folded;
      if (folded) continue;
    }
    PLEXUS_RETURN_IF_ERROR(FoldSubgraphs(node));
    kept.push_back(std::move(node));
  }
  graph_.nodes() = std::move(kept);
  graph_.RemoveDead();
  return OkStatus();
}

}  // namespace

Status FoldConstants(Graph& graph, const Evaluator& evaluator, size_t max_result_bytes) {
  size_t constant_bytes = max_result_bytes;
  for (size_t i = 0; i < graph.num_values(); ++i) {
    const Value& value = graph.value(ValueId(static_cast<uint32_t>(i)));
    if (value.IsConstant()) constant_bytes += value.constant->size_bytes();
  }
  // Enough for each weight to be cast, transposed and reshaped; a small file stays small.
  size_t budget = 4 * constant_bytes;
  return Folder(graph, evaluator, max_result_bytes, budget).Run();
}

}  // namespace plexus
