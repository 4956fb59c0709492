// What a request may take: memory outside arenas, and time on the host.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <limits>

#include "pipeline/folding_evaluator.h"
#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

class RequestLimitsTest : public ::testing::Test {
 protected:
  RequestLimitsTest() {
    RuntimeOptions options;
    options.threads = 1;
    options.value_memory_bytes = 3 * kMiB;
    options.request_memory_bytes = 2 * kMiB;
    runtime_ = Runtime::Create(options).value();
  }
  ExecutablePtr Load(GraphMaker& maker) { return runtime_->Load("m", maker.Done(), {}).value(); }
  std::unique_ptr<Runtime> runtime_;
};

Tensor Ints(const std::vector<int64_t>& values) { return Tensor::VectorInt64(values); }

void ExpectExhausted(const Status& status, const std::string& op) {
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  EXPECT_NE(status.message().find("(" + op), std::string::npos) << status.message();
  EXPECT_NE(status.message().find("bytes are needed, the "), std::string::npos) << status.message();
}

TEST_F(RequestLimitsTest, AShapeThatTheDataTellsIsCheckedBeforeMemoryIsTaken) {
  struct Case {
    const char* op;
    std::vector<int64_t> small, huge;
  };
  for (const Case& c :
       {Case{"ConstantOfShape", {10}, {900'000'000}}, Case{"Expand", {10}, {900'000'000}},
        Case{"Tile", {10}, {900'000'000}}, Case{"Range", {10}, {500'000'000}}}) {
    GraphMaker g;
    const std::string op = c.op;
    if (op == "Range") {
      const ValueId end = g.In("size", {}, DType::kInt64);
      g.Out(g.Op(op, {g.Const(Tensor::ScalarInt64(0)), end, g.Const(Tensor::ScalarInt64(1))},
                 DType::kInt64));
    } else {
      const ValueId size = g.In("size", {1}, DType::kInt64);
      std::vector<ValueId> in = {size};
      if (op != "ConstantOfShape") in.insert(in.begin(), g.Const(Floats({1}, {1})));
      g.Out(g.Op(op, in));
    }
    const ExecutablePtr m = Load(g);
    const auto run = [&](int64_t size) {
      return runtime_->Run(m, {op == "Range" ? Tensor::ScalarInt64(size) : Ints({size})});
    };
    ExpectExhausted(run(c.huge[0]).status, op);
    RunResult fits = run(c.small[0]);
    ASSERT_TRUE(fits.status.ok()) << fits.status.ToString();
    EXPECT_EQ(fits.outputs[0].num_elements(), 10);
  }
}

TEST_F(RequestLimitsTest, WhatARequestHeldIsGivenBackWithItsOutputs) {
  GraphMaker g;
  g.Out(g.Op("ConstantOfShape", {g.In("size", {1}, DType::kInt64)}));
  const ExecutablePtr m = Load(g);
  std::vector<RunResult> kept;
  for (int turn = 0; turn < 20; ++turn) {  // 1.6 MiB each: two at once are too much for the server
    RunResult r = runtime_->Run(m, {Ints({400'000})});
    ASSERT_TRUE(r.status.ok()) << r.status.ToString();
    if (turn == 19) kept.push_back(std::move(r));
  }
  const Status full = runtime_->Run(m, {Ints({400'000})}).status;
  ExpectExhausted(full, "ConstantOfShape");
  EXPECT_NE(full.message().find("the server holds"), std::string::npos) << full.message();
  kept.clear();
  EXPECT_TRUE(runtime_->Run(m, {Ints({400'000})}).status.ok());
}

TEST_F(RequestLimitsTest, AModelMayHaveItsOwnLimit) {
  GraphMaker g;
  g.Out(g.Op("ConstantOfShape", {g.In("size", {1}, DType::kInt64)}));
  const ExecutablePtr m = Load(g);
  RequestAttributes attributes;
  attributes.memory_bytes = 4096;
  ExpectExhausted(runtime_->Run(m, {Ints({2000})}, attributes).status, "ConstantOfShape");
  EXPECT_TRUE(runtime_->Run(m, {Ints({500})}, attributes).status.ok());
}

TEST_F(RequestLimitsTest, OutputsOfARegionCount) {
  GraphMaker g;
  g.Out(g.Op("Expand", {g.In("x", {-1, 1}), g.Const(Ints({1, 1'000'000}))}));
  const ExecutablePtr m = Load(g);
  const Status status = runtime_->Run(m, {Floats({1, 1}, {1})}).status;
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  EXPECT_NE(status.message().find("value '"), std::string::npos) << status.message();
}

TEST_F(RequestLimitsTest, RepeatedTextsCount) {
  GraphMaker g;
  g.Out(g.Op("Expand", {g.In("text", {1}, DType::kString), g.In("size", {1}, DType::kInt64)},
             DType::kString));
  const ExecutablePtr m = Load(g);
  const Tensor text = Tensor::FromStrings({1}, {std::string(100'000, 'x')});
  ExpectExhausted(runtime_->Run(m, {text, Ints({100})}).status, "Expand");
  EXPECT_TRUE(runtime_->Run(m, {text, Ints({3})}).status.ok());
}

// A loop that goes round `trips` times, with `op` on the value it carries, which it also scans.
ExecutablePtr LoopOf(Runtime& runtime, const std::string& op) {
  GraphMaker body;
  body.In("i", {}, DType::kInt64);
  const ValueId going = body.In("cond", {}, DType::kBool);
  const ValueId v = body.In("v", {-1});
  body.Out(body.Op("Identity", {going}, DType::kBool));
  body.Out(body.Op(op, {v}));
  body.Out(body.Op("Neg", {v}));
  GraphMaker g;
  const ValueId trips = g.In("trips", {}, DType::kInt64);
  const ValueId start = g.In("v", {-1});
  g.Op("Loop", {trips, ValueId(), start}, DType::kFloat32, {{"body", body.Done()}});
  Value scan;
  scan.name = "scan";
  scan.dtype = DType::kFloat32;
  const ValueId scans = g.graph.AddValue(scan);
  g.graph.nodes().back().outputs.push_back(scans);
  g.Out(scans);
  return runtime.Load("m", g.Done(), {}).value();
}

TEST_F(RequestLimitsTest, WhatALoopCollectsCounts) {
  const ExecutablePtr m = LoopOf(*runtime_, "Abs");
  const Tensor row = Floats({1000}, std::vector<float>(1000, 1));
  EXPECT_EQ(runtime_->Run(m, {Tensor::ScalarInt64(100'000), row}).status.code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(runtime_->Run(m, {Tensor::ScalarInt64(20), row}).status.ok());
}

TEST_F(RequestLimitsTest, ATimeoutEndsHostStepsAndIsAnsweredOnce) {
  ExecutablePtr m = LoopOf(*runtime_, "Abs");
  RequestAttributes attributes;
  attributes.timeout_at = runtime_->clock().Now() + std::chrono::milliseconds(20);
  std::atomic<int> answers{0};
  std::promise<Status> ended;
  // Turns for seconds; what they collect is empty, so that no memory runs out first.
  runtime_->Start(m, {Tensor::ScalarInt64(900'000), Floats({0}, {})}, attributes, [&](RunResult r) {
    if (++answers == 1) ended.set_value(r.status);
  });
  const Status status = ended.get_future().get();
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status.ToString();
  m.reset();
  runtime_.reset();  // waits for what it still ran
  EXPECT_EQ(answers, 1);
}

TEST_F(RequestLimitsTest, ALoopWithoutAnEndEndsAtTheTimeout) {
  const ExecutablePtr m = LoopOf(*runtime_, "Abs");
  RequestAttributes attributes;
  attributes.timeout_at = runtime_->clock().Now() + std::chrono::milliseconds(20);
  const Tensor forever = Tensor::ScalarInt64(std::numeric_limits<int64_t>::max());
  const RunResult r = runtime_->Run(m, {forever, Floats({0}, {})}, attributes);
  EXPECT_EQ(r.status.code(), StatusCode::kDeadlineExceeded) << r.status.ToString();
  EXPECT_TRUE(runtime_->Run(m, {Tensor::ScalarInt64(2), Floats({0}, {})}).status.ok());
}

TEST_F(RequestLimitsTest, FoldingGivesUpOnWhatIsTooLarge) {
  GraphMaker g;
  const ValueId size = g.Const(Ints({1'000'000'000}));
  g.Out(g.Op("ConstantOfShape", {size}));
  const GraphPtr graph = g.Done();
  const FoldingEvaluator folding(ReferenceEvaluator::Get());
  const std::vector<Tensor> inputs = {Ints({1'000'000'000})};
  EXPECT_EQ(folding.Evaluate(*graph, graph->nodes()[0], inputs, {}).status().code(),
            StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace plexus
