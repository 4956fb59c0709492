#include "paths/value_numbers.h"

#include <algorithm>

namespace plexus {
namespace {

// What the first part of a Source says.
enum Kind : uint64_t {
  kCallOutput,
  kConstant,
  kPipelineInput,
  kRandom,
  kInsideCall,
  kElement,
  kTurn,
  kCarriedPerhaps,
  kCarried,
  kNothing
};

}  // namespace

ValueNumbers::Sources ValueNumbers::InputsOf(const Path& path) {
  Sources sources;
  for (const Value& input : path.inputs) {
    const std::string name =
        input.name + " " + std::to_string(static_cast<int>(input.dtype)) + input.shape.ToString();
    sources.push_back({kPipelineInput, inputs_.emplace(name, inputs_.size()).first->second, 0});
  }
  return sources;
}

ValueNumbers::Source ValueNumbers::Of(const PathValue& value, const Sources& inputs,
                                      const Numbers& numbers) {
  switch (value.from) {
    case PathValue::From::kCall:
      return {kCallOutput, numbers[value.call], value.index};
    case PathValue::From::kConstant:
      return {kConstant, reinterpret_cast<uintptr_t>(value.constant.get()), 0};
    case PathValue::From::kInput:
      break;
  }
  return inputs[value.index];
}

ValueNumbers::Source ValueNumbers::Element(uint64_t kind, const Source& of) {
  return {kind, lists_.emplace(Sources{of}, lists_.size()).first->second, 0};
}

ValueNumbers::Numbers ValueNumbers::Number(const Path& path, const Sources& inputs) {
  Numbers numbers;
  for (const Call& call : path.calls) {
    Key key = {call.segment->id, {}};
    for (const PathValue& in : call.inputs) key.second.push_back(Of(in, inputs, numbers));
    if (!call.segment->deterministic) key.second.push_back({kRandom, next_, 0});
    const auto [it, is_new] = calls_.emplace(std::move(key), next_);
    if (is_new) ++next_;
    numbers.push_back(it->second);
  }
  return numbers;
}

ValueNumbers::Sources ValueNumbers::InputsOf(const StageBody& body, const Path& body_path,
                                             const Path& path, size_t call, const Sources& inputs,
                                             const Numbers& numbers) {
  const Graph& graph = *path.calls[call].segment->graph;
  const auto read = [&](ValueId id) -> Source {
    if (!id.valid()) return {kNothing, 0, 0};
    if (graph.value(id).IsConstant()) {
      return {kConstant, reinterpret_cast<uintptr_t>(graph.value(id).constant.get()), 0};
    }
    const auto at = std::find(graph.inputs().begin(), graph.inputs().end(), id);
    if (at == graph.inputs().end()) return {kInsideCall, numbers[call], id.value()};
    return Of(path.calls[call].inputs[at - graph.inputs().begin()], inputs, numbers);
  };
  Sources given, captures;
  for (ValueId id : body.node->inputs) given.push_back(read(id));
  for (ValueId id : body.node->implicit_inputs) captures.push_back(read(id));
  Sources result;
  if (body.node->op == "MapRows") {
    for (const Source& array : given) result.push_back(Element(kElement, array));
  } else if (body.node->op == "Loop") {
    if (!given.empty()) given.erase(given.begin());  // how many turns
    result = CarriedBy(body, body_path, given, captures);
  }
  result.insert(result.end(), captures.begin(), captures.end());
  result.resize(body_path.inputs.size(), Source{kInsideCall, numbers[call], ~uint64_t{0}});
  return result;
}

// Its turn and what it carries. By induction: where loops that begin alike would make the same of
// the same, they do so in each turn.
ValueNumbers::Sources ValueNumbers::CarriedBy(const StageBody& body, const Path& body_path,
                                              const Sources& begin, const Sources& captures) {
  const size_t count = std::min(begin.size(), body.graph->inputs().size() - 1);
  Sources perhaps = {{kTurn, 0, 0}};
  for (size_t i = 0; i < count; ++i) perhaps.push_back(Element(kCarriedPerhaps, begin[i]));
  Sources inputs = perhaps;
  inputs.insert(inputs.end(), captures.begin(), captures.end());
  inputs.resize(body_path.inputs.size(), Source{kNothing, 0, 0});
  const Numbers numbers = Number(body_path, inputs);
  Sources signature(begin.begin(), begin.begin() + static_cast<std::ptrdiff_t>(count));
  for (size_t i = 0; i < std::min(count, body_path.outputs.size()); ++i) {
    signature.push_back(Of(body_path.outputs[i], inputs, numbers));
  }
  const uint64_t loop = lists_.emplace(std::move(signature), lists_.size()).first->second;
  Sources result = {{kTurn, 0, 0}};
  for (size_t i = 0; i < count; ++i) result.push_back({kCarried, loop, i});
  return result;
}

}  // namespace plexus
