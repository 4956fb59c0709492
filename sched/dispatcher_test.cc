#include "sched/dispatcher.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "sched/test_bed.h"

namespace plexus {
namespace {

TestBed::Options Cpu(uint32_t units, std::string policy = "fifo") {
  TestBed::Options o;
  o.device.units = units;
  o.policy = std::move(policy);
  return o;
}

TEST(DispatcherTest, AJobRunsItsKernelsInOrderAndEndsOnce) {
  TestBed bed(Cpu(1));
  const JobId job = bed.Submit(Chain("a", 5, 1, 10 * kUs));
  bed.Run();
  EXPECT_EQ(bed.CodeOf(job), StatusCode::kOk);
  EXPECT_EQ(bed.EndOf(job), TimePoint(std::chrono::seconds(1)) + 50 * kUs);
  bed.CheckHistory();
  bed.CheckAtRest();
}

TEST(DispatcherTest, AProgramWithoutKernelsEndsAtOnce) {
  TestBed bed(Cpu(1));
  EXPECT_EQ(bed.CodeOf(bed.Submit(MakeProgram("empty", {}))), StatusCode::kOk);
}

TEST(DispatcherTest, BuffersComeBackToTheListener) {
  struct Keeper : JobListener {
    void OnJobDone(JobId, Status, JobBuffers b) override { buffers = std::move(b); }
    JobBuffers buffers;
  } keeper;
  TestBed bed(Cpu(1));
  auto program = std::make_shared<Program>(*Chain("a", 1, 1, kUs));
  program->inputs.resize(2);
  JobSpec spec = bed.Spec(program);
  spec.listener = &keeper;
  spec.buffers.inputs.resize(2);
  ASSERT_TRUE(bed.dispatcher.Submit(std::move(spec)).ok());
  bed.Run();
  EXPECT_EQ(keeper.buffers.inputs.size(), 2u);
}

TEST(DispatcherTest, SpecsThatCannotRunAreRefusedWithTheProgramsName) {
  TestBed bed(Cpu(1));
  auto program = std::make_shared<Program>(*Chain("mine", 1, 1, kUs));
  const auto refused = [&](const JobSpec& spec) {
    const Result<JobId> id = bed.dispatcher.Submit(spec);
    EXPECT_FALSE(id.ok());
    return id.status();
  };
  EXPECT_EQ(refused(JobSpec{}).code(), StatusCode::kInvalidArgument);
  JobSpec no_listener = bed.Spec(program);
  no_listener.listener = nullptr;
  EXPECT_EQ(refused(no_listener).code(), StatusCode::kInvalidArgument);
  JobSpec inputs = bed.Spec(program);
  inputs.buffers.inputs.resize(1);
  EXPECT_NE(refused(inputs).message().find("mine"), std::string::npos);
  auto other = std::make_shared<Program>(*program);
  other->device_kind = "cuda";
  EXPECT_EQ(refused(bed.Spec(other)).code(), StatusCode::kInvalidArgument);
  auto no_blocks = std::make_shared<Program>(*program);
  no_blocks->kernels[0].grid = 0;
  EXPECT_EQ(refused(bed.Spec(no_blocks)).code(), StatusCode::kInvalidArgument);
  auto no_estimate = std::make_shared<Program>(*program);
  no_estimate->kernels[0].estimated_block_time = Duration{0};
  EXPECT_EQ(refused(bed.Spec(no_estimate)).code(), StatusCode::kInvalidArgument);
  auto large = std::make_shared<Program>(*program);
  large->arena_bytes = size_t{2} << 30;
  EXPECT_EQ(refused(bed.Spec(large)).code(), StatusCode::kResourceExhausted);
  bed.CheckAtRest();
}

TEST(DispatcherTest, MoreThanMaxJobsIsUnavailable) {
  TestBed::Options options = Cpu(1);
  options.dispatcher.max_jobs = 3;
  TestBed bed(options);
  const ProgramPtr program = Chain("a", 1, 1, kUs);
  for (int i = 0; i < 3; ++i) bed.Submit(program);
  EXPECT_EQ(bed.dispatcher.Submit(bed.Spec(program)).status().code(), StatusCode::kUnavailable);
  bed.Run();
  bed.Submit(program);
  bed.Run();
  bed.CheckAtRest();
}

TEST(DispatcherTest, AKernelGraphThatCannotFinishIsInternalNotAHang) {
  TestBed bed(Cpu(1));
  auto cycle = std::make_shared<Program>(*Chain("cycle", 3, 1, kUs));
  cycle->kernels[1].dependencies = 2;
  const JobId stuck = bed.Submit(cycle);
  cycle = std::make_shared<Program>(*cycle);
  cycle->kernels[0].dependencies = 1;
  const JobId never = bed.Submit(cycle);
  bed.Run();
  EXPECT_EQ(bed.CodeOf(stuck), StatusCode::kInternal);
  EXPECT_EQ(bed.CodeOf(never), StatusCode::kInternal);
  bed.CheckAtRest();
}

// --- Width follows load

TEST(DispatcherTest, AJobAloneSpreadsOverAllUnits) {
  TestBed bed(Cpu(4));
  const JobId job = bed.Submit(Chain("wide", 3, 16, 100 * kUs));
  bed.Run();
  EXPECT_EQ(bed.EndOf(job) - TimePoint(std::chrono::seconds(1)), 3 * 4 * 100 * kUs);
}

TEST(DispatcherTest, WhereAsManyWaitAsThereAreUnitsEachRunsOnOne) {
  TestBed bed(Cpu(4));
  const ProgramPtr program = Chain("wide", 4, 16, 100 * kUs);
  for (int i = 0; i < 4; ++i) bed.Submit(program);
  std::map<JobId, std::set<uint32_t>> units;
  while (bed.device.Step() && bed.ended.empty()) {
    for (const SimDevice::Ran& ran : bed.device.ran()) {
      units[bed.id_of.at(ran.launch.id)].insert(ran.unit.value());
    }
  }
  // The very first decision saw one job only.
  units.erase(bed.order[0]);
  for (const auto& [job, where] : units) EXPECT_EQ(where.size(), 1u) << job.value();
  bed.Run();
  bed.CheckHistory();
}

TEST(DispatcherTest, SeveralKernelsOfOneJobRunAtOnce) {
  TestBed bed(Cpu(2));
  const JobId job = bed.Submit(MakeProgram("branches", {{1, 10 * kUs, {}, {}},
                                                        {1, 50 * kUs, {0}, {}},
                                                        {1, 50 * kUs, {0}, {}},
                                                        {1, 10 * kUs, {1, 2}, {}}}));
  bed.Run();
  EXPECT_EQ(bed.EndOf(job) - TimePoint(std::chrono::seconds(1)), 70 * kUs);
  bed.CheckHistory();
}

TEST(DispatcherTest, NeighbouringKernelsGiveTheSameRowsToTheSameUnit) {
  TestBed bed(Cpu(2));
  bed.Submit(Chain("rows", 6, 8, 50 * kUs));
  bed.Run();
  for (const SimDevice::Ran& ran : bed.device.ran()) {
    EXPECT_EQ(ran.unit.value(), ran.launch.first_block < 4 ? 0u : 1u);
  }
}

TEST(DispatcherTest, ANarrowChainStaysOnItsUnit) {
  TestBed bed(Cpu(4));
  bed.Submit(Chain("chain", 20, 1, 50 * kUs));
  bed.Run();
  for (const SimDevice::Ran& ran : bed.device.ran()) {
    EXPECT_EQ(ran.unit, bed.device.ran()[0].unit);
  }
}

// --- Sleeping units

TEST(DispatcherTest, ASleepingUnitIsNotWokenForLessWorkThanTheWakingTakes) {
  TestBed::Options options = Cpu(2);
  TestBed warm(options);
  options.device.wake_latency = 40 * kUs;
  TestBed bed(options);
  // Learned times: a guess alone wakes.
  const ProgramPtr program = Chain("tiny", 3, 2, 2 * kUs);
  for (TimeEstimate& e : bed.profiles.Get(program->signature, 1, 3)->kernels) e.Add(2000);
  bed.Submit(program);
  bed.Run();
  for (const SimDevice::Ran& ran : bed.device.ran()) {
    EXPECT_EQ(ran.unit, bed.device.ran()[0].unit);
  }
  bed.CheckHistory();
}

TEST(DispatcherTest, ASleepingUnitIsWokenWhenThereIsEnoughToShare) {
  TestBed::Options options = Cpu(2);
  options.device.wake_latency = 40 * kUs;
  TestBed bed(options);
  const ProgramPtr program = Chain("large", 1, 2, 100 * kUs);
  bed.profiles.Get(program->signature, 1, 1)->kernels[0].Add(100'000);
  bed.Submit(program);
  EXPECT_EQ(bed.device.in_flight(), 2u);
  bed.Run();
  bed.CheckHistory();
}

// --- Order and slices

TEST(DispatcherTest, ShortJobsOvertakeALongOneAtItsNextSlice) {
  TestBed bed(Cpu(1, "srpt"));
  const JobId longer = bed.Submit(Chain("long", 1, 1000, 100 * kUs));
  const JobId shorter = bed.Submit(Chain("short", 1, 1, 10 * kUs));
  bed.Run();
  EXPECT_EQ(bed.order, (std::vector{shorter, longer}));
  // The long job's slice is at most the quantum of 200 us.
  EXPECT_LE(bed.EndOf(shorter) - TimePoint(std::chrono::seconds(1)), 210 * kUs);
  EXPECT_GE(bed.dispatcher.stats().preemptions, 1u);
  bed.CheckHistory();
}

TEST(DispatcherTest, FifoRunsInOrderOfArrivalNotOfSubmission) {
  TestBed bed(Cpu(1));
  const ProgramPtr program = Chain("a", 2, 1, 300 * kUs);
  const JobId running = bed.Submit(program);
  JobSpec late = bed.Spec(program), early = bed.Spec(program);
  late.attributes.arrival = TimePoint(std::chrono::seconds(1)) + 2 * kUs;
  early.attributes.arrival = TimePoint(std::chrono::seconds(1)) + 1 * kUs;
  const JobId second = bed.Submit(late);
  const JobId first = bed.Submit(early);
  bed.Run();
  EXPECT_EQ(bed.order, (std::vector{running, first, second}));
}

TEST(DispatcherTest, RoundRobinTakesTurnsAndNewJobsWaitForTheirs) {
  TestBed bed(Cpu(1, "rr"));
  std::vector<JobId> turns;
  bed.on_launch = [&](const Launch& launch) { turns.push_back(launch.job->id); };
  const ProgramPtr program = Chain("a", 3, 1, 150 * kUs);
  const JobId first = bed.Submit(Chain("running", 1, 1, 150 * kUs));
  const JobId a = bed.Submit(program), b = bed.Submit(program);
  bed.device.Step();  // a had a turn when c comes
  const JobId c = bed.Submit(program);
  bed.Run();
  EXPECT_EQ(turns, (std::vector{first, a, b, a, c, b, a, c, b, c}));
  bed.CheckHistory();
}

TEST(DispatcherTest, TheRemainingPathCountsAsRemainingTime) {
  TestBed bed(Cpu(1, "srpt"));
  bed.Submit(Chain("running", 1, 1, 300 * kUs));
  JobSpec head = bed.Spec(Chain("head", 1, 1, 10 * kUs));
  head.attributes.remaining_path = 500 * kUs;
  const JobId long_path = bed.Submit(head);
  const JobId plain = bed.Submit(Chain("plain", 1, 1, 100 * kUs));
  bed.Run();
  EXPECT_EQ(bed.order[1], plain);
  EXPECT_EQ(bed.order[2], long_path);
}

TEST(DispatcherTest, ThePolicyCanBeSwitchedWhileJobsWait) {
  TestBed bed(Cpu(1, "fifo"));
  bed.Submit(Chain("running", 1, 1, 300 * kUs));
  const JobId longer = bed.Submit(Chain("long", 1, 1, 250 * kUs));
  const JobId shorter = bed.Submit(Chain("short", 1, 1, 120 * kUs));
  EXPECT_EQ(bed.dispatcher.policy_name(), "fifo");
  bed.dispatcher.SetPolicy(MakePolicy("srpt").value());
  EXPECT_EQ(bed.dispatcher.policy_name(), "srpt");
  bed.Run();
  EXPECT_EQ(bed.order[1], shorter);
  EXPECT_EQ(bed.order[2], longer);
  bed.CheckAtRest();
}

TEST(DispatcherTest, AJobThatIsRaisedGoesWhereThePolicyPutsIt) {
  const TimePoint begin = TimePoint(std::chrono::seconds(1));
  struct Case {
    const char* policy;
    Urgency urgency;
    bool overtakes;
  };
  const Case cases[] = {
      {"edf", {begin + 1000 * kUs, 0}, true},
      {"edf", {begin + 9000 * kUs, 0}, false},  // due later than the others
      {"edf", {std::nullopt, 1}, false},        // edf looks at no priority
      {"priority", {std::nullopt, 1}, true},
      {"priority", {begin + kUs, 3}, false},
      {"priority", {std::nullopt, 0}, false},
      {"fifo", {begin + kUs, 1}, false},
      {"fair(edf, inf)", {begin + 1000 * kUs, 0}, true},
  };
  for (const Case& c : cases) {
    TestBed bed(Cpu(1, c.policy));
    const ProgramPtr program = Chain("a", 1, 1, 300 * kUs);
    const auto submit = [&] {
      JobSpec spec = bed.Spec(program);
      spec.attributes.deadline = begin + 5000 * kUs;
      spec.attributes.priority = 2;
      return bed.Submit(spec);
    };
    const JobId running = submit(), queued = submit();
    const JobId before = submit(), raised = submit();
    bed.dispatcher.Raise(raised, c.urgency);
    bed.dispatcher.Raise(JobId(12345), c.urgency);  // nobody's
    bed.Run();
    ASSERT_EQ(bed.order.size(), 4u);
    EXPECT_EQ(bed.order[0], running);
    (void)queued;
    const auto at = [&](JobId id) { return std::find(bed.order.begin(), bed.order.end(), id); };
    EXPECT_EQ(at(raised) < at(before), c.overtakes) << c.policy;
    for (const JobId id : bed.order) EXPECT_EQ(bed.CodeOf(id), StatusCode::kOk);
    bed.CheckAtRest();
  }
}

TEST(DispatcherTest, QueuedWorkBeyondTheRunningLaunchIsBoundedInTime) {
  TestBed bed(Cpu(1));
  for (int i = 0; i < 20; ++i) bed.Submit(Chain("long", 1, 10, 150 * kUs));
  EXPECT_EQ(bed.device.in_flight(), 1u);  // a block of 150 us is beyond the bound
  TestBed other(Cpu(1));
  for (int i = 0; i < 20; ++i) other.Submit(Chain("short", 1, 10, 20 * kUs));
  EXPECT_EQ(other.device.in_flight(), 2u);
  bed.Run();
  other.Run();
  for (const SimDevice::Ran& ran : other.device.ran()) EXPECT_LE(ran.end - ran.begin, 200 * kUs);
}

TEST(DispatcherTest, TheWayToTheDeviceIsMeasuredWhereItReportsStarts) {
  for (const bool report_starts : {true, false}) {
    TestBed::Options options = Cpu(1);
    options.device.unit_addressed = false;
    SimGpuOptions gpu;
    gpu.sms = 4;
    gpu.launch_latency = 30 * kUs;
    gpu.notification_latency = 50 * kUs;
    gpu.report_starts = report_starts;
    options.device.gpu = gpu;
    TestBed bed(options);
    EXPECT_EQ(bed.dispatcher.stats().launch_gap, 30 * kUs);
    bed.Submit(Chain("a", 60, 4, 100 * kUs));
    bed.Run();
    const Duration learned = bed.dispatcher.stats().launch_gap;
    if (report_starts) {
      EXPECT_NEAR(learned.count(), 80'000, 5'000);
    } else {
      EXPECT_EQ(learned, 30 * kUs);
    }
    bed.CheckHistory();
    bed.CheckAtRest();
  }
}

TEST(DispatcherTest, ALongWayToTheDeviceLetsMoreWaitThere) {
  const auto waiting_blocks = [](Duration latency) {
    TestBed::Options options = Cpu(1);
    options.device.unit_addressed = false;
    SimGpuOptions gpu;
    gpu.sms = 1;
    gpu.sm.blocks = gpu.sm.threads = 4;
    gpu.launch_latency = latency;
    options.device.gpu = gpu;
    options.dispatcher.hardware_bound = 20 * kUs;
    TestBed bed(options);
    bed.Submit(Chain("a", 1, 4, 10 * kUs));
    uint32_t waiting = 0;
    bed.on_launch = [&](const Launch& launch) { waiting += launch.num_blocks; };
    for (int i = 0; i < 30; ++i) bed.Submit(Chain("b", 1, 4, 10 * kUs));
    bed.on_launch = nullptr;
    bed.Run();
    return waiting;
  };
  EXPECT_EQ(waiting_blocks(Duration{0}), 8u);  // 20 us
  EXPECT_EQ(waiting_blocks(50 * kUs), 40u);    // twice 50 us
}

// --- Learned times

TEST(DispatcherTest, BlockTimesAreLearnedPerProgramAndRows) {
  TestBed bed(Cpu(1));
  bed.device.block_time = [](const Launch&, uint32_t) { return 70 * kUs; };
  const ProgramPtr program = Chain("a", 2, 4, 10 * kUs);
  EXPECT_EQ(bed.dispatcher.ExpectedTime(*program, 1), 80 * kUs);
  bed.Submit(program);
  bed.Run();
  EXPECT_EQ(bed.dispatcher.ExpectedTime(*program, 1), 560 * kUs);
  EXPECT_EQ(bed.dispatcher.ExpectedTime(*program, 2), 80 * kUs);
  EXPECT_EQ(bed.dispatcher.stats().busy, 560 * kUs);
}

// Where units are addressed, waiting jobs run on one each; else a job takes what it can.
TEST(DispatcherTest, ExpectedTimesAreThoseUnderLoad) {
  const ProgramPtr wide = Chain("wide", 1, 8, 10 * kUs);
  const ProgramPtr narrow = Chain("narrow", 4, 1, 10 * kUs);
  for (const bool addressed : {true, false}) {
    TestBed::Options options = Cpu(4, "srpt");
    options.device.unit_addressed = addressed;
    options.device.unit_limits.blocks = 1;
    TestBed bed(options);
    EXPECT_EQ(bed.dispatcher.ExpectedTime(*wide, 1), (addressed ? 80 : 20) * kUs);
    EXPECT_EQ(bed.dispatcher.ExpectedTime(*narrow, 1), 40 * kUs);
  }
}

TEST(DispatcherTest, SrptUsesLearnedTimesRatherThanEstimates) {
  TestBed bed(Cpu(1, "srpt"));
  const ProgramPtr seems_short = Chain("seems short", 1, 1, 10 * kUs);
  const ProgramPtr seems_long = Chain("seems long", 1, 1, 90 * kUs);
  bed.device.block_time = [&](const Launch& l, uint32_t) {
    return l.job->program == seems_short ? 900 * kUs : 20 * kUs;
  };
  bed.Submit(seems_short);
  bed.Submit(seems_long);
  bed.Run();
  bed.Submit(Chain("blocker", 1, 1, 300 * kUs));
  const JobId a = bed.Submit(seems_short);
  const JobId b = bed.Submit(seems_long);
  bed.Run();
  EXPECT_LT(bed.EndOf(b), bed.EndOf(a));
}

TEST(DispatcherTest, LearnedTimesSurviveARestart) {
  const ProgramPtr seems_short = Chain("seems short", 1, 1, 10 * kUs);
  const ProgramPtr seems_long = Chain("seems long", 1, 1, 90 * kUs);
  std::string folder = (std::filesystem::temp_directory_path() / "learned-XXXXXX").string();
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::filesystem::path file = std::filesystem::path(folder) / "times";
  const auto block_time = [&](const Launch& l, uint32_t) {
    return l.job->program == seems_short ? 900 * kUs : 20 * kUs;
  };
  {
    TestBed before(Cpu(1, "srpt"));
    before.device.block_time = block_time;
    for (int i = 0; i < 20; ++i) {
      before.Submit(seems_short);
      before.Submit(seems_long);
    }
    before.Run();
    ASSERT_TRUE(before.profiles.Save(file).ok());
  }
  TestBed after(Cpu(1, "srpt"));
  after.device.block_time = block_time;
  ASSERT_TRUE(after.profiles.Load(file).ok());
  std::filesystem::remove_all(folder);
  EXPECT_EQ(after.dispatcher.ExpectedTime(*seems_short, 1), 900 * kUs);
  EXPECT_EQ(after.dispatcher.ExpectedTime(*seems_long, 1), 20 * kUs);
  after.Submit(Chain("blocker", 1, 1, 300 * kUs));
  const JobId a = after.Submit(seems_short);
  const JobId b = after.Submit(seems_long);
  after.Run();
  EXPECT_LT(after.EndOf(b), after.EndOf(a));
}

// --- Arenas

TEST(DispatcherTest, JobsWaitForArenasWithinTheBudgetAndAllFinish) {
  TestBed::Options options = Cpu(2);
  options.device.arena_budget_bytes = 1000;
  TestBed bed(options);
  for (size_t bytes : {600u, 600u, 1000u, 300u, 0u, 700u}) {
    bed.Submit(Chain("a" + std::to_string(bytes), 3, 4, 60 * kUs, bytes));
  }
  uint64_t most_waiting = 0;
  while (bed.device.Step()) {
    most_waiting = std::max(most_waiting, bed.dispatcher.stats().jobs_waiting_for_arena);
  }
  EXPECT_GT(most_waiting, 0u);
  EXPECT_EQ(bed.ended.size(), 6u);
  for (const auto& [job, status] : bed.ended) EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_LE(bed.device.peak_arena_bytes(), 1000u);
  bed.CheckHistory();
  bed.CheckAtRest();
}

TEST(DispatcherTest, ALargeArenaIsNotStarvedByALaterSmallOne) {
  TestBed::Options options = Cpu(2);
  options.device.arena_budget_bytes = 1000;
  TestBed bed(options);
  bed.Submit(Chain("holder", 1, 1, 500 * kUs, 600));
  const JobId large = bed.Submit(Chain("large", 1, 1, 500 * kUs, 900));
  const JobId small = bed.Submit(Chain("small", 1, 1, 500 * kUs, 200));
  bed.Run();
  EXPECT_EQ(bed.order[1], large);
  EXPECT_EQ(bed.order[2], small);
}

TEST(DispatcherTest, ArenasAreGivenInThePolicysOrder) {
  TestBed::Options options = Cpu(2, "srpt");
  options.device.arena_budget_bytes = 1000;
  TestBed bed(options);
  bed.Submit(Chain("holder", 4, 1, 100 * kUs, 1000));
  const JobId longest = bed.Submit(Chain("longest", 1, 1, 900 * kUs, 1000));
  const JobId middle = bed.Submit(Chain("middle", 1, 1, 500 * kUs, 1000));
  const JobId shortest = bed.Submit(Chain("shortest", 1, 1, 300 * kUs, 1000));
  bed.Run();
  EXPECT_EQ(bed.order, (std::vector<JobId>{bed.order[0], shortest, middle, longest}));
  bed.CheckAtRest();
}

// --- Hardware-placed devices

TEST(DispatcherTest, AHardwarePlacedDeviceGetsWholeGridsWhenAJobIsAlone) {
  TestBed::Options options = Cpu(4);
  options.device.unit_addressed = false;
  options.device.unit_limits.blocks = 2;
  TestBed bed(options);
  const JobId job = bed.Submit(Chain("grid", 2, 32, 100 * kUs));
  EXPECT_EQ(bed.dispatcher.stats().launches, 1u);
  bed.Run();
  EXPECT_EQ(bed.dispatcher.stats().launches, 2u);
  EXPECT_EQ(bed.EndOf(job) - TimePoint(std::chrono::seconds(1)), 2 * 4 * 100 * kUs);
  bed.CheckHistory();
  bed.CheckAtRest();
}

TEST(DispatcherTest, AHardwarePlacedDeviceGetsSlicesWhileOthersWait) {
  TestBed::Options options = Cpu(4, "srpt");
  options.device.unit_addressed = false;
  options.device.unit_limits.blocks = 2;
  TestBed bed(options);
  bed.Submit(Chain("first", 1, 8, 100 * kUs));
  const JobId longer = bed.Submit(Chain("long", 1, 800, 100 * kUs));
  bed.Submit(Chain("long", 1, 800, 100 * kUs));
  bed.device.Step();
  const JobId shorter = bed.Submit(Chain("short", 1, 8, 100 * kUs));
  bed.Run();
  EXPECT_LT(bed.EndOf(shorter), bed.EndOf(longer));
  EXPECT_LE(bed.EndOf(shorter) - TimePoint(std::chrono::seconds(1)), 1000 * kUs);
  bed.CheckHistory();
  bed.CheckAtRest();
}

TEST(DispatcherTest, AHardwarePlacedDeviceIsNotCutToTheRoomThatIsFree) {
  TestBed::Options options = Cpu(4, "srpt");
  options.device.unit_addressed = false;
  options.device.unit_limits.blocks = 2;
  TestBed bed(options);
  bed.Submit(Chain("three", 1, 3, 100 * kUs));
  // Five of its eight blocks fit; the others wait in the hardware rather than for a launch.
  bed.Submit(Chain("eight", 1, 8, 100 * kUs));
  EXPECT_EQ(bed.dispatcher.stats().launches, 2u);
  bed.Run();
  EXPECT_EQ(bed.dispatcher.stats().launches, 2u);
  bed.CheckHistory();
  bed.CheckAtRest();
}

TEST(DispatcherTest, WhatWaitsInTheHardwareIsBoundedInTime) {
  const auto launches = [](Duration bound) {
    TestBed::Options options = Cpu(4);
    options.device.unit_addressed = false;
    options.device.unit_limits.blocks = 2;
    options.dispatcher.hardware_bound = bound;
    TestBed bed(options);
    for (int i = 0; i < 10; ++i) bed.Submit(Chain("eight", 1, 8, 100 * kUs));
    const uint64_t count = bed.dispatcher.stats().launches;
    bed.Run();
    bed.CheckAtRest();
    return count;
  };
  // One runs; each that waits keeps the device busy for 100 us.
  EXPECT_EQ(launches(20 * kUs), 2u);
  EXPECT_EQ(launches(250 * kUs), 4u);
}

TEST(DispatcherTest, OnAHardwarePlacedDeviceThePolicyAloneOrdersSlices) {
  TestBed::Options options = Cpu(1, "fifo");
  options.device.unit_addressed = false;
  TestBed bed(options);
  bed.Submit(Chain("first", 1, 1, 100 * kUs));
  const JobId sliced = bed.Submit(Chain("sliced", 1, 10, 100 * kUs));
  const JobId later = bed.Submit(Chain("later", 1, 1, 100 * kUs));
  bed.Run();
  // The later job has nothing in flight, but that alone does not put it first.
  EXPECT_LT(bed.EndOf(sliced), bed.EndOf(later));
  bed.CheckAtRest();
}

TEST(DispatcherTest, ABlockThatNeverFitsEndsItsJobOnly) {
  TestBed::Options options = Cpu(2);
  options.device.unit_addressed = false;
  TestBed bed(options);
  BlockResources huge;
  huge.threads = 4096;
  const JobId bad = bed.Submit(MakeProgram("huge", {{1, kUs, {}, huge}}));
  const JobId good = bed.Submit(Chain("good", 1, 1, kUs));
  bed.Run();
  EXPECT_EQ(bed.CodeOf(bad), StatusCode::kInvalidArgument);
  EXPECT_EQ(bed.CodeOf(good), StatusCode::kOk);
  bed.CheckAtRest();
}

// --- Listeners and traces

TEST(DispatcherTest, AListenerMaySubmitTheNextJob) {
  struct Relay : JobListener {
    void OnJobDone(JobId, Status status, JobBuffers) override {
      EXPECT_TRUE(status.ok());
      if (++done < 50) bed->Submit(spec);
    }
    TestBed* bed = nullptr;
    JobSpec spec;
    int done = 0;
  } relay;
  TestBed bed(Cpu(1));
  relay.bed = &bed;
  relay.spec = bed.Spec(Chain("a", 1, 1, kUs));
  relay.spec.listener = &relay;
  bed.Submit(relay.spec);
  bed.Run();
  EXPECT_EQ(relay.done, 50);
}

// --- Withdraw

TEST(DispatcherTest, AJobThatHasNotBegunIsTakenBackAndItsListenerHearsNothing) {
  TestBed bed(Cpu(1));
  const JobId first = bed.Submit(Chain("a", 2, 1, 100 * kUs));
  bed.Submit(Chain("next", 2, 1, 100 * kUs));  // waits at the core itself
  auto program = std::make_shared<Program>(*Chain("b", 2, 1, 10 * kUs));
  program->inputs.resize(1);
  JobSpec spec = bed.Spec(program);
  spec.buffers.inputs.push_back(Tensor::Scalar(7));
  const JobId second = bed.Submit(std::move(spec));
  const std::optional<JobBuffers> buffers = bed.dispatcher.Withdraw(second);
  ASSERT_TRUE(buffers.has_value());
  EXPECT_EQ(buffers->inputs.at(0).data<float>()[0], 7);
  EXPECT_FALSE(bed.dispatcher.Withdraw(second).has_value()) << "it is gone";
  EXPECT_FALSE(bed.dispatcher.Withdraw(first).has_value()) << "it has begun";
  EXPECT_FALSE(bed.dispatcher.Withdraw(JobId()).has_value());
  bed.Run();
  EXPECT_TRUE(bed.Ended(first));
  EXPECT_FALSE(bed.Ended(second));
  EXPECT_EQ(bed.dispatcher.stats().jobs_withdrawn, 1u);
  bed.CheckAtRest();
}

TEST(DispatcherTest, WhoWaitsForMemoryCanBeTakenBackAndTheNextGetsIt) {
  TestBed::Options options = Cpu(1);
  options.device.arena_budget_bytes = 100;
  TestBed bed(options);
  const JobId holder = bed.Submit(Chain("a", 1, 1, 10 * kUs, 100));
  const JobId waiter = bed.Submit(Chain("b", 1, 1, 10 * kUs, 100));
  const JobId next = bed.Submit(Chain("c", 1, 1, 10 * kUs, 100));
  EXPECT_TRUE(bed.dispatcher.Withdraw(waiter).has_value());
  bed.Run();
  EXPECT_TRUE(bed.Ended(holder) && bed.Ended(next));
  bed.CheckAtRest();
}

TEST(DispatcherTest, ListenersHearTheDeviceTimeOfTheirJobFirst) {
  struct Timed : JobListener {
    void OnDeviceTime(JobId, Duration busy) override { time = busy; }
    void OnJobDone(JobId, Status, JobBuffers) override { time_when_done = time; }
    Duration time{0}, time_when_done{0};
  } timed;
  TestBed bed(Cpu(2));
  JobSpec spec = bed.Spec(Chain("a", 3, 2, 10 * kUs));
  spec.listener = &timed;
  ASSERT_TRUE(bed.dispatcher.Submit(std::move(spec)).ok());
  bed.Run();
  EXPECT_EQ(timed.time_when_done, 60 * kUs);
}

// Blocks that need all shared memory run and wait; there is room beside them for others.
TEST(DispatcherTest, WhatGoesFirstPassesBlocksThatWaitForOtherRoom) {
  for (const std::string policy : {"srpt", "fifo"}) {
    TestBed::Options options;
    options.device.unit_addressed = false;
    options.policy = policy;
    SimGpuOptions gpu;
    gpu.sms = 1;
    gpu.sm.blocks = 8;
    gpu.sm.threads = 256;
    gpu.sm.warp_size = 32;
    gpu.sm.shared_bytes = 64 << 10;
    options.device.gpu = gpu;
    TestBed bed(options);
    BlockResources bulky, lean;
    bulky.threads = lean.threads = 64;
    bulky.shared_bytes = 64 << 10;
    const ProgramPtr large = MakeProgram("large", {{40, 150 * kUs, {}, bulky}});
    const JobId first = bed.Submit(large);
    bed.Submit(large);
    bed.device.Step();
    std::vector<KernelSpec> kernels;
    for (uint32_t k = 0; k < 5; ++k) {
      kernels.push_back({1, 10 * kUs, {}, lean});
      if (k > 0) kernels.back().after = {k - 1};
    }
    const TimePoint from = bed.clock.Now();
    const JobId chain = bed.Submit(MakeProgram("chain", kernels));
    bed.Run();
    if (policy == "srpt") {
      EXPECT_LE(bed.EndOf(chain) - from, 100 * kUs);
    } else {  // it came last, and may not take what the others could use
      EXPECT_GT(bed.EndOf(chain), bed.EndOf(first));
    }
    bed.CheckHistory();
    bed.CheckAtRest();
  }
}

// Small blocks of later launches always find room before a large one does.
TEST(DispatcherTest, ALaunchThatTheHardwareLetsOthersOvertakeIsStartedInTime) {
  for (const bool bounded : {true, false}) {
    TestBed::Options options;
    options.device.unit_addressed = false;
    SimGpuOptions gpu;
    gpu.sms = 1;
    gpu.sm.blocks = 8;
    gpu.sm.threads = 256;
    gpu.sm.warp_size = 32;
    options.device.gpu = gpu;
    options.dispatcher.overtaken_bound = bounded ? 500 * kUs : std::chrono::seconds(100);
    TestBed bed(options);
    BlockResources small, large;
    small.threads = 64;
    large.threads = 256;
    const ProgramPtr many = MakeProgram("many", {{1, 70 * kUs, {}, small}});
    for (int i = 0; i < 3; ++i)
      bed.Submit(MakeProgram("uneven", {{1, (20 + 15 * i) * kUs, {}, small}}));
    const JobId big = bed.Submit(MakeProgram("big", {{1, 10 * kUs, {}, large}}));
    const TimePoint from = bed.clock.Now();
    for (int i = 0; i < 400; ++i) bed.Submit(many);
    bed.Run();
    // The bound, then what runs and waits by then.
    if (bounded) {
      EXPECT_LE(bed.EndOf(big) - from, (500 + 3 * 70 + 10) * kUs);
    } else {
      EXPECT_GT(bed.EndOf(big) - from, 3000 * kUs);
    }
    bed.CheckHistory();
    bed.CheckAtRest();
  }
}

}  // namespace
}  // namespace plexus
