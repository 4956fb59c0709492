#include "pipeline/batch_gain.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

constexpr Duration Us(int64_t us) { return std::chrono::microseconds(us); }

TEST(BatchGainTest, TheTimesOfAllShapesAreAddedUp) {
  BatchGain gain;
  EXPECT_FALSE(gain.part().has_value());
  gain.Note(Us(200), Us(100));  // a narrow row gains half,
  EXPECT_NEAR(*gain.part(), 0.5, 1e-6);
  gain.Note(Us(20'000), Us(24'000));  // a wide one loses, and takes a hundred times as long
  EXPECT_LT(*gain.part(), -0.15);
  for (int i = 0; i < 100; ++i) gain.Note(Us(200), Us(100));
  EXPECT_GT(*gain.part(), 0.4) << "what was long ago is forgotten";
}

TEST(BatchGainTest, WhatIsNotKnownIsTriedButNotForEver) {
  BatchGain gain;
  const auto trials = [&](Duration takes) {
    int count = 0;
    while (count < 1000 && gain.TakeTrial(takes)) ++count;
    return count;
  };
  const int many = trials(Us(1));
  EXPECT_GT(many, 16);
  EXPECT_LT(many, 1000);
  EXPECT_FALSE(gain.part().has_value());
  EXPECT_FALSE(gain.in_vain());
  gain.Forget();
  const int few = trials(Us(500'000));
  EXPECT_GE(few, 2) << "heavy requests try less often";
  EXPECT_LT(few, many / 4);
  gain.Forget();
  EXPECT_TRUE(gain.TakeTrial(Us(1)));
  gain.Note(Us(10), Us(9));
  EXPECT_FALSE(gain.TakeTrial(Us(1))) << "it is known";
  EXPECT_FALSE(gain.in_vain());
  gain.Note(Us(100), Us(110));
  EXPECT_TRUE(gain.in_vain());
  gain.Forget();
  EXPECT_TRUE(gain.TakeTrial(Us(1))) << "anew";
  gain.None();
  EXPECT_EQ(gain.part(), 0.0);
  EXPECT_TRUE(gain.in_vain());
  EXPECT_FALSE(gain.TakeTrial(Us(1)));
}

}  // namespace
}  // namespace plexus
