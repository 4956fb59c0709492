// Properties that hold for every workload, tried on many random ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

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
};

struct Workload {
  TestBed::Options options;
  std::vector<ProgramPtr> programs;
  std::vector<double> weights;  // by tenant
  std::vector<Coming> arrivals;
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

ProgramPtr RandomProgram(std::mt19937& random, const std::string& name, size_t arena_budget) {
  std::vector<KernelSpec> specs(1 + random() % 8);
  for (uint32_t k = 0; k < specs.size(); ++k) {
    specs[k].grid = random() % 3 == 0 ? 1 + random() % 40 : 1 + random() % 3;
    specs[k].block_time = (1 + random() % 250) * kUs;
    specs[k].resources.threads = 32 * static_cast<int32_t>(1 + random() % 8);
    specs[k].resources.shared_bytes = static_cast<int32_t>(random() % 3 * 10'000);
    for (uint32_t before = 0; before < k; ++before) {
      if (random() % 3 == 0) specs[k].after.push_back(before);
    }
  }
  return MakeProgram(name, specs, random() % 4 == 0 ? 0 : 1 + random() % arena_budget);
}

Workload RandomWorkload(uint32_t seed) {
  std::mt19937 random(seed);
  Workload w;
  w.options.policy = AllPolicies()[seed % AllPolicies().size()];
  w.options.device.units = 1 + random() % 5;
  w.options.device.queue_depth = random() % 3;
  w.options.device.unit_addressed = random() % 2 == 0;
  UnitLimits& unit = w.options.device.unit_limits;
  unit.blocks = 1 + static_cast<int32_t>(random() % 4);
  unit.threads = 512;
  unit.shared_bytes = 48'000;
  unit.warp_size = 32;
  unit.shared_granularity = 1024;
  w.options.device.wake_latency = random() % 2 == 0 ? Duration{0} : 40 * kUs;
  w.options.device.arena_budget_bytes = 1000;
  for (int p = 0; p < 4; ++p) {
    w.programs.push_back(RandomProgram(random, "p" + std::to_string(p), 1000));
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

// Submits at the arrivals' times and steps the device in between; `each` after every step.
template <typename Each>
void Play(TestBed& bed, const Workload& w, Each each) {
  for (uint32_t t = 0; t < w.weights.size(); ++t) {
    ASSERT_TRUE(bed.dispatcher.SetTenantWeight(TenantId(t), w.weights[t]).ok());
  }
  size_t next = 0;
  for (;;) {
    const TimePoint arrival = next < w.arrivals.size() ? w.arrivals[next].at : TimePoint::max();
    if (arrival <= bed.device.NextAt() && arrival != TimePoint::max()) {
      bed.clock.AdvanceTo(arrival);
      const Coming& coming = w.arrivals[next++];
      JobSpec spec = bed.Spec(w.programs[coming.program]);
      spec.attributes.tenant = TenantId(coming.tenant);
      spec.attributes.priority = coming.priority;
      if (coming.deadline / kUs % 3 != 0) spec.attributes.deadline = coming.at + coming.deadline;
      bed.Submit(std::move(spec));
    } else if (!bed.device.Step()) {
      return;
    }
    each();
  }
}

// Unoptimised and under a sanitizer a workload takes many times as long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kLess = 8;
#else
constexpr uint32_t kLess = 1;
#endif
constexpr uint32_t kWorkloads = 1500 / kLess;

TEST(DispatcherPropertyTest, NothingIsLostRunTwiceOrRunTooEarly) {
  for (uint32_t seed = 0; seed < kWorkloads; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Workload w = RandomWorkload(seed);
    TestBed bed(w.options);
    Play(bed, w, [&] {
      const DispatcherStats s = bed.dispatcher.stats();
      ASSERT_LE(bed.device.arena_bytes(), 1000u);
      if (w.options.device.unit_addressed) {
        ASSERT_EQ(s.in_flight, bed.device.in_flight());
        ASSERT_LE(s.in_flight, w.options.device.units * (1 + w.options.device.queue_depth));
      }
    });
    ASSERT_EQ(bed.ended.size(), w.arrivals.size());
    for (const auto& [job, status] : bed.ended) ASSERT_TRUE(status.ok()) << status.ToString();
    bed.CheckHistory();
    bed.CheckAtRest();
    EXPECT_EQ(bed.dispatcher.stats().events_ignored, 0u);
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

// Whoever has jobs lacks no more than the threshold, what the others may bring along or owe when
// they come and go, and what cannot be taken back: the blocks in flight.
TEST(DispatcherPropertyTest, DeficitsAreBounded) {
  for (uint32_t seed = 0; seed < 600 / kLess; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    const Duration threshold = static_cast<int>(seed % 10) * 100 * kUs;
    w.options.policy = "fair(" + PolicyNames()[seed % PolicyNames().size()] + ", " +
                       std::to_string(threshold / kUs) + ")";
    w.options.device.wake_latency = Duration{0};
    w.options.device.arena_budget_bytes = size_t{1} << 20;
    TestBed bed(w.options);
    const double heaviest = *std::max_element(w.weights.begin(), w.weights.end());
    const double lightest = *std::min_element(w.weights.begin(), w.weights.end());
    // Every unit holds at most a slice, or a block of at most 250 us, and what it queues.
    const Duration held =
        (w.options.device.units + 1) * 2 * 250 * kUs * w.options.device.unit_limits.blocks;
    const double bound =
        static_cast<double>(
            (2 * (w.options.dispatcher.fair_burst + threshold) + 2 * held).count()) *
        heaviest / lightest;
    double sum = 0;
    Play(bed, w, [&] {
      sum = 0;
      for (uint32_t t = 0; t < w.weights.size(); ++t) {
        const TenantStats tenant = bed.dispatcher.tenant_stats(TenantId(t));
        if (tenant.jobs == 0) continue;
        sum += static_cast<double>(tenant.deficit.count());
        ASSERT_LE(static_cast<double>(tenant.deficit.count()), bound) << "tenant " << t;
      }
      ASSERT_NEAR(sum, 0, 1000) << "of all who have jobs";
    });
    if (testing::Test::HasFailure()) return;
  }
}

// On one unit without a queue, with exact times, every launch is of the job with least left among
// those that hold what they need.
TEST(DispatcherPropertyTest, SrptAlwaysRunsTheJobWithLeastLeft) {
  for (uint32_t seed = 0; seed < 500 / kLess; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    w.options.policy = "srpt";
    w.options.device.units = 1;
    w.options.device.queue_depth = 0;
    w.options.device.unit_addressed = true;
    w.options.device.wake_latency = Duration{0};
    w.options.device.arena_budget_bytes = size_t{1} << 20;
    TestBed bed(w.options);
    std::map<JobId, Duration> left;
    bed.on_launch = [&](const Launch& launch) {
      const auto [at, is_new] = left.try_emplace(launch.job->id);
      if (is_new) {
        for (const Kernel& k : launch.job->program->kernels) {
          at->second += k.grid * k.estimated_block_time;
        }
      }
      for (const auto& [job, other] : left) {
        ASSERT_LE(at->second, other) << "a job with less left waits";
      }
      const Kernel& kernel = launch.job->program->kernels[launch.kernel.value()];
      at->second -= launch.num_blocks * kernel.estimated_block_time;
      if (at->second == Duration{0}) left.erase(at);
    };
    // Jobs that have not launched yet count, too.
    size_t submitted = 0;
    Play(bed, w, [&] {
      for (; submitted < bed.programs.size(); ++submitted) {
        const auto& [job, program] = *std::next(bed.programs.begin(), submitted);
        if (bed.Ended(job) || left.count(job) > 0) continue;
        bool launched = false;
        for (const auto& [launch, owner] : bed.id_of) launched = launched || owner == job;
        if (launched) continue;
        for (const Kernel& k : program->kernels) left[job] += k.grid * k.estimated_block_time;
      }
    });
    if (testing::Test::HasFailure()) return;
  }
}

// One unit, exact times: no order beats shortest-remaining-first in the mean.
TEST(DispatcherPropertyTest, SrptsMeanCompletionTimeIsNeverWorseThanAnyOthers) {
  for (uint32_t seed = 0; seed < 48 / kLess; ++seed) {
    Duration best{0};
    std::vector<std::string> policies = AllPolicies();
    policies.insert(policies.begin(), "srpt");
    for (const std::string& policy : policies) {
      std::mt19937 random(seed);
      TestBed::Options options;
      options.policy = policy;
      options.device.queue_depth = 0;
      TestBed bed(options);
      Workload w;
      // Blocks are short against the gaps, so that slices approximate ideal preemption.
      for (int i = 0; i < 4; ++i) {
        w.programs.push_back(Chain("p" + std::to_string(i), 1 + random() % 200, 1, kUs));
      }
      TimePoint at(std::chrono::seconds(1));
      for (int i = 0; i < 40; ++i) {
        at += static_cast<int>(random() % 120) * kUs;
        w.arrivals.push_back({at, random() % 4, static_cast<uint32_t>(random() % 3),
                              static_cast<uint32_t>(random() % 4),
                              static_cast<int>(random() % 5000) * kUs});
      }
      Play(bed, w, [] {});
      Duration total{0};
      for (const auto& [job, end] : bed.ended_at) total += end - TimePoint{};
      ASSERT_EQ(bed.ended_at.size(), 40u);
      if (best == Duration{0}) best = total;
      // A block of 1 us cannot be preempted: at most that much per job.
      ASSERT_LE(best, total + 40 * kUs) << policy << " seed " << seed;
    }
  }
}

TEST(DispatcherPropertyTest, SwitchingThePolicyAnywhereLosesNothing) {
  for (uint32_t seed = 0; seed < 300 / kLess; ++seed) {
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

// Faults, repeats, cancellations and timeouts all over the place.
TEST(DispatcherPropertyTest, NoDisturbanceLosesAJobOrLeavesTheMirrorWrong) {
  for (uint32_t seed = 0; seed < kWorkloads; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Workload w = RandomWorkload(seed);
    TestBed bed(w.options);
    std::mt19937 random(seed + 1);
    bed.device.fate = [&](const Launch&) {
      switch (random() % 12) {
        case 0:
          return SimDevice::Fate::kFault;
        case 1:
          // A repeated count of single blocks cannot be told from a new one.
          return w.options.device.unit_addressed ? SimDevice::Fate::kRepeat
                                                 : SimDevice::Fate::kReport;
        default:
          return SimDevice::Fate::kReport;
      }
    };
    Play(bed, w, [&] {
      if (random() % 6 == 0 && !bed.programs.empty()) {
        const auto victim = std::next(bed.programs.begin(), random() % bed.programs.size());
        bed.dispatcher.Cancel(victim->first, CancelledError("test"));
      }
      if (random() % 40 == 0) {
        bed.dispatcher.CancelTenant(TenantId(random() % 4), UnavailableError("tenant removed"));
      }
      if (random() % 8 == 0) bed.dispatcher.Pump(bed.clock.Now());
    });
    ASSERT_EQ(bed.ended.size(), w.arrivals.size());
    bed.CheckHistory();
    bed.CheckAtRest();
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace plexus
