#include "pipeline/batch_gain.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

constexpr Duration Us(int64_t us) { return std::chrono::microseconds(us); }

void Note(BatchGain& gain, int times, Duration alone, Duration together) {
  for (int i = 0; i < times; ++i) gain.Note(alone, together);
}

// How many trials it allows at once.
int Trials(BatchGain& gain, Duration takes) {
  int count = 0;
  while (count < 1000 && gain.TakeTrial(takes)) ++count;
  return count;
}

TEST(BatchGainTest, TheTimesOfAllShapesAreAddedUp) {
  BatchGain gain;
  gain.Note(Us(200), Us(100));
  EXPECT_FALSE(gain.part().has_value()) << "one batch tells nothing";
  Note(gain, 20, Us(200), Us(100));  // a narrow row gains half,
  EXPECT_NEAR(*gain.part(), 0.5, 1e-6);
  EXPECT_FALSE(gain.in_vain());
  gain.Note(Us(20'000), Us(24'000));  // a wide one loses, and takes a hundred times as long
  EXPECT_LT(*gain.part(), -0.05);
  EXPECT_TRUE(gain.in_vain());
  Note(gain, 100, Us(200), Us(100));
  EXPECT_GT(*gain.part(), 0.4) << "what was long ago is forgotten";
}

TEST(BatchGainTest, ABatchThatWasHeldUpDecidesNothing) {
  BatchGain gain;
  Note(gain, 20, Us(200), Us(100));
  gain.Note(Us(200), Us(50'000));
  EXPECT_GT(*gain.part(), 0.3);
}

TEST(BatchGainTest, WhatIsNotKnownIsTriedButNotForEver) {
  BatchGain gain;
  const int many = Trials(gain, Us(1));
  EXPECT_GT(many, 16);
  EXPECT_LT(many, 1000);
  EXPECT_FALSE(gain.part().has_value());
  EXPECT_FALSE(gain.in_vain());
  gain.Forget();
  const int few = Trials(gain, Us(500'000));
  EXPECT_GE(few, 8);
  EXPECT_LT(few, many / 2) << "heavy requests try less often";
  gain.Forget();
  Note(gain, 20, Us(10), Us(9));
  EXPECT_EQ(Trials(gain, Us(1)), 0) << "it is known";
  gain.Forget();
  gain.None();
  EXPECT_EQ(Trials(gain, Us(1)), 0) << "it cannot be";
  EXPECT_FALSE(gain.in_vain()) << "in other shapes it may";
}

TEST(BatchGainTest, WhatWasRefusedOftenIsTriedAgainEachTimeAfterTwiceAsMuch) {
  BatchGain gain;
  const auto refusals = [&] {
    Note(gain, 20, Us(10), Us(12));
    EXPECT_TRUE(gain.in_vain());
    int count = 0;
    while (count < 100'000 && gain.RefuseTrial()) ++count;
    return count;
  };
  const int first = refusals();
  EXPECT_GT(first, 1000);
  EXPECT_FALSE(gain.part().has_value());
  EXPECT_GT(Trials(gain, Us(1)), 16);
  EXPECT_NEAR(refusals(), 2 * first, 200) << "some trials were refused before";
}

}  // namespace
}  // namespace plexus
