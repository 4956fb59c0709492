// Rows of many requests in one job.
#include <gtest/gtest.h>

#include <cmath>
#include <future>
#include <thread>

#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 512;

class BatchTest : public ::testing::Test {
 protected:
  BatchTest() { Make("immediate"); }
  void Make(const std::string& policy, uint32_t max_batch = 16) {
    RuntimeOptions options;
    options.threads = 1;
    options.batching = policy;
    options.max_batch = max_batch;
    options.share_work = false;
    runtime_ = Runtime::Create(options).value();
  }

  // Layers of a matrix each, on [rows, kWidth]; `rows` -1: any number. `mixes`: a softmax over
  // rows.
  ExecutablePtr Load(const std::string& name, int layers, int64_t rows, bool mixes = false) {
    GraphMaker g;
    ValueId v = g.In("x", {rows, kWidth});
    for (int i = 0; i < layers; ++i) {
      std::vector<float> values(kWidth * kWidth);
      for (size_t k = 0; k < values.size(); ++k) {
        values[k] = 0.05f * std::sin(static_cast<float>(k) * static_cast<float>(i + 1));
      }
      v = g.Op("Relu", {g.Op("MatMul", {v, g.Const(Floats({kWidth, kWidth}, values))})});
      if (mixes) v = g.Op("Softmax", {v}, DType::kFloat32, {{"axis", int64_t{0}}});
    }
    g.Out(v);
    return runtime_->Load(name, g.Done(), {}).value();
  }
  static Tensor Input(int seed, int64_t rows = 1) {
    std::vector<float> values(static_cast<size_t>(rows * kWidth));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::cos(static_cast<float>(seed) + static_cast<float>(i));
    }
    return Floats({rows, kWidth}, values);
  }
  using Answer = std::future<RunResult>;
  Answer Start(const ExecutablePtr& executable, const Tensor& input,
               const RequestAttributes& attributes = {}) {
    auto promise = std::make_shared<std::promise<RunResult>>();
    Answer answer = promise->get_future();
    last_ = runtime_->Start(executable, {input}, attributes,
                            [promise](RunResult result) { promise->set_value(std::move(result)); });
    return answer;
  }
  // Rounds of `requests` at once until batches form: programs are built meanwhile.
  void WarmUp(const ExecutablePtr& executable, int requests) {
    for (int round = 0; round < 2000 && runtime_->sharing_stats().batches == 0; ++round) {
      std::vector<Answer> answers;
      for (int i = 0; i < requests; ++i) answers.push_back(Start(executable, Input(i)));
      for (Answer& answer : answers) ASSERT_TRUE(answer.get().status.ok());
    }
    ASSERT_GT(runtime_->sharing_stats().batches, 0u);
  }

  std::unique_ptr<Runtime> runtime_;
  std::shared_ptr<CancelToken> last_;
};

void ExpectNear(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape(), b.shape());
  for (size_t i = 0; i < a.data<float>().size(); ++i) {
    ASSERT_NEAR(a.data<float>()[i], b.data<float>()[i],
                1e-5f + 1e-5f * std::abs(b.data<float>()[i]));
  }
}

TEST_F(BatchTest, EveryRequestGetsItsOwnRow) {
  for (const int64_t rows : {int64_t{-1}, int64_t{1}}) {
    Make("immediate");
    const ExecutablePtr m = Load("m", 12, rows);
    std::vector<Tensor> alone;
    for (int i = 0; i < 9; ++i) alone.push_back(runtime_->Run(m, {Input(i)}).outputs.at(0));
    WarmUp(m, 9);
    for (int round = 0; round < 20; ++round) {
      std::vector<Answer> answers;
      for (int i = 0; i < 9; ++i) answers.push_back(Start(m, Input(i)));
      for (int i = 0; i < 9; ++i) {
        const RunResult result = answers[i].get();
        ASSERT_TRUE(result.status.ok()) << result.status.ToString();
        ExpectNear(result.outputs.at(0), alone[i]);
      }
    }
  }
}

TEST_F(BatchTest, RowsThatDependOnEachOtherAreNeverBatched) {
  const ExecutablePtr m = Load("m", 12, -1, /*mixes=*/true);
  std::vector<Tensor> alone;
  for (int i = 0; i < 9; ++i) alone.push_back(runtime_->Run(m, {Input(i)}).outputs.at(0));
  for (int round = 0; round < 50; ++round) {
    std::vector<Answer> answers;
    for (int i = 0; i < 9; ++i) answers.push_back(Start(m, Input(i)));
    for (int i = 0; i < 9; ++i) {
      EXPECT_TRUE(TensorsEqual(answers[i].get().outputs.at(0), alone[i]));
    }
  }
  EXPECT_EQ(runtime_->sharing_stats().batches, 0u);
}

TEST_F(BatchTest, RequestsOfSeveralRowsRunByThemselves) {
  const ExecutablePtr m = Load("m", 12, -1);
  WarmUp(m, 6);
  const Tensor alone = runtime_->Run(m, {Input(3, 3)}).outputs.at(0);
  std::vector<Answer> answers;
  for (int i = 0; i < 8; ++i) answers.push_back(Start(m, i % 2 == 0 ? Input(3, 3) : Input(i)));
  for (int i = 0; i < 8; ++i) {
    const RunResult result = answers[i].get();
    ASSERT_TRUE(result.status.ok());
    if (i % 2 == 0) {
      EXPECT_TRUE(TensorsEqual(result.outputs.at(0), alone));
    }
  }
}

TEST_F(BatchTest, ARequestThatIsCancelledLeavesTheOthersAlone) {
  const ExecutablePtr m = Load("m", 12, -1);
  WarmUp(m, 9);
  const Tensor alone = runtime_->Run(m, {Input(5)}).outputs.at(0);
  for (int round = 0; round < 20; ++round) {
    std::vector<Answer> answers;
    std::vector<std::shared_ptr<CancelToken>> tokens;
    for (int i = 0; i < 9; ++i) {
      answers.push_back(Start(m, Input(5)));
      tokens.push_back(last_);
    }
    for (int i = 0; i < 9; i += 2) tokens[i]->Cancel(CancelledError("gone"));
    for (int i = 0; i < 9; ++i) {
      const RunResult result = answers[i].get();
      if (i % 2 == 1) {
        ASSERT_TRUE(result.status.ok()) << result.status.ToString();
        ExpectNear(result.outputs.at(0), alone);
      } else if (!result.status.ok()) {
        EXPECT_EQ(result.status.code(), StatusCode::kCancelled);
      }
    }
  }
}

TEST_F(BatchTest, ARequestMayKeepOutOfBatches) {
  const ExecutablePtr m = Load("m", 12, -1);
  WarmUp(m, 6);
  const uint64_t before = runtime_->sharing_stats().batches;
  RequestAttributes attributes;
  attributes.may_batch = false;
  std::vector<Answer> answers;
  for (int i = 0; i < 8; ++i) answers.push_back(Start(m, Input(i), attributes));
  for (Answer& answer : answers) EXPECT_TRUE(answer.get().status.ok());
  EXPECT_EQ(runtime_->sharing_stats().batches, before);
}

TEST_F(BatchTest, NoneAndAMostOfOneBatchNothing) {
  for (const bool none : {true, false}) {
    none ? Make("none") : Make("immediate", 1);
    const ExecutablePtr m = Load("m", 12, -1);
    for (int round = 0; round < 20; ++round) {
      std::vector<Answer> answers;
      for (int i = 0; i < 6; ++i) answers.push_back(Start(m, Input(i)));
      for (Answer& answer : answers) EXPECT_TRUE(answer.get().status.ok());
    }
    EXPECT_EQ(runtime_->sharing_stats().batches, 0u);
  }
}

TEST_F(BatchTest, PathAwareBatchesWhereMatricesAreReadOnceForManyRows) {
  Make("path-aware");
  const ExecutablePtr m = Load("m", 12, -1);
  WarmUp(m, 9);
}

TEST_F(BatchTest, TenantsPayForTheirRows) {
  const ExecutablePtr m = Load("m", 12, -1);
  WarmUp(m, 9);
  const auto time = [&](uint32_t tenant) {
    return runtime_->dispatcher().tenant_stats(TenantId(tenant)).time;
  };
  const uint64_t before = runtime_->sharing_stats().batches;
  for (int round = 0; round < 20; ++round) {
    std::vector<Answer> answers;
    for (uint32_t i = 0; i < 8; ++i) {
      RequestAttributes attributes;
      attributes.tenant = TenantId(1 + i % 2);
      answers.push_back(Start(m, Input(static_cast<int>(i)), attributes));
    }
    for (Answer& answer : answers) ASSERT_TRUE(answer.get().status.ok());
  }
  EXPECT_GT(runtime_->sharing_stats().batches, before);
  EXPECT_GT(time(1), Duration{0});
  EXPECT_GT(time(2), Duration{0});
}

TEST_F(BatchTest, OptionsThatMakeNoSenseAreRefused) {
  RuntimeOptions options;
  options.batching = "sometimes";
  EXPECT_EQ(Runtime::Create(options).status().code(), StatusCode::kInvalidArgument);
  options = {};
  options.max_batch = 0;
  EXPECT_EQ(Runtime::Create(options).status().code(), StatusCode::kInvalidArgument);
  options.max_batch = 65;
  EXPECT_EQ(Runtime::Create(options).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
