// OpContext, ReferenceEvaluator and RunGraph.
#include "program/reference/reference.h"

#include <new>
#include <stdexcept>

namespace plexus {
namespace {

std::string Describe(const Node& node) {
  std::string text = "node '" + node.name + "' (";
  if (!node.domain.empty()) text += node.domain + ".";
  return text + node.op + "-" + std::to_string(node.version) + ")";
}

Status RunNode(const OpEntry& entry, OpContext& ctx) {
  // The standard containers inside operators report exhaustion by exception; here it ends.
  try {
    Status status = entry.function(ctx);
    Status kept = HostScope::TakeFailure();
    return status.ok() ? kept : status;
  } catch (const std::bad_alloc&) {
    return ResourceExhaustedError("out of memory");
  } catch (const std::length_error&) {
    return ResourceExhaustedError("a temporary exceeds the address space");
  }
}

// How often each value is still read, so that intermediate tensors go as early as they can.
std::vector<uint32_t> CountReads(const Graph& graph) {
  std::vector<uint32_t> reads(graph.num_values(), 0);
  auto count = [&](ValueId id) {
    if (id.valid()) ++reads[id.value()];
  };
  for (const Node& node : graph.nodes()) {
    for (ValueId id : node.inputs) count(id);
    for (ValueId id : node.implicit_inputs) count(id);
  }
  for (ValueId id : graph.outputs()) count(id);
  return reads;
}

// The values of one run of one graph.
class Frame {
 public:
  explicit Frame(const Graph& graph)
      : graph_(graph), values_(graph.num_values()), reads_(CountReads(graph)) {}

  void Set(ValueId id, Tensor tensor) {
    if (id.valid() && reads_[id.value()] > 0) values_[id.value()] = std::move(tensor);
  }

  Result<Tensor> Get(ValueId id) const {
    if (!id.valid()) return Tensor();
    if (const ConstantPtr& constant = graph_.value(id).constant) return constant->Plain();
    return values_[id.value()];
  }

  void Release(ValueId id) {
    if (id.valid() && --reads_[id.value()] == 0) values_[id.value()] = Tensor();
  }

  Status Collect(const std::vector<ValueId>& ids, std::vector<Tensor>& out) const {
    out.reserve(ids.size());
    for (ValueId id : ids) {
      PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Get(id));
      out.push_back(std::move(tensor));
    }
    return OkStatus();
  }

 private:
  const Graph& graph_;
  std::vector<Tensor> values_;
  std::vector<uint32_t> reads_;
};

}  // namespace

const Tensor& OpContext::Input(size_t i) const {
  static const Tensor* absent = new Tensor;
  return i < inputs.size() ? inputs[i] : *absent;
}

bool ReferenceEvaluator::Supports(const Node& node) const {
  return FindOp(node.domain, node.op, node.version) != nullptr;
}

Result<std::vector<Tensor>> ReferenceEvaluator::Evaluate(const Graph& graph, const Node& node,
                                                         std::span<const Tensor> inputs,
                                                         std::span<const Tensor> captures) const {
  const OpEntry* entry = FindOp(node.domain, node.op, node.version);
  if (entry == nullptr) {
    return UnimplementedError(Describe(node) + ": the operator is not known in this version");
  }
  OpContext ctx{graph, node, inputs, captures, std::vector<Tensor>(node.outputs.size())};
  Status status = RunNode(*entry, ctx);
  if (!status.ok()) return status.WithContext(Describe(node));
  return std::move(ctx.outputs);
}

const ReferenceEvaluator& ReferenceEvaluator::Get() {
  static const ReferenceEvaluator* evaluator = new ReferenceEvaluator;
  return *evaluator;
}

Result<std::vector<Tensor>> RunGraph(const Graph& graph, std::span<const Tensor> inputs,
                                     std::span<const Tensor> captures) {
  if (inputs.size() != graph.inputs().size()) {
    return InvalidArgumentError("graph '" + graph.name + "' takes " +
                                std::to_string(graph.inputs().size()) + " inputs, got " +
                                std::to_string(inputs.size()));
  }
  if (captures.size() < graph.captures().size()) {
    return InvalidArgumentError("graph '" + graph.name + "' reads " +
                                std::to_string(graph.captures().size()) + " outer values, got " +
                                std::to_string(captures.size()));
  }
  Frame frame(graph);
  for (size_t i = 0; i < inputs.size(); ++i) frame.Set(graph.inputs()[i], inputs[i]);
  for (size_t i = 0; i < graph.captures().size(); ++i) {
    frame.Set(graph.captures()[i], captures[i]);
  }
  for (const Node& node : graph.nodes()) {
    PLEXUS_RETURN_IF_ERROR(HostScope::CheckAlive());
    std::vector<Tensor> node_inputs;
    std::vector<Tensor> node_captures;
    PLEXUS_RETURN_IF_ERROR(frame.Collect(node.inputs, node_inputs));
    PLEXUS_RETURN_IF_ERROR(frame.Collect(node.implicit_inputs, node_captures));
    PLEXUS_ASSIGN_OR_RETURN(
        std::vector<Tensor> outputs,
        ReferenceEvaluator::Get().Evaluate(graph, node, node_inputs, node_captures));
    for (size_t i = 0; i < outputs.size(); ++i) frame.Set(node.outputs[i], std::move(outputs[i]));
    for (ValueId id : node.inputs) frame.Release(id);
    for (ValueId id : node.implicit_inputs) frame.Release(id);
  }
  std::vector<Tensor> results;
  PLEXUS_RETURN_IF_ERROR(frame.Collect(graph.outputs(), results));
  return results;
}

}  // namespace plexus
