// What a fan-out keeps at the device, and what one element's failure does to others: with the
// device held, so that nothing depends on how fast it is.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "pipeline/graph_maker.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/runtime.h"
#include "pipeline/test_blocker.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 128;

// x: f32[1,128] to f32[1,128], too much for the host.
Result<GraphPtr> Lookup(const std::string& name) {
  if (name != "heavy") return NotFoundError(name);
  GraphMaker g;
  const std::vector<float> weights(kWidth * kWidth, 1.0f / kWidth);
  g.Out(g.Op("MatMul", {g.In("x", {1, kWidth}), g.Const(Floats({kWidth, kWidth}, weights))}));
  g.graph.value(g.graph.outputs()[0]).name = "y";
  return g.Done();
}

// A row each; which of a row's values are kept depends on them, so that no two rows run as one. A
// row beginning with a number from 1 on fails behind its model.
constexpr char kFanOut[] = R"(
name: p
inputs: [{name: rows, dtype: FP32, shape: [-1, 128]}]
stages:
  - name: each
    foreach: rows
    as: row
    concurrency: 4
    stages:
      - {name: y, model: heavy, input: row}
      - {name: flat, op: reshape, input: y, shape: [-1]}
      - {name: mark, op: compare, input: flat, is: greater, to: 0}
      - {name: kept, op: filter, inputs: [flat, mark]}
      - {name: first, op: slice, input: row, axis: 1, end: 1}
      - {name: index, op: cast, input: first, to: INT64}
      - {name: table, op: constant, dtype: FP32, shape: [1]}
      - {name: checked, op: gather, inputs: [table, index]}
    outputs: [{name: all, from: kept, sizes: counts}, checked]
outputs:
  - {name: all, from: each.all}
  - {name: counts, from: each.counts}
  - {name: checked, from: each.checked}
)";

class FanOutTest : public ::testing::Test {
 protected:
  FanOutTest() {
    RuntimeOptions options;
    options.threads = 1;
    runtime_ = Runtime::Create(options).value();
    const auto file = ParsePipeline(kFanOut, "p.yaml", "/", Lookup);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    pipeline_ = runtime_->Load("p", file->graph, {}).value();
    const RunResult warm = runtime_->Run(pipeline_, {Rows({0, 0})});  // compiles
    EXPECT_TRUE(warm.status.ok()) << warm.status.ToString();
  }
  // Row i begins with firsts[i] and goes on with i + 1.
  static Tensor Rows(const std::vector<float>& firsts) {
    std::vector<float> values;
    for (size_t i = 0; i < firsts.size(); ++i) {
      values.push_back(firsts[i]);
      values.insert(values.end(), kWidth - 1, static_cast<float>(i + 1));
    }
    return Floats({static_cast<int64_t>(firsts.size()), kWidth}, values);
  }
  std::future<RunResult> Start(const Tensor& rows) {
    auto promise = std::make_shared<std::promise<RunResult>>();
    runtime_->Start(pipeline_, {rows}, {},
                    [promise](RunResult r) { promise->set_value(std::move(r)); });
    return promise->get_future();
  }
  uint64_t Submitted() { return runtime_->dispatcher().stats().jobs_submitted; }

  std::unique_ptr<Runtime> runtime_;
  ExecutablePtr pipeline_;
};

TEST_F(FanOutTest, SeveralElementsAreAtTheDeviceAtOnce) {
  Blocker blocker(runtime_->dispatcher());
  const uint64_t before = Submitted();
  std::future<RunResult> result = Start(Rows({0, 0, 0, 0, 0, 0, 0}));
  // Nothing ends meanwhile: these are all there together, as many as `concurrency` says.
  while (Submitted() - before < 4) std::this_thread::yield();
  EXPECT_EQ(Submitted() - before, 4u);
  blocker.Release();
  const RunResult done = result.get();
  ASSERT_TRUE(done.status.ok()) << done.status.ToString();
  EXPECT_EQ(done.outputs[1].num_elements(), 7);
  EXPECT_EQ(Submitted() - before, 7u);
}

TEST_F(FanOutTest, AnElementThatFailsBesideAnotherRequestsFailsItsOwnRequestAlone) {
  const RunResult alone = runtime_->Run(pipeline_, {Rows({0, 0.5f, 0})});
  ASSERT_TRUE(alone.status.ok()) << alone.status.ToString();
  Blocker blocker(runtime_->dispatcher());
  const uint64_t before = Submitted();
  std::future<RunResult> good = Start(Rows({0, 0.5f, 0})), bad = Start(Rows({0, 7, 0}));
  while (Submitted() - before < 6) std::this_thread::yield();
  blocker.Release();
  const RunResult failed = bad.get(), succeeded = good.get();
  EXPECT_NE(failed.status.message().find("stage 'each', element 1: "), std::string::npos)
      << failed.status.ToString();
  ASSERT_TRUE(succeeded.status.ok()) << succeeded.status.ToString();
  for (size_t i = 0; i < alone.outputs.size(); ++i) {
    EXPECT_TRUE(TensorsEqual(succeeded.outputs[i], alone.outputs[i])) << i;
  }
}

}  // namespace
}  // namespace plexus
