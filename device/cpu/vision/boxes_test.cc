#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "device/cpu/vision/vision_tester.h"

namespace plexus::vision {
namespace {

struct Rectangle {
  int64_t x, y, w, h;
  float probability = 0.9f;
};

// A probability map f32[1,1,h,w] with rectangles on 0.
Tensor MapOf(int64_t h, int64_t w, const std::vector<Rectangle>& rectangles) {
  std::vector<float> map(h * w, 0.0f);
  for (const Rectangle& r : rectangles) {
    for (int64_t y = r.y; y < r.y + r.h; ++y) {
      for (int64_t x = r.x; x < r.x + r.w; ++x) map[y * w + x] = r.probability;
    }
  }
  return Tensor::Of<float>(DType::kFloat32, {1, 1, h, w}, map);
}

Tensor Image(int64_t h, int64_t w) { return Tensor::Allocate(DType::kUint8, {h, w, 3}).value(); }

VisionOp Detector() { return VisionOp("DbBoxes", 2).Set("dilate", 0); }

std::vector<float> Corners(const Tensor& boxes, size_t i) {
  const auto all = boxes.data<float>();
  return {all.begin() + 8 * i, all.begin() + 8 * (i + 1)};
}

TEST(DbBoxesTest, ARectangleGrowsByAreaTimesUnclipOverPerimeter) {
  // From pixel 20 to 59 and 30 to 39: sides 39 and 9, so each side moves by 39·9·1.6/96 = 5.85.
  const auto outputs = Detector().Run({MapOf(96, 128, {{20, 30, 40, 10}}), Image(96, 128)}).value();
  ASSERT_EQ(outputs[0].shape(), (Shape{1, 4, 2}));
  EXPECT_EQ(Corners(outputs[0], 0), (std::vector<float>{14, 24, 65, 24, 65, 45, 14, 45}));
  ASSERT_EQ(outputs[1].shape(), (Shape{1}));
  EXPECT_FLOAT_EQ(outputs[1].data<float>()[0], 0.9f);
}

TEST(DbBoxesTest, BoxesAreInPixelsOfTheImageAndCutAtItsBorder) {
  const auto outputs = Detector().Run({MapOf(96, 128, {{0, 30, 40, 10}}), Image(192, 512)}).value();
  // 0 - 5.85 is outside; 39 + 5.85 = 44.85 is 179.4 of 512 for 44.85 of 128.
  EXPECT_EQ(Corners(outputs[0], 0), (std::vector<float>{0, 48, 179, 48, 179, 90, 0, 90}));
}

TEST(DbBoxesTest, DilationAddsOnePixelUpAndLeft) {
  const auto outputs = VisionOp("DbBoxes", 2)
                           .Set("unclip", 0.0)
                           .Run({MapOf(96, 128, {{20, 30, 40, 10}}), Image(96, 128)})
                           .value();
  EXPECT_EQ(Corners(outputs[0], 0), (std::vector<float>{20, 30, 60, 30, 60, 40, 20, 40}));
}

TEST(DbBoxesTest, ASlantedStripGivesItsCornersClockwiseFromTheTopLeft) {
  const int64_t n = 160;
  std::vector<float> map(n * n, 0.0f);
  const double angle = 20.0 * M_PI / 180.0;
  for (int64_t y = 0; y < n; ++y) {
    for (int64_t x = 0; x < n; ++x) {
      const double dx = static_cast<double>(x) - 80, dy = static_cast<double>(y) - 80;
      const double along = dx * std::cos(angle) + dy * std::sin(angle);
      const double across = dy * std::cos(angle) - dx * std::sin(angle);
      if (std::abs(along) <= 50 && std::abs(across) <= 8) map[y * n + x] = 0.8f;
    }
  }
  const auto outputs =
      Detector()
          .Set("unclip", 0.0)
          .Run({Tensor::Of<float>(DType::kFloat32, {1, 1, n, n}, map), Image(n, n)})
          .value();
  ASSERT_EQ(outputs[0].shape()[0], 1);
  const std::vector<float> got = Corners(outputs[0], 0);
  const double sides[4][2] = {{-50, -8}, {50, -8}, {50, 8}, {-50, 8}};
  for (int i = 0; i < 4; ++i) {
    const double x = 80 + sides[i][0] * std::cos(angle) - sides[i][1] * std::sin(angle);
    const double y = 80 + sides[i][0] * std::sin(angle) + sides[i][1] * std::cos(angle);
    EXPECT_NEAR(got[2 * i], x, 2.0) << "corner " << i;
    EXPECT_NEAR(got[2 * i + 1], y, 2.0) << "corner " << i;
  }
}

TEST(DbBoxesTest, BoxesComeInReadingOrder) {
  // Two lines; the right word of the first stands a little higher.
  const auto outputs =
      Detector()
          .Set("unclip", 0.0)
          .Run({MapOf(128, 256,
                      {{150, 20, 60, 12}, {20, 24, 60, 12}, {150, 80, 60, 12}, {20, 82, 60, 12}}),
                Image(128, 256)})
          .value();
  ASSERT_EQ(outputs[0].shape()[0], 4);
  std::vector<std::pair<float, float>> firsts;
  for (size_t i = 0; i < 4; ++i) {
    firsts.emplace_back(Corners(outputs[0], i)[0], Corners(outputs[0], i)[1]);
  }
  const std::vector<std::pair<float, float>> wanted = {{20, 24}, {150, 20}, {20, 82}, {150, 80}};
  EXPECT_EQ(firsts, wanted);
}

TEST(DbBoxesTest, FaintAndSmallRegionsAreLeftOut) {
  const Tensor map = MapOf(96, 128, {{20, 10, 40, 10, 0.4f}, {20, 40, 40, 2}, {20, 60, 40, 10}});
  EXPECT_EQ(Detector().Run({map, Image(96, 128)}).value()[0].shape()[0], 1);
  EXPECT_EQ(Detector().Set("box_threshold", 0.35).Run({map, Image(96, 128)}).value()[0].shape()[0],
            2);
  EXPECT_EQ(Detector().Set("threshold", 0.95).Run({map, Image(96, 128)}).value()[0].shape(),
            (Shape{0, 4, 2}));
  EXPECT_EQ(Detector().Set("max_boxes", 0).Run({map, Image(96, 128)}).value()[1].shape(),
            (Shape{0}));
}

TEST(DbBoxesTest, MapsWithoutSenseGiveNoBoxesAndDoNoHarm) {
  const float values[] = {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()};
  for (float value : values) {
    const auto outputs = Detector().Run({MapOf(32, 32, {{8, 8, 16, 8, value}}), Image(32, 32)});
    ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
    EXPECT_EQ((*outputs)[0].shape()[0], value > 0 ? 1 : 0);
  }
}

TEST(DbBoxesTest, WrongInputsAreNamed) {
  EXPECT_NE(Detector().Error({Image(4, 4), Image(4, 4)}).find("needs a probability map"),
            std::string::npos);
  EXPECT_NE(Detector()
                .Error({Tensor::Allocate(DType::kFloat32, {2, 1, 4, 4}).value(), Image(4, 4)})
                .find("needs a probability map"),
            std::string::npos);
  EXPECT_NE(Detector().Error({MapOf(4, 4, {}), MapOf(4, 4, {})}).find("needs an image"),
            std::string::npos);
  EXPECT_NE(Detector().Set("unclip", -1.0).Error({MapOf(4, 4, {}), Image(4, 4)}).find("'unclip'"),
            std::string::npos);
}

}  // namespace
}  // namespace plexus::vision
