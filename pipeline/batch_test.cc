// Rows of many requests in one job.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <future>
#include <thread>

#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"
#include "pipeline/test_blocker.h"

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
  void Round(const ExecutablePtr& executable, int requests) {
    std::vector<Answer> answers;
    for (int i = 0; i < requests; ++i) answers.push_back(Start(executable, Input(i)));
    for (Answer& answer : answers) ASSERT_TRUE(answer.get().status.ok());
  }
  // Rounds of `requests` at once until batches form: programs are built meanwhile. How many.
  int WarmUp(const ExecutablePtr& executable, int requests) {
    int rounds = 0;
    for (; rounds < 2000 && runtime_->sharing_stats().batches == 0; ++rounds) {
      Round(executable, requests);
    }
    EXPECT_GT(runtime_->sharing_stats().batches, 0u);
    return rounds;
  }
  // Behind a job that holds the worker one request runs by itself, as it finds nobody, and all that
  // follow join one batch: rounds until there is a program for `rows` of them.
  void PrepareBatch(const ExecutablePtr& executable, int rows,
                    const std::function<Tensor(int)>& input) {
    for (int round = 0; round < 2000; ++round) {
      const Runtime::SharingStats before = runtime_->sharing_stats();
      std::vector<Answer> answers;
      {
        Blocker blocker(runtime_->dispatcher());
        for (int i = 0; i <= rows; ++i) answers.push_back(Start(executable, input(i)));
      }
      for (Answer& answer : answers) ASSERT_TRUE(answer.get().status.ok());
      const Runtime::SharingStats after = runtime_->sharing_stats();
      if (after.batches - before.batches == 1 &&
          after.batched_rows - before.batched_rows == static_cast<uint64_t>(rows)) {
        return;
      }
    }
    FAIL() << "no batch of " << rows << " rows";
  }

  // Until so many rows run at once.
  void WarmUpTo(const ExecutablePtr& executable, uint64_t rows) {
    for (int round = 0; round < 2000; ++round) {
      const Runtime::SharingStats from = runtime_->sharing_stats();
      std::vector<Answer> answers;
      for (uint64_t i = 0; i < 2 * rows + 1; ++i) answers.push_back(Start(executable, Input(1)));
      for (Answer& answer : answers) ASSERT_TRUE(answer.get().status.ok());
      const Runtime::SharingStats to = runtime_->sharing_stats();
      if (to.batched_rows - from.batched_rows > (to.batches - from.batches) * rows / 2) return;
    }
    FAIL() << "no batches of " << rows;
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
  const ExecutablePtr apart = Load("apart", 12, -1), m = Load("m", 12, -1, /*mixes=*/true);
  std::vector<Tensor> alone;
  for (int i = 0; i < 9; ++i) alone.push_back(runtime_->Run(m, {Input(i)}).outputs.at(0));
  // As long as it takes where rows do not, and longer.
  const int rounds = 20 + 3 * WarmUp(apart, 9);
  const uint64_t before = runtime_->sharing_stats().batches;
  for (int round = 0; round < rounds; ++round) {
    std::vector<Answer> answers;
    for (int i = 0; i < 9; ++i) answers.push_back(Start(m, Input(i)));
    for (int i = 0; i < 9; ++i) {
      EXPECT_TRUE(TensorsEqual(answers[i].get().outputs.at(0), alone[i]));
    }
  }
  EXPECT_EQ(runtime_->sharing_stats().batches, before);
}

TEST_F(BatchTest, RequestsOfSeveralRowsShareBatchesWithOthers) {
  const ExecutablePtr m = Load("m", 12, -1);
  WarmUp(m, 9);
  WarmUpTo(m, 8);
  const std::vector<int64_t> rows = {1, 3, 1, 2, 4, 1, 17};  // the last: more than any batch has
  std::vector<Tensor> alone;
  for (size_t i = 0; i < rows.size(); ++i) {
    alone.push_back(runtime_->Run(m, {Input(static_cast<int>(i), rows[i])}).outputs.at(0));
  }
  const uint64_t before = runtime_->sharing_stats().batched_rows;
  // Three of them have one row.
  const auto joined = [&](uint64_t rounds) {
    return runtime_->sharing_stats().batched_rows - before > 3 * rounds;
  };
  uint64_t rounds = 0;
  while (rounds < 20 || (rounds < 2000 && !joined(rounds))) {
    ++rounds;
    std::vector<Answer> answers;
    for (size_t i = 0; i < rows.size(); ++i) {
      answers.push_back(Start(m, Input(static_cast<int>(i), rows[i])));
    }
    for (size_t i = 0; i < rows.size(); ++i) {
      const RunResult result = answers[i].get();
      ASSERT_TRUE(result.status.ok()) << result.status.ToString();
      ExpectNear(result.outputs.at(0), alone[i]);
    }
  }
  EXPECT_TRUE(joined(rounds)) << "none of several rows was ever in a batch";
}

// Rows of one request that are not like rows of several: the graph divides by their number.
TEST_F(BatchTest, RowsThatCountEachOtherStayTogether) {
  GraphMaker g;
  ValueId v = g.In("x", {-1, kWidth});
  for (int i = 0; i < 12; ++i) {
    v = g.Op("MatMul",
             {v, g.Const(Floats({kWidth, kWidth}, std::vector<float>(kWidth * kWidth, 0.001f)))});
  }
  const auto number = [&](int64_t n) {
    return g.Const(Tensor::Of<int64_t>(DType::kInt64, {1}, std::vector<int64_t>{n}));
  };
  const ValueId shape = g.Op("Shape", {v}, DType::kInt64);
  const ValueId rows = g.Op("Slice", {shape, number(0), number(1)}, DType::kInt64);
  const ValueId count = g.Op("Cast", {rows}, DType::kFloat32, {{"to", int64_t{1}}});
  g.Out(g.Op("Div", {v, count}));
  const ExecutablePtr m = runtime_->Load("m", g.Done(), {}).value();
  WarmUp(m, 9);
  WarmUpTo(m, 4);
  const Tensor alone = runtime_->Run(m, {Input(3, 3)}).outputs.at(0);
  for (int round = 0; round < 10; ++round) {
    std::vector<Answer> answers;
    for (int i = 0; i < 8; ++i) answers.push_back(Start(m, i % 2 == 0 ? Input(3, 3) : Input(i)));
    for (int i = 0; i < 8; ++i) {
      const RunResult result = answers[i].get();
      ASSERT_TRUE(result.status.ok()) << result.status.ToString();
      if (i % 2 == 0) {
        EXPECT_TRUE(TensorsEqual(result.outputs.at(0), alone));
      }
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
  const int rounds = 20 + 3 * WarmUp(Load("m", 12, -1), 6);  // others have one by then
  for (const bool none : {true, false}) {
    none ? Make("none") : Make("immediate", 1);
    const ExecutablePtr m = Load("m", 12, -1);
    for (int round = 0; round < rounds; ++round) Round(m, 6);
    EXPECT_EQ(runtime_->sharing_stats().batches, 0u);
  }
}

// Rows of a table, by number: beyond its end is an error that only a run finds.
TEST_F(BatchTest, WhereABatchFailsItsRowsRunOneByOneAndOnlyTheFaultyOneFails) {
  GraphMaker g;
  const ValueId row = g.In("row", {-1, 1}, DType::kInt64);
  std::vector<float> values(10 * kWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  ValueId v = g.Op("Gather", {g.Const(Floats({10, kWidth}, values)), row});
  values.resize(kWidth * kWidth, 0.01f);
  for (int i = 0; i < 6; ++i) {
    values[static_cast<size_t>(i)] = 1;
    v = g.Op("Relu", {g.Op("MatMul", {v, g.Const(Floats({kWidth, kWidth}, values))})});
  }
  g.Out(v);
  const ExecutablePtr m = runtime_->Load("m", g.Done(), {}).value();
  const auto number = [](int64_t i) { return Tensor::VectorInt64({i}).Reshaped({1, 1}); };
  const auto valid = [&](int i) { return number(i % 10); };
  std::vector<Tensor> alone;
  for (int i = 0; i < 8; ++i) alone.push_back(runtime_->Run(m, {valid(i)}).outputs.at(0));
  PrepareBatch(m, 8, valid);
  const uint64_t failed = runtime_->dispatcher().stats().jobs_failed;
  std::vector<Answer> answers;
  {
    Blocker blocker(runtime_->dispatcher());
    Answer first = Start(m, valid(0));
    for (int i = 0; i < 8; ++i) answers.push_back(Start(m, i == 3 ? number(99) : valid(i)));
    blocker.Release();
    EXPECT_TRUE(first.get().status.ok());
  }
  for (int i = 0; i < 8; ++i) {
    const RunResult result = answers[static_cast<size_t>(i)].get();
    EXPECT_EQ(result.status.ok(), i != 3) << i << ": " << result.status.ToString();
    if (result.status.ok()) {
      EXPECT_TRUE(TensorsEqual(result.outputs.at(0), alone[static_cast<size_t>(i)])) << i;
    }
  }
  EXPECT_EQ(runtime_->dispatcher().stats().jobs_failed - failed, 2u)
      << "the batch, and the faulty row by itself";
  PrepareBatch(m, 8, valid);  // and batches go on
}

TEST_F(BatchTest, PathAwareBatchesWhereMatricesAreReadOnceForManyRows) {
  Make("path-aware");
  const ExecutablePtr m = Load("m", 12, -1);
  WarmUp(m, 9);
}

TEST_F(BatchTest, TenantsPayForTheirRows) {
  const ExecutablePtr m = Load("m", 12, -1);
  PrepareBatch(m, 8, [](int i) { return Input(i); });
  std::vector<Answer> answers;
  {
    Blocker blocker(runtime_->dispatcher());
    for (const uint32_t tenant : {3, 1, 1, 2, 1, 1, 2, 1, 1}) {
      RequestAttributes attributes;
      attributes.tenant = TenantId(tenant);
      answers.push_back(Start(m, Input(1), attributes));
    }
  }
  for (Answer& answer : answers) ASSERT_TRUE(answer.get().status.ok());
  const auto time = [&](uint32_t tenant) {
    return static_cast<double>(runtime_->dispatcher().tenant_stats(TenantId(tenant)).time.count());
  };
  EXPECT_GT(time(2), 0);
  EXPECT_NEAR(time(1), 3 * time(2), 4) << "six rows to two, but for what is cut to nanoseconds";
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
