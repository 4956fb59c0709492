#include "sched/policy.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

JobView View(int64_t arrival_us, int64_t remaining_us) {
  JobView v;
  v.arrival = TimePoint(std::chrono::microseconds(arrival_us));
  v.remaining_time = std::chrono::microseconds(remaining_us);
  return v;
}

TEST(PolicyTest, FifoOrdersByArrival) {
  const auto policy = MakePolicy("fifo").value();
  EXPECT_LT(policy->Key(View(1, 900), {}), policy->Key(View(2, 1), {}));
}

TEST(PolicyTest, SrptOrdersByWhatIsLeft) {
  const auto policy = MakePolicy("srpt").value();
  EXPECT_LT(policy->Key(View(2, 1), {}), policy->Key(View(1, 900), {}));
}

TEST(PolicyTest, EveryNameMakesThatPolicyAndKeysIgnoreTheTimeTheyAreAskedAt) {
  for (const std::string& name : PolicyNames()) {
    const auto policy = MakePolicy(name).value();
    EXPECT_EQ(policy->name(), name);
    EXPECT_EQ(policy->Key(View(3, 5), TimePoint(Duration(1))) <
                  policy->Key(View(4, 6), TimePoint(Duration(1))),
              policy->Key(View(3, 5), TimePoint(Duration(1000))) <
                  policy->Key(View(4, 6), TimePoint(Duration(1000))))
        << name;
  }
}

TEST(PolicyTest, AnUnknownNameListsTheKnownOnes) {
  const auto policy = MakePolicy("lifo");
  ASSERT_FALSE(policy.ok());
  EXPECT_EQ(policy.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(policy.status().message().find("fifo, srpt"), std::string::npos);
}

}  // namespace
}  // namespace plexus
