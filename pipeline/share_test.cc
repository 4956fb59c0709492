// Requests of different executables that share work.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <mutex>
#include <set>
#include <thread>

#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"
#include "pipeline/share_history.h"
#include "pipeline/test_blocker.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 32;

class ShareTest : public ::testing::Test {
 protected:
  ShareTest() { Make({}); }
  void Make(RuntimeOptions options, size_t threads = 2) {
    options.threads = threads;
    runtime_ = Runtime::Create(options).value();
  }

  // Layers of numbered weights; behind the first one a loop of `trips` on the host.
  ExecutablePtr Load(const std::string& name, const std::vector<int>& layers, int64_t trips = 0,
                     bool random = false) {
    GraphMaker g;
    ValueId v = g.In("x", {-1, kWidth});
    for (size_t i = 0; i < layers.size(); ++i) {
      std::vector<float> values(kWidth * kWidth);
      for (size_t k = 0; k < values.size(); ++k) {
        values[k] = 0.2f * std::sin(static_cast<float>(k) * static_cast<float>(layers[i]));
      }
      v = g.Op("Relu", {g.Op("MatMul", {v, g.Const(Floats({kWidth, kWidth}, values))})});
      if (i == 0 && random) {
        v = g.Op("Add", {v, g.Op("RandomUniformLike", {v})});
      }
      if (i == 0 && trips > 0) {
        GraphMaker body;
        body.In("i", {}, DType::kInt64);
        const ValueId going = body.In("going", {}, DType::kBool);
        const ValueId x = body.In("v", {-1, kWidth});
        body.Out(body.Op("Identity", {going}, DType::kBool));
        body.Out(body.Op("Abs", {x}));
        v = g.Op("Loop", {g.Const(Tensor::ScalarInt64(trips)), ValueId(), v}, DType::kFloat32,
                 {{"body", body.Done()}});
      }
    }
    g.Out(v);
    return runtime_->Load(name, g.Done(), {}).value();
  }
  void WaitForPaths(size_t paths) {
    while (runtime_->sharing_stats().paths != paths) std::this_thread::yield();
  }
  static Tensor Input(float seed, int64_t rows = 2) {
    std::vector<float> values(static_cast<size_t>(rows * kWidth));
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::cos(seed + static_cast<float>(i));
    return Floats({rows, kWidth}, values);
  }

  struct Started {
    std::shared_ptr<CancelToken> token;
    std::future<RunResult> result;
  };
  Started Start(const ExecutablePtr& executable, const Tensor& input,
                const RequestAttributes& attributes = {}) {
    auto promise = std::make_shared<std::promise<RunResult>>();
    Started started{nullptr, promise->get_future()};
    started.token = runtime_->Start(executable, {input}, attributes, [promise](RunResult result) {
      promise->set_value(std::move(result));
    });
    return started;
  }

  std::unique_ptr<Runtime> runtime_;
};

constexpr int64_t kTrips = 2000;  // milliseconds: more than a path costs

TEST_F(ShareTest, EqualWorkUnderWayIsDoneOnceAcrossExecutables) {
  Make({}, 1);
  const ExecutablePtr a = Load("a", {1, 2, 3}, kTrips), b = Load("b", {1, 2, 4}, kTrips);
  WaitForPaths(2);
  for (const ExecutablePtr& each : {a, b}) {
    ASSERT_TRUE(runtime_->Run(each, {Input(1)}).status.ok());  // compiles
  }
  const auto before = runtime_->sharing_stats();
  const uint64_t jobs = runtime_->dispatcher().stats().jobs_done;
  std::vector<Started> started;
  {
    Blocker blocker(runtime_->dispatcher());
    for (int i = 0; i < 4; ++i) started.push_back(Start(i % 2 == 0 ? a : b, Input(1)));
    EXPECT_EQ(runtime_->sharing_stats().joined - before.joined, 3u) << "all but one";
  }
  for (Started& each : started) {
    const RunResult result = each.result.get();
    ASSERT_TRUE(result.status.ok()) << result.status.ToString();
  }
  EXPECT_LE(runtime_->dispatcher().stats().jobs_done - jobs, 1u + 2u + 4u)
      << "the blocker, what is common on both sides of the loop, and a head each";
}

TEST_F(ShareTest, ATraceSaysWhoJoinedAndForHowLong) {
  Make({}, 1);
  const ExecutablePtr m = Load("m", {1, 2});
  ASSERT_TRUE(runtime_->Run(m, {Input(1)}).status.ok());  // compiles
  runtime_->trace().Start({});
  Blocker blocker(runtime_->dispatcher());
  Started leader = Start(m, Input(1)), rider = Start(m, Input(1));
  EXPECT_EQ(runtime_->sharing_stats().joined, 1u);
  blocker.Release();
  EXPECT_TRUE(leader.result.get().status.ok());
  EXPECT_TRUE(rider.result.get().status.ok());
  std::set<uint64_t> joined, worked;
  const TraceRecorder::Snapshot trace = runtime_->trace().Take();
  for (const TraceEvent& event : trace.events) {
    if (event.kind == TraceKind::kJoin) {
      joined.insert(event.request);
      EXPECT_EQ(trace.names.at(event.name), "m");
    }
    if (event.kind == TraceKind::kJob) worked.insert(event.request);
  }
  EXPECT_EQ(joined.size(), 1u);
  EXPECT_EQ(worked.size(), 1u);
  EXPECT_NE(joined, worked);
}

TEST_F(ShareTest, OutputsAreThoseOfUnsharedRunsToTheLastBit) {
  const std::vector<std::vector<int>> shapes = {{1, 2, 3}, {1, 2, 4},    {5, 2, 3},
                                                {1, 6, 3}, {1, 2, 3, 7}, {8, 9}};
  std::vector<std::vector<Tensor>> alone;
  RuntimeOptions unshared;
  unshared.share_work = false;
  Make(unshared);
  for (size_t i = 0; i < shapes.size(); ++i) {
    const ExecutablePtr m = Load(std::to_string(i), shapes[i]);
    alone.emplace_back();
    for (int64_t rows = 1; rows <= 3; ++rows) {
      alone.back().push_back(runtime_->Run(m, {Input(2, rows)}).outputs.at(0));
    }
  }
  EXPECT_EQ(runtime_->sharing_stats().paths, 0u);
  Make({});
  std::vector<ExecutablePtr> models;
  for (size_t i = 0; i < shapes.size(); ++i) models.push_back(Load(std::to_string(i), shapes[i]));
  WaitForPaths(5);
  for (int round = 0; round < 3; ++round) {
    for (int64_t rows = 1; rows <= 3; ++rows) {
      std::vector<Started> started;
      for (const ExecutablePtr& model : models) started.push_back(Start(model, Input(2, rows)));
      for (size_t i = 0; i < models.size(); ++i) {
        const RunResult result = started[i].result.get();
        ASSERT_TRUE(result.status.ok()) << result.status.ToString();
        EXPECT_TRUE(TensorsEqual(result.outputs[0], alone[i][static_cast<size_t>(rows - 1)])) << i;
      }
    }
  }
}

TEST_F(ShareTest, PathsAreCutWhereRowsMix) {
  const auto load = [&](const std::string& name, int last) {
    GraphMaker g;
    ValueId v = g.In("x", {-1, kWidth});
    for (const int layer : {1, 2, last}) {
      std::vector<float> values(kWidth * kWidth);
      for (size_t k = 0; k < values.size(); ++k) {
        values[k] = 0.2f * std::sin(static_cast<float>(k) * static_cast<float>(layer));
      }
      v = g.Op("MatMul", {v, g.Const(Floats({kWidth, kWidth}, values))});
      if (layer == 1) v = g.Op("Softmax", {v}, DType::kFloat32, {{"axis", int64_t{0}}});
    }
    g.Out(v);
    return runtime_->Load(name, g.Done(), {}).value();
  };
  const ExecutablePtr a = load("a", 3), b = load("b", 4);
  WaitForPaths(2);
  ASSERT_TRUE(runtime_->Run(a, {Input(1)}).status.ok());
  EXPECT_EQ(runtime_->dispatcher().stats().jobs_done, 4u)
      << "the rows apart, mixed, apart, and what it has for itself";
}

TEST_F(ShareTest, TenantsDoTheirOwnWorkUnlessToldOtherwise) {
  for (const bool across : {false, true}) {
    RuntimeOptions options;
    options.share_across_tenants = across;
    Make(options, 1);
    const ExecutablePtr m = Load("m", {1, 2});
    ASSERT_TRUE(runtime_->Run(m, {Input(1)}).status.ok());
    RequestAttributes other;
    other.tenant = TenantId(3);
    Blocker blocker(runtime_->dispatcher());
    Started first = Start(m, Input(1)), second = Start(m, Input(1), other);
    EXPECT_EQ(runtime_->sharing_stats().joined, across ? 1u : 0u);
    blocker.Release();
    EXPECT_TRUE(first.result.get().status.ok());
    EXPECT_TRUE(second.result.get().status.ok());
    EXPECT_LE(runtime_->sharing_stats().joined, across ? 2u : 0u);
  }
}

TEST_F(ShareTest, TenantsThatWaitForTheSameWorkPayAlikeForIt) {
  RuntimeOptions options;
  options.share_across_tenants = true;
  Make(options, 1);
  const ExecutablePtr m = Load("m", {1, 2});
  ASSERT_TRUE(runtime_->Run(m, {Input(1)}).status.ok());  // compiles
  Blocker blocker(runtime_->dispatcher());
  std::vector<Started> started;
  for (const uint32_t tenant : {1, 2, 2, 3}) {
    RequestAttributes attributes;
    attributes.tenant = TenantId(tenant);
    started.push_back(Start(m, Input(1), attributes));
  }
  ASSERT_EQ(runtime_->sharing_stats().joined, 3u);
  blocker.Release();
  for (Started& each : started) ASSERT_TRUE(each.result.get().status.ok());
  const auto time = [&](uint32_t tenant) {
    return runtime_->dispatcher().tenant_stats(TenantId(tenant)).time.count();
  };
  EXPECT_GT(time(1), 0);
  EXPECT_NEAR(static_cast<double>(time(2)), static_cast<double>(time(1)), 2) << "not twice";
  EXPECT_NEAR(static_cast<double>(time(3)), static_cast<double>(time(1)), 2);
}

TEST_F(ShareTest, ATenantThatComesLaterPaysForWhatIsLeft) {
  RuntimeOptions options;
  options.share_across_tenants = true;
  Make(options, 1);
  const ExecutablePtr m = Load("m", {1, 2}, 100'000);
  RequestAttributes attributes;
  attributes.tenant = TenantId(1);
  Started leader = Start(m, Input(1), attributes);
  // A layer is done, a loop on the host is to end, then comes the other layer: it is held.
  while (runtime_->dispatcher().stats().jobs_done == 0) std::this_thread::yield();
  Blocker blocker(runtime_->dispatcher());
  attributes.tenant = TenantId(2);
  Started rider = Start(m, Input(1), attributes);
  ASSERT_EQ(runtime_->sharing_stats().joined, 1u);
  blocker.Release();
  ASSERT_TRUE(leader.result.get().status.ok());
  ASSERT_TRUE(rider.result.get().status.ok());
  const Duration first = runtime_->dispatcher().tenant_stats(TenantId(1)).time;
  const Duration second = runtime_->dispatcher().tenant_stats(TenantId(2)).time;
  EXPECT_GT(second, Duration{0});
  EXPECT_GT(first, second) << "alone with the first layer";
}

TEST_F(ShareTest, WhoWaitsForALessUrgentRequestMakesItUrgent) {
  RuntimeOptions options;
  options.policy = "edf";
  Make(options, 1);
  const ExecutablePtr m = Load("m", {1, 2}), other = Load("other", {3, 4});
  for (const ExecutablePtr& each : {m, other}) {
    ASSERT_TRUE(runtime_->Run(each, {Input(1)}).status.ok());  // compiles
  }
  std::mutex mutex;
  std::vector<std::string> order;
  std::vector<std::future<void>> ended;
  const TimePoint now = runtime_->clock().Now();
  const auto start = [&](const std::string& name, const ExecutablePtr& executable, float input,
                         int64_t seconds) {
    auto promise = std::make_shared<std::promise<void>>();
    ended.push_back(promise->get_future());
    RequestAttributes attributes;
    attributes.deadline = now + std::chrono::seconds(seconds);
    runtime_->Start(executable, {Input(input)}, attributes, [&, name, promise](RunResult result) {
      EXPECT_TRUE(result.status.ok()) << result.status.ToString();
      {
        std::lock_guard lock(mutex);
        order.push_back(name);
      }
      promise->set_value();
    });
  };
  Blocker blocker(runtime_->dispatcher());
  start("first", other, 1, 100);  // may be at the worker already
  start("other", other, 2, 200);
  start("leader", m, 1, 500);
  start("rider", m, 1, 50);
  EXPECT_EQ(runtime_->sharing_stats().raised, 1u);
  blocker.Release();
  for (std::future<void>& each : ended) each.get();
  const auto at = [&](const char* name) {
    return std::find(order.begin(), order.end(), name) - order.begin();
  };
  EXPECT_LT(at("leader"), at("other"));
}

TEST_F(ShareTest, RandomWorkIsDoneForEachRequest) {
  Make({}, 1);
  const ExecutablePtr m = Load("m", {1, 2}, 0, /*random=*/true);
  ASSERT_TRUE(runtime_->Run(m, {Input(1)}).status.ok());  // compiles
  Blocker blocker(runtime_->dispatcher());
  Started first = Start(m, Input(1)), second = Start(m, Input(1));
  blocker.Release();
  const RunResult one = first.result.get(), two = second.result.get();
  ASSERT_TRUE(one.status.ok()) << one.status.ToString();
  EXPECT_FALSE(TensorsEqual(one.outputs[0], two.outputs[0]));
  EXPECT_EQ(runtime_->sharing_stats().joined, 0u);
}

TEST_F(ShareTest, ALeaderThatGivesUpTakesNobodyWithIt) {
  Make({}, 1);
  const ExecutablePtr m = Load("m", {1, 2});
  ASSERT_TRUE(runtime_->Run(m, {Input(1)}).status.ok());  // compiles
  Blocker blocker(runtime_->dispatcher());
  Started leader = Start(m, Input(1)), rider = Start(m, Input(1));
  ASSERT_EQ(runtime_->sharing_stats().joined, 1u);
  leader.token->Cancel(CancelledError("the client went away"));
  EXPECT_EQ(leader.result.get().status.code(), StatusCode::kCancelled);
  blocker.Release();
  const RunResult result = rider.result.get();
  EXPECT_TRUE(result.status.ok()) << result.status.ToString();
}

TEST_F(ShareTest, ARiderThatGivesUpGoesAtOnceAndAlone) {
  Make({}, 1);
  const ExecutablePtr m = Load("m", {1, 2});
  ASSERT_TRUE(runtime_->Run(m, {Input(1)}).status.ok());  // compiles
  Blocker blocker(runtime_->dispatcher());
  Started leader = Start(m, Input(1)), rider = Start(m, Input(1));
  ASSERT_EQ(runtime_->sharing_stats().joined, 1u);
  rider.token->Cancel(CancelledError("the client went away"));
  EXPECT_EQ(rider.result.get().status.code(), StatusCode::kCancelled);
  EXPECT_EQ(leader.result.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  blocker.Release();
  EXPECT_TRUE(leader.result.get().status.ok());
}

TEST_F(ShareTest, UnloadingOneLeavesTheOthersAsTheyWere) {
  const ExecutablePtr a = Load("a", {1, 2, 3});
  ExecutablePtr b = Load("b", {1, 2, 4});
  WaitForPaths(2);
  const Tensor before = runtime_->Run(a, {Input(1)}).outputs.at(0);
  Started running = Start(b, Input(1));
  b.reset();
  EXPECT_TRUE(running.result.get().status.ok());
  WaitForPaths(0);
  EXPECT_TRUE(TensorsEqual(runtime_->Run(a, {Input(1)}).outputs.at(0), before));
}

TEST_F(ShareTest, AnExecutableMayOutliveItsRuntime) {
  const ExecutablePtr a = Load("a", {1, 2, 3}), b = Load("b", {1, 2, 4});
  WaitForPaths(2);
  EXPECT_TRUE(runtime_->Run(a, {Input(1)}).status.ok());
  runtime_.reset();
}

TEST_F(ShareTest, WhoAlwaysComesFirstLearnsThatOthersFollow) {
  Make({}, 1);
  const ExecutablePtr first = Load("first", {1, 2, 3}, kTrips);
  const ExecutablePtr second = Load("second", {1, 2, 4}, kTrips);
  WaitForPaths(2);
  // Alone for so long that it goes in one piece.
  for (int i = 0; i < 45; ++i) {
    ASSERT_TRUE(runtime_->Run(first, {Input(static_cast<float>(i))}).status.ok());
  }
  ASSERT_TRUE(runtime_->Run(second, {Input(1)}).status.ok());
  constexpr int kRounds = 16;
  uint64_t joined = 0;
  for (int i = 0; i < kRounds; ++i) {
    const uint64_t before = runtime_->sharing_stats().joined;
    Blocker blocker(runtime_->dispatcher());
    Started a = Start(first, Input(100 + static_cast<float>(i)));
    Started b = Start(second, Input(100 + static_cast<float>(i)));
    blocker.Release();
    ASSERT_TRUE(a.result.get().status.ok());
    ASSERT_TRUE(b.result.get().status.ok());
    if (i >= kRounds / 2) joined += runtime_->sharing_stats().joined - before;
  }
  EXPECT_GE(joined, kRounds / 4u) << "nearly each time, while the worker was held";
}

// --- Whether it is worth it

TEST(ShareHistoryTest, ExecutablesWithoutCompanyComeToRunInOnePiece) {
  ShareHistory history;
  const RunPath path;
  EXPECT_TRUE(history.WorthAPath(path)) << "a new one is tried";
  for (int i = 0; i < 40; ++i) history.Met(false);
  EXPECT_FALSE(history.WorthAPath(path));
  history.Met(true);
  EXPECT_TRUE(history.WorthAPath(path));
}

TEST(CompanionsTest, CompanyIsWhoIsThereNow) {
  Companions all;
  {
    const Companions::Stay first(all, 1), second(all, 1), other(all, 2);
    EXPECT_FALSE(first.met());
    EXPECT_TRUE(second.met());
    EXPECT_FALSE(other.met());
    EXPECT_TRUE(first.had_company()) << "it came later";
    EXPECT_TRUE(second.had_company());
    EXPECT_FALSE(other.had_company());
  }
  {
    const Companions::Stay stays(all, 1);
    { const Companions::Stay passes_by(all, 1); }
    EXPECT_TRUE(stays.had_company()) << "it was there";
  }
  EXPECT_FALSE(Companions::Stay(all, 1).met());
}

}  // namespace
}  // namespace plexus
