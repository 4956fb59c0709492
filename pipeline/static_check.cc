#include "pipeline/static_check.h"

#include <algorithm>

namespace plexus {
namespace {

// Larger constants are no shapes, axes or sizes.
constexpr int64_t kMaxKnownElements = 4096;

KnownValue FromDeclaration(const Value& value) {
  KnownValue known;
  known.dtype = value.dtype;
  if (value.IsConstant()) {
    known.shape = value.constant->shape();
    if (value.constant->num_elements() <= kMaxKnownElements) {
      Tensor plain = value.constant->PlainIfResident();
      if (plain.defined()) known.contents = std::move(plain);
    }
  } else if (value.shape.IsConcrete()) {
    known.shape = value.shape.ToConcrete();
  }
  return known;
}

Status CheckSize(const KnownValue& value, const Node& node, size_t max_value_bytes) {
  if (!value.shape) return OkStatus();
  const size_t element = std::max<size_t>(1, DTypeSizeBytes(value.dtype));
  const auto count = static_cast<size_t>(NumElementsUnchecked(*value.shape));
  if (count <= max_value_bytes / element) return OkStatus();
  return ResourceExhaustedError("node '" + node.name + "' (" + node.op + "): its result " +
                                std::string(DTypeName(value.dtype)) + ShapeToString(*value.shape) +
                                " is larger than the " + std::to_string(max_value_bytes) +
                                " bytes that a value may have here");
}

}  // namespace

Result<std::vector<KnownValue>> InferStatically(const Graph& graph, size_t max_value_bytes) {
  std::vector<KnownValue> known(graph.num_values());
  for (size_t i = 0; i < known.size(); ++i) {
    const Value& value = graph.value(ValueId(static_cast<uint32_t>(i)));
    if (value.IsConstant()) known[i] = FromDeclaration(value);
  }
  for (ValueId id : graph.inputs()) known[id.value()] = FromDeclaration(graph.value(id));
  for (const Node& node : graph.nodes()) {
    std::vector<KnownValue> inputs;
    for (ValueId id : node.inputs) inputs.push_back(id.valid() ? known[id.value()] : KnownValue());
    std::vector<KnownValue> outputs(node.outputs.size());
    if (HasShapeRule(node)) {
      Result<std::vector<KnownValue>> inferred = InferNode(graph, node, inputs);
      if (inferred.ok()) {
        outputs = std::move(*inferred);
      } else if (inferred.status().code() != StatusCode::kUnimplemented) {
        return inferred.status();
      }
    }
    for (size_t i = 0; i < node.outputs.size() && i < outputs.size(); ++i) {
      if (!node.outputs[i].valid()) continue;
      PLEXUS_RETURN_IF_ERROR(CheckSize(outputs[i], node, max_value_bytes));
      known[node.outputs[i].value()] = std::move(outputs[i]);
    }
  }
  std::vector<KnownValue> results;
  for (ValueId id : graph.outputs()) results.push_back(known[id.value()]);
  return results;
}

Status CheckDeclaredShape(const SymbolicShape& declared, const Shape& shape) {
  if (!declared.has_rank) return OkStatus();
  bool fits = declared.dims.size() == shape.size();
  for (size_t d = 0; fits && d < shape.size(); ++d) {
    fits = !declared.dims[d].value || *declared.dims[d].value == shape[d];
  }
  if (fits) return OkStatus();
  return InvalidArgumentError("declared with shape " + declared.ToString() + ", the stages give " +
                              ShapeToString(shape));
}

}  // namespace plexus
