// One request among others, each step when it is told to: that a Cancel finds it wherever it is.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <thread>

#include "device/cpu/cpu_compiler.h"
#include "device/cpu/cpu_device.h"
#include "pipeline/folding_evaluator.h"
#include "pipeline/graph_maker.h"
#include "pipeline/request.h"
#include "pipeline/test_blocker.h"
#include "program/reference/reference.h"
#include "sched/policy.h"

namespace plexus {
namespace {

struct Leader : FlightLeader {
  std::function<void()> raised = [] {};
  void Raise(uint64_t, const Urgency&) override { raised(); }
  void AddPayer(uint64_t, TenantId) override {}
};

struct Rider : FlightRider {
  std::function<void()> landed = [] {};
  void OnLanded(const Result<Tensors>&, Duration) override { landed(); }
};

class RequestCancelTest : public ::testing::Test {
 protected:
  RequestCancelTest() {
    GraphMaker g;
    g.Out(g.Op("Relu", {g.In("x", {2})}));
    graph_ = std::make_shared<const PlannedGraph>(*g.Done(), CompileOptions());
  }
  // Threads may still be on their way out of the dispatcher.
  ~RequestCancelTest() override {
    plans_.Stop();
    device_.Stop();
  }

  // Somebody else's flight: the same work on the same input.
  FlightTable::FlightPtr Lead(const std::shared_ptr<Leader>& leader) {
    bool leads = false;
    const FlightTable::FlightPtr flight = flights_.Join(AskOf(leader), nullptr, &leads);
    EXPECT_TRUE(leads);
    return flight;
  }
  FlightTable::Ask AskOf(const std::shared_ptr<Leader>& leader) {
    FlightTable::Ask ask;
    ask.work = graph_->id;
    ask.inputs = &inputs_;
    ask.leader = leader;
    return ask;
  }
  using Answer = std::shared_ptr<std::promise<Status>>;
  // The request lives until then.
  static DetachedTask Tell(Answer answer, [[maybe_unused]] std::shared_ptr<Request> request,
                           Task<Result<Tensors>> work) {
    const Result<Tensors> outputs = co_await work;
    answer->set_value(outputs.status());
  }
  std::future<Status> RunShared(const std::shared_ptr<Request>& request) {
    const auto answer = std::make_shared<std::promise<Status>>();
    Tell(answer, request, request->RunShared(graph_, inputs_));
    return answer->get_future();
  }
  std::shared_ptr<Request> NewRequest(uint32_t priority = 0) {
    RequestAttributes attributes;
    attributes.priority = priority;
    return std::make_shared<Request>(environment_, attributes);
  }
  static bool IsThere(const std::future<Status>& answer) {
    return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }

  static CpuDeviceOptions OneWorker() {
    CpuDeviceOptions options;
    options.workers = 1;
    return options;
  }
  CpuDevice device_{OneWorker(), RealClock::Get()};
  ProfileStore times_;
  TraceRecorder trace_;
  Dispatcher dispatcher_{device_, MakePolicy(kDefaultPolicy).value(), RealClock::Get(), &times_,
                         nullptr};
  PlanCache plans_{size_t{1} << 20, 1};
  FlightTable flights_;
  ResultCache results_{0};
  const FoldingEvaluator folding_{ReferenceEvaluator::Get()};
  const std::unique_ptr<Compiler> compiler_ = MakeCpuCompiler({});
  const std::unique_ptr<BatchPolicy> batching_ = MakeBatchPolicy("none").value();
  RequestEnvironment environment_{dispatcher_,
                                  plans_,
                                  flights_,
                                  results_,
                                  ReferenceEvaluator::Get(),
                                  folding_,
                                  *compiler_,
                                  RealClock::Get(),
                                  trace_,
                                  times_,
                                  std::make_shared<MemoryBudget>("the server", size_t{1} << 20),
                                  size_t{1} << 20,
                                  *batching_,
                                  1,
                                  1,
                                  [](TimePoint, std::weak_ptr<void>, std::function<void()>) {}};
  PlannedGraphPtr graph_;
  Tensors inputs_{Floats({2}, {-1, 1})};
};

// The first flight lands, for a reason of its leader's own, while the rider has hardly boarded: by
// the time that it notes down where it is, it is aboard the next one.
TEST_F(RequestCancelTest, ARiderThatBoardsAgainIsFoundWhenItIsCancelled) {
  const auto first_leader = std::make_shared<Leader>(), second_leader = std::make_shared<Leader>();
  const FlightTable::FlightPtr first = Lead(first_leader);
  FlightTable::FlightPtr second;
  Rider before;
  bool leads = false;
  flights_.Join(AskOf(first_leader), &before, &leads);
  ASSERT_FALSE(leads);
  before.landed = [&] { second = Lead(second_leader); };
  first_leader->raised = [&] { flights_.Land(first, CancelledError("its client has gone")); };

  // Of another priority, so that the leaders hear of it at once.
  const std::shared_ptr<Request> request = NewRequest(/*priority=*/1);
  std::future<Status> answer = RunShared(request);
  ASSERT_NE(second, nullptr);
  ASSERT_EQ(flights_.stats().joined, 3u) << "the one before it, and it twice";
  ASSERT_FALSE(IsThere(answer));

  request->Cancel(CancelledError("enough"));
  ASSERT_TRUE(IsThere(answer));
  EXPECT_EQ(answer.get().message(), "enough");
  flights_.Land(second, inputs_);  // nobody is told twice
}

TEST_F(RequestCancelTest, ARiderGetsWhatTheLeaderComputedAndItsErrors) {
  const auto leader = std::make_shared<Leader>();
  FlightTable::FlightPtr flight = Lead(leader);
  std::future<Status> answer = RunShared(NewRequest());
  ASSERT_FALSE(IsThere(answer));
  flights_.Land(flight, InvalidArgumentError("no such row"));
  ASSERT_TRUE(IsThere(answer));
  EXPECT_EQ(answer.get().message(), "no such row");

  flight = Lead(leader);
  answer = RunShared(NewRequest());
  flights_.Land(flight, inputs_);
  ASSERT_TRUE(IsThere(answer));
  const Status status = answer.get();
  EXPECT_TRUE(status.ok()) << status.ToString();
}

// Numbers of jobs do not tell which of two is the later one.
TEST_F(RequestCancelTest, TheSecondJobIsFoundWhateverItsNumber) {
  // A job, a host step that a build thread does, and a job.
  GraphMaker g;
  const ValueId x = g.In("x", {160, 160});
  const ValueId where = g.Op("NonZero", {g.Op("MatMul", {x, x})}, DType::kInt64);
  const ValueId rows = g.Op("Cast", {where}, DType::kFloat32, {{"to", int64_t{1}}});
  g.Out(g.Op("MatMul", {rows, g.Op("Transpose", {rows})}));
  graph_ = std::make_shared<const PlannedGraph>(PrepareGraph(*g.Done(), folding_).value(),
                                                CompileOptions());
  inputs_ = {Floats({160, 160}, std::vector<float>(160 * 160, 0.01f))};
  const Status warm = RunShared(NewRequest()).get();
  ASSERT_TRUE(warm.ok()) << warm.ToString();

  auto blocker = std::make_unique<Blocker>(dispatcher_);
  // The next place among the jobs gets a high number...
  for (int i = 0; i < 20; ++i) {
    const std::shared_ptr<Request> other = NewRequest();
    std::future<Status> answer = RunShared(other);
    other->Cancel(CancelledError("other"));
    ASSERT_TRUE(IsThere(answer));
  }
  // ...that the first job has,
  const std::shared_ptr<Request> request = NewRequest();
  std::future<Status> answer = RunShared(request);
  std::promise<void> held, go;
  plans_.Post([&] {
    held.set_value();
    go.get_future().wait();
  });
  held.get_future().wait();
  const uint64_t done = dispatcher_.stats().jobs_done;
  blocker->Release();
  while (dispatcher_.stats().jobs_done < done + 2) std::this_thread::yield();
  // and the second one not, for somebody else has taken it.
  Blocker again(dispatcher_);
  const uint64_t submitted = dispatcher_.stats().jobs_submitted;
  go.set_value();
  while (dispatcher_.stats().jobs_submitted == submitted) std::this_thread::yield();
  std::promise<void> behind;
  plans_.Post([&] { behind.set_value(); });
  behind.get_future().wait();

  request->Cancel(CancelledError("enough"));
  EXPECT_TRUE(IsThere(answer));
  again.Release();
  EXPECT_EQ(answer.get().message(), "enough");
}

}  // namespace
}  // namespace plexus
