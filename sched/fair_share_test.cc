#include "sched/fair_share.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace plexus {
namespace {

constexpr double kMs = 1e6;

// Tenants 0 .. n-1, all with work, and what they were charged.
struct Shares {
  explicit Shares(uint32_t n, std::optional<Duration> threshold = Duration{0})
      : fair(std::chrono::milliseconds(100)), served(n) {
    fair.Reserve(n);
    fair.SetThreshold(threshold);
    for (uint32_t t = 0; t < n; ++t) Come(t);
  }
  void Come(uint32_t t) {
    fair.Join(t);
    fair.SetRunnable(t, true);
  }
  // Serves whoever is starved, `otherwise` if nobody is.
  void Serve(double ns, uint32_t otherwise) {
    const uint32_t starved = fair.Starved();
    const uint32_t t = starved == FairShare::kNone ? otherwise : starved;
    fair.Charge(t, ns);
    served[t] += ns;
  }
  FairShare fair;
  std::vector<double> served;
};

TEST(FairShareTest, NobodyIsStarvedWithoutAThreshold) {
  for (const std::optional<Duration> none : {std::optional<Duration>(), {Duration::max()}}) {
    Shares s(2, none);
    EXPECT_FALSE(s.fair.on());
    s.fair.Charge(0, 1000 * kMs);
    EXPECT_EQ(s.fair.Starved(), FairShare::kNone);
  }
}

TEST(FairShareTest, DeficitsOfTheActiveAddUpToZero) {
  Shares s(3);
  s.fair.SetWeight(1, 5);
  std::mt19937 random(1);
  for (int i = 0; i < 1000; ++i) s.fair.Charge(random() % 3, random() % 1000);
  EXPECT_NEAR(s.fair.deficit_ns(0) + s.fair.deficit_ns(1) + s.fair.deficit_ns(2), 0, 1e-3);
}

TEST(FairShareTest, AForgottenTenantIsAsNewAndMovesNobodyElse) {
  Shares s(3, std::chrono::milliseconds(1));
  s.fair.SetWeight(2, 7);
  s.fair.Charge(0, 5 * kMs);
  s.fair.Charge(2, 90 * kMs);
  s.fair.Leave(1);
  s.fair.Leave(2);
  EXPECT_EQ(s.fair.deficit_ns(0), 0) << "alone";
  s.fair.Forget(2);  // has no work
  EXPECT_EQ(s.fair.weight(2), 1);
  EXPECT_EQ(s.fair.deficit_ns(2), 0);
  s.Come(1);
  s.Come(2);
  s.fair.Charge(2, 30 * kMs);
  s.fair.Forget(2);  // has work
  EXPECT_NEAR(s.fair.deficit_ns(2), 0, 1e-3);
  EXPECT_NEAR(s.fair.deficit_ns(0) + s.fair.deficit_ns(1), 0, 1e-3);
  EXPECT_EQ(s.fair.Starved(), 1u) << "it lacks against 0 what it lacked before";
}

TEST(FairShareTest, WhoLacksMoreThanTheThresholdGoesFirst) {
  Shares s(2, std::chrono::milliseconds(3));
  s.fair.Charge(0, 5.9 * kMs);
  EXPECT_EQ(s.fair.Starved(), FairShare::kNone);  // lacks 2.95 ms
  s.fair.Charge(0, 0.2 * kMs);
  EXPECT_EQ(s.fair.Starved(), 1u);
  EXPECT_NEAR(s.fair.deficit_ns(1), 3.05 * kMs, 1);
  EXPECT_NEAR(s.fair.deficit_ns(0), -3.05 * kMs, 1);
  s.fair.SetRunnable(1, false);
  EXPECT_EQ(s.fair.Starved(), FairShare::kNone);
}

TEST(FairShareTest, TimeIsSharedByWeightWhateverTheOrderWouldPrefer) {
  Shares s(3, std::chrono::milliseconds(1));
  s.fair.SetWeight(0, 3);
  s.fair.SetWeight(2, 0.5);
  std::mt19937 random(7);
  double total = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double ns = 1 + random() % 200'000;
    s.Serve(ns, 2);  // the lightest has the shortest jobs
    total += ns;
  }
  EXPECT_NEAR(s.served[0] / total, 3 / 4.5, 0.001);
  EXPECT_NEAR(s.served[1] / total, 1 / 4.5, 0.001);
  EXPECT_NEAR(s.served[2] / total, 0.5 / 4.5, 0.001);
}

TEST(FairShareTest, WhatALightTenantDoesNotUseItHasLaterUpToTheBurst) {
  Shares s(2);
  s.fair.Leave(1);
  s.fair.Charge(0, 30 * kMs);
  s.Come(1);
  EXPECT_NEAR(s.fair.deficit_ns(1), 15 * kMs,
              1);  // 30 ms behind the other: half of that is lacking
  s.fair.Leave(1);
  s.fair.Charge(0, 10'000 * kMs);
  s.Come(1);
  EXPECT_NEAR(s.fair.deficit_ns(1), 50 * kMs, 1);  // 100 ms behind
}

// The light one always comes back with credit that nobody else loses: the numbers must not run
// away over time.
TEST(FairShareTest, ALightTenantStaysFirstHoweverOftenItComesBack) {
  Shares s(2, std::chrono::milliseconds(1));
  for (int i = 0; i < 100'000; ++i) {
    s.fair.Leave(1);
    s.fair.Charge(0, 90 * kMs);
    s.Come(1);
    ASSERT_EQ(s.fair.Starved(), 1u);
    s.fair.Charge(1, 10 * kMs);
  }
}

TEST(FairShareTest, WhoHadMoreThanItsShareOwesAtMostTheBurst) {
  Shares s(2);
  s.fair.Charge(0, 10'000 * kMs);
  s.fair.Leave(0);
  s.Come(0);
  EXPECT_NEAR(s.fair.deficit_ns(0), -50 * kMs, 1);
  EXPECT_EQ(s.fair.Starved(), 1u);
}

TEST(FairShareTest, ATenantThatCouldNotLaunchForLongDoesNotTakeOverAfterwards) {
  Shares s(2);
  s.fair.SetRunnable(1, false);
  s.fair.Charge(0, 10'000 * kMs);
  s.fair.SetRunnable(1, true);
  EXPECT_NEAR(s.fair.deficit_ns(1), 50 * kMs, 1);
}

TEST(FairShareTest, ATenantNeverHeardOfIsLikeAnIdleOne) {
  Shares s(1);
  s.fair.Charge(0, 500 * kMs);
  s.fair.Reserve(2);
  s.Come(1);
  EXPECT_NEAR(s.fair.deficit_ns(1), 50 * kMs, 1);
}

TEST(FairShareTest, ANewThresholdStartsFromZero) {
  Shares s(2);
  s.fair.Charge(0, 500 * kMs);
  s.fair.SetThreshold(Duration{1000});
  for (uint32_t t = 0; t < 2; ++t) EXPECT_EQ(s.fair.deficit_ns(t), 0);
  EXPECT_EQ(s.fair.Starved(), FairShare::kNone);
}

TEST(FairShareTest, AStarvedTenantThatCannotLaunchIsExpected) {
  Shares s(2);
  s.fair.Charge(0, 10 * kMs);
  EXPECT_FALSE(s.fair.StarvedSoon());
  s.fair.SetRunnable(1, false);
  EXPECT_TRUE(s.fair.StarvedSoon());
  s.fair.Charge(0, -10 * kMs);
  EXPECT_FALSE(s.fair.StarvedSoon());
  s.fair.Charge(0, 10 * kMs);
  s.fair.Leave(1);
  EXPECT_FALSE(s.fair.StarvedSoon());
}

TEST(FairShareTest, OfThoseThatWaitForMemoryTheMostStarvedIsKnown) {
  FairShare shares(std::chrono::milliseconds(1));
  shares.SetThreshold(Duration{100});
  shares.Reserve(3);
  for (uint32_t t = 0; t < 3; ++t) shares.Join(t);
  for (uint32_t t = 1; t < 3; ++t) shares.SetWaiting(t, true);
  EXPECT_EQ(shares.StarvedWaiting(), FairShare::kNone);
  shares.Charge(0, 3000);
  shares.Charge(1, 500);
  EXPECT_EQ(shares.StarvedWaiting(), 2u);
  EXPECT_TRUE(shares.LacksLonger(2, 1));
  EXPECT_FALSE(shares.LacksLonger(1, 2));
  shares.Charge(2, 600);
  EXPECT_EQ(shares.StarvedWaiting(), 1u);
  shares.SetWaiting(1, false);
  EXPECT_EQ(shares.StarvedWaiting(), 2u);
  EXPECT_TRUE(shares.IsStarved(1));
  EXPECT_FALSE(shares.IsStarved(0));
  shares.Leave(2);
  EXPECT_EQ(shares.StarvedWaiting(), FairShare::kNone);
  // Of two that lack the same one goes first, or neither would let the other pass.
  shares.Join(2);
  EXPECT_NE(shares.LacksLonger(2, 1), shares.LacksLonger(1, 2));
  shares.SetThreshold(std::nullopt);
  shares.SetWaiting(1, true);
  EXPECT_EQ(shares.StarvedWaiting(), FairShare::kNone);
  EXPECT_FALSE(shares.IsStarved(1));
}

TEST(FairShareTest, MillionsOfChargesKeepTheNumbersExact) {
  Shares s(2);
  for (int i = 0; i < 5'000'000; ++i) s.Serve(200'000.3, 0);
  EXPECT_NEAR(s.served[0], s.served[1], 200'001);
  EXPECT_NEAR(s.fair.deficit_ns(0) + s.fair.deficit_ns(1), 0, 100);
}

TEST(FairShareTest, WeightsThatAreNoneAreRefused) {
  for (const double bad : {0.0, -1.0, -0.0, 1e-9, 1e9, std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_EQ(FairShare::CheckWeight(bad).code(), StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_TRUE(FairShare::CheckWeight(0.001).ok());
  EXPECT_TRUE(FairShare::CheckWeight(3).ok());
}

}  // namespace
}  // namespace plexus
