// Many threads start, cancel and time out requests that run in batches, while the policy changes
// and executables come and go.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <deque>
#include <future>
#include <map>
#include <random>
#include <thread>

#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 512;
constexpr int kInputs = 4, kThreads = 3, kRequestsEach = 80;

Tensor Layer(int seed) {
  std::vector<float> values(kWidth * kWidth);
  for (size_t k = 0; k < values.size(); ++k) {
    values[k] = 0.05f * std::sin(static_cast<float>(k) * static_cast<float>(seed));
  }
  return Floats({kWidth, kWidth}, values);
}

Tensor Input(int seed) {
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

class BatchStressTest : public ::testing::Test {
 protected:
  // Two executables with a common beginning: where paths are shared, batches are of segments.
  void Make(const std::string& batching, bool share_work) {
    RuntimeOptions options;
    options.threads = 2;
    options.batching = batching;
    options.share_work = share_work;
    runtime_ = Runtime::Create(options).value();
    executables_ = {Load("a", 3), Load("b", 4)};
    expected_.clear();
    for (const ExecutablePtr& executable : executables_) {
      for (int i = 0; i < kInputs; ++i) {
        const RunResult result = runtime_->Run(executable, {Input(i)});
        ASSERT_TRUE(result.status.ok()) << result.status.ToString();
        expected_.push_back(result.outputs[0]);
      }
    }
  }
  ExecutablePtr Load(const std::string& name, int own) {
    return runtime_->Load(name, graphs_.at(own), {}).value();
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
        runtime_->Start(executables_[0], {Input(100 * round + i)}, {},
                        [promise](RunResult r) { promise->set_value(std::move(r)); });
      }
      for (auto& answer : answers) ASSERT_TRUE(answer.get().status.ok());
    }
    ASSERT_GT(runtime_->sharing_stats().batches, 0u);
  }

  // One thread's requests, some at a time; every one must be answered once.
  void Ask(uint32_t seed) {
    std::mt19937 random(seed);
    struct Asked {
      std::future<RunResult> answer;
      size_t want;
      bool may_end;  // before it is done
    };
    std::deque<Asked> asked;
    for (int i = 0; i < kRequestsEach || !asked.empty(); ++i) {
      if (i < kRequestsEach) {
        const size_t which = random() % executables_.size(), input = random() % kInputs;
        RequestAttributes attributes;
        attributes.tenant = TenantId(random() % 2);
        attributes.priority = random() % 2;
        attributes.arrival = runtime_->clock().Now();
        if (random() % 2 == 0) {
          attributes.deadline = attributes.arrival + std::chrono::milliseconds(1 + random() % 9);
        }
        const uint32_t fate = random() % 6;
        if (fate == 0) {
          attributes.timeout_at = attributes.arrival + std::chrono::microseconds(random() % 2000);
        }
        auto promise = std::make_shared<std::promise<RunResult>>();
        asked.push_back({promise->get_future(), which * kInputs + input, fate < 2});
        const std::shared_ptr<CancelToken> token =
            runtime_->Start(executables_[which], {Input(static_cast<int>(input))}, attributes,
                            [promise](RunResult r) { promise->set_value(std::move(r)); });
        if (fate == 1) {
          if (random() % 2 == 0) std::this_thread::yield();
          token->Cancel(CancelledError("stress"));
        }
      }
      if (asked.size() < 6 && i < kRequestsEach) continue;
      const RunResult result = asked.front().answer.get();
      const StatusCode code = result.status.code();
      if (result.status.ok()) {
        ExpectNear(result.outputs[0], expected_[asked.front().want], std::to_string(seed));
      } else {
        EXPECT_TRUE(asked.front().may_end) << seed << ": " << result.status.ToString();
        EXPECT_TRUE(code == StatusCode::kCancelled || code == StatusCode::kDeadlineExceeded)
            << result.status.ToString();
      }
      asked.pop_front();
    }
  }
  void Stress() {
    std::atomic<bool> over{false};
    std::thread changes([&] {
      const char* const policies[] = {"srpt", "fair(stretch, 100)", "rr", "edf"};
      for (uint32_t i = 0; !over.load(); ++i) {
        runtime_->dispatcher().SetPolicy(MakePolicy(policies[i % 4]).value());
        EXPECT_TRUE(runtime_->dispatcher().SetTenantWeight(TenantId(1), 1 + i % 3).ok());
        const ExecutablePtr guest = Load("guest", 5);
        EXPECT_TRUE(runtime_->Run(guest, {Input(0)}).status.ok());
      }
    });
    std::vector<std::thread> threads;
    for (uint32_t seed = 1; seed <= kThreads; ++seed) {
      threads.emplace_back([&, seed] { Ask(seed); });
    }
    for (std::thread& thread : threads) thread.join();
    over = true;
    changes.join();
    // Jobs of requests that timed out end somewhat later.
    const auto open_jobs = [&] {
      const DispatcherStats stats = runtime_->dispatcher().stats();
      return stats.jobs_submitted - stats.jobs_done - stats.jobs_failed - stats.jobs_cancelled -
             stats.jobs_withdrawn;
    };
    while (open_jobs() > 0) std::this_thread::yield();
  }

  const std::map<int, GraphPtr> graphs_ = {{3, MakeGraph(3)}, {4, MakeGraph(4)}, {5, MakeGraph(5)}};
  std::unique_ptr<Runtime> runtime_;
  std::vector<ExecutablePtr> executables_;
  std::vector<Tensor> expected_;  // by executable and input
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
