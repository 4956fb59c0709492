#include "pipeline/plan_cache.h"

#include <gtest/gtest.h>

#include <future>

namespace plexus {
namespace {

GraphPlanPtr PlanOf(size_t bytes) {
  auto plan = std::make_shared<GraphPlan>();
  plan->bytes = bytes;
  return plan;
}

class PlanCacheTest : public ::testing::Test {
 protected:
  // Asks and waits for the answer.
  Result<GraphPlanPtr> Get(const PlannedGraphPtr& graph, const std::string& key,
                           PlanCache::Builder builder) {
    std::promise<Result<GraphPlanPtr>> built;
    GraphPlanPtr ready = cache_.GetOrBuild(
        graph, key, std::move(builder), [&](auto result) { built.set_value(std::move(result)); });
    if (ready != nullptr) return ready;
    return built.get_future().get();
  }

  PlanCache cache_{1000, 2};
  static PlannedGraphPtr NewGraph() {
    return std::make_shared<const PlannedGraph>(Graph(), CompileOptions());
  }
  PlannedGraphPtr graph_ = NewGraph(), other_ = NewGraph();
};

TEST_F(PlanCacheTest, BuildsOncePerGraphAndShape) {
  int builds = 0;
  const auto build = [&] {
    ++builds;
    return Result<GraphPlanPtr>(PlanOf(10));
  };
  const GraphPlanPtr first = *Get(graph_, "a", build);
  EXPECT_EQ(first, *Get(graph_, "a", build));
  EXPECT_EQ(builds, 1);
  EXPECT_NE(first, *Get(graph_, "b", build));
  EXPECT_NE(first, *Get(other_, "a", build));
  EXPECT_EQ(builds, 3);
  EXPECT_EQ(cache_.stats().hits, 1u);
  EXPECT_EQ(cache_.stats().misses, 3u);
}

TEST_F(PlanCacheTest, EqualMissesShareOneBuild) {
  std::promise<void> go;
  std::shared_future<void> gate = go.get_future().share();
  std::atomic<int> builds{0}, answers{0};
  std::promise<void> all;
  for (int i = 0; i < 8; ++i) {
    GraphPlanPtr ready = cache_.GetOrBuild(
        graph_, "a",
        [&, gate] {
          gate.wait();
          ++builds;
          return Result<GraphPlanPtr>(PlanOf(10));
        },
        [&](Result<GraphPlanPtr> plan) {
          EXPECT_TRUE(plan.ok());
          if (++answers == 8) all.set_value();
        });
    EXPECT_EQ(ready, nullptr);
  }
  // A graph that waits does not keep another one waiting.
  EXPECT_TRUE(Get(other_, "a", [] { return Result<GraphPlanPtr>(PlanOf(1)); }).ok());
  go.set_value();
  all.get_future().wait();
  EXPECT_EQ(builds, 1);
}

TEST_F(PlanCacheTest, FailuresAreReportedAndNotKept) {
  EXPECT_EQ(
      Get(graph_, "a", [] { return Result<GraphPlanPtr>(InternalError("no")); }).status().message(),
      "no");
  EXPECT_TRUE(Get(graph_, "a", [] { return Result<GraphPlanPtr>(PlanOf(1)); }).ok());
}

TEST_F(PlanCacheTest, EvictsTheLeastRecentlyUsedAboveItsBudget) {
  const auto build = [] { return Result<GraphPlanPtr>(PlanOf(400)); };
  ASSERT_TRUE(Get(graph_, "a", build).ok());
  ASSERT_TRUE(Get(graph_, "b", build).ok());
  ASSERT_TRUE(Get(graph_, "a", build).ok());  // now b is the older
  ASSERT_TRUE(Get(graph_, "c", build).ok());
  EXPECT_EQ(cache_.stats().evictions, 1u);
  EXPECT_EQ(cache_.stats().bytes, 800u);
  const uint64_t misses = cache_.stats().misses;
  ASSERT_TRUE(Get(graph_, "a", build).ok());
  EXPECT_EQ(cache_.stats().misses, misses);
  ASSERT_TRUE(Get(graph_, "b", build).ok());
  EXPECT_EQ(cache_.stats().misses, misses + 1);
}

TEST_F(PlanCacheTest, APlanLargerThanTheBudgetIsStillServed) {
  EXPECT_TRUE(Get(graph_, "a", [] { return Result<GraphPlanPtr>(PlanOf(5000)); }).ok());
  EXPECT_EQ(cache_.stats().plans, 1u);
}

TEST_F(PlanCacheTest, DropForgetsOneGraphOnly) {
  const auto build = [] { return Result<GraphPlanPtr>(PlanOf(10)); };
  ASSERT_TRUE(Get(graph_, "a", build).ok());
  ASSERT_TRUE(Get(other_, "a", build).ok());
  cache_.Drop(graph_->id);
  EXPECT_EQ(cache_.stats().plans, 1u);
  EXPECT_EQ(cache_.stats().bytes, 10u);
}

// As of a rest: only the plan of the whole leads to it.
TEST_F(PlanCacheTest, PlansOfGraphsThatAreGoneAreSwept) {
  const auto build = [] { return Result<GraphPlanPtr>(PlanOf(10)); };
  PlannedGraphPtr rest = NewGraph();
  ASSERT_TRUE(Get(graph_, "a", [&] {
                auto whole = std::make_shared<GraphPlan>();
                whole->bytes = 10;
                whole->rest = rest;
                return Result<GraphPlanPtr>(std::move(whole));
              }).ok());
  ASSERT_TRUE(Get(rest, "a", build).ok());
  ASSERT_TRUE(Get(rest, "b", build).ok());
  ASSERT_TRUE(Get(other_, "a", build).ok());
  rest.reset();
  cache_.Sweep();
  EXPECT_EQ(cache_.stats().plans, 4u);
  cache_.Drop(graph_->id);
  while (cache_.stats().plans > 1) cache_.Sweep();  // a build thread may just be letting go
  EXPECT_EQ(cache_.stats().bytes, 10u);
}

TEST_F(PlanCacheTest, StoppingAnswersEverybody) {
  std::promise<Status> answered;
  cache_.Stop();
  cache_.GetOrBuild(
      graph_, "a", [] { return Result<GraphPlanPtr>(PlanOf(1)); },
      [&](Result<GraphPlanPtr> plan) { answered.set_value(plan.status()); });
  EXPECT_EQ(answered.get_future().get().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace plexus
