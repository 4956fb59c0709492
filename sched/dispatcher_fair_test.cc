// Shares of tenants: what the dispatcher makes of FairShare.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "sched/test_bed.h"

namespace plexus {
namespace {

constexpr TimePoint kStart{std::chrono::seconds(1)};

TestBed::Options Device(bool unit_addressed, uint32_t units, std::string policy) {
  TestBed::Options o;
  o.device.unit_addressed = unit_addressed;
  o.device.units = units;
  o.device.unit_limits.blocks = 2;
  o.policy = std::move(policy);
  return o;
}

// A job of `tenant`; when it ends, the tenant's next one is submitted until `until`.
class Tenants : public JobListener {
 public:
  Tenants(TestBed& bed, TimePoint until) : bed_(bed), until_(until) {}
  void Flood(uint32_t tenant, const ProgramPtr& program, int jobs) {
    for (int i = 0; i < jobs; ++i) Submit(tenant, program);
  }
  void OnJobDone(JobId job, Status status, JobBuffers buffers) override {
    const auto [tenant, program] = jobs_.at(job);
    bed_.OnJobDone(job, std::move(status), std::move(buffers));
    if (bed_.clock.Now() < until_) Submit(tenant, program);
  }

 private:
  void Submit(uint32_t tenant, const ProgramPtr& program) {
    JobSpec spec = bed_.Spec(program);
    spec.attributes.tenant = TenantId(tenant);
    spec.listener = this;
    jobs_[bed_.Submit(std::move(spec))] = {tenant, program};
  }
  TestBed& bed_;
  const TimePoint until_;
  std::map<JobId, std::pair<uint32_t, ProgramPtr>> jobs_;
};

double Seconds(Dispatcher& dispatcher, uint32_t tenant) {
  return std::chrono::duration<double>(dispatcher.tenant_stats(TenantId(tenant)).time).count();
}

TEST(DispatcherFairTest, WeightsThreeToOneGiveDeviceTimeThreeToOneUnderEveryOrder) {
  for (const bool unit_addressed : {true, false}) {
    for (const std::string& inner : PolicyNames()) {
      TestBed bed(Device(unit_addressed, 2, "fair(" + inner + ", 1000)"));
      ASSERT_TRUE(bed.dispatcher.SetTenantWeight(TenantId(1), 3).ok());
      Tenants tenants(bed, kStart + std::chrono::milliseconds(400));
      // By itself every order would prefer one of them.
      tenants.Flood(1, Chain("long", 10, 4, 150 * kUs), 4);
      tenants.Flood(2, Chain("short", 2, 2, 60 * kUs), 6);
      while (bed.clock.Now() < kStart + std::chrono::milliseconds(400) && bed.device.Step()) {
      }
      const double heavy = Seconds(bed.dispatcher, 1), light = Seconds(bed.dispatcher, 2);
      EXPECT_NEAR(heavy / light, 3, 0.15) << inner << (unit_addressed ? " cpu" : " gpu");
      bed.Run();
      bed.CheckAtRest();
    }
  }
}

TEST(DispatcherFairTest, AnInfiniteThresholdIsThePlainPolicyAndZeroIsEqualShares) {
  const auto share_of_short = [](const std::string& policy) {
    TestBed bed(Device(true, 1, policy));
    Tenants tenants(bed, kStart + std::chrono::milliseconds(250));
    tenants.Flood(1, Chain("long", 10, 1, 150 * kUs), 4);
    tenants.Flood(2, Chain("short", 1, 1, 50 * kUs), 4);
    while (bed.clock.Now() < kStart + std::chrono::milliseconds(250) && bed.device.Step()) {
    }
    const double share =
        Seconds(bed.dispatcher, 2) / (Seconds(bed.dispatcher, 1) + Seconds(bed.dispatcher, 2));
    bed.Run();
    return share;
  };
  EXPECT_GT(share_of_short("srpt"), 0.99);
  EXPECT_GT(share_of_short("fair(srpt, inf)"), 0.99);
  EXPECT_NEAR(share_of_short("fair(srpt, 0)"), 0.5, 0.002);
  EXPECT_NEAR(share_of_short("fair(srpt, 10000)"), 0.5, 0.06);
}

// The same request alone, and beside a tenant that always has twenty jobs waiting.
TEST(DispatcherFairTest, ALightTenantIsServedAtOnceBesideAFlood) {
  for (const bool unit_addressed : {true, false}) {
    Duration longest[2] = {};
    for (const int flooded : {0, 1}) {
      TestBed::Options options = Device(unit_addressed, 4, "fair(stretch, 1000)");
      options.dispatcher.hardware_bound = 20 * kUs;  // less than a block: one wave may wait
      TestBed bed(options);
      Tenants tenants(bed, kStart + std::chrono::seconds(3));
      const ProgramPtr light = Chain("light", 20, 16, 100 * kUs);
      if (flooded) tenants.Flood(1, Chain("flood", 20, 16, 100 * kUs), 20);
      for (int i = 1; i < 20; ++i) {
        const TimePoint arrival = kStart + i * std::chrono::milliseconds(100);
        while (bed.device.NextAt() < arrival && bed.device.Step()) {
        }
        bed.clock.AdvanceTo(arrival);
        JobSpec spec = bed.Spec(light);
        spec.attributes.tenant = TenantId(2);
        const JobId job = bed.Submit(std::move(spec));
        while (!bed.Ended(job)) bed.device.Step();
        longest[flooded] = std::max(longest[flooded], bed.EndOf(job) - arrival);
      }
      bed.Run();
    }
    // Where hardware places blocks, another tenant's may fill the gap between two kernels and are
    // not taken back.
    const double most = unit_addressed ? 1.2 : 2.2;
    EXPECT_LE(longest[1].count(), most * longest[0].count()) << unit_addressed;
  }
}

TEST(DispatcherFairTest, AStarvedTenantsOnlyJobTakesEveryUnit) {
  TestBed bed(Device(true, 4, "fair(srpt, 100)"));
  Tenants tenants(bed, kStart + std::chrono::milliseconds(20));
  tenants.Flood(1, Chain("flood", 4, 4, 100 * kUs), 10);
  while (bed.clock.Now() < kStart + std::chrono::milliseconds(10)) bed.device.Step();
  JobSpec spec = bed.Spec(Chain("wide", 1, 40, 100 * kUs));
  spec.attributes.tenant = TenantId(2);
  ASSERT_TRUE(bed.dispatcher.SetTenantWeight(TenantId(2), 10).ok());
  const JobId job = bed.Submit(std::move(spec));
  const TimePoint from = bed.clock.Now();
  while (!bed.Ended(job)) bed.device.Step();
  // Ten rounds of four blocks, and what was in flight.
  EXPECT_LE(bed.EndOf(job) - from, 1400 * kUs);
  bed.Run();
}

TEST(DispatcherFairTest, DeficitsOfBackloggedTenantsStayWithinTheThresholdAndWhatIsInFlight) {
  constexpr uint32_t kUnits = 3;
  for (const char* policy : {"fair(srpt, 0)", "fair(srpt, 5000)", "fair(fifo, 1000)"}) {
    for (const bool unit_addressed : {true, false}) {
      TestBed bed(Device(unit_addressed, kUnits, policy));
      Tenants tenants(bed, kStart + std::chrono::milliseconds(200));
      ASSERT_TRUE(bed.dispatcher.SetTenantWeight(TenantId(2), 4).ok());
      ASSERT_TRUE(bed.dispatcher.SetTenantWeight(TenantId(3), 0.5).ok());
      tenants.Flood(1, Chain("a", 10, 4, 150 * kUs), 4);
      tenants.Flood(2, Chain("b", 1, 6, 70 * kUs), 8);
      tenants.Flood(3, Chain("c", 3, 7, 30 * kUs), 8);
      const Duration threshold = MakePolicy(policy).value()->fair_threshold().value();
      Duration most{0};
      while (bed.clock.Now() < kStart + std::chrono::milliseconds(200) && bed.device.Step()) {
        for (uint32_t t = 1; t <= 3; ++t) {
          most = std::max(most, bed.dispatcher.tenant_stats(TenantId(t)).deficit);
        }
      }
      EXPECT_LE(most, threshold + 2 * kUnits * 200 * kUs) << policy << unit_addressed;
      bed.Run();
      bed.CheckHistory();
      bed.CheckAtRest();
    }
  }
}

TEST(DispatcherFairTest, TheTimeOfTenantsAddsUpToTheTimeOfTheDevice) {
  TestBed bed(Device(true, 2, "stretch"));
  Tenants tenants(bed, kStart + std::chrono::milliseconds(50));
  bed.device.block_time = [](const Launch& l, uint32_t block) {
    return (10 + l.kernel.value() + block) * kUs;
  };
  tenants.Flood(0, Chain("a", 3, 4, 30 * kUs), 3);
  tenants.Flood(7, Chain("b", 2, 5, 60 * kUs), 3);
  bed.Run();
  const Duration sum =
      bed.dispatcher.tenant_stats(TenantId(0)).time + bed.dispatcher.tenant_stats(TenantId(7)).time;
  EXPECT_NEAR(sum.count(), bed.dispatcher.stats().busy.count(), 2);
  EXPECT_EQ(bed.dispatcher.tenant_stats(TenantId(3)).time, Duration{0});
  EXPECT_EQ(bed.dispatcher.tenant_stats(TenantId(99)).jobs, 0u);
}

TEST(DispatcherFairTest, SharesCanBeTurnedOnAndOffWhileJobsWait) {
  TestBed bed(Device(true, 2, "srpt"));
  Tenants tenants(bed, kStart + std::chrono::seconds(1));
  tenants.Flood(1, Chain("long", 10, 4, 150 * kUs), 4);
  tenants.Flood(2, Chain("short", 2, 2, 60 * kUs), 6);
  const auto run_to = [&](int milliseconds) {
    const TimePoint until = kStart + std::chrono::milliseconds(milliseconds);
    while (bed.clock.Now() < until && bed.device.Step()) {
    }
  };
  run_to(100);
  const double before = Seconds(bed.dispatcher, 1);
  EXPECT_LT(before, 0.01);
  bed.dispatcher.SetPolicy(MakePolicy("fair(srpt, 1000)").value());
  run_to(500);
  EXPECT_NEAR(Seconds(bed.dispatcher, 1) - before, 0.4, 0.02);  // half of two units
  const double fair = Seconds(bed.dispatcher, 1);
  bed.dispatcher.SetPolicy(MakePolicy("srpt").value());
  run_to(1000);
  EXPECT_LT(Seconds(bed.dispatcher, 1) - fair, 0.01);
  bed.Run();
  bed.CheckHistory();
  bed.CheckAtRest();
}

// The order alone would serve the flood's short jobs for ever.
TEST(DispatcherFairTest, MemoryIsSharedToo) {
  for (const bool unit_addressed : {true, false}) {
    const auto share_of_long = [&](const std::string& policy, bool switched) {
      TestBed::Options options = Device(unit_addressed, 2, switched ? "fifo" : policy);
      options.device.arena_budget_bytes = 1000;
      TestBed bed(options);
      const TimePoint until = kStart + std::chrono::milliseconds(200);
      Tenants tenants(bed, until);
      // Only one of them can run at a time.
      tenants.Flood(1, Chain("short", 2, 2, 60 * kUs, 800), 6);
      tenants.Flood(2, Chain("long", 6, 2, 150 * kUs, 900), 4);
      if (switched) bed.dispatcher.SetPolicy(MakePolicy(policy).value());
      while (bed.clock.Now() < until && bed.device.Step()) {
      }
      const double share =
          Seconds(bed.dispatcher, 2) / (Seconds(bed.dispatcher, 1) + Seconds(bed.dispatcher, 2));
      bed.Run();
      bed.CheckHistory();
      bed.CheckAtRest();
      return share;
    };
    EXPECT_LT(share_of_long("srpt", false), 0.05) << unit_addressed;
    for (const bool switched : {false, true}) {
      EXPECT_NEAR(share_of_long("fair(srpt, 1000)", switched), 0.5, 0.05) << unit_addressed;
    }
  }
}

TEST(DispatcherFairTest, WeightsAndTenantsThatAreNoneAreRefused) {
  TestBed bed(Device(true, 1, "fair(srpt, 1000)"));
  Dispatcher& d = bed.dispatcher;
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(d.SetTenantWeight(TenantId(1), bad).code(), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(d.SetTenantWeight(TenantId(65'536), 1).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(d.SetTenantWeight(TenantId(), 1).code(), StatusCode::kInvalidArgument);
  JobSpec spec = bed.Spec(Chain("a", 1, 1, kUs));
  spec.attributes.tenant = TenantId(1'000'000'000);
  EXPECT_EQ(d.Submit(std::move(spec)).status().code(), StatusCode::kInvalidArgument);
  bed.CheckAtRest();
}

TEST(DispatcherFairTest, AJobOfSeveralTenantsIsChargedByRows) {
  for (const bool unit_addressed : {true, false}) {
    TestBed bed(Device(unit_addressed, 1, "fair(fifo, 100)"));
    JobSpec spec = bed.Spec(Chain("batch", 4, 2, 50 * kUs));
    spec.attributes.tenant = TenantId(1);
    spec.payers = {{TenantId(1), 1}, {TenantId(2), 3}};
    ASSERT_TRUE(bed.Submit(std::move(spec)).valid());
    bed.Run();
    const double first = Seconds(bed.dispatcher, 1), second = Seconds(bed.dispatcher, 2);
    EXPECT_GT(first, 0);
    EXPECT_NEAR(second / first, 3, 1e-6);
    EXPECT_EQ(bed.dispatcher.tenant_stats(TenantId(2)).jobs, 0u);
    EXPECT_LT(bed.dispatcher.tenant_stats(TenantId(2)).deficit, Duration{0}) << "it owes";
    bed.CheckAtRest();
  }
}

TEST(DispatcherFairTest, WhoComesLaterPaysForWhatIsStillToBeLaunched) {
  for (const bool unit_addressed : {true, false}) {
    TestBed bed(Device(unit_addressed, 1, "fair(fifo, 100)"));
    JobSpec spec = bed.Spec(Chain("shared", 40, 1, 50 * kUs));
    spec.attributes.tenant = TenantId(1);
    const JobId job = bed.Submit(std::move(spec));
    while (bed.dispatcher.stats().blocks < 20 && bed.device.Step()) {
    }
    const double alone = Seconds(bed.dispatcher, 1);
    bed.dispatcher.AddPayer(job, TenantId(2));
    bed.dispatcher.AddPayer(job, TenantId(2));           // pays already
    bed.dispatcher.AddPayer(job, TenantId(1));           // so does this one
    bed.dispatcher.AddPayer(job, TenantId());            // nobody
    bed.dispatcher.AddPayer(JobId(12345), TenantId(3));  // for nothing
    bed.Run();
    const double first = Seconds(bed.dispatcher, 1), second = Seconds(bed.dispatcher, 2);
    EXPECT_NEAR(first - alone, second, 1e-9) << "half of the rest each";
    EXPECT_GT(alone, 0);
    EXPECT_NEAR(second, alone / 2, 0.1 * alone) << "from the middle on";
    EXPECT_EQ(Seconds(bed.dispatcher, 3), 0);
    bed.CheckAtRest();
  }
}

TEST(DispatcherFairTest, PayersThatDoNotExistOrPayForNothingAreRefused) {
  TestBed bed(Device(true, 1, "fifo"));
  JobSpec spec = bed.Spec(Chain("batch", 1, 1, kUs));
  spec.payers = {{TenantId(1u << 30), 1}};
  EXPECT_EQ(bed.dispatcher.Submit(spec).status().code(), StatusCode::kInvalidArgument);
  spec.payers = {{TenantId(1), 0}};
  EXPECT_EQ(bed.dispatcher.Submit(spec).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
