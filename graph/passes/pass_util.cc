#include "graph/passes/pass_util.h"

namespace plexus {

bool IsNondeterministic(const Node& node) {
  if (!node.domain.empty()) return false;
  const std::string& op = node.op;
  if (op.rfind("Random", 0) == 0 || op == "Multinomial" || op == "Bernoulli") return true;
  // From opset 12 on, Dropout has a training mode as its third input.
  return op == "Dropout" && node.inputs.size() > 2 && node.inputs[2].valid();
}

bool MayFold(const Node& node) {
  return !IsNondeterministic(node) && !(node.domain.empty() && node.op == "DequantizeLinear");
}

const Graph* FirstSubgraph(const Node& node) {
  for (const auto& [name, attribute] : node.attributes) {
    if (const auto* graph = std::get_if<GraphPtr>(&attribute)) return graph->get();
  }
  return nullptr;
}

bool HasSubgraph(const Node& node) { return FirstSubgraph(node) != nullptr; }

std::optional<std::vector<int64_t>> ConstantInts(const Graph& graph, ValueId id) {
  constexpr int64_t kMost = 4096;
  if (!id.valid() || !graph.value(id).IsConstant()) return std::nullopt;
  const Constant& constant = *graph.value(id).constant;
  if (constant.num_elements() > kMost) return std::nullopt;
  const Result<Tensor> plain = constant.Plain();
  if (!plain.ok()) return std::nullopt;
  Result<std::vector<int64_t>> values = ToInt64Vector(*plain);
  if (!values.ok()) return std::nullopt;
  return std::move(values).value();
}

NameTable::NameTable(const Graph& graph) {
  taken_.reserve(2 * graph.num_values());
  for (const Value& value : graph.values()) taken_.insert(value.name);
}

std::string NameTable::Fresh(const std::string& wanted) {
  std::string name = wanted;
  for (int i = 1; !taken_.insert(name).second; ++i) name = wanted + "_" + std::to_string(i);
  return name;
}

}  // namespace plexus
