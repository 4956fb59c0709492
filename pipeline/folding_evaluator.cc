#include "pipeline/folding_evaluator.h"

#include "base/clock.h"
#include "base/memory_budget.h"

namespace plexus {
namespace {

// Passes keep results of up to 64 MiB, or as large as their inputs; the rest is room to work in.
constexpr size_t kMemoryBytes = size_t{128} << 20;
constexpr size_t kTimesInputs = 8;
constexpr Duration kTime = std::chrono::seconds(2);

}  // namespace

Result<std::vector<Tensor>> FoldingEvaluator::Evaluate(const Graph& graph, const Node& node,
                                                       std::span<const Tensor> inputs,
                                                       std::span<const Tensor> captures) const {
  size_t input_bytes = 0;
  for (const auto& list : {inputs, captures}) {
    for (const Tensor& t : list) input_bytes += t.defined() ? t.size_bytes() : 0;
  }
  const TimePoint until = RealClock::Get().Now() + kTime;
  const HostScope::Alive alive = [until] {
    if (RealClock::Get().Now() < until) return OkStatus();
    return ResourceExhaustedError("takes too long to be computed in advance");
  };
  HostScope scope(
      std::make_shared<MemoryBudget>("constant folding", kMemoryBytes + kTimesInputs * input_bytes),
      &alive);
  return inner_.Evaluate(graph, node, inputs, captures);
}

}  // namespace plexus
