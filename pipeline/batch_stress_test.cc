// Requests that run in batches, under stress.
#include <gtest/gtest.h>

#include <cmath>
#include <future>
#include <map>

#include "pipeline/graph_maker.h"
#include "pipeline/test_stress.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 512;
constexpr int kInputs = 4;

Tensor Layer(int seed) {
  std::vector<float> values(kWidth * kWidth);
  for (size_t k = 0; k < values.size(); ++k) {
    values[k] = 0.05f * std::sin(static_cast<float>(k) * static_cast<float>(seed));
  }
  return Floats({kWidth, kWidth}, values);
}

Tensor Row(int seed) {
  std::vector<float> values(kWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::cos(static_cast<float>(seed + i));
  return Floats({1, kWidth}, values);
}

void ExpectNear(const Tensor& a, const Tensor& b, const std::string& which) {
  ASSERT_EQ(a.shape(), b.shape()) << which;
  for (size_t i = 0; i < a.data<float>().size(); ++i) {
    ASSERT_NEAR(a.data<float>()[i], b.data<float>()[i],
                1e-5f + 1e-5f * std::abs(b.data<float>()[i]))
        << which;
  }
}

StressLoad Load() {
  StressLoad load;
  load.inputs = kInputs;
  load.requests_each = 80;
  load.at_a_time = 6;
  load.longest_timeout = std::chrono::milliseconds(2);
  load.deadlines = true;
  return load;
}

class BatchStressTest : public StressTest {
 protected:
  BatchStressTest() : StressTest(Load()) {}

  // Two executables with a common beginning: where paths are shared, batches are of segments.
  void Make(const std::string& batching, bool share_work) {
    RuntimeOptions options;
    options.threads = 2;
    options.batching = batching;
    options.share_work = share_work;
    Use(Runtime::Create(options).value(), [this] {
      return std::vector<ExecutablePtr>{LoadOne("a", 3), LoadOne("b", 4)};
    });
  }
  ExecutablePtr LoadOne(const std::string& name, int own) {
    return runtime_->Load(name, graphs_.at(own), {}).value();
  }
  ExecutablePtr LoadGuest() override { return LoadOne("guest", 5); }
  Tensor Input(int number) const override { return Row(number); }
  void ExpectEqual(const Tensor& got, const Tensor& want, const std::string& which) override {
    ExpectNear(got, want, which);
  }
  static GraphPtr MakeGraph(int own) {
    GraphMaker g;
    ValueId v = g.In("x", {-1, kWidth});
    for (const int seed : {1, 2, own, own + 10}) {
      v = g.Op("Relu", {g.Op("MatMul", {v, g.Const(Layer(seed))})});
    }
    g.Out(v);
    return g.Done();
  }

  // Rounds until batches form: programs for them are built meanwhile.
  void WarmUp() {
    for (int round = 0; round < 2000 && runtime_->sharing_stats().batches == 0; ++round) {
      std::vector<std::future<RunResult>> answers;
      for (int i = 0; i < 2 * kInputs; ++i) {
        auto promise = std::make_shared<std::promise<RunResult>>();
        answers.push_back(promise->get_future());
        runtime_->Start(executables_[0], {Row(100 * round + i)}, {},
                        [promise](RunResult r) { promise->set_value(std::move(r)); });
      }
      for (auto& answer : answers) ASSERT_TRUE(answer.get().status.ok());
    }
    ASSERT_GT(runtime_->sharing_stats().batches, 0u);
  }

  const std::map<int, GraphPtr> graphs_ = {{3, MakeGraph(3)}, {4, MakeGraph(4)}, {5, MakeGraph(5)}};
};

TEST_F(BatchStressTest, EveryRequestIsAnsweredOnceWithItsOwnRow) {
  for (const char* batching : {"immediate", "timeout(200)", "path-aware"}) {
    SCOPED_TRACE(batching);
    Make(batching, /*share_work=*/false);
    WarmUp();
    Stress();
  }
}

TEST_F(BatchStressTest, AndWhereRowsRideInFlightsAsWell) {
  Make("immediate", /*share_work=*/true);
  WarmUp();
  Stress();
}

}  // namespace
}  // namespace plexus
