#include <gtest/gtest.h>

#include "device/cpu/vision/vision_tester.h"

namespace plexus::vision {
namespace {

Tensor Grey(int64_t h, int64_t w, int value = 100) {
  return ImageOf(h, w, 3, [=](int64_t, int64_t, int64_t) { return value; });
}

Shape Resized(const VisionOp& op, int64_t h, int64_t w) {
  const Result<Tensor> y = op.Run1({Grey(h, w)});
  EXPECT_TRUE(y.ok()) << y.status().ToString();
  return y.ok() ? y->shape() : Shape();
}

TEST(ResizeImageTest, AFixedSizeIsThatSizeWhateverTheAspect) {
  EXPECT_EQ(Resized(VisionOp("ResizeImage").Set("size", {7, 5}), 30, 40), (Shape{7, 5, 3}));
}

TEST(ResizeImageTest, LinearInterpolationHalvesByAveragingPairs) {
  const Tensor ramp = ImageOf(2, 4, 1, [](int64_t, int64_t x, int64_t) { return 10 * x; });
  const Tensor half = VisionOp("ResizeImage").Set("size", {1, 2}).Run1({ramp}).value();
  EXPECT_EQ(PixelAt(half, 0, 0), 5);
  EXPECT_EQ(PixelAt(half, 0, 1), 25);
}

TEST(ResizeImageTest, KeptAspectFillsTheRestWithThePadValue) {
  const Tensor y = VisionOp("ResizeImage")
                       .Set("size", {8, 8})
                       .Set("keep_aspect", 1)
                       .Set("pad_value", 127.5)
                       .Set("float", 1)
                       .Run1({Grey(10, 20)})
                       .value();
  ASSERT_EQ(y.dtype(), DType::kFloat32);
  ASSERT_EQ(y.shape(), (Shape{8, 8, 3}));
  EXPECT_EQ(PixelAt(y, 3, 7, 2), 100);
  EXPECT_EQ(PixelAt(y, 4, 0, 0), 127.5);
}

TEST(ResizeImageTest, LimitsEnlargeTheShorterSideShrinkTheLongerAndRoundToMultiples) {
  const VisionOp shorter = VisionOp("ResizeImage").Set("min_side", 64).Set("multiple", 32);
  EXPECT_EQ(Resized(shorter, 30, 60), (Shape{64, 128, 3}));
  EXPECT_EQ(Resized(shorter, 100, 300), (Shape{96, 288, 3}));  // large enough: only rounded
  const VisionOp longer = VisionOp("ResizeImage").Set("max_side", 128).Set("multiple", 32);
  EXPECT_EQ(Resized(longer, 100, 200), (Shape{64, 128, 3}));
  EXPECT_EQ(Resized(longer, 4, 200), (Shape{32, 128, 3}));  // at least one multiple
  const VisionOp both =
      VisionOp("ResizeImage").Set("min_side", 64).Set("max_side", 96).Set("multiple", 32);
  EXPECT_EQ(Resized(both, 10, 90), (Shape{32, 96, 3}));
}

TEST(ResizeImageTest, WidthBucketsKeepTheAspectAndPadToTheFirstThatHoldsIt) {
  const VisionOp op =
      VisionOp("ResizeImage").Set("height", 12).Set("widths", {32, 64, 128}).Set("pad_value", 9.0);
  EXPECT_EQ(Resized(op, 24, 40), (Shape{12, 32, 3}));
  EXPECT_EQ(Resized(op, 24, 64), (Shape{12, 32, 3}));
  EXPECT_EQ(Resized(op, 24, 65), (Shape{12, 64, 3}));    // 32.5, rounded up to 33
  EXPECT_EQ(Resized(op, 10, 900), (Shape{12, 128, 3}));  // squeezed into the widest
  const Tensor y = op.Run1({Grey(24, 40)}).value();
  EXPECT_EQ(PixelAt(y, 5, 19), 100);
  EXPECT_EQ(PixelAt(y, 5, 20), 9);
}

TEST(ResizeImageTest, BadInputsAndAttributesAreNamed) {
  const auto error = [](const VisionOp& op) { return op.Error({Grey(4, 4)}); };
  EXPECT_NE(error(VisionOp("ResizeImage").Set("size", {0, 4})).find("'size'"), std::string::npos);
  EXPECT_NE(error(VisionOp("ResizeImage").Set("size", {4, 99999})).find("'size'"),
            std::string::npos);
  EXPECT_NE(error(VisionOp("ResizeImage").Set("height", 4).Set("widths", {9, 8})).find("ascending"),
            std::string::npos);
  EXPECT_NE(error(VisionOp("ResizeImage").Set("max_side", -1)).find("'max_side'"),
            std::string::npos);
  EXPECT_NE(
      error(VisionOp("ResizeImage").Set("size", {4, 4}).Set("interpolation", "x")).find("'x'"),
      std::string::npos);
  EXPECT_NE(VisionOp("ResizeImage").Set("min_side", 30000).Error({Grey(1, 100)}).find("too long"),
            std::string::npos);
  const VisionOp op = VisionOp("ResizeImage").Set("size", {4, 4});
  EXPECT_NE(op.Error({Tensor::Scalar(1)}).find("needs an image"), std::string::npos);
  EXPECT_NE(op.Error({Tensor::Allocate(DType::kUint8, {0, 4, 3}).value()}).find("needs an image"),
            std::string::npos);
  EXPECT_NE(op.Error({Grey(4, 4).Reshaped({2, 4, 6})}).find("needs an image"), std::string::npos);
}

}  // namespace
}  // namespace plexus::vision
