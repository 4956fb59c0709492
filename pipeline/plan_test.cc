// Plans of graphs that are not told the sizes of their inputs, as segments are.
#include "pipeline/plan.h"

#include <gtest/gtest.h>

#include <vector>

#include "device/cpu/cpu_compiler.h"
#include "pipeline/folding_evaluator.h"
#include "pipeline/graph_maker.h"
#include "profile/profile_store.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 16;

// A product, and a softmax over `axis`, of an input that may declare nothing.
PlannedGraphPtr Planned(int64_t axis, bool sizes) {
  GraphMaker g;
  const ValueId x = g.In("x", {-1, kWidth});
  if (!sizes) g.graph.value(x).shape = SymbolicShape();
  const std::vector<float> weights(kWidth * kWidth, 0.1f);
  const ValueId product = g.Op("MatMul", {x, g.Const(Floats({kWidth, kWidth}, weights))});
  g.Out(g.Op("Softmax", {product}, DType::kFloat32, {{"axis", axis}}));
  return std::make_shared<const PlannedGraph>(std::move(g.graph), CompileOptions());
}

bool TakesRows(const PlannedGraphPtr& planned) {
  const FoldingEvaluator evaluator(ReferenceEvaluator::Get());
  const std::unique_ptr<Compiler> compiler = MakeCpuCompiler({});
  ProfileStore times;
  const std::vector<KnownInput> one_row = {{DType::kFloat32, Shape{1, kWidth}, std::nullopt}};
  const Result<GraphPlanPtr> plan = BuildPlan(*planned, one_row, evaluator, *compiler, times);
  EXPECT_TRUE(plan.ok()) << plan.status().ToString();
  return plan.ok() && (*plan)->takes_rows;
}

TEST(PlanTest, AnyNumberOfRowsIsProvedForTheSizesThatItIsPlannedFor) {
  for (const bool sizes : {true, false}) {
    EXPECT_TRUE(TakesRows(Planned(1, sizes))) << sizes;
    EXPECT_FALSE(TakesRows(Planned(0, sizes))) << "rows mix";
  }
}

}  // namespace
}  // namespace plexus
