#include "pipeline/test_stress.h"

#include <atomic>
#include <deque>
#include <future>
#include <random>
#include <thread>

namespace plexus {

struct StressTest::Asked {
  std::future<RunResult> answer;
  size_t want;
  bool may_end;  // before it is done
};

class StressRandom {
 public:
  explicit StressRandom(uint32_t seed) : engine_(seed) {}
  // 0 to `bound` - 1.
  uint32_t Below(size_t bound) { return static_cast<uint32_t>(engine_() % bound); }
  // Up to `longest`, in microseconds.
  Duration Upto(Duration longest) {
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(longest).count();
    return std::chrono::microseconds(Below(static_cast<size_t>(us)));
  }

 private:
  std::mt19937 engine_;
};

void StressTest::Use(std::unique_ptr<Runtime> runtime,
                     const std::function<std::vector<ExecutablePtr>()>& load) {
  executables_.clear();
  runtime_ = std::move(runtime);
  executables_ = load();
  expected_.clear();
  for (const ExecutablePtr& executable : executables_) {
    for (int i = 0; i < load_.inputs; ++i) {
      const RunResult result = runtime_->Run(executable, {Input(i)});
      ASSERT_TRUE(result.status.ok()) << result.status.ToString();
      expected_.push_back(result.outputs[0]);
    }
  }
}

StressTest::Asked StressTest::AskOne(StressRandom& random) {
  const size_t which = random.Below(executables_.size());
  const int input = static_cast<int>(random.Below(static_cast<size_t>(load_.inputs)));
  RequestAttributes attributes;
  attributes.tenant = TenantId(random.Below(2));
  attributes.priority = random.Below(2);
  attributes.arrival = runtime_->clock().Now();
  if (load_.deadlines && random.Below(2) == 0) {
    attributes.deadline = attributes.arrival + std::chrono::milliseconds(1 + random.Below(9));
  }
  const uint32_t fate = random.Below(6);
  if (fate == 0) attributes.timeout_at = attributes.arrival + random.Upto(load_.longest_timeout);
  auto promise = std::make_shared<std::promise<RunResult>>();
  Asked asked = {promise->get_future(),
                 which * static_cast<size_t>(load_.inputs) + static_cast<size_t>(input), fate < 2};
  const std::shared_ptr<CancelToken> token =
      runtime_->Start(executables_[which], {Input(input)}, attributes,
                      [promise](RunResult r) { promise->set_value(std::move(r)); });
  if (fate == 1) {
    if (random.Below(2) == 0) std::this_thread::yield();
    token->Cancel(CancelledError("stress"));
  }
  return asked;
}

// One thread's requests, some at a time.
void StressTest::Ask(uint32_t seed) {
  const std::string which = "seed " + std::to_string(seed);
  StressRandom random(seed);
  std::deque<Asked> asked;
  for (int i = 0; i < load_.requests_each || !asked.empty(); ++i) {
    if (i < load_.requests_each) asked.push_back(AskOne(random));
    const bool more = asked.size() < static_cast<size_t>(load_.at_a_time);
    if (more && i < load_.requests_each) continue;
    const RunResult result = asked.front().answer.get();
    const StatusCode code = result.status.code();
    if (result.status.ok()) {
      ExpectEqual(result.outputs[0], expected_[asked.front().want], which);
    } else {
      EXPECT_TRUE(asked.front().may_end) << which << ": " << result.status.ToString();
      EXPECT_TRUE(code == StatusCode::kCancelled || code == StatusCode::kDeadlineExceeded)
          << which << ": " << result.status.ToString();
    }
    asked.pop_front();
  }
}

void StressTest::Change(uint32_t round) {
  const char* const policies[] = {"srpt", "fair(stretch, 100)", "rr", "edf"};
  runtime_->dispatcher().SetPolicy(MakePolicy(policies[round % 4]).value());
  EXPECT_TRUE(runtime_->dispatcher().SetTenantWeight(TenantId(1), 1 + round % 3).ok());
  const ExecutablePtr guest = LoadGuest();
  EXPECT_TRUE(runtime_->Run(guest, {Input(0)}).status.ok());
  runtime_->sharing_stats();
}

void StressTest::Stress() {
  std::atomic<bool> over{false};
  std::thread changes([&] {
    for (uint32_t round = 0; !over.load(); ++round) Change(round);
  });
  std::vector<std::thread> threads;
  for (uint32_t seed = 1; seed <= static_cast<uint32_t>(load_.threads); ++seed) {
    threads.emplace_back([this, seed] { Ask(seed); });
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

}  // namespace plexus
