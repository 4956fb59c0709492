// The public passes, and their order.
#include <algorithm>
#include <string_view>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace plexus {
namespace {

// Operands the passes read without looking: a model may leave them out all the same.
struct Arity {
  std::string_view op;
  size_t inputs;
};
constexpr Arity kRequired[] = {{"Conv", 2},
                               {"ConvTranspose", 2},
                               {"MatMul", 2},
                               {"Gemm", 2},
                               {"Add", 2},
                               {"Sub", 2},
                               {"Mul", 2},
                               {"Div", 2},
                               {"Pow", 2},
                               {"PRelu", 2},
                               {"Equal", 2},
                               {"Less", 2},
                               {"Greater", 2},
                               {"LessOrEqual", 2},
                               {"GreaterOrEqual", 2},
                               {"Expand", 2},
                               {"Where", 3},
                               {"And", 2},
                               {"Or", 2},
                               {"Xor", 2},
                               {"QLinearConv", 8},
                               {"QLinearMatMul", 8},
                               {"BatchNormalization", 5},
                               {"Transpose", 1},
                               {"Reshape", 1},
                               {"Squeeze", 1},
                               {"Unsqueeze", 1},
                               {"Flatten", 1},
                               {"Softmax", 1},
                               {"Exp", 1},
                               {"Sqrt", 1},
                               {"Reciprocal", 1},
                               {"ReduceMean", 1},
                               {"ReduceSum", 1},
                               {"ReduceMax", 1},
                               {"Erf", 1},
                               {"Tanh", 1},
                               {"Cast", 1},
                               {"Clip", 1},
                               {"Not", 1},
                               {"MaxPool", 1},
                               {"Slice", 1},
                               {"Identity", 1},
                               {"LeakyRelu", 1},
                               {"Sigmoid", 1},
                               {"HardSigmoid", 1},
                               {"QuantizeLinear", 1}};

// The standard's operators that may go without their first operand.
constexpr std::string_view kNoneRequired[] = {"Constant",      "RandomNormal", "RandomUniform",
                                              "SequenceEmpty", "Optional",     "OptionalHasElement",
                                              "Loop",          "Scan"};

bool IsComplete(const Node& n) {
  size_t required =
      std::count(std::begin(kNoneRequired), std::end(kNoneRequired), n.op) > 0 ? 0 : 1;
  bool listed = false;
  for (const Arity& a : kRequired) {
    if (a.op != n.op) continue;
    required = a.inputs;
    listed = true;
  }
  if (n.inputs.size() < required || n.outputs.empty()) return false;
  for (size_t i = 0; i < required; ++i) {
    if (!n.inputs[i].valid()) return false;
  }
  // Of several outputs the first may be the one that nobody wants.
  return n.outputs[0].valid() || (!listed && n.outputs.size() > 1);
}

Status CheckArity(const Graph& graph) {
  for (const Node& n : graph.nodes()) {
    if (!n.domain.empty() || IsComplete(n)) continue;
    return InvalidArgumentError("node '" + n.name + "' (" + n.op +
                                ") lacks an operand or output it must have");
  }
  return OkStatus();
}

Status RunAlone(Graph& graph, void (*run)(GraphEditor&)) {
  PLEXUS_RETURN_IF_ERROR(CheckArity(graph));
  GraphEditor editor(graph);
  run(editor);
  return editor.Finish();
}

}  // namespace

Status FuseConvBatchNorm(Graph& graph) { return RunAlone(graph, RunFuseConvBatchNorm); }
Status FuseConvEpilogue(Graph& graph) { return RunAlone(graph, RunFuseConvEpilogue); }
Status FuseMatMulEpilogue(Graph& graph) { return RunAlone(graph, RunFuseMatMulEpilogue); }
Status FuseLayerNorm(Graph& graph) { return RunAlone(graph, RunFuseLayerNorm); }
Status FuseGelu(Graph& graph) { return RunAlone(graph, RunFuseGelu); }
Status FuseSoftmax(Graph& graph) { return RunAlone(graph, RunFuseSoftmax); }
Status FuseAttention(Graph& graph) { return RunAlone(graph, RunFuseAttention); }
Status FuseElementwise(Graph& graph) { return RunAlone(graph, RunFuseElementwise); }
Status EliminateTransposes(Graph& graph) { return RunAlone(graph, RunEliminateTransposes); }
Status EliminateReshapes(Graph& graph) { return RunAlone(graph, RunEliminateReshapes); }
Status FuseQuantized(Graph& graph) { return RunAlone(graph, RunFuseQuantized); }

Status OptimizeWeights(Graph& graph) {
  PLEXUS_RETURN_IF_ERROR(CheckArity(graph));
  // One fold can free the next (a second reader vanishes). What stays behind would be folded, and
  // its weights hashed, for every shape class.
  for (int round = 0; round < 8; ++round) {
    GraphEditor editor(graph);
    RunEliminateReshapes(editor);
    RunFuseConvBatchNorm(editor);
    const bool changed = editor.changed();
    PLEXUS_RETURN_IF_ERROR(editor.Finish());
    if (!changed) break;
  }
  return OkStatus();
}

Status Optimize(Graph& graph) {
  // Why this order: no-ops hide patterns, so they go first; quantised regions are recognised while
  // their float operators still stand alone; a normalisation over an inner axis leaves transposes
  // for EliminateTransposes; attention needs its bare products before they become plexus.MatMul;
  // what no other pass took is left to FuseElementwise.
  static constexpr void (*kPasses[])(GraphEditor&) = {
      RunEliminateReshapes, RunFuseConvBatchNorm, RunFuseQuantized,      RunFuseLayerNorm,
      RunFuseGelu,          RunFuseSoftmax,       RunFuseAttention,      RunEliminateTransposes,
      RunEliminateReshapes, RunFuseConvEpilogue,  RunFuseMatMulEpilogue, RunFuseElementwise,
  };
  PLEXUS_RETURN_IF_ERROR(CheckArity(graph));
  GraphEditor editor(graph);
  for (const auto run : kPasses) {
    run(editor);
    PLEXUS_RETURN_IF_ERROR(editor.Refresh());
  }
  return editor.Finish();
}

}  // namespace plexus
