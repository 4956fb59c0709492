// What requests of different pipelines share inside their fan-outs, branches and loops.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "pipeline/graph_maker.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/runtime.h"
#include "pipeline/test_blocker.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 1024, kRows = 6;

// x: f32[1,1024] to f32[1,1024], which takes longer than to look for company; by name other
// weights, or random.
Result<GraphPtr> Lookup(const std::string& name) {
  GraphMaker g;
  std::vector<float> weights(kWidth * kWidth);
  uint32_t state = static_cast<uint32_t>(name.back());
  for (float& weight : weights) {
    state = state * 1664525 + 1013904223;
    weight = static_cast<float>(state >> 16) / 65536.0f - 0.5f;
  }
  ValueId y = g.In("x", {1, kWidth});
  if (name == "noise") y = g.Op("Add", {y, g.Op("RandomUniformLike", {y})});
  g.Out(g.Op("MatMul", {y, g.Const(Floats({kWidth, kWidth}, weights))}));
  g.graph.value(g.graph.outputs()[0]).name = "y";
  return g.Done();
}

// Which of a row's values go on depends on them, so that a fan-out cannot run as one graph.
constexpr char kKeep[] = R"(
      - {name: flat, op: reshape, input: stem, shape: [-1]}
      - {name: mark, op: compare, input: flat, is: greater, to: -1000000}
      - {name: kept, op: filter, inputs: [flat, mark]}
      - {name: again, op: reshape, input: kept, shape: [1, 1024]}
)";

// A row each: `stem`, and `head` behind it.
std::string FanOut(const std::string& stem, const std::string& head) {
  return "name: p\n"
         "inputs: [{name: rows, dtype: FP32, shape: [-1, 1024]}]\n"
         "stages:\n"
         "  - name: each\n"
         "    foreach: rows\n"
         "    as: row\n"
         "    concurrency: 4\n"
         "    stages:\n"
         "      - {name: stem, model: " +
         stem + ", input: row}" + kKeep + "      - {name: y, model: " + head +
         ", input: again}\n"
         "    outputs: [y]\n"
         "outputs: [{name: y, from: each.y}]\n";
}

// The same in a branch, which every second row takes.
std::string Branches(const std::string& head) {
  return "name: p\n"
         "inputs:\n"
         "  - {name: rows, dtype: FP32, shape: [-1, 1024]}\n"
         "  - {name: flags, dtype: BOOL, shape: [-1]}\n"
         "stages:\n"
         "  - name: each\n"
         "    foreach: [rows, flags]\n"
         "    as: [row, flag]\n"
         "    concurrency: 4\n"
         "    stages:\n"
         "      - name: y\n"
         "        when: flag\n"
         "        then:\n"
         "          stages:\n"
         "            - {name: stem, model: stem, input: row}\n"
         "            - {name: head, model: " +
         head +
         ", input: stem}\n"
         "          outputs: [{name: y, from: head}]\n"
         "        else: {outputs: [{name: y, from: row}]}\n"
         "    outputs: [{name: y, from: y.y}]\n"
         "outputs: [{name: y, from: each.y}]\n";
}

class ShareBodiesTest : public ::testing::Test {
 protected:
  ShareBodiesTest() { Make({}); }
  void Make(RuntimeOptions options) {
    options.threads = 1;
    options.batching = "none";
    runtime_ = Runtime::Create(options).value();
  }
  ExecutablePtr Load(const std::string& name, const std::string& yaml) {
    const auto file = ParsePipeline(yaml, "p.yaml", "/", Lookup);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    return runtime_->Load(name, file->graph, {}).value();
  }
  void WaitForPaths(size_t paths) {
    while (runtime_->sharing_stats().paths != paths) std::this_thread::yield();
  }
  static Tensor Rows(float seed) {
    std::vector<float> values(kRows * kWidth);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = 1.1f + std::cos(seed + static_cast<float>(i));
    }
    return Floats({kRows, kWidth}, values);
  }
  static std::vector<Tensor> Inputs(const ExecutablePtr& executable, const Tensor& rows) {
    std::vector<uint8_t> flags;
    for (int64_t i = 0; i < kRows; ++i) flags.push_back(i % 2 == 0);
    std::vector<Tensor> inputs = {rows, Tensor::Of<uint8_t>(DType::kBool, {kRows}, flags)};
    inputs.resize(executable->graph().inputs().size());
    return inputs;
  }
  struct Started {
    std::shared_ptr<CancelToken> token;
    std::future<RunResult> result;
  };
  Started Start(const ExecutablePtr& executable, const Tensor& rows,
                const RequestAttributes& attributes = {}) {
    auto promise = std::make_shared<std::promise<RunResult>>();
    Started started{nullptr, promise->get_future()};
    started.token =
        runtime_->Start(executable, Inputs(executable, rows), attributes,
                        [promise](RunResult result) { promise->set_value(std::move(result)); });
    return started;
  }
  Tensor Alone(const ExecutablePtr& executable, const Tensor& rows) {
    const RunResult result = runtime_->Run(executable, Inputs(executable, rows));
    EXPECT_TRUE(result.status.ok()) << result.status.ToString();
    return result.status.ok() ? result.outputs[0] : Tensor();
  }
  void ExpectOutput(Started& started, const Tensor& expected) {
    const RunResult result = started.result.get();
    ASSERT_TRUE(result.status.ok()) << result.status.ToString();
    EXPECT_TRUE(TensorsEqual(result.outputs[0], expected));
  }
  uint64_t Submitted() { return runtime_->dispatcher().stats().jobs_submitted; }
  uint64_t Joined() { return runtime_->sharing_stats().joined; }
  // Each first of its own, then the others on the same rows, with the device held until `joined`
  // have joined. Who meets somebody on the same rows goes by its path whatever was learned before:
  // so the first one may not, the others do.
  void StartTogether(const ExecutablePtr& a, const ExecutablePtr& b, uint64_t joined) {
    Blocker blocker(runtime_->dispatcher());
    const uint64_t before = Joined();
    company_ = Start(a, Rows(1));
    first_ = Start(a, Rows(1));
    second_ = Start(b, Rows(1));
    while (Joined() - before < joined) std::this_thread::yield();
    if (while_held_) while_held_();
  }
  // Both, with the device held until there are so many jobs.
  void StartApart(const ExecutablePtr& a, const ExecutablePtr& b, const Tensor& rows_a,
                  const Tensor& rows_b, uint64_t jobs) {
    Blocker blocker(runtime_->dispatcher());
    const uint64_t before = Submitted();
    first_ = Start(a, rows_a);
    second_ = Start(b, rows_b);
    while (Submitted() - before < jobs) std::this_thread::yield();
  }

  std::unique_ptr<Runtime> runtime_;
  Started company_, first_, second_;
  std::function<void()> while_held_;
};

TEST_F(ShareBodiesTest, ElementsUnderWayAreDoneOnceAcrossPipelines) {
  const ExecutablePtr a = Load("a", FanOut("stem", "head_a"));
  const ExecutablePtr b = Load("b", FanOut("stem", "head_b"));
  WaitForPaths(2);
  const Tensor out_a = Alone(a, Rows(1)), out_b = Alone(b, Rows(1));
  ASSERT_FALSE(TensorsEqual(out_a, out_b));
  const uint64_t submitted = Submitted();
  StartTogether(a, b, 4);  // as many as are under way at once
  ExpectOutput(company_, out_a);
  ExpectOutput(first_, out_a);
  ExpectOutput(second_, out_b);
  EXPECT_LT(Submitted() - submitted, 1 + 3 * 2 * kRows) << "the blocker, a stem and a head each";
}

TEST_F(ShareBodiesTest, OutputsAreThoseOfARuntimeThatSharesNothing) {
  const std::string yamls[] = {FanOut("stem", "head_a"), FanOut("stem", "head_b"),
                               FanOut("other", "head_b"), Branches("head_a"), Branches("head_b")};
  std::vector<Tensor> expected;
  RuntimeOptions unshared;
  unshared.share_work = false;
  Make(unshared);
  for (const std::string& yaml : yamls) expected.push_back(Alone(Load("p", yaml), Rows(2)));
  Make({});
  std::vector<ExecutablePtr> loaded;
  for (const std::string& yaml : yamls) {
    loaded.push_back(Load("p" + std::to_string(loaded.size()), yaml));
  }
  WaitForPaths(5);
  for (int round = 0; round < 3; ++round) {
    std::vector<Started> started;
    for (const ExecutablePtr& each : loaded) started.push_back(Start(each, Rows(2)));
    for (size_t i = 0; i < started.size(); ++i) ExpectOutput(started[i], expected[i]);
  }
}

TEST_F(ShareBodiesTest, BranchesInsideElementsShareTheirWork) {
  const ExecutablePtr a = Load("a", Branches("head_a")), b = Load("b", Branches("head_b"));
  WaitForPaths(2);
  const Tensor out_a = Alone(a, Rows(1)), out_b = Alone(b, Rows(1));
  StartTogether(a, b, 3);  // as many as go into the branch
  ExpectOutput(company_, out_a);
  ExpectOutput(first_, out_a);
  ExpectOutput(second_, out_b);
}

TEST_F(ShareBodiesTest, OtherRowsAreEachTheirOwn) {
  const ExecutablePtr a = Load("a", FanOut("stem", "head_a"));
  const ExecutablePtr b = Load("b", FanOut("stem", "head_b"));
  WaitForPaths(2);
  const Tensor out_a = Alone(a, Rows(1)), out_b = Alone(b, Rows(2));
  StartApart(a, b, Rows(1), Rows(2), 8);
  ExpectOutput(first_, out_a);
  ExpectOutput(second_, out_b);
  EXPECT_EQ(Joined(), 0u);
}

TEST_F(ShareBodiesTest, TenantsShareElementsOnlyWhereTheOperatorAllowsIt) {
  for (const bool across : {false, true}) {
    RuntimeOptions options;
    options.share_across_tenants = across;
    Make(options);
    const ExecutablePtr a = Load("a", FanOut("stem", "head_a"));
    const ExecutablePtr b = Load("b", FanOut("stem", "head_b"));
    WaitForPaths(2);
    const Tensor out_a = Alone(a, Rows(1)), out_b = Alone(b, Rows(1));
    RequestAttributes one, other;
    one.tenant = TenantId(3);
    other.tenant = TenantId(4);
    {
      Blocker blocker(runtime_->dispatcher());
      const uint64_t before = Submitted();
      company_ = Start(a, Rows(1));
      first_ = Start(a, Rows(1), one);
      second_ = Start(b, Rows(1), other);
      if (across) {
        while (Joined() < 4) std::this_thread::yield();
      } else {
        while (Submitted() - before < 12) std::this_thread::yield();
      }
    }
    EXPECT_TRUE(company_.result.get().status.ok());
    ExpectOutput(first_, out_a);
    ExpectOutput(second_, out_b);
    EXPECT_EQ(Joined() > 0, across);
  }
}

TEST_F(ShareBodiesTest, RandomWorkInsideElementsIsDoneForEach) {
  const ExecutablePtr a = Load("a", FanOut("noise", "head_a"));
  const ExecutablePtr b = Load("b", FanOut("noise", "head_b"));
  WaitForPaths(2);  // the layer behind the noise is common, its inputs are not
  Alone(a, Rows(1));
  Alone(b, Rows(1));
  StartApart(a, b, Rows(1), Rows(1), 8);
  EXPECT_TRUE(first_.result.get().status.ok());
  EXPECT_TRUE(second_.result.get().status.ok());
  EXPECT_EQ(Joined(), 0u);
}

TEST_F(ShareBodiesTest, ALeaderThatGivesUpTakesNoElementWithIt) {
  const ExecutablePtr a = Load("a", FanOut("stem", "head_a"));
  const ExecutablePtr b = Load("b", FanOut("stem", "head_b"));
  WaitForPaths(2);
  Alone(a, Rows(1));
  const Tensor out_b = Alone(b, Rows(1));
  while_held_ = [this] {
    company_.token->Cancel(CancelledError("the client went away"));
    first_.token->Cancel(CancelledError("the client went away"));
  };
  StartTogether(a, b, 4);
  EXPECT_EQ(company_.result.get().status.code(), StatusCode::kCancelled);
  EXPECT_EQ(first_.result.get().status.code(), StatusCode::kCancelled);
  ExpectOutput(second_, out_b);
}

TEST_F(ShareBodiesTest, ARiderThatGivesUpGoesAtOnceAndAlone) {
  const ExecutablePtr a = Load("a", FanOut("stem", "head_a"));
  const ExecutablePtr b = Load("b", FanOut("stem", "head_b"));
  WaitForPaths(2);
  const Tensor out_a = Alone(a, Rows(1));
  Alone(b, Rows(1));
  while_held_ = [this] {
    second_.token->Cancel(CancelledError("the client went away"));
    EXPECT_EQ(second_.result.get().status.code(), StatusCode::kCancelled);
  };
  StartTogether(a, b, 4);
  ExpectOutput(company_, out_a);
  ExpectOutput(first_, out_a);
}

TEST_F(ShareBodiesTest, UnloadingOneLeavesTheOtherAsItWas) {
  ExecutablePtr a = Load("a", FanOut("stem", "head_a"));
  const ExecutablePtr b = Load("b", FanOut("stem", "head_b"));
  WaitForPaths(2);
  Alone(a, Rows(1));
  const Tensor out_b = Alone(b, Rows(1));
  Started running = Start(a, Rows(1));
  a.reset();
  EXPECT_TRUE(running.result.get().status.ok());
  WaitForPaths(0);
  EXPECT_TRUE(TensorsEqual(Alone(b, Rows(1)), out_b));
  const ExecutablePtr c = Load("c", FanOut("stem", "head_c"));
  WaitForPaths(2);
  EXPECT_TRUE(TensorsEqual(Alone(b, Rows(1)), out_b));
}

TEST_F(ShareBodiesTest, WhoWaitsForAnElementMakesItUrgent) {
  RuntimeOptions options;
  options.policy = "edf";
  Make(options);
  const ExecutablePtr a = Load("a", FanOut("stem", "head_a"));
  const ExecutablePtr b = Load("b", FanOut("stem", "head_b"));
  const ExecutablePtr other = Load("other", FanOut("other", "head_o"));
  WaitForPaths(2);
  for (const ExecutablePtr& each : {a, b, other}) Alone(each, Rows(1));
  std::mutex mutex;
  std::vector<std::string> order;
  std::vector<std::future<void>> ended;
  const TimePoint now = runtime_->clock().Now();
  const auto start = [&](const std::string& name, const ExecutablePtr& executable,
                         int64_t seconds) {
    auto promise = std::make_shared<std::promise<void>>();
    ended.push_back(promise->get_future());
    RequestAttributes attributes;
    attributes.deadline = now + std::chrono::seconds(seconds);
    runtime_->Start(executable, {Rows(1)}, attributes, [&, name, promise](RunResult result) {
      EXPECT_TRUE(result.status.ok()) << result.status.ToString();
      {
        std::lock_guard lock(mutex);
        order.push_back(name);
      }
      promise->set_value();
    });
  };
  {
    Blocker blocker(runtime_->dispatcher());
    const auto asked = [&] {
      const Runtime::SharingStats stats = runtime_->sharing_stats();
      return stats.led + stats.joined;
    };
    const uint64_t before = Joined(), asked_before = asked();
    start("leader", a, 500);
    start("leader", a, 500);  // met, it goes by its path, or rides with the first one
    while (asked() - asked_before < 6) std::this_thread::yield();
    start("other", other, 200);
    start("rider", b, 50);
    while (Joined() - before < 4) std::this_thread::yield();
    while (runtime_->sharing_stats().raised < 4) std::this_thread::yield();
  }
  for (std::future<void>& each : ended) each.get();
  EXPECT_EQ(order[0], "rider");
}

}  // namespace
}  // namespace plexus
