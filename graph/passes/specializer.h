// The walk behind Specialize. Internal to graph/passes.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/evaluator.h"
#include "graph/graph.h"
#include "graph/passes/pass_util.h"
#include "graph/shape_inference.h"

namespace plexus {

// Contents are tracked up to this size: shapes, axes, small masks and position tables.
inline constexpr int64_t kMaxKnownElements = 64 * 1024;
inline constexpr int64_t kMaxUnrolledTrips = 64;
inline constexpr size_t kMaxUnrolledNodes = 20'000;
inline constexpr int kMaxDepth = 32;
// Nodes walked inside subgraphs, over all turns and trials of one Specialize: what lies beyond
// stays as it is, so that nested loops cannot make the walk explode.
inline constexpr int64_t kMaxSubgraphWork = 50'000;

// The values of one source graph as values of the result.
struct Scope {
  const Graph& source;
  std::string prefix;  // before names, for graphs that were inlined
  std::vector<ValueId> map;
};

// One walk over the nodes of `source` that writes the specialised graph as it goes. Values of the
// result carry what is known of them; a value whose contents are known becomes a constant only when
// a node that stays reads it. Thread-compatible; `source`, `evaluator` and `work` outlive it.
class Specializer {
 public:
  Specializer(const Graph& source, const Evaluator& evaluator, int depth, int64_t& work)
      : source_(source), evaluator_(evaluator), depth_(depth), work_(work) {
    out_.name = source.name;
    known_.reserve(source.num_values());
  }

  // Makes the inputs and captures of the result with what is known of them.
  void Begin(std::span<const KnownValue> inputs, std::span<const KnownValue> captures);
  Status Run();
  Result<Graph> Finish();
  // What is known of output i, for dry runs of subgraphs.
  const KnownValue& KnownOutput(size_t i) { return Known(Lookup(*root_, source_.outputs()[i])); }

 private:
  ValueId NewValue(Value value, KnownValue known);
  ValueId NewInput(ValueId source_id, const KnownValue& known);
  ValueId NewConstant(const std::string& name, Tensor contents);
  ValueId Lookup(Scope& scope, ValueId id);
  Status RunNodes(Scope& scope);
  Status RunNode(Scope& scope, const Node& node);
  Status RunControlFlow(Scope& scope, const Node& node);
  Status Emit(Scope& scope, const Node& node);
  void Alias(Scope& scope, ValueId from, ValueId to) { scope.map[from.value()] = to; }
  void SetKnown(Scope& scope, const Node& node, size_t i, KnownValue known);

  bool FoldShape(Scope& scope, const Node& node);
  Result<bool> FoldKnown(Scope& scope, const Node& node);
  bool FoldIdentity(Scope& scope, const Node& node);
  Status RunIf(Scope& scope, const Node& node);
  Status RunLoop(Scope& scope, const Node& node);
  Status RunScan(Scope& scope, const Node& node);
  Status RunMapRows(Scope& scope, const Node& node);
  Status RunFanOut(Scope& scope, const Node& node);
  Status RunOldSoftmax(Scope& scope, const Node& node);
  Result<bool> Unroll(Scope& scope, const Node& node, const Graph& body, int64_t trips);
  Status FinishScanOutputs(Scope& scope, const Node& node, const Graph& body,
                           const std::vector<std::vector<ValueId>>& collected);
  std::unique_ptr<Specializer> DryRun(Scope& scope, const Node& node, const Graph& body,
                                      const std::vector<KnownValue>& inputs);
  bool MayEnter() const { return depth_ < kMaxDepth && work_ < kMaxSubgraphWork; }
  void Learn(ValueId id, DType dtype, const std::optional<Shape>& shape);
  std::optional<std::vector<int64_t>> KnownInts(ValueId id) const;
  std::string Fresh(const std::string& wanted);
  const KnownValue& Known(ValueId id) const { return known_[id.value()]; }

  const Graph& source_;
  const Evaluator& evaluator_;
  const int depth_;
  int64_t& work_;  // nodes walked in subgraphs so far
  Graph out_;
  std::vector<KnownValue> known_;  // by value of out_
  std::unique_ptr<Scope> root_;
  std::unique_ptr<NameTable> names_;  // made when the first graph is inlined
  std::vector<const KnownValue*> pointers_;
  std::vector<KnownValue> inferred_;
};

}  // namespace plexus
