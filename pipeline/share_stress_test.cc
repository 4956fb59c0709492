// Many threads start, cancel and time out requests that share work, while the policy changes and
// executables come and go.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <future>
#include <random>
#include <thread>

#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 16;
constexpr int kInputs = 3, kThreads = 3, kRequestsEach = 150;

Tensor Layer(float seed) {
  std::vector<float> values(kWidth * kWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.01f * static_cast<float>(i % 7) + seed;
  return Floats({kWidth, kWidth}, values);
}

// A shared beginning with a loop in it; then a layer of its own, over all rows or row by row.
GraphPtr MakeGraph(float own, bool by_rows) {
  GraphMaker body;
  body.In("i", {}, DType::kInt64);
  const ValueId going = body.In("going", {}, DType::kBool);
  const ValueId state = body.In("v", {-1, kWidth});
  body.Out(body.Op("Identity", {going}, DType::kBool));
  body.Out(body.Op("MatMul", {state, body.Const(Layer(0.002f))}));
  GraphMaker g;
  ValueId v = g.Op("MatMul", {g.In("x", {-1, kWidth}), g.Const(Layer(0.001f))});
  v = g.Op("Loop", {g.Const(Tensor::ScalarInt64(4)), ValueId(), v}, DType::kFloat32,
           {{"body", body.Done()}});
  if (by_rows) {
    GraphMaker row;
    const ValueId r = row.In("r", {1, kWidth});
    // What is not zero: a shape that the data tells, so rows stay apart.
    const ValueId where = row.Op("NonZero", {r}, DType::kInt64);
    const ValueId count = row.Op("Shape", {where}, DType::kInt64);
    const ValueId sum =
        row.Op("ReduceSum", {row.Op("Cast", {count}, DType::kFloat32, {{"to", int64_t{1}}})});
    row.Out(row.Op("Add", {row.Op("MatMul", {r, row.Const(Layer(own))}), sum}));
    g.Out(g.Op("MapRows", {v}, DType::kFloat32, {{"body", row.Done()}}, "plexus"));
  } else {
    g.Out(g.Op("MatMul", {v, g.Const(Layer(own))}));
  }
  return g.Done();
}

Tensor Input(int n) {
  std::vector<float> values(3 * kWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * (n + 1)) % 5);
  return Floats({3, kWidth}, values);
}

bool SameBits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.size_bytes()) == 0;
}

class ShareStressTest : public ::testing::Test {
 protected:
  ShareStressTest() {
    RuntimeOptions options;
    options.threads = 2;
    runtime_ = Runtime::Create(options).value();
    executables_ = {Load("all", 0.003f, false), Load("rows", 0.003f, true),
                    Load("other", 0.004f, false)};
    for (const ExecutablePtr& executable : executables_) {
      for (int i = 0; i < kInputs; ++i) {
        const RunResult result = runtime_->Run(executable, {Input(i)});
        EXPECT_TRUE(result.status.ok()) << result.status.ToString();
        if (result.status.ok()) expected_.push_back(result.outputs[0]);
      }
    }
  }
  ExecutablePtr Load(const std::string& name, float own, bool by_rows) {
    return runtime_->Load(name, MakeGraph(own, by_rows), {}).value();
  }

  // One thread's requests, a few at a time; every one must be answered once.
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
        const uint32_t fate = random() % 6;
        if (fate == 0) {
          attributes.timeout_at =
              runtime_->clock().Now() + std::chrono::microseconds(random() % 400);
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
      if (asked.size() < 4 && i < kRequestsEach) continue;
      const RunResult result = asked.front().answer.get();
      const StatusCode code = result.status.code();
      if (result.status.ok()) {
        EXPECT_TRUE(SameBits(result.outputs[0], expected_[asked.front().want])) << seed;
      } else {
        EXPECT_TRUE(asked.front().may_end) << seed << ": " << result.status.ToString();
        EXPECT_TRUE(code == StatusCode::kCancelled || code == StatusCode::kDeadlineExceeded)
            << result.status.ToString();
      }
      asked.pop_front();
    }
  }

  std::unique_ptr<Runtime> runtime_;
  std::vector<ExecutablePtr> executables_;
  std::vector<Tensor> expected_;  // by executable and input
};

TEST_F(ShareStressTest, EveryRequestIsAnsweredOnceWithItsOwnResult) {
  std::atomic<bool> over{false};
  std::thread changes([&] {
    const char* const policies[] = {"srpt", "fair(stretch, 100)", "rr", "edf"};
    for (uint32_t i = 0; !over.load(); ++i) {
      runtime_->dispatcher().SetPolicy(MakePolicy(policies[i % 4]).value());
      ASSERT_TRUE(runtime_->dispatcher().SetTenantWeight(TenantId(1), 1 + i % 3).ok());
      // One more user of what is shared, and gone again.
      const ExecutablePtr guest = Load("guest", 0.005f, false);
      EXPECT_TRUE(runtime_->Run(guest, {Input(0)}).status.ok());
      runtime_->sharing_stats();
    }
  });
  std::vector<std::thread> threads;
  for (uint32_t seed = 1; seed <= kThreads; ++seed) threads.emplace_back([&, seed] { Ask(seed); });
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

}  // namespace
}  // namespace plexus
