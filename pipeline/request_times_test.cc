// What the scheduler is told about a request: how long it takes, what is left, when it is due.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"
#include "profile/profile_store.h"
#include "sched/policy.h"

namespace plexus {
namespace {

// First come, first served; remembers how each job looked when it was first seen.
class Watcher : public Policy {
 public:
  struct Seen {
    std::mutex mutex;                  // guards jobs
    std::map<uint64_t, JobView> jobs;  // by sequence
  };
  explicit Watcher(Seen& seen) : seen_(seen) {}
  std::string_view name() const override { return "watcher"; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    std::lock_guard lock(seen_.mutex);
    seen_.jobs.try_emplace(job.sequence, job);
    return static_cast<double>(job.sequence);
  }

 private:
  Seen& seen_;
};

class RequestTimesTest : public ::testing::Test {
 protected:
  void Make(bool drop_late, const std::string& profile_path = "") {
    runtime_ = nullptr;
    RuntimeOptions options;
    options.threads = 1;
    options.drop_late = drop_late;
    options.profile_path = profile_path;
    runtime_ = Runtime::Create(options).value();
  }
  RequestTimesTest() { Make(false); }

  // The jobs of the last of `times` runs.
  std::vector<JobView> JobsOf(const ExecutablePtr& model, const std::vector<Tensor>& inputs,
                              int times) {
    Watcher::Seen seen;
    for (int i = 0; i < times; ++i) {
      {
        std::lock_guard lock(seen.mutex);
        seen.jobs.clear();
      }
      runtime_->dispatcher().SetPolicy(std::make_unique<Watcher>(seen));
      const RunResult result = runtime_->Run(model, inputs);
      EXPECT_TRUE(result.status.ok()) << result.status.ToString();
    }
    runtime_->dispatcher().SetPolicy(MakePolicy(kDefaultPolicy).value());
    std::vector<JobView> jobs;
    for (const auto& [sequence, view] : seen.jobs) jobs.push_back(view);
    return jobs;
  }
  std::unique_ptr<Runtime> runtime_;
};

Tensor Square(int64_t n) {
  return Floats({n, n}, std::vector<float>(static_cast<size_t>(n * n), 0.001f));
}

// A region, a host step whose result has a shape of its own, and a region behind it.
ExecutablePtr TwoRegions(Runtime& runtime) {
  GraphMaker g;
  ValueId v = g.In("x", {96, 96});
  const ValueId w = g.Const(Square(96));
  for (int i = 0; i < 3; ++i) v = g.Op("MatMul", {v, w});
  const ValueId where = g.Op("NonZero", {v}, DType::kInt64);
  const ValueId rows =
      g.Op("Cast", {where}, DType::kFloat32, {{"to", static_cast<int64_t>(DType::kFloat32)}});
  g.Out(g.Op("MatMul", {rows, g.Op("Transpose", {rows})}));
  return runtime.Load("two", g.Done(), {}).value();
}

TEST_F(RequestTimesTest, TheServiceTimeIsTheWholeRequestsAndStaysWhatItWas) {
  const ExecutablePtr model = TwoRegions(*runtime_);
  const std::vector<JobView> cold = JobsOf(model, {Square(96)}, 1);
  ASSERT_EQ(cold.size(), 2u);
  for (const JobView& job : cold) EXPECT_GT(job.service_time, Duration{0});
  const std::vector<JobView> jobs = JobsOf(model, {Square(96)}, 5);
  ASSERT_EQ(jobs.size(), 2u);
  // All of it is left at the first job, less at the second one; the whole is the same for both.
  EXPECT_EQ(jobs[0].service_time, jobs[0].remaining_time);
  EXPECT_EQ(jobs[1].service_time, jobs[0].service_time);
  EXPECT_LT(jobs[1].remaining_time, jobs[1].service_time);
}

TEST_F(RequestTimesTest, WhatIsLeftOfALoopGetsLessWithEveryTrip) {
  GraphMaker body;
  body.In("i", {}, DType::kInt64);
  const ValueId going = body.In("cond", {}, DType::kBool);
  const ValueId v = body.In("v", {96, 96});
  body.Out(body.Op("Identity", {going}, DType::kBool));
  body.Out(body.Op("MatMul", {v, body.Const(Square(96))}));
  GraphMaker g;
  const ValueId trips = g.In("trips", {}, DType::kInt64);
  const ValueId start = g.Op("MatMul", {g.In("v", {96, 96}), g.Const(Square(96))});
  g.Out(g.Op("Loop", {trips, ValueId(), start}, DType::kFloat32, {{"body", body.Done()}}));
  const ExecutablePtr model = runtime_->Load("loop", g.Done(), {}).value();
  const std::vector<JobView> jobs = JobsOf(model, {Tensor::ScalarInt64(8), Square(96)}, 20);
  ASSERT_EQ(jobs.size(), 9u);
  for (const JobView& job : jobs) EXPECT_EQ(job.service_time, jobs[0].service_time);
  // The first trip has seven more behind it, the last none that it knows of. By how much is a
  // matter of how evenly they were measured.
  EXPECT_GT(jobs[0].remaining_time, jobs[4].remaining_time);
  EXPECT_GT(jobs[1].remaining_time, jobs[8].remaining_time);
}

// What a request takes beyond its first job is known at the first request after a restart.
TEST_F(RequestTimesTest, TheRestOfThePathIsRememberedAcrossARestart) {
  std::string folder = (std::filesystem::temp_directory_path() / "learned-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string file = folder + "/times";
  std::vector<ProgramPtr> programs;
  for (const int start : {1, 2}) {
    Make(false, file);
    const ExecutablePtr model = TwoRegions(*runtime_);
    Duration expected{0};
    if (start == 2) expected = runtime_->dispatcher().ExpectedTime(*programs[0], 1);
    const JobView first = JobsOf(model, {Square(96)}, 1).at(0);
    if (start == 1) {
      programs = runtime_->Programs(model);
      ASSERT_EQ(programs.size(), 2u);
      JobsOf(model, {Square(96)}, 3);
    } else {
      EXPECT_GT(first.remaining_time, expected);
      EXPECT_EQ(first.remaining_time, first.service_time);
    }
  }
  runtime_ = nullptr;
  std::filesystem::remove_all(folder);
}

// A server that is killed has lost five minutes at most.
TEST_F(RequestTimesTest, WhatWasLearnedIsSavedWhileItRuns) {
  std::string folder = (std::filesystem::temp_directory_path() / "learned-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  RuntimeOptions options;
  options.threads = 1;
  options.profile_path = folder + "/times";
  options.profile_save_every = std::chrono::milliseconds(1);
  runtime_ = Runtime::Create(options).value();
  ASSERT_TRUE(runtime_->Run(TwoRegions(*runtime_), {Square(96)}).status.ok());
  size_t known = 0;
  while (known < 3) {  // two programs, and what comes after the first
    ProfileStore store;
    if (store.Load(options.profile_path).ok()) known = store.size();
  }
  runtime_ = nullptr;
  std::filesystem::remove_all(folder);
}

TEST_F(RequestTimesTest, ADamagedFileIsNoReasonNotToServe) {
  std::string folder = (std::filesystem::temp_directory_path() / "learned-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string file = folder + "/times";
  std::ofstream(file) << "plexprof, or so they say";
  Make(false, file);
  EXPECT_TRUE(runtime_->Run(TwoRegions(*runtime_), {Square(96)}).status.ok());
  runtime_ = nullptr;
  EXPECT_TRUE(ProfileStore().Load(file).ok()) << "written anew";
  std::filesystem::remove_all(folder);
}

TEST_F(RequestTimesTest, ADeadlineInThePastIsRefusedBeforeAnythingRuns) {
  const ExecutablePtr model = TwoRegions(*runtime_);
  RequestAttributes attributes;
  attributes.arrival = runtime_->clock().Now();
  attributes.deadline = attributes.arrival - std::chrono::microseconds(5);
  const RunResult result = runtime_->Run(model, {Square(96)}, attributes);
  EXPECT_EQ(result.status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(result.status.message().find("deadline lies in the past, 5 us"), std::string::npos)
      << result.status.ToString();
  EXPECT_EQ(runtime_->dispatcher().stats().jobs_submitted, 0u);
}

TEST_F(RequestTimesTest, ALateRequestIsDroppedOnlyWhenAskedTo) {
  for (const bool drop_late : {false, true}) {
    Make(drop_late);
    const ExecutablePtr model = TwoRegions(*runtime_);
    ASSERT_TRUE(runtime_->Run(model, {Square(96)}).status.ok());
    RequestAttributes attributes;
    attributes.arrival = runtime_->clock().Now() - std::chrono::seconds(2);
    attributes.deadline = attributes.arrival + std::chrono::seconds(1);
    const Status status = runtime_->Run(model, {Square(96)}, attributes).status;
    if (drop_late) {
      EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
      EXPECT_NE(status.message().find("cannot meet its deadline"), std::string::npos)
          << status.ToString();
    } else {
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
  }
}

}  // namespace
}  // namespace plexus
