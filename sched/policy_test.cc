#include "sched/policy.h"

#include <gtest/gtest.h>

#include <limits>

namespace plexus {
namespace {

using std::chrono::microseconds;

// What a test says about a job; the rest is alike.
struct Said {
  int64_t arrival_us = 0, service_us = 100, remaining_us = 100, deadline_us = -1;
  uint32_t priority = 0;
};
JobView View(const Said& said) {
  JobView v;
  v.arrival = TimePoint(microseconds(said.arrival_us));
  v.service_time = microseconds(said.service_us);
  v.remaining_time = microseconds(said.remaining_us);
  if (said.deadline_us >= 0) v.deadline = TimePoint(microseconds(said.deadline_us));
  v.priority = said.priority;
  return v;
}
bool Before(std::string_view policy, const Said& a, const Said& b) {
  const auto p = MakePolicy(policy).value();
  return p->Key(View(a), {}) < p->Key(View(b), {});
}

TEST(PolicyTest, FifoOrdersByArrival) {
  EXPECT_TRUE(
      Before("fifo", {.arrival_us = 1, .remaining_us = 900}, {.arrival_us = 2, .remaining_us = 1}));
}

TEST(PolicyTest, SjfOrdersByTheWholeRequestHoweverLittleIsLeft) {
  EXPECT_TRUE(Before("sjf", {.arrival_us = 2, .service_us = 10, .remaining_us = 10},
                     {.arrival_us = 1, .service_us = 50, .remaining_us = 1}));
}

TEST(PolicyTest, SrptOrdersByWhatIsLeft) {
  EXPECT_TRUE(
      Before("srpt", {.arrival_us = 2, .remaining_us = 1}, {.arrival_us = 1, .remaining_us = 900}));
}

TEST(PolicyTest, RoundRobinOrdersByTheLastTurn) {
  JobView served = View({.arrival_us = 1}), fresh = View({.arrival_us = 2});
  served.last_turn = 7;
  fresh.last_turn = 5;
  const auto policy = MakePolicy("rr").value();
  EXPECT_LT(policy->Key(fresh, {}), policy->Key(served, {}));
}

TEST(PolicyTest, EdfOrdersByDeadlineAndJobsWithoutOneComeLastByArrival) {
  const Said soon{.arrival_us = 9, .deadline_us = 100}, later{.arrival_us = 1, .deadline_us = 200};
  const Said first{.arrival_us = 2}, second{.arrival_us = 3};
  // A deadline a thousand years away.
  const Said never{.arrival_us = 4, .deadline_us = std::numeric_limits<int64_t>::max() / 1000};
  EXPECT_TRUE(Before("edf", soon, later));
  EXPECT_TRUE(Before("edf", later, first));
  EXPECT_TRUE(Before("edf", never, first));
  EXPECT_TRUE(Before("edf", first, second));
}

TEST(PolicyTest, PriorityOrdersByLevelThenArrivalAndNoneIsTheDefaultLevel) {
  const Said top{.arrival_us = 900, .priority = 1}, none{.arrival_us = 5};
  const Said low{.arrival_us = 1, .priority = 3}, lower{.arrival_us = 0, .priority = 4};
  EXPECT_TRUE(Before("priority", top, none));
  EXPECT_TRUE(Before("priority", none, low));
  EXPECT_TRUE(Before("priority", low, lower));
  EXPECT_TRUE(Before("priority", {.arrival_us = 4}, none));
  EXPECT_TRUE(Before("priority", {.arrival_us = 4, .priority = 2}, none));
  EXPECT_TRUE(Before("priority(4)", low, none));
  EXPECT_TRUE(Before("priority", lower, {.priority = std::numeric_limits<uint32_t>::max()}));
}

TEST(PolicyTest, StretchLetsAShortJobOvertakeALongOneForEightTimesTheDifferenceOfTheirTimes) {
  const Said longer{.arrival_us = 0, .service_us = 100};
  EXPECT_TRUE(Before("stretch", {.arrival_us = 719, .service_us = 10}, longer));
  EXPECT_FALSE(Before("stretch", {.arrival_us = 721, .service_us = 10}, longer));
  EXPECT_TRUE(Before("stretch(2)", {.arrival_us = 179, .service_us = 10}, longer));
  EXPECT_FALSE(Before("stretch(2)", {.arrival_us = 181, .service_us = 10}, longer));
}

TEST(PolicyTest, FairKeepsTheOrderOfThePolicyInItAndCarriesTheThreshold) {
  EXPECT_TRUE(Before("fair(srpt, 1000)", {.arrival_us = 2, .remaining_us = 1},
                     {.arrival_us = 1, .remaining_us = 900}));
  EXPECT_EQ(MakePolicy("fair(srpt, 1000)").value()->fair_threshold(), microseconds(1000));
  EXPECT_EQ(MakePolicy("fair(srpt,0)").value()->fair_threshold(), Duration{0});
  EXPECT_EQ(MakePolicy("fair(fifo, 0.5)").value()->fair_threshold(), Duration{500});
  EXPECT_EQ(MakePolicy("fair(fifo, inf)").value()->fair_threshold(), Duration::max());
  EXPECT_EQ(MakePolicy("srpt").value()->fair_threshold(), std::nullopt);
}

TEST(PolicyTest, NamesAreWrittenAsTheyAreRead) {
  for (const char* text : {"stretch(16)", "priority(5)", "fair(stretch(2), 1000)",
                           "fair(priority, inf)", "fair(edf, 0.5)"}) {
    EXPECT_EQ(MakePolicy(text).value()->name(), text);
  }
  EXPECT_EQ(MakePolicy("  fair( srpt ,1000 ) ").value()->name(), "fair(srpt, 1000)");
}

TEST(PolicyTest, EveryNameMakesThatPolicyAndKeysIgnoreTheTimeTheyAreAskedAt) {
  for (const std::string& name : PolicyNames()) {
    const auto policy = MakePolicy(name).value();
    EXPECT_EQ(policy->name(), name);
    const JobView view = View({.arrival_us = 3, .remaining_us = 5, .deadline_us = 7});
    EXPECT_EQ(policy->Key(view, TimePoint(Duration(1))), policy->Key(view, TimePoint(Duration(9))))
        << name;
  }
  EXPECT_TRUE(MakePolicy(kDefaultPolicy).ok());
}

TEST(PolicyTest, TheUsageNamesEveryPolicyAndItsArgument) {
  for (const std::string& name : PolicyNames()) {
    EXPECT_NE((", " + PolicyUsage()).find(", " + name), std::string::npos) << name;
  }
  EXPECT_NE(PolicyUsage().find("stretch[(K)], fair(POLICY, MICROSECONDS)"), std::string::npos);
}

TEST(PolicyTest, WhatIsNoPolicyIsRefusedWithTheReason) {
  const auto why = [](std::string_view text) {
    const auto policy = MakePolicy(text);
    EXPECT_FALSE(policy.ok()) << text;
    if (policy.ok()) return std::string();
    EXPECT_EQ(policy.status().code(), StatusCode::kInvalidArgument);
    return policy.status().message();
  };
  const auto expect = [&](std::string_view text, std::string_view reason) {
    EXPECT_NE(why(text).find(reason), std::string::npos) << text << ": " << why(text);
  };
  for (const std::string& name : PolicyNames()) expect("lifo", name);
  expect("", "unknown policy ''");
  expect("SRPT", "unknown policy");
  expect("fair", "a policy and a threshold");
  expect("fair()", "a policy and a threshold");
  expect("fair(srpt)", "a policy and a threshold");
  expect("fair(lifo, 1)", "unknown policy 'lifo'");
  expect("fair(fair(srpt, 1), 1)", "unknown policy 'fair'");
  for (const char* threshold : {"nan", "NaN", "-1", "-inf", "", "1ms", "1 2", "x"}) {
    expect("fair(srpt, " + std::string(threshold) + ")", "at least 0, or inf");
  }
  expect("fair(srpt, 1)x", "parentheses");
  expect("fair(srpt, 1", "parentheses");
  expect("srpt(1)", "takes no argument");
  for (const char* k : {"-1", "nan", "inf", "", "8x"}) {
    expect("stretch(" + std::string(k) + ")", "a number from 0 to");
  }
  for (const char* level : {"0", "1.5", "-1", "nan"}) {
    expect("priority(" + std::string(level) + ")", "a whole number from 1");
  }
  expect(std::string(100'000, '('), "too long");
}

}  // namespace
}  // namespace plexus
