// The evaluator of folding: what a model computes from its own constants, within limits.
#pragma once

#include <span>
#include <vector>

#include "graph/evaluator.h"

namespace plexus {

// Runs nodes while a model is loaded or planned, when no request stands behind them. One that makes
// more than a multiple of its inputs or takes too long fails: passes then leave it to the run.
// Thread-safe; borrows `inner`.
class FoldingEvaluator : public Evaluator {
 public:
  explicit FoldingEvaluator(const Evaluator& inner) : inner_(inner) {}

  bool Supports(const Node& node) const override { return inner_.Supports(node); }
  Result<std::vector<Tensor>> Evaluate(const Graph& graph, const Node& node,
                                       std::span<const Tensor> inputs,
                                       std::span<const Tensor> captures) const override;

 private:
  const Evaluator& inner_;
};

}  // namespace plexus
