// Small cases with known results, and what holds for every system.
#include "simulate/system.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

namespace plexus {
namespace {

constexpr Duration kUs = std::chrono::microseconds(1);

// A device without latencies, one block slot per SM, and a host that costs nothing: every time is a
// sum of block times.
Workload Bare(const std::string& system, uint32_t sms, uint32_t queues) {
  Workload w;
  w.device.name = "bare";
  w.device.sms = sms;
  w.device.sm.blocks = 1;
  w.device.sm.threads = 1024;
  w.device.queues = queues;
  w.system.name = system;
  w.system.policy = system == "plexus" || system == "bounded" ? "srpt" : "";
  w.system.host = {Duration{0}, Duration{0}, Duration{0}};
  w.system.hardware_bound = Duration{0};
  w.arrivals.kind = Arrivals::Kind::kTrace;
  return w;
}

void AddModel(Workload* w, const std::string& name, const std::vector<SimKernel>& kernels) {
  SimModel model;
  model.name = name;
  model.program = ChainProgram(name, kernels);
  w->models.push_back(model);
}

void AddJob(Workload* w, uint32_t model, Duration at = Duration{0}) {
  w->arrivals.trace.push_back({at, model});
  w->jobs = static_cast<uint32_t>(w->arrivals.trace.size());
}

// When each job was done, in microseconds.
std::vector<int64_t> Ends(Workload w) {
  EXPECT_TRUE(Prepare(&w).ok());
  const Result<SimulationResult> result = RunWorkload(w, MakeArrivals(w));
  EXPECT_TRUE(result.ok()) << result.status().message();
  std::vector<int64_t> ends;
  if (!result.ok()) return ends;
  for (const JobOutcome& job : result->jobs) ends.push_back(job.done.time_since_epoch() / kUs);
  return ends;
}

using Times = std::vector<int64_t>;

// Two chains of two one-block kernels on two SMs.
Workload TwoChains(const std::string& system, uint32_t queues) {
  Workload w = Bare(system, 2, queues);
  AddModel(&w, "a", {{1, 10 * kUs, {}}, {1, 10 * kUs, {}}});
  AddModel(&w, "b", {{1, 10 * kUs, {}}, {1, 10 * kUs, {}}});
  AddJob(&w, 0);
  AddJob(&w, 1);
  return w;
}

TEST(SystemTest, OneStreamRunsJobsOneAfterTheOther) {
  EXPECT_EQ(Ends(TwoChains("one-stream", 2)), (Times{20, 40}));
}

TEST(SystemTest, StreamsOnOneQueueBlockBehindItsHead) {
  // a2 stands before b1 in the queue and waits for a1; behind it the marker of a's end waits for
  // a2.
  EXPECT_EQ(Ends(TwoChains("job-by-job", 1)), (Times{20, 40}));
}

TEST(SystemTest, StreamsOnTheirOwnQueuesRunSideBySide) {
  EXPECT_EQ(Ends(TwoChains("job-by-job", 2)), (Times{20, 20}));
  EXPECT_EQ(Ends(TwoChains("stream-per-job", 2)), (Times{20, 20}));
}

TEST(SystemTest, KernelByKernelNeedsOneQueueOnly) {
  EXPECT_EQ(Ends(TwoChains("kernel-by-kernel", 1)), (Times{20, 20}));
  EXPECT_EQ(Ends(TwoChains("paella", 1)), (Times{20, 20}));
  EXPECT_EQ(Ends(TwoChains("plexus", 1)), (Times{20, 20}));
}

TEST(SystemTest, KernelByKernelTakesTurns) {
  Workload w = Bare("kernel-by-kernel", 1, 1);
  AddModel(&w, "a", std::vector<SimKernel>(3, {1, 10 * kUs, {}}));
  AddModel(&w, "b", std::vector<SimKernel>(1, {1, 10 * kUs, {}}));
  AddJob(&w, 0);
  AddJob(&w, 1);
  EXPECT_EQ(Ends(w), (Times{40, 20}));
}

// A long job first, short ones behind it, on one SM.
Workload LongThenShort(const std::string& system) {
  Workload w = Bare(system, 1, 8);
  AddModel(&w, "long", std::vector<SimKernel>(10, {1, 100 * kUs, {}}));
  AddModel(&w, "short", {{1, 10 * kUs, {}}});
  AddJob(&w, 0);
  AddJob(&w, 1, 1 * kUs);
  AddJob(&w, 1, 2 * kUs);
  return w;
}

TEST(SystemTest, PlexusRunsBranchesOfAJobSideBySideUnlessInOrder) {
  Workload w = Bare("plexus", 2, 8);
  AddModel(&w, "two branches", {{1, 10 * kUs, {}}, {1, 10 * kUs, {}}});
  auto branches = std::make_shared<Program>(*w.models[0].program);
  for (Kernel& kernel : branches->kernels) {
    kernel.dependencies = 0;
    kernel.successors.clear();
  }
  w.models[0].program = branches;
  AddJob(&w, 0);
  EXPECT_EQ(Ends(w), (Times{10}));
  w.system.in_order = true;
  EXPECT_EQ(Ends(w), (Times{20}));
}

TEST(SystemTest, PlexusLetsShortJobsPassAtTheNextKernel) {
  EXPECT_EQ(Ends(LongThenShort("plexus")), (Times{1020, 110, 120}));
}

TEST(SystemTest, PlexusSharesTimeByTheTenantsWeights) {
  Workload w = Bare("plexus", 1, 4);
  w.system.policy = "fair(fifo, 0)";
  w.tenants = {{"heavy", 3}, {"light", 1}};
  AddModel(&w, "h", {{1, 10 * kUs, {}}});
  AddModel(&w, "l", {{1, 10 * kUs, {}}});
  w.models[1].tenant = 1;
  for (int i = 0; i < 60; ++i) AddJob(&w, i % 2);
  const Times ends = Ends(w);
  ASSERT_EQ(ends.size(), 60u);
  int heavy = 0, light = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    if (ends[i] <= 240) ++(i % 2 == 0 ? heavy : light);
  }
  EXPECT_EQ(heavy + light, 24);
  EXPECT_NEAR(heavy, 18, 1);
}

TEST(SystemTest, BoundedRunsWhatItHasLaunchedBeforeItPrefersTheShort) {
  Workload w = LongThenShort("bounded");
  w.system.in_flight = 3;
  w.system.job_depth = 3;
  // Three launches of the long job are at the device when the short ones come.
  EXPECT_EQ(Ends(w), (Times{1020, 310, 320}));
  w.system.in_flight = 1;
  w.system.job_depth = 1;
  EXPECT_EQ(Ends(w), (Times{1020, 110, 120}));
}

TEST(SystemTest, BoundedByDeadlinePutsTheNearestFirst) {
  Workload w = Bare("bounded", 1, 8);
  w.system.in_flight = 1;
  w.system.job_depth = 1;
  AddModel(&w, "first", {{1, 10 * kUs, {}}});
  AddModel(&w, "late", {{1, 10 * kUs, {}}});
  AddModel(&w, "urgent", {{1, 20 * kUs, {}}});
  w.models[1].deadline = 1000 * kUs;
  w.models[2].deadline = 100 * kUs;
  AddJob(&w, 0);
  AddJob(&w, 1, kUs);
  AddJob(&w, 2, kUs);
  w.system.policy = "edf";
  EXPECT_EQ(Ends(w), (Times{10, 40, 30}));
  w.system.policy = "srpt";
  EXPECT_EQ(Ends(w), (Times{10, 20, 40}));
}

// Job 0 fills the device; 1, 2, 3 find it full in that order; 4 is short and comes last, when the
// model types' learned times already tell them apart.
TEST(SystemTest, PaellaLetsNoMoreThanBKernelsWaitInTheHardware) {
  const auto ends = [](uint32_t waiting) {
    Workload w = Bare("paella", 1, 8);
    w.system.waiting_kernels = waiting;
    AddModel(&w, "long", {{1, 50 * kUs, {}}});
    AddModel(&w, "short", {{1, 10 * kUs, {}}});
    // Both types are known by 60.
    AddJob(&w, 0, Duration{0});
    AddJob(&w, 1, 50 * kUs);
    for (int i = 0; i < 4; ++i) AddJob(&w, 0, (100 + i) * kUs);
    AddJob(&w, 1, 110 * kUs);
    return Ends(w);
  };
  // Runs: one; with B = 1 one waits behind it, then the short job goes before the others.
  EXPECT_EQ(ends(1), (Times{50, 60, 150, 200, 260, 310, 210}));
  // With B = 2 two wait before it.
  EXPECT_EQ(ends(2), (Times{50, 60, 150, 200, 250, 310, 260}));
}

TEST(SystemTest, PaellaHoldsAGridBackThatDoesNotFitWhole) {
  Workload w = Bare("paella", 4, 8);
  AddModel(&w, "half", {{3, 100 * kUs, {}}});
  AddModel(&w, "wide", {{2, 100 * kUs, {}}});
  AddJob(&w, 0);
  AddJob(&w, 1, kUs);
  // One SM is free, the grid needs two; as a waiting kernel its first block starts at once.
  EXPECT_EQ(Ends(w), (Times{100, 200}));
}

TEST(SystemTest, PaellaServesTheStarvedTypeBeyondTheThreshold) {
  const auto ends = [](double threshold) {
    Workload w = Bare("paella", 1, 8);
    w.system.waiting_kernels = 1;
    w.system.fairness_threshold = threshold;
    AddModel(&w, "long", {{1, 50 * kUs, {}}});
    AddModel(&w, "short", {{1, 10 * kUs, {}}});
    AddJob(&w, 0, Duration{0});
    AddJob(&w, 1, 50 * kUs);
    for (int i = 0; i < 20; ++i) AddJob(&w, 1, 100 * kUs);
    AddJob(&w, 0, 100 * kUs);
    return Ends(w).back();
  };
  EXPECT_EQ(ends(1e9), 350);  // after the twenty
  EXPECT_LT(ends(2), 250);
}

TEST(SystemTest, HostCostsDelayEveryLaunch) {
  Workload w = Bare("job-by-job", 1, 1);
  w.system.host = {2 * kUs, Duration{0}, 1 * kUs};
  AddModel(&w, "a", std::vector<SimKernel>(3, {1, 1 * kUs, {}}));
  AddJob(&w, 0);
  // Taken in by 1, launched at 3, 5 and 7, the marker of its end at 9.
  EXPECT_EQ(Ends(w), (Times{9}));
}

Workload Busy(const std::string& system, uint64_t seed) {
  Workload w = ParseWorkload(R"(
device: {preset: t4, queues: 8, jitter: 0.2}
jobs: 80
arrivals: {kind: lognormal, sigma: 1.5, mean_gap_ms: 0.4}
models:
  - {name: a, share: 3, kernels: [{grid: 60, block_us: 80, repeat: 5}]}
  - {name: b, share: 2, kernels: [{grid: 300, block_us: 50, threads: 256}, {grid: 1, block_us: 30}]}
  - {name: c, share: 1, kernels: [{grid: 40, block_us: 400, shared_bytes: 40000, repeat: 4}]}
)",
                             "busy", {})
                   .value();
  w.seed = seed;
  w.system.name = system;
  if (system == "bounded") w.system.policy = "edf";
  if (system == "plexus") w.system.policy = seed % 2 == 0 ? "srpt" : "fifo";
  return w;
}

TEST(SystemTest, EverySystemRunsEveryBlockOfEveryJobOnce) {
  for (const std::string& system : SystemNames()) {
    for (uint64_t seed = 1; seed <= 2; ++seed) {
      SCOPED_TRACE(system + ", seed " + std::to_string(seed));
      const Workload w = Busy(system, seed);
      const std::vector<Arrival> arrivals = MakeArrivals(w);
      const Result<SimulationResult> result = RunWorkload(w, arrivals);
      ASSERT_TRUE(result.ok()) << result.status().message();
      ASSERT_EQ(result->jobs.size(), arrivals.size());
      uint64_t blocks = 0;
      for (size_t j = 0; j < arrivals.size(); ++j) {
        const JobOutcome& job = result->jobs[j];
        EXPECT_EQ(job.arrival, arrivals[j].at);
        EXPECT_EQ(job.model, arrivals[j].model);
        EXPECT_GT(job.done, job.arrival);
        for (const Kernel& kernel : w.models[job.model].program->kernels) blocks += kernel.grid;
      }
      EXPECT_EQ(result->blocks, blocks);
    }
  }
}

TEST(SystemTest, TheSameSeedGivesTheSameTimes) {
  for (const std::string& system : SystemNames()) {
    const Workload w = Busy(system, 3);
    const SimulationResult a = RunWorkload(w, MakeArrivals(w)).value();
    const SimulationResult b = RunWorkload(w, MakeArrivals(w)).value();
    for (size_t j = 0; j < a.jobs.size(); ++j) ASSERT_EQ(a.jobs[j].done, b.jobs[j].done) << system;
  }
}

TEST(SystemTest, NoJobIsFasterThanAlone) {
  for (const std::string& system : SystemNames()) {
    Workload w = Busy(system, 5);
    w.device.block_jitter = 0;
    ASSERT_TRUE(Prepare(&w).ok());
    const SimulationResult result = RunWorkload(w, MakeArrivals(w)).value();
    for (const JobOutcome& job : result.jobs) {
      // Notifications may overtake the completion that alone_time counts.
      EXPECT_GE(job.done - job.arrival + w.device.completion_latency,
                w.models[job.model].alone_time)
          << system;
    }
  }
}

TraceRecorder::Snapshot TraceOf(Workload w) {
  EXPECT_TRUE(Prepare(&w).ok());
  TraceRecorder trace;
  trace.Start({});
  RunHooks hooks;
  hooks.trace = &trace;
  EXPECT_TRUE(RunWorkload(w, MakeArrivals(w), hooks).ok());
  return trace.Take();
}

TEST(SystemTest, ATraceHoldsEveryBlockJobAndRequestByName) {
  for (const std::string& system : SystemNames()) {
    SCOPED_TRACE(system);
    const Workload w = TwoChains(system, 2);
    const TraceRecorder::Snapshot trace = TraceOf(w);
    ASSERT_EQ(trace.devices.size(), 1u);
    std::map<std::string, uint32_t> blocks;  // by kernel
    std::map<uint64_t, uint64_t> request_of;
    std::set<uint64_t> jobs, requests;
    for (const TraceEvent& event : trace.events) {
      EXPECT_LE(event.begin, event.end);
      if (event.kind == TraceKind::kBlocks) {
        EXPECT_LE(event.mark, event.begin);
        request_of[event.job] = event.request;
        const std::string kernel = trace.names.at(event.label) + " " + trace.names.at(event.name);
        if (event.unit != kNoTraceUnit) blocks[kernel] += event.blocks;
      } else if (event.kind == TraceKind::kJob) {
        EXPECT_TRUE(jobs.insert(event.job).second);
        EXPECT_LE(event.begin, event.mark) << "its first launch";
        EXPECT_LE(event.mark, event.end);
      } else if (event.kind == TraceKind::kRequest) {
        EXPECT_TRUE(requests.insert(event.request).second);
        EXPECT_EQ(trace.names.at(event.name), event.request == 0 ? "a" : "b");
        EXPECT_EQ(trace.names.at(event.label), "default") << "the tenant";
      }
    }
    EXPECT_EQ(requests, (std::set<uint64_t>{0, 1}));
    EXPECT_EQ(jobs.size(), 2u);
    std::set<uint64_t> with_blocks;
    for (const auto& [job, request] : request_of) {
      EXPECT_EQ(jobs.count(job), 1u);
      with_blocks.insert(request);
    }
    EXPECT_EQ(with_blocks, requests);
    EXPECT_EQ(blocks, (std::map<std::string, uint32_t>{
                          {"a k0", 1}, {"a k1", 1}, {"b k0", 1}, {"b k1", 1}}));
  }
}

TEST(SystemTest, PlexussTraceHoldsItsDecisionsAndLaunches) {
  const TraceRecorder::Snapshot trace = TraceOf(TwoChains("plexus", 2));
  uint32_t decisions = 0, launched = 0;
  for (const TraceEvent& event : trace.events) {
    if (event.kind != TraceKind::kBlocks || event.unit != kNoTraceUnit) continue;
    launched += event.blocks;
    decisions += event.ready > 0 ? 1 : 0;
  }
  EXPECT_EQ(launched, 4u);
  EXPECT_EQ(decisions, 4u) << "a kernel of one block each";
}

}  // namespace
}  // namespace plexus
