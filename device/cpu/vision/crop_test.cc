#include <gtest/gtest.h>

#include <limits>

#include "device/cpu/vision/vision_tester.h"

namespace plexus::vision {
namespace {

Tensor Box(const std::vector<float>& corners) {
  return Tensor::Of<float>(DType::kFloat32, {4, 2}, corners);
}

Tensor Gradient(int64_t h = 40, int64_t w = 60) {
  return ImageOf(h, w, 3, [](int64_t y, int64_t x, int64_t) { return 4 * x + y; });
}

TEST(PerspectiveCropTest, AnUprightBoxIsCutOut) {
  const Tensor crop =
      VisionOp("PerspectiveCrop").Run1({Gradient(), Box({10, 5, 30, 5, 30, 15, 10, 15})}).value();
  ASSERT_EQ(crop.shape(), (Shape{10, 20, 3}));
  EXPECT_EQ(PixelAt(crop, 0, 0), 4 * 10 + 5);
  EXPECT_EQ(PixelAt(crop, 9, 19), 4 * 29 + 14);
}

TEST(PerspectiveCropTest, ABoxWhoseFirstCornerIsBottomRightTurnsTheCropUpsideDown) {
  const Tensor crop =
      VisionOp("PerspectiveCrop").Run1({Gradient(), Box({30, 15, 10, 15, 10, 5, 30, 5})}).value();
  ASSERT_EQ(crop.shape(), (Shape{10, 20, 3}));
  EXPECT_EQ(PixelAt(crop, 0, 0), 4 * 30 + 15);
  EXPECT_EQ(PixelAt(crop, 9, 19), 4 * 11 + 6);
}

TEST(PerspectiveCropTest, ATallCropIsTurnedAnticlockwiseWhereAskedFor) {
  const Tensor box = Box({10, 5, 20, 5, 20, 25, 10, 25});
  EXPECT_EQ(VisionOp("PerspectiveCrop").Run1({Gradient(), box}).value().shape(),
            (Shape{20, 10, 3}));
  const Tensor turned =
      VisionOp("PerspectiveCrop").Set("rotate_tall", 1.5).Run1({Gradient(), box}).value();
  ASSERT_EQ(turned.shape(), (Shape{10, 20, 3}));
  EXPECT_EQ(PixelAt(turned, 9, 0), 4 * 10 + 5);  // the top left is now at the bottom left
  EXPECT_EQ(PixelAt(turned, 0, 0), 4 * 19 + 5);  // the top right is now at the top left
}

TEST(PerspectiveCropTest, OutsideTheImageTheBorderGoesOn) {
  const Tensor crop =
      VisionOp("PerspectiveCrop").Run1({Gradient(), Box({-10, 5, 10, 5, 10, 15, -10, 15})}).value();
  EXPECT_EQ(PixelAt(crop, 0, 0), 5);
  EXPECT_EQ(PixelAt(crop, 0, 19), 4 * 9 + 5);
}

TEST(PerspectiveCropTest, ABoxOfNoAreaGivesSomethingSmall) {
  const Result<Tensor> crop =
      VisionOp("PerspectiveCrop").Run1({Gradient(), Box({10, 5, 10, 5, 10, 5, 10, 5})});
  ASSERT_TRUE(crop.ok()) << crop.status().ToString();
  EXPECT_EQ(crop->shape(), (Shape{1, 1, 3}));
}

TEST(PerspectiveCropTest, BadBoxesAreRefused) {
  const VisionOp op("PerspectiveCrop");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(op.Error({Gradient(), Box({nan, 0, 1, 0, 1, 1, 0, 1})}).find("corner 0"),
            std::string::npos);
  EXPECT_NE(op.Error({Gradient(), Box({0, 0, 1e30f, 0, 1, 1, 0, 1})}).find("corner 1"),
            std::string::npos);
  EXPECT_NE(op.Error({Gradient(), Box({0, 0, 9e5f, 0, 9e5f, 9e5f, 0, 9e5f})}).find("are allowed"),
            std::string::npos);
  EXPECT_NE(op.Error({Gradient(), Tensor::Scalar(1)}).find("needs a box"), std::string::npos);
  EXPECT_NE(op.Error({Tensor::Scalar(1), Box({0, 0, 1, 0, 1, 1, 0, 1})}).find("needs an image"),
            std::string::npos);
}

}  // namespace
}  // namespace plexus::vision
