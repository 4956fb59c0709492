#include "graph/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace plexus {
namespace {

TEST(HalfTest, RoundTripsEveryFiniteHalf) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float f = HalfToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(f)) continue;
    EXPECT_EQ(FloatToHalf(f), bits);
  }
}

// Expected bits from numpy.float16.
TEST(HalfTest, RoundsToNearestEvenAndOverflowsToInfinity) {
  EXPECT_EQ(FloatToHalf(1.0f), 0x3c00);
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(1.0f + 0x1p-11f), 0x3c00);
  EXPECT_EQ(FloatToHalf(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0x0000);
  EXPECT_EQ(FloatToHalf(-0x1p-24f), 0x8001);
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(std::nanf("")))));
}

TEST(BFloat16Test, RoundsToNearestEven) {
  EXPECT_EQ(FloatToBFloat16(1.0f), 0x3f80);
  EXPECT_EQ(FloatToBFloat16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(FloatToBFloat16(1.0f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_TRUE(std::isnan(BFloat16ToFloat(FloatToBFloat16(std::nanf("")))));
}

TEST(ShapeTest, CountsElementsAndRefusesNegativeAndHugeShapes) {
  EXPECT_EQ(*NumElements({}), 1);
  EXPECT_EQ(*NumElements({2, 3}), 6);
  EXPECT_EQ(*NumElements({INT64_MAX, 0, INT64_MAX}), 0);
  EXPECT_EQ(NumElements({2, -1}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(NumElements({INT64_MAX, INT64_MAX}).status().code(), StatusCode::kResourceExhausted);
}

TEST(DTypeTest, ProtocolNamesRoundTrip) {
  EXPECT_EQ(DTypeFromProtocolName("FP32"), DType::kFloat32);
  EXPECT_EQ(DTypeFromProtocolName("BYTES"), DType::kString);
  EXPECT_EQ(DTypeFromProtocolName("FP31"), std::nullopt);
  EXPECT_EQ(DTypeFromProtocolName(""), std::nullopt);
}

}  // namespace
}  // namespace plexus
