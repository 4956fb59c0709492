// Properties that hold for every workload, tried on many random ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <set>

#include "sched/test_bed.h"

namespace plexus {
namespace {

// One job to come: when, of which program, whose, how urgent.
struct Coming {
  TimePoint at;
  size_t program = 0;
  uint32_t tenant = 0;
  uint32_t priority = 0;
  Duration deadline{0};  // after `at`
  std::optional<TimePoint> timeout_at = std::nullopt;
};

struct Workload {
  TestBed::Options options;
  std::vector<ProgramPtr> programs;
  std::vector<double> weights;  // by tenant
  std::vector<Coming> arrivals;
  Duration patience = Duration::max();  // when nothing happens for so long the dispatcher is pumped
};

// Every policy, and shares over some of them.
const std::vector<std::string>& AllPolicies() {
  static const std::vector<std::string> kAll = [] {
    std::vector<std::string> policies = PolicyNames();
    for (const char* fair : {"fair(fifo, 0)", "fair(srpt, 100)", "fair(stretch, 1000)",
                             "fair(edf, 50)", "fair(srpt, inf)"}) {
      policies.emplace_back(fair);
    }
    return policies;
  }();
  return kAll;
}

ProgramPtr RandomProgram(std::mt19937& random, const std::string& name, size_t arena_budget,
                         uint32_t widest) {
  std::vector<KernelSpec> specs(1 + random() % 8);
  for (uint32_t k = 0; k < specs.size(); ++k) {
    specs[k].grid = random() % 3 == 0 ? 1 + random() % widest : 1 + random() % 3;
    specs[k].block_time = (1 + random() % 250) * kUs;
    specs[k].resources.threads = 32 * static_cast<int32_t>(1 + random() % 8);
    specs[k].resources.shared_bytes = static_cast<int32_t>(random() % 3 * 10'000);
    for (uint32_t before = 0; before < k; ++before) {
      if (random() % 3 == 0) specs[k].after.push_back(before);
    }
  }
  return MakeProgram(name, specs, random() % 4 == 0 ? 0 : 1 + random() % arena_budget);
}

// As a GPU reports: in groups, late, most also the starts. `device` gets what the limits are.
SimGpuOptions RandomGpu(std::mt19937& random, SimDeviceOptions* device) {
  SimGpuOptions gpu;
  gpu.sms = device->units;
  device->unit_limits.blocks = 1 + static_cast<int32_t>(random() % 16);
  device->unit_limits.threads = 1024;
  gpu.sm = device->unit_limits;
  gpu.queues = 1 + random() % 32;
  gpu.launch_latency = static_cast<int>(random() % 4) * kUs;
  gpu.kernel_gap = static_cast<int>(random() % 4) * kUs;
  gpu.notification_latency = static_cast<int>(random() % 10) * kUs;
  gpu.notification_group = random() % 3 == 0 ? 1 + random() % 8 : 16;
  gpu.report_starts = random() % 4 != 0;
  gpu.block_jitter = random() % 2 == 0 ? 0 : 0.3;
  gpu.seed = random();
  return gpu;
}

Workload RandomWorkload(uint32_t seed) {
  std::mt19937 random(seed);
  Workload w;
  w.options.policy = AllPolicies()[seed % AllPolicies().size()];
  w.options.device.units = 1 + random() % 5;
  w.options.device.queue_depth = random() % 3;
  const uint32_t kind = random() % 3;
  w.options.device.unit_addressed = kind == 0;
  UnitLimits& unit = w.options.device.unit_limits;
  unit.blocks = 1 + static_cast<int32_t>(random() % 4);
  unit.threads = 512;
  unit.shared_bytes = 48'000;
  unit.warp_size = 32;
  unit.shared_granularity = 1024;
  if (kind == 2) w.options.device.gpu = RandomGpu(random, &w.options.device);
  w.options.device.wake_latency = random() % 2 == 0 ? Duration{0} : 40 * kUs;
  w.options.device.arena_budget_bytes = 1000;
  for (int p = 0; p < 4; ++p) {
    w.programs.push_back(
        RandomProgram(random, "p" + std::to_string(p), 1000, kind == 2 ? 200 : 40));
  }
  TimePoint at(std::chrono::seconds(1));
  const size_t jobs = 1 + random() % 30;
  for (size_t i = 0; i < jobs; ++i) {
    at += static_cast<int>(random() % 2 == 0 ? 0 : random() % 800) * kUs;
    w.arrivals.push_back({at, random() % w.programs.size(), static_cast<uint32_t>(random() % 4),
                          static_cast<uint32_t>(random() % 4),
                          static_cast<int>(1 + random() % 5000) * kUs});
  }
  for (int t = 0; t < 4; ++t) w.weights.push_back(0.5 * static_cast<double>(1 + random() % 6));
  w.options.dispatcher.fair_burst = static_cast<int>(1 + random() % 20) * 100 * kUs;
  return w;
}

// Submits at the arrivals' times and steps the device in between; `each` after every step. A device
// that was lost takes nothing more.
template <typename Each>
void Play(TestBed& bed, const Workload& w, Each each) {
  for (uint32_t t = 0; t < w.weights.size(); ++t) {
    ASSERT_TRUE(bed.dispatcher.SetTenantWeight(TenantId(t), w.weights[t]).ok());
  }
  size_t next = 0;
  for (;;) {
    const TimePoint arrival = next < w.arrivals.size() ? w.arrivals[next].at : TimePoint::max();
    const TimePoint soonest = std::min(arrival, bed.device.NextAt());
    if (soonest != TimePoint::max() && soonest - bed.clock.Now() > w.patience) {
      bed.clock.Advance(w.patience);
      bed.dispatcher.Pump(bed.clock.Now());
      each();
      continue;
    }
    if (arrival <= bed.device.NextAt() && arrival != TimePoint::max()) {
      bed.clock.AdvanceTo(arrival);
      const Coming& coming = w.arrivals[next++];
      JobSpec spec = bed.Spec(w.programs[coming.program]);
      spec.attributes.tenant = TenantId(coming.tenant);
      spec.attributes.priority = coming.priority;
      if (coming.deadline / kUs % 3 != 0) spec.attributes.deadline = coming.at + coming.deadline;
      spec.attributes.timeout_at = coming.timeout_at;
      const Status submitted = bed.TrySubmit(std::move(spec)).status();
      ASSERT_TRUE(submitted.ok() ||
                  (bed.device_lost && submitted.code() == StatusCode::kUnavailable))
          << submitted.ToString();
    } else if (!bed.device.Step()) {
      return;
    }
    each();
  }
}

// Unoptimised and under a sanitizer a workload takes many times as long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kLess = 40;
#else
constexpr uint32_t kLess = 1;
#endif
constexpr uint32_t kWorkloads = 3000 / kLess;

TEST(DispatcherPropertyTest, NothingIsLostRunTwiceOrRunTooEarly) {
  for (uint32_t seed = 0; seed < kWorkloads; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Workload w = RandomWorkload(seed);
    TestBed bed(w.options);
    Play(bed, w, [&] {
      const DispatcherStats s = bed.dispatcher.stats();
      ASSERT_LE(bed.device.arena_bytes(), 1000u);
      ASSERT_LE(s.waiting_blocks, s.in_flight);
      if (w.options.device.unit_addressed) {
        ASSERT_EQ(s.in_flight, bed.device.in_flight());
        ASSERT_LE(s.in_flight, w.options.device.units * (1 + w.options.device.queue_depth));
      } else {
        ASSERT_EQ(s.in_flight, bed.blocks_out);
      }
      ASSERT_TRUE(bed.ended.size() == bed.submitted.size() || bed.device.in_flight() > 0)
          << "somebody waits for nothing";
    });
    ASSERT_EQ(bed.ended.size(), w.arrivals.size());
    for (const auto& [job, status] : bed.ended) ASSERT_TRUE(status.ok()) << status.ToString();
    bed.CheckHistory();
    bed.CheckAtRest();
    EXPECT_EQ(bed.dispatcher.stats().events_ignored, 0u);
    if (testing::Test::HasFailure()) return;
  }
}

// The mirror hears of everything later than it happens, so it never thinks that more blocks run
// than do. All blocks are alike and launched without delay: then it knows of every place.
TEST(DispatcherPropertyTest, TheMirrorOfAGpuNeverThinksThatMoreBlocksRunThanDo) {
  for (uint32_t seed = 0; seed < 1000 / kLess; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    std::mt19937 random(seed);
    w.options.device.unit_addressed = false;
    SimGpuOptions gpu = RandomGpu(random, &w.options.device);
    gpu.launch_latency = gpu.kernel_gap = Duration{0};
    gpu.report_starts = true;
    gpu.sm.shared_bytes = 0;
    gpu.sm.threads = gpu.sm.blocks * 256;  // block slots are the limit
    w.options.device.gpu = gpu;
    TestBed bed(w.options);
    uint64_t launched = 0;
    bed.on_launch = [&](const Launch& l) { launched += l.num_blocks; };
    Play(bed, w, [&] {
      const uint64_t known = launched - bed.dispatcher.stats().waiting_blocks;
      ASSERT_LE(known, bed.device.gpu()->stats().blocks_started);
    });
    ASSERT_EQ(launched, bed.device.gpu()->stats().blocks_started);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(DispatcherPropertyTest, NoUnitIdlesWhileAJobIsReady) {
  for (uint32_t seed = 0; seed < kWorkloads; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    w.options.device.wake_latency = Duration{0};
    TestBed bed(w.options);
    Play(bed, w, [&] {
      const DispatcherStats s = bed.dispatcher.stats();
      if (s.ready == 0) return;
      if (w.options.device.unit_addressed) {
        ASSERT_GE(s.in_flight, w.options.device.units);
      } else {
        ASSERT_GT(s.waiting_blocks, 0u) << "there is room, and a job that could use it";
      }
    });
    if (testing::Test::HasFailure()) return;
  }
}

// Tenants that come and go: whoever has jobs lacks no more than the threshold, what he saved, and
// the launches in flight, and the same again for what the others bring along or take with them. And
// on a GPU what runs while one of its launches is overtaken.
TEST(DispatcherPropertyTest, DeficitsAreBounded) {
  constexpr uint32_t kSeeds = 2000 / kLess;
  uint32_t told = 0;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    const Duration threshold = static_cast<int>(seed % 10) * 100 * kUs;
    w.options.policy = "fair(" + PolicyNames()[seed % PolicyNames().size()] + ", " +
                       std::to_string(threshold / kUs) + ")";
    w.options.device.wake_latency = Duration{0};
    w.options.device.arena_budget_bytes = size_t{1} << 20;
    w.options.dispatcher.overtaken_bound = 500 * kUs;
    const int units = static_cast<int>(w.options.device.units);
    // A slice or a block, of at most 250 us, and one behind it; hardware-placed, a wave of them.
    Duration launch = 250 * kUs * (w.options.device.unit_addressed ? 2 : units);
    if (w.options.device.gpu) {
      w.options.device.gpu->report_starts = true;
      launch += units * w.options.dispatcher.overtaken_bound;
    }
    const Duration bound = 2 * (threshold + w.options.dispatcher.fair_burst + launch);
    TestBed bed(w.options);
    Play(bed, w, [&] {
      Duration sum{0};
      for (uint32_t t = 0; t < w.weights.size(); ++t) {
        const TenantStats tenant = bed.dispatcher.tenant_stats(TenantId(t));
        if (tenant.jobs == 0) continue;
        sum += tenant.deficit;
        ASSERT_LE(tenant.deficit, bound) << "tenant " << t;
        ASSERT_GE(tenant.deficit, -2 * bound) << "tenant " << t;
      }
      ASSERT_NEAR(static_cast<double>(sum.count()), 0, 1000) << "of all who have jobs";
    });
    if (testing::Test::HasFailure()) return;
    told += bed.dispatcher.stats().busy > 5 * bound ? 1 : 0;
  }
  EXPECT_GT(told, kSeeds / 2) << "in too few of them much happened";
}

// Tenants that always have more to launch: whoever lacks more than the threshold goes first, so
// what he lacks beyond it are the launches of those that lacked it before.
TEST(DispatcherPropertyTest, BackloggedTenantsKeepToTheirSharesWithinTheThresholdAndALaunchEach) {
  constexpr uint32_t kSeeds = 1000 / kLess;
  uint32_t told = 0;
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    const uint32_t tenants = 2 + seed % 3;
    const Duration threshold = static_cast<int>(seed % 10) * 100 * kUs;
    w.options.policy = "fair(" + PolicyNames()[seed % PolicyNames().size()] + ", " +
                       std::to_string(threshold / kUs) + ")";
    w.options.device.wake_latency = Duration{0};
    w.options.device.arena_budget_bytes = size_t{1} << 20;
    if (w.options.device.gpu) w.options.device.gpu->block_jitter = 0;
    w.weights.resize(tenants);
    // More than the device can hold at once, so that everybody has something to launch.
    constexpr uint32_t kJobs = 40, kEnough = 20;
    w.arrivals.clear();
    for (uint32_t i = 0; i < kJobs * tenants; ++i) {
      const Coming of_all{TimePoint(std::chrono::seconds(1)), i % w.programs.size(), i % tenants,
                          i % 4, static_cast<int>(1 + i) * kUs};
      w.arrivals.push_back(of_all);
    }
    // A slice or one block, of at most 250 us each; hardware-placed, a wave of them.
    const Duration launch =
        250 * kUs * (w.options.device.unit_addressed ? 1 : w.options.device.units);
    const Duration most = threshold + (static_cast<int>(tenants) - 1) * launch;
    const Duration least = -(static_cast<int>(tenants) - 1) * most;
    TestBed bed(w.options);
    Duration checked{0};
    bool even = false;  // once those that came first have not had it all to themselves any more
    Play(bed, w, [&] {
      if (bed.submitted.size() < w.arrivals.size()) return;
      std::vector<TenantStats> stats;
      for (uint32_t t = 0; t < tenants; ++t) {
        stats.push_back(bed.dispatcher.tenant_stats(TenantId(t)));
        if (stats.back().jobs < kEnough) return;
      }
      even = even || std::all_of(stats.begin(), stats.end(), [&](const TenantStats& tenant) {
               return tenant.deficit <= threshold + launch;
             });
      if (!even) return;
      for (const TenantStats& tenant : stats) {
        ASSERT_LE(tenant.deficit, most);
        ASSERT_GE(tenant.deficit, least);
      }
      checked = bed.dispatcher.stats().busy;
    });
    told += checked > 5 * most ? 1 : 0;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(told, kSeeds * 3 / 4) << "in too few of them much happened";
}

// On one unit without a queue, with exact times, every launch is of the job with least left among
// those that hold what they need.
TEST(DispatcherPropertyTest, SrptAlwaysRunsTheJobWithLeastLeft) {
  for (uint32_t seed = 0; seed < 2000 / kLess; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    w.options.policy = "srpt";
    w.options.device.units = 1;
    w.options.device.queue_depth = 0;
    w.options.device.unit_addressed = true;
    w.options.device.wake_latency = Duration{0};
    w.options.device.arena_budget_bytes = size_t{1} << 20;
    TestBed bed(w.options);
    std::map<JobId, Duration> left;  // of jobs that have not been launched whole
    std::set<JobId> known;
    const auto note = [&](JobId job, const Program& program) {
      if (!known.insert(job).second) return;
      for (const Kernel& k : program.kernels) left[job] += k.grid * k.estimated_block_time;
    };
    bed.on_launch = [&](const Launch& launch) {
      const JobId id = launch.job->id;
      note(id, *launch.job->program);  // it may be the one that is just being submitted
      for (const auto& [job, other] : left) {
        ASSERT_LE(left.at(id), other) << "a job with less left waits";
      }
      const Kernel& kernel = launch.job->program->kernels[launch.kernel.value()];
      left[id] -= launch.num_blocks * kernel.estimated_block_time;
      if (left[id] == Duration{0}) left.erase(id);
    };
    Play(bed, w, [&] {
      ASSERT_FALSE(bed.submitted.empty());
      note(bed.submitted.back(), *bed.programs.at(bed.submitted.back()));
    });
    ASSERT_EQ(known.size(), w.arrivals.size());
    ASSERT_TRUE(left.empty());
    if (testing::Test::HasFailure()) return;
  }
}

// One unit, exact times: no order beats shortest-remaining-first in the mean.
TEST(DispatcherPropertyTest, SrptsMeanCompletionTimeIsNeverWorseThanAnyOthers) {
  constexpr int kJobs = 24;
  for (uint32_t seed = 0; seed < 1200 / kLess; ++seed) {
    Duration best{0};
    // Some of the others in each workload; every one of them in hundreds.
    std::vector<std::string> policies = {"srpt"};
    for (uint32_t i = 0; i < 3; ++i) {
      policies.push_back(AllPolicies()[(3 * seed + i) % AllPolicies().size()]);
    }
    for (const std::string& policy : policies) {
      std::mt19937 random(seed);
      TestBed::Options options;
      options.policy = policy;
      options.device.queue_depth = 0;
      options.device.record_history = false;
      TestBed bed(options);
      Workload w;
      // Blocks are short against the gaps, so that slices approximate ideal preemption.
      for (int i = 0; i < 4; ++i) {
        w.programs.push_back(Chain("p" + std::to_string(i), 1 + random() % 100, 1, kUs));
      }
      TimePoint at(std::chrono::seconds(1));
      for (int i = 0; i < kJobs; ++i) {
        at += static_cast<int>(random() % 60) * kUs;
        w.arrivals.push_back({at, random() % 4, static_cast<uint32_t>(random() % 3),
                              static_cast<uint32_t>(random() % 4),
                              static_cast<int>(random() % 5000) * kUs});
      }
      Play(bed, w, [] {});
      Duration total{0};
      for (const auto& [job, end] : bed.ended_at) total += end - TimePoint{};
      ASSERT_EQ(bed.ended_at.size(), static_cast<size_t>(kJobs));
      if (best == Duration{0}) best = total;
      // A block of 1 us cannot be preempted: at most that much per job.
      ASSERT_LE(best, total + kJobs * kUs) << policy << " seed " << seed;
    }
  }
}

TEST(DispatcherPropertyTest, SwitchingThePolicyAnywhereLosesNothing) {
  for (uint32_t seed = 0; seed < 2000 / kLess; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Workload w = RandomWorkload(seed);
    TestBed bed(w.options);
    std::mt19937 random(seed);
    Play(bed, w, [&] {
      if (random() % 5 == 0) {
        bed.dispatcher.SetPolicy(
            MakePolicy(AllPolicies()[random() % AllPolicies().size()]).value());
      }
    });
    ASSERT_EQ(bed.ended.size(), w.arrivals.size());
    bed.CheckHistory();
    bed.CheckAtRest();
    if (testing::Test::HasFailure()) return;
  }
}

// All that can happen to one workload: faults, reports that are lost, repeated at once or much
// later, or late; blocks that hang, a device that is lost; timeouts, cancellations, removed
// tenants, jobs taken back or raised. Each with a chance of its own, so that some runs have much of
// one.
class Havoc {
 public:
  Havoc(TestBed& bed, uint32_t seed) : bed_(bed), random_(seed) {
    for (uint32_t* one_in : {&fault_, &repeat_, &drop_, &hang_, &again_, &cancel_, &remove_}) {
      *one_in = random_() % 2 == 0 ? 0 : 4 + random_() % 60;
    }
    if (hang_ > 0) hang_ *= 20;  // of each block
    if (random_() % 4 == 0) lose_at_ = 1 + random_() % 60;
    bed_.device.fate = [this](const Launch&) { return FateOf(); };
    bed_.device.start_fate = [this](const Launch&) {
      if (OneIn(drop_)) return SimDevice::Fate::kDrop;
      return OneIn(repeat_) ? SimDevice::Fate::kRepeat : SimDevice::Fate::kReport;
    };
    bed_.device.block_time = [this](const Launch& l, uint32_t) {
      if (OneIn(hang_)) return Duration(std::chrono::milliseconds(500 + random_() % 2500));
      return l.job->program->kernels[l.kernel.value()].estimated_block_time;
    };
    bed_.on_event = [this](const DeviceEvent& event) { seen_.push_back(event); };
  }

  bool OneIn(uint32_t chance) { return chance > 0 && random_() % chance == 0; }

  void AfterEachStep() {
    Dispatcher& dispatcher = bed_.dispatcher;
    if (OneIn(again_) && !seen_.empty()) dispatcher.OnEvent(seen_[random_() % seen_.size()]);
    if (OneIn(drop_)) TellDropped();
    if (bed_.submitted.empty()) return;
    const JobId victim = bed_.submitted[random_() % bed_.submitted.size()];
    if (OneIn(cancel_)) dispatcher.Cancel(victim, CancelledError("test"));
    if (OneIn(cancel_) && dispatcher.Withdraw(victim)) ++withdrawn_;
    if (OneIn(cancel_)) dispatcher.Raise(victim, {bed_.clock.Now() + 50 * kUs, 1});
    if (OneIn(remove_)) {
      dispatcher.RemoveTenant(TenantId(random_() % 4), UnavailableError("tenant removed"));
    }
    if (random_() % 8 == 0) dispatcher.Pump(bed_.clock.Now());
  }
  void TellDropped() {
    for (; told_ < bed_.device.dropped().size(); ++told_) {
      bed_.dispatcher.OnEvent(bed_.device.dropped()[told_]);
    }
  }
  size_t withdrawn() const { return withdrawn_; }

 private:
  SimDevice::Fate FateOf() {
    if (++reports_ == lose_at_) {
      bed_.device_lost = true;
      return SimDevice::Fate::kLoseDevice;
    }
    if (OneIn(fault_)) return SimDevice::Fate::kFault;
    if (OneIn(drop_)) return SimDevice::Fate::kDrop;
    return OneIn(repeat_) ? SimDevice::Fate::kRepeat : SimDevice::Fate::kReport;
  }

  TestBed& bed_;
  std::mt19937 random_;
  // One in so many; 0: never.
  uint32_t fault_ = 0, repeat_ = 0, drop_ = 0, hang_ = 0, again_ = 0, cancel_ = 0, remove_ = 0;
  uint32_t reports_ = 0, lose_at_ = 0;
  std::vector<DeviceEvent> seen_;
  size_t told_ = 0;  // of the dropped
  size_t withdrawn_ = 0;
};

TEST(DispatcherPropertyTest, NoDisturbanceLosesAJobOrLeavesTheMirrorWrong) {
  size_t lost = 0, timed_out = 0, hung = 0, failed = 0, went_well = 0;
  for (uint32_t seed = 0; seed < kWorkloads; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    w.options.dispatcher.hang_bound = w.patience = std::chrono::seconds(1);
    w.options.device.tells_idle = seed % 2 == 0;
    std::mt19937 random(seed + 1);
    for (Coming& coming : w.arrivals) {
      if (random() % 4 == 0)
        coming.timeout_at = coming.at + static_cast<int>(random() % 3000) * kUs;
    }
    TestBed bed(w.options);
    Havoc havoc(bed, seed);
    Play(bed, w, [&] { havoc.AfterEachStep(); });
    const auto all_heard = [&] {
      return bed.ended.size() + havoc.withdrawn() == bed.submitted.size();
    };
    // What a hung or lost launch keeps waiting goes on once that was given up.
    for (int round = 0; round < 100 && !all_heard(); ++round) {
      bed.clock.Advance(w.options.dispatcher.hang_bound);
      bed.dispatcher.Pump(bed.clock.Now());
      bed.Run();
    }
    ASSERT_TRUE(all_heard());
    bed.Run();
    havoc.TellDropped();
    bed.CheckHistory();
    bed.CheckAtRest();
    lost += bed.device_lost ? 1 : 0;
    hung += bed.dispatcher.stats().launches_lost;
    for (const auto& [job, status] : bed.ended) {
      timed_out += status.code() == StatusCode::kDeadlineExceeded ? 1 : 0;
      failed += status.code() == StatusCode::kInternal ? 1 : 0;
      went_well += status.ok() ? 1 : 0;
    }
    if (testing::Test::HasFailure()) return;
  }
  // All of it happened, and much.
  EXPECT_GT(lost, kWorkloads / 10);
  EXPECT_GT(timed_out, kWorkloads / 4);
  EXPECT_GT(hung, kWorkloads / 10);
  EXPECT_GT(failed, kWorkloads / 4);
  EXPECT_GT(went_well, kWorkloads);
}

}  // namespace
}  // namespace plexus
