// A request is given up at every point of its way, one run for each: nothing of it is left, and
// those beside it get what they would have got.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "device/cpu/cpu_compiler.h"
#include "device/cpu/cpu_device.h"
#include "pipeline/folding_evaluator.h"
#include "pipeline/graph_maker.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/request.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 128;

// --- Points of a request's way: before and after each compile, block of a kernel and host step.

// Thread-safe.
class Events {
 public:
  // At the `at`-th event from now `act` is called, by whoever comes there; never for 0. Events wait
  // for Open, but for those of the thread that calls both, which do not count.
  void Arm(uint64_t at, std::function<void()> act) {
    std::lock_guard lock(mutex_);
    owner_ = std::this_thread::get_id();
    act_ = std::move(act);
    at_ = at;
    count_ = 0;
    gate_ = std::promise<void>();
    opened_ = gate_.get_future().share();
  }
  void Open() { gate_.set_value(); }
  void Happen() {
    std::unique_lock lock(mutex_);
    if (std::this_thread::get_id() == owner_) return;  // it is still starting requests
    const uint64_t number = ++count_;
    const std::shared_future<void> opened = opened_;
    const std::function<void()> act = number == at_ ? act_ : nullptr;
    lock.unlock();
    opened.wait();
    if (act) act();
  }
  bool fired() const {
    std::lock_guard lock(mutex_);
    return at_ > 0 && count_ >= at_;
  }

 private:
  mutable std::mutex mutex_;  // guards all but gate_, which is the test's
  std::thread::id owner_;
  std::function<void()> act_;
  uint64_t at_ = 0, count_ = 0;
  std::promise<void> gate_;
  std::shared_future<void> opened_;
};

struct WatchedCode : CpuKernelCode {
  WatchedCode(std::shared_ptr<const KernelCode> inner, Events& events)
      : inner(std::move(inner)), events(events) {}
  const CpuKernelCode& code() const { return static_cast<const CpuKernelCode&>(*inner); }
  size_t scratch_bytes() const override { return code().scratch_bytes(); }
  Status Run(uint32_t first, uint32_t blocks, const CpuBlockContext& context) const override {
    events.Happen();
    Status status = code().Run(first, blocks, context);
    events.Happen();
    return status;
  }
  const std::shared_ptr<const KernelCode> inner;
  Events& events;
};

struct WatchedCompiler : Compiler {
  WatchedCompiler(std::unique_ptr<Compiler> inner, Events& events)
      : inner(std::move(inner)), events(events) {}
  std::string device_kind() const override { return inner->device_kind(); }
  Result<ProgramPtr> Compile(const Graph& region, const CompileOptions& options) override {
    events.Happen();
    PLEXUS_ASSIGN_OR_RETURN(const ProgramPtr program, inner->Compile(region, options));
    auto watched = std::make_shared<Program>(*program);
    for (Kernel& kernel : watched->kernels) {
      kernel.code = std::make_shared<WatchedCode>(std::move(kernel.code), events);
    }
    events.Happen();
    return ProgramPtr(std::move(watched));
  }
  const std::unique_ptr<Compiler> inner;
  Events& events;
};

struct WatchedEvaluator : Evaluator {
  explicit WatchedEvaluator(Events& events) : events(events) {}
  bool Supports(const Node& node) const override { return inner.Supports(node); }
  Result<std::vector<Tensor>> Evaluate(const Graph& graph, const Node& node,
                                       std::span<const Tensor> inputs,
                                       std::span<const Tensor> captures) const override {
    events.Happen();
    Result<std::vector<Tensor>> outputs = inner.Evaluate(graph, node, inputs, captures);
    events.Happen();
    return outputs;
  }
  const Evaluator& inner = ReferenceEvaluator::Get();
  Events& events;
};

// --- A runtime of one worker and one build thread, with a view inside

DetachedTask Walk(std::shared_ptr<Request> request, PlannedGraphPtr graph, Tensors inputs,
                  std::promise<Result<Tensors>> promise) {
  Result<Tensors> outputs = co_await request->RunShared(graph, std::move(inputs));
  request.reset();
  promise.set_value(std::move(outputs));
}

struct Asked {
  std::shared_ptr<Request> request;
  std::future<Result<Tensors>> outputs;
};

CpuDeviceOptions OneWorker() {
  CpuDeviceOptions options;
  options.workers = 1;
  return options;
}

struct World {
  explicit World(const std::string& policy) : batching(MakeBatchPolicy(policy).value()) {}
  ~World() { Stop(); }
  void Stop() {
    while (dispatcher.stats().in_flight > 0) std::this_thread::yield();
    plans.Stop();
    device.Stop();
  }
  Asked Ask(const PlannedGraphPtr& graph, const Tensor& input) {
    auto request = std::make_shared<Request>(env, RequestAttributes());
    std::promise<Result<Tensors>> promise;
    Asked asked{request, promise.get_future()};
    Walk(std::move(request), graph, {input}, std::move(promise));
    return asked;
  }
  void ExpectAtRest() {
    EXPECT_EQ(flights.stats().in_flight, 0u);
    EXPECT_EQ(env.jobs_under_way.load(), 0u);
    EXPECT_EQ(dispatcher.stats().ready, 0u);
    EXPECT_EQ(env.memory->used_bytes(), 0u);
  }

  Events events;
  CpuDevice device{OneWorker(), RealClock::Get()};
  WatchedCompiler compiler{MakeCpuCompiler({}), events};
  Dispatcher dispatcher{device, MakePolicy("fifo").value(), RealClock::Get(), nullptr, nullptr};
  TraceRecorder trace{64};
  ProfileStore times;
  PlanCache plans{size_t{1} << 30, 1};
  FlightTable flights;
  ResultCache results{0};
  const WatchedEvaluator evaluator{events};
  const FoldingEvaluator folding{ReferenceEvaluator::Get()};
  const std::unique_ptr<BatchPolicy> batching;
  RequestEnvironment env{dispatcher,
                         plans,
                         flights,
                         results,
                         evaluator,
                         folding,
                         compiler,
                         RealClock::Get(),
                         trace,
                         times,
                         std::make_shared<MemoryBudget>("the server", size_t{1} << 28),
                         size_t{1} << 28,
                         *batching,
                         16,
                         1,
                         [](TimePoint, std::weak_ptr<void>, std::function<void()>) {}};
};

// --- What is asked

// x: f32[1,128] to f32[1,128], too much for the host; `long` is worth a batch.
Result<GraphPtr> Lookup(const std::string& name) {
  GraphMaker g;
  ValueId v = g.In("x", {1, kWidth});
  std::vector<float> weights(kWidth * kWidth);  // moves each value to another place
  for (int64_t i = 0; i < kWidth; ++i) weights[i * kWidth + (5 * i + 1) % kWidth] = 1;
  for (int layer = 0; layer < (name == "long" ? 200 : 1); ++layer) {
    v = g.Op("Relu", {g.Op("MatMul", {v, g.Const(Floats({kWidth, kWidth}, weights))})});
  }
  g.Out(v);
  g.graph.value(g.graph.outputs()[0]).name = "y";
  return g.Done();
}

PlannedGraphPtr Load(const std::string& yaml) {
  const Result<PipelineFile> file = ParsePipeline("name: p\n" + yaml, "p.yaml", "/", Lookup);
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  const FoldingEvaluator folding(ReferenceEvaluator::Get());
  Result<Graph> prepared = PrepareGraph(*file->graph, folding);
  EXPECT_TRUE(prepared.ok()) << prepared.status().ToString();
  return std::make_shared<const PlannedGraph>(std::move(*prepared), CompileOptions());
}

constexpr char kPlain[] = R"(
inputs: [{name: x, dtype: FP32, shape: [1, 128]}]
stages:
  - {name: y, model: heavy, input: x}
outputs: [{name: out, from: y}]
)";
constexpr char kLong[] = R"(
inputs: [{name: x, dtype: FP32, shape: [1, 128]}]
stages:
  - {name: y, model: long, input: x}
outputs: [{name: out, from: y}]
)";
constexpr char kWhen[] = R"(
inputs: [{name: x, dtype: FP32, shape: [1, 128]}]
stages:
  - {name: flat, op: reshape, input: x, shape: [-1]}
  - {name: sum, op: reduce, input: flat, kind: sum}
  - {name: some, op: compare, input: sum, is: less, to: 1000000}
  - name: maybe
    when: some
    then:
      stages: [{name: y, model: heavy, input: x}]
      outputs: [{name: x, from: y}]
outputs: [{name: out, from: maybe}]
)";
// Which values are kept depends on them, so that rows run one by one, in lanes.
constexpr char kForeach[] = R"(
inputs: [{name: rows, dtype: FP32, shape: [-1, 128]}]
stages:
  - name: each
    foreach: rows
    as: row
    concurrency: 3
    stages:
      - {name: y, model: heavy, input: row}
      - {name: flat, op: reshape, input: y, shape: [-1]}
      - {name: mark, op: compare, input: flat, is: greater, to: 0}
      - {name: kept, op: filter, inputs: [flat, mark]}
    outputs: [{name: all, from: kept, sizes: counts}]
outputs: [{name: all, from: each.all}, {name: counts, from: each.counts}]
)";
constexpr char kRepeat[] = R"(
inputs: [{name: x, dtype: FP32, shape: [1, 128]}]
stages:
  - name: turns
    repeat: {limit: 4, while: going, at_limit: stop}
    state: [{name: value, from: x, next: more}]
    stages:
      - {name: more, model: heavy, input: value}
      - {name: flat, op: reshape, input: more, shape: [-1]}
      - {name: sum, op: reduce, input: flat, kind: sum}
      - {name: going, op: compare, input: sum, is: less, to: 1000000}
    outputs: [value]
outputs: [{name: out, from: turns}]
)";

Tensor Input(int seed, int64_t rows = 1) {
  std::vector<float> values(static_cast<size_t>(rows * kWidth));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = std::cos(static_cast<float>(seed * 1000) + static_cast<float>(i));
  }
  return Floats({rows, kWidth}, values);
}

void ExpectNear(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape(), b.shape());
  ASSERT_EQ(a.dtype(), b.dtype());
  if (a.dtype() != DType::kFloat32) {
    EXPECT_TRUE(TensorsEqual(a, b));
    return;
  }
  for (size_t i = 0; i < a.data<float>().size(); ++i) {
    ASSERT_NEAR(a.data<float>()[i], b.data<float>()[i], 1e-4f);
  }
}

struct Scenario {
  const char* name;
  const char* yaml;
  std::vector<Tensor> inputs;  // of each request; equal ones fly together
  size_t victim = 0;           // who gives up
};

std::vector<Tensor> Alone(const Scenario& scenario, const Tensor& input) {
  World world("none");
  world.events.Arm(0, nullptr);
  world.events.Open();
  Result<Tensors> outputs = world.Ask(Load(scenario.yaml), input).outputs.get();
  EXPECT_TRUE(outputs.ok()) << outputs.status().ToString();
  return outputs.ok() ? *outputs : Tensors(8);
}

// Everybody is started, then the world goes on, and at the `at`-th event the victim gives up; at 0
// before all else. Whether that point was there, and how the victim ended.
std::pair<bool, StatusCode> GiveUpAt(const Scenario& scenario, uint64_t at,
                                     const std::vector<Tensors>& expected) {
  World world("none");
  const PlannedGraphPtr graph = Load(scenario.yaml);
  std::vector<Asked> asked;
  const auto give_up = [&] {
    asked[scenario.victim].request->Cancel(CancelledError("nobody waits"));
  };
  world.events.Arm(at, give_up);
  for (const Tensor& input : scenario.inputs) asked.push_back(world.Ask(graph, input));
  if (at == 0) give_up();
  world.events.Open();
  StatusCode ended = StatusCode::kInternal;
  for (size_t i = 0; i < asked.size(); ++i) {
    const Result<Tensors> outputs = asked[i].outputs.get();
    if (i == scenario.victim) ended = outputs.status().code();
    if (i == scenario.victim && ended == StatusCode::kCancelled) continue;
    EXPECT_TRUE(outputs.ok()) << scenario.name << ", event " << at << ", request " << i << ": "
                              << outputs.status().ToString();
    for (size_t o = 0; outputs.ok() && o < outputs->size(); ++o) {
      EXPECT_TRUE(TensorsEqual((*outputs)[o], expected[i][o]))
          << scenario.name << ", event " << at << ", request " << i;
    }
  }
  const bool fired = at == 0 || world.events.fired();
  world.Stop();
  for (const Asked& each : asked) {
    EXPECT_EQ(each.request.use_count(), 1) << scenario.name << ", event " << at;
  }
  asked.clear();  // they keep what their last job was given
  world.ExpectAtRest();
  return {fired, ended};
}

TEST(CancelTest, WhoGivesUpAnywhereLeavesNothingAndHarmsNobody) {
  const std::vector<Scenario> scenarios = {
      {"two that wait for one compile", kPlain, {Input(1), Input(2)}, 0},
      {"a leader", kPlain, {Input(1), Input(1), Input(1)}, 0},
      {"a rider", kPlain, {Input(1), Input(1), Input(1)}, 1},
      {"a leader of a loop", kRepeat, {Input(1), Input(1)}, 0},
      {"a rider of lanes", kForeach, {Input(1, 4), Input(1, 4)}, 1},
      {"when", kWhen, {Input(1), Input(2)}, 0},
      {"repeat", kRepeat, {Input(1), Input(2)}, 1},
      {"foreach", kForeach, {Input(1, 5), Input(2, 4)}, 0},
  };
  for (const Scenario& scenario : scenarios) {
    std::vector<Tensors> expected;
    for (const Tensor& input : scenario.inputs) expected.push_back(Alone(scenario, input));
    uint64_t cancelled = 0, at = 0;
    for (; at < 1000; ++at) {
      const auto [fired, ended] = GiveUpAt(scenario, at, expected);
      if (HasFailure()) return;
      if (ended == StatusCode::kCancelled) ++cancelled;
      if (at == 0) {
        EXPECT_EQ(ended, StatusCode::kCancelled) << scenario.name;
      }
      if (!fired) break;  // it ended before
    }
    EXPECT_LT(at, 1000u) << scenario.name;
    EXPECT_GE(at, 4u) << scenario.name << ": a compile and a block have two each";
    EXPECT_GE(cancelled, 2u) << scenario.name << ": at 0, and once it was under way";
  }
}

// One world for all points: programs for several rows take a while to come.
TEST(CancelTest, WhoLeavesABatchAnywhereLeavesNothingAndHarmsNobody) {
  constexpr size_t kRequests = 5, kVictim = 2;
  World world("immediate");
  const PlannedGraphPtr graph = Load(kLong);
  std::vector<Tensors> expected;
  for (size_t i = 0; i < kRequests; ++i) {
    expected.push_back(Alone({"batch", kLong, {}}, Input(static_cast<int>(i))));
  }
  uint64_t at = 0, cancelled = 0;
  bool swept = false;
  for (int round = 0; round < 5000 && !swept; ++round) {
    const bool ready = world.env.batched_rows.load() > 0;  // before that nobody gives up
    std::vector<Asked> asked;
    const auto give_up = [&] { asked[kVictim].request->Cancel(CancelledError("nobody waits")); };
    world.events.Arm(ready ? at : 0, give_up);
    // The first one holds the worker, the others find it there.
    for (size_t i = 0; i < kRequests; ++i) {
      asked.push_back(world.Ask(graph, Input(static_cast<int>(i))));
    }
    if (ready && at == 0) give_up();
    world.events.Open();
    for (size_t i = 0; i < kRequests; ++i) {
      const Result<Tensors> outputs = asked[i].outputs.get();
      if (i == kVictim && outputs.status().code() == StatusCode::kCancelled) {
        ++cancelled;
        continue;
      }
      ASSERT_TRUE(outputs.ok()) << "event " << at << ": " << outputs.status().ToString();
      ExpectNear(outputs->at(0), expected[i][0]);
    }
    swept = ready && at > 0 && !world.events.fired();
    if (ready) at += at < 24 ? 1 : 29;  // its blocks are much alike
    for (const Asked& each : asked) {   // whoever resumed it may still be on the way out
      while (each.request.use_count() > 1) std::this_thread::yield();
    }
    while (world.dispatcher.stats().in_flight > 0) std::this_thread::yield();
    if (HasFailure()) return;
  }
  EXPECT_TRUE(swept);
  EXPECT_GE(at, 4u);
  EXPECT_GT(cancelled, 0u);
  world.Stop();
  world.ExpectAtRest();
}

}  // namespace
}  // namespace plexus
