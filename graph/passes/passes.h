// Graph passes. Each takes a graph and leaves an equivalent one; each has a test with a
// before/after picture and must-not cases.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/evaluator.h"
#include "graph/graph.h"

namespace plexus {

// Canonical form, shape-independent, applied once after import, before discovery: names, default
// attributes, opset differences (Squeeze/Unsqueeze/Reduce* axes as inputs, Clip min/max as inputs,
// Dropout in inference → identity, Constant nodes → constants, Identity removed), constants folded,
// dead code removed. Never merges or reorders arithmetic.
Status Canonicalize(Graph& graph, const Evaluator& evaluator);

// Replaces nodes whose inputs are all constants by constants. Random and stateful operators, and
// results larger than `max_result_bytes` unless no larger than their inputs, stay. All results
// together are at most four times the graph's constants plus `max_result_bytes`; the rest stays.
Status FoldConstants(Graph& graph, const Evaluator& evaluator,
                     size_t max_result_bytes = size_t{64} << 20);

// The graph for concrete input shapes: shapes of all values as far as they can be known, Shape and
// friends folded, `If` with a known condition replaced by its branch, `Loop` with a small known
// trip count and constant condition unrolled. `input_shapes[i]` belongs to graph.inputs()[i]; known
// input contents (small host tensors) may be given. Nodes whose output shape depends on data keep
// an incomplete shape. kInvalidArgument names the input or node at fault.
struct KnownInput {
  DType dtype = DType::kUndefined;
  std::optional<Shape> shape;  // nothing: to be found when it runs
  std::optional<Tensor> contents;
};
Result<Graph> Specialize(const Graph& graph, std::span<const KnownInput> inputs,
                         const Evaluator& evaluator);

// Arithmetic-preserving (within float rounding) rewrites on a canonical graph; the result uses the
// fused operators of domain "plexus" listed in passes/fused_ops.h. Values keep logical NCHW shapes.
// Conv + BatchNormalization or per-channel Mul/Add → Conv; scalar Mul/Add → unpadded Conv → Conv;
// any other BatchNormalization → Mul, Add.
Status FuseConvBatchNorm(Graph& graph);
Status FuseConvEpilogue(Graph& graph);  // Conv [+ residual Add] [+ activation] → plexus.Conv
Status FuseMatMulEpilogue(
    Graph& graph);  // MatMul/Gemm [+ bias] [+ add] [+ activation] → plexus.MatMul
Status FuseLayerNorm(Graph& graph);    // ReduceMean/Sub/Pow/.../Mul/Add → LayerNormalization
Status FuseGelu(Graph& graph);         // Div/Erf/Add/Mul/Mul → Gelu
Status FuseSoftmax(Graph& graph);      // ReduceMax/Sub/Exp/ReduceSum/Div → Softmax
Status FuseAttention(Graph& graph);    // MatMul/scale/mask/Softmax/MatMul → plexus.Attention
Status FuseElementwise(Graph& graph);  // chains and trees of pointwise ops → plexus.Elementwise
Status EliminateTransposes(Graph& graph);  // cancel, merge, or turn into Reshape
Status EliminateReshapes(Graph& graph);    // merge chains, drop no-ops
Status FuseQuantized(
    Graph& graph);  // DequantizeLinear → Conv/MatMul → QuantizeLinear → plexus.QConv/QMatMul

// The shape-independent part, once per graph after Canonicalize (and after discovery has cut it):
// everything that makes new large constants, that is, batch normalisation and constant affine steps
// folded into convolution weights. Idempotent; Optimize does not hash those weights again.
Status OptimizeWeights(Graph& graph);
// All of the above in their fixed order, once per shape class, on what Specialize returned. Works
// without shapes too, where it then fuses less. A fused node keeps the `fusion_group` of
// what it replaces. Subgraphs of control flow are left alone: whoever runs one
// specialises and optimises it by itself. kInvalidArgument names a node with too few operands.
Status Optimize(Graph& graph);

// Marks what Optimize will fuse, and changes nothing else: nodes with the same non-zero
// Node::fusion_group become one kernel. On a graph after OptimizeWeights, before discovery cuts it:
// a cut goes around a group, never through it, so that what runs does not depend on what else is
// loaded. Errors as Optimize.
Status MarkFusionGroups(Graph& graph);

// Row independence (what makes batching safe): true when, with every input of `graph`
// extended along axis 0 from 1 to b rows, each output row depends on the same input row only. The
// proof walks the nodes; `why_not` names the first node that breaks it.
bool IsRowIndependent(const Graph& graph, std::string* why_not);
// The same, and whether GeneralizeRows has nothing to rewrite. kOneRow: the graph as it stands
// takes one row; of several it makes something else (a Reshape to [1,-1]), or fails.
enum class RowProof : uint8_t { kNone, kOneRow, kAnyRows };
RowProof ProveRows(const Graph& graph, std::string* why_not);
// Rewrites a row-independent graph whose axis 0 is fixed at 1 so that it takes any number of rows
// (Reshape targets and the like). kFailedPrecondition when IsRowIndependent is false.
Result<Graph> GeneralizeRows(const Graph& graph);
// Specialize of `graph`, which takes one row as `one_row` describes it, for `rows` rows, each by
// itself. kFailedPrecondition names the first node that mixes them.
Result<Graph> SpecializeRows(const Graph& graph, std::span<const KnownInput> one_row, int64_t rows,
                             const Evaluator& evaluator);

// Where rows mix, as a guide to where a graph is best cut. What a cut leaves is for
// IsRowIndependent to judge.
struct RowWalk {
  // Per unit: it keeps rows apart, if what it reads from units that do not has a row per entry of
  // axis 0.
  std::vector<bool> independent;
  std::vector<std::string> why_not;  // per unit, where not
  // Per value: it has one entry of axis 0 per row, so that a cut may be made behind it.
  std::vector<bool> proper;
};
// `units`: nodes that no cut separates, in topological order. `shapes`: per value, what it has in
// some valid run; none where unknown, which makes readers mix. Where a stretch begins with several
// entries, what takes one row only mixes.
RowWalk WalkRows(const Graph& graph, std::span<const std::vector<uint32_t>> units,
                 std::span<const std::optional<Shape>> shapes);

}  // namespace plexus
