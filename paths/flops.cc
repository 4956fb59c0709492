#include "paths/flops.h"

#include <algorithm>

#include "graph/passes/passes.h"
#include "graph/work.h"

namespace plexus {
namespace {

KnownValue Known(const Value& value) {
  KnownValue known;
  known.dtype = value.dtype;
  if (value.IsConstant()) {
    known.shape = value.constant->shape();
    Tensor plain = value.constant->PlainIfResident();
    if (plain.defined()) known.contents = std::move(plain);
  } else if (value.shape.IsConcrete()) {
    known.shape = value.shape.ToConcrete();
  }
  return known;
}

// Bodies of `If` and MapRows have their shapes from specialisation. How often those of Loop and
// Scan run, and on what, a run tells.
Flops CountControlFlow(const Graph& graph, const Node& node) {
  Flops result;
  for (const auto& [name, attribute] : node.attributes) {
    const auto* body = std::get_if<GraphPtr>(&attribute);
    if (body == nullptr) continue;
    const Flops flops = CountFlops(**body);
    result.count = std::max(result.count, flops.count);
    result.complete &= flops.complete;
  }
  if (node.op == "If") return result;
  if (node.op != "MapRows" || node.inputs.empty() || !node.inputs[0].valid()) return {0, false};
  const KnownValue rows = Known(graph.value(node.inputs[0]));
  if (!rows.shape || rows.shape->empty()) return {0, false};
  return {result.count * static_cast<double>((*rows.shape)[0]), result.complete};
}

bool IsControlFlow(const Node& node) {
  return std::any_of(node.attributes.begin(), node.attributes.end(), [](const auto& attribute) {
    return std::holds_alternative<GraphPtr>(attribute.second);
  });
}

std::string KeyOf(const Segment& segment, const std::vector<KnownValue>& inputs) {
  std::string key = std::to_string(segment.id);
  for (const KnownValue& input : inputs) {
    key += '|' + std::to_string(static_cast<int>(input.dtype));
    key += input.shape ? ShapeToString(*input.shape) : "?";
    if (!input.contents || input.contents->dtype() == DType::kString) continue;
    key += '=';
    key.append(reinterpret_cast<const char*>(input.contents->raw()), input.contents->size_bytes());
  }
  return key;
}

// What a stage reads, where it stands in a specialised graph.
std::vector<KnownValue> KnownInputs(const Graph& graph, const Node& node) {
  std::vector<KnownValue> known;
  for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
    for (ValueId id : *list) {
      known.push_back(id.valid() ? Known(graph.value(id)) : KnownValue());
    }
  }
  return known;
}

// One row for each input of a batchable segment that nothing is known of, where its other sizes
// are the same in every request.
void AssumeOneRow(const Segment& segment, std::vector<KnownValue>* inputs) {
  if (!segment.batchable) return;
  for (size_t i = 0; i < inputs->size(); ++i) {
    if ((*inputs)[i].shape) continue;
    SymbolicShape shape = segment.row_shapes[i];
    if (!shape.has_rank || shape.dims.empty()) continue;
    shape.dims[0] = {1, ""};
    if (!shape.IsConcrete()) continue;
    const Value& input = segment.graph->value(segment.graph->inputs()[i]);
    (*inputs)[i] = {input.dtype, shape.ToConcrete(), std::nullopt};
  }
}

}  // namespace

Flops CountFlops(const Graph& graph, const Node& node) {
  if (IsControlFlow(node)) return CountControlFlow(graph, node);
  for (const auto* list : {&node.inputs, &node.outputs}) {
    for (ValueId id : *list) {
      if (!id.valid() || graph.value(id).IsConstant()) continue;
      if (!graph.value(id).shape.IsConcrete()) return {0, false};
    }
  }
  return {WorkOf(graph, node).flops, true};
}

Flops CountFlops(const Graph& graph) {
  Flops result;
  for (const Node& node : graph.nodes()) {
    const Flops flops = CountFlops(graph, node);
    result.count += flops.count;
    result.complete &= flops.complete;
  }
  return result;
}

FlopCounter::Counted FlopCounter::CountAnew(const Graph& graph,
                                            const std::vector<KnownValue>& inputs) const {
  Counted counted;
  counted.flops.complete = counted.own.complete = false;
  counted.outputs.resize(graph.outputs().size());
  std::vector<KnownInput> known;
  for (const KnownValue& input : inputs) {
    if (!input.shape) return counted;
    known.push_back({input.dtype, *input.shape, input.contents});
  }
  const Result<Graph> special = Specialize(graph, known, evaluator_);
  if (!special.ok()) return counted;  // it does not run on these shapes
  counted.flops = CountFlops(*special);
  counted.own = Flops();
  for (const Node& node : special->nodes()) {
    if (node.HasAttr("stage")) {
      counted.stages[node.name] = KnownInputs(*special, node);
      continue;
    }
    const Flops flops = CountFlops(*special, node);
    counted.own.count += flops.count;
    counted.own.complete &= flops.complete;
  }
  const std::vector<NodeId> producers = special->Producers();
  for (size_t i = 0; i < counted.outputs.size(); ++i) {
    ValueId id = special->outputs()[i];
    const NodeId producer = producers[id.value()];
    // What is known beforehand leaves through an Identity of a constant.
    if (producer.valid() && special->node(producer).op == "Identity") {
      const ValueId from = special->node(producer).inputs[0];
      if (special->value(from).IsConstant()) id = from;
    }
    counted.outputs[i] = Known(special->value(id));
  }
  return counted;
}

const FlopCounter::Counted& FlopCounter::Count(const Segment& segment,
                                               const std::vector<KnownValue>& inputs) {
  const auto [it, is_new] = counted_.try_emplace(KeyOf(segment, inputs));
  if (is_new) it->second = CountAnew(*segment.graph, inputs);
  return it->second;
}

std::vector<const FlopCounter::Counted*> FlopCounter::CountPath(
    const Path& path, const std::vector<KnownValue>& inputs, bool one_row) {
  std::vector<const Counted*> calls;
  for (const Call& call : path.calls) {
    std::vector<KnownValue> given;
    for (const PathValue& in : call.inputs) {
      if (in.from == PathValue::From::kInput) {
        given.push_back(in.index < inputs.size() ? inputs[in.index] : KnownValue());
      } else if (in.from == PathValue::From::kCall) {
        given.push_back(calls[in.call]->outputs[in.index]);
      } else {
        Value value;
        value.dtype = in.constant->dtype();
        value.constant = in.constant;
        given.push_back(Known(value));
      }
    }
    if (one_row) AssumeOneRow(*call.segment, &given);
    calls.push_back(&Count(*call.segment, given));
  }
  return calls;
}

}  // namespace plexus
