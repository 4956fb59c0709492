// Reference operators: plain, correct implementations of ONNX and plexus operators. Used for
// folding, for tests, and as the fallback kernel of every device.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/evaluator.h"
#include "graph/graph.h"

namespace plexus {

// What an operator implementation sees. `inputs[i]` is undefined where an optional input is left
// out or past the end; use Input(i). Outputs are allocated by the operator.
struct OpContext {
  const Graph& graph;
  const Node& node;
  std::span<const Tensor> inputs;
  std::span<const Tensor> captures;
  std::vector<Tensor> outputs;  // sized to node.outputs by the caller

  size_t num_inputs() const { return inputs.size(); }
  bool HasInput(size_t i) const { return i < inputs.size() && inputs[i].defined(); }
  const Tensor& Input(size_t i) const;  // an undefined Tensor when absent
  size_t num_outputs() const { return outputs.size(); }
  bool WantsOutput(size_t i) const { return i < node.outputs.size() && node.outputs[i].valid(); }
};

// kInvalidArgument for inputs that contradict the operator (the caller adds the node's name).
using OpFunction = Status (*)(OpContext&);

// One registration: operator `op` of `domain`, valid for opset versions in [since, until).
struct OpEntry {
  std::string_view domain;
  std::string_view op;
  int since;
  int until;  // exclusive; kLatest for still valid
  OpFunction function;
};
inline constexpr int kLatest = 1 << 30;

// Each file of operators defines one such table (RegisterXxxOps() returns it); registry.cc lists
// them. Example: std::span<const OpEntry> ElementwiseOps(). Thread-safe; the entry stays for good.
const OpEntry* FindOp(std::string_view domain, std::string_view op, int version);
// Adds a table of a higher layer, whose operators need a library that this one may not use. `ops`
// is of static storage; thread-safe. Call once per table, before a graph that uses it is prepared.
void RegisterOps(std::span<const OpEntry> ops);
// All entries, for docs/operators.md.
std::vector<OpEntry> AllOps();

// Runs single nodes, and whole graphs node by node (subgraphs of If, Loop, Scan and MapRows too).
// Sequence, Optional and other non-tensor values travel as tensors inside RunGraph only where an
// operator's own file says so. Thread-safe.
class ReferenceEvaluator : public Evaluator {
 public:
  bool Supports(const Node& node) const override;
  Result<std::vector<Tensor>> Evaluate(const Graph& graph, const Node& node,
                                       std::span<const Tensor> inputs,
                                       std::span<const Tensor> captures) const override;
  static const ReferenceEvaluator& Get();
};

// Runs `graph` on `inputs` (one per graph.inputs()); `captures` feed graph.captures().
Result<std::vector<Tensor>> RunGraph(const Graph& graph, std::span<const Tensor> inputs,
                                     std::span<const Tensor> captures = {});

}  // namespace plexus
