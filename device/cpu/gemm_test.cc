#include "device/cpu/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace plexus::cpu {
namespace {

std::vector<float> RandomFloats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& v : values) v = uniform(random);
  return values;
}

TEST(GemmTest, PackingIsUndoneExactly) {
  for (int64_t columns : {1, 15, 16, 64, 65, 200}) {
    const int64_t depth = 37;
    const auto b = RandomFloats(depth * columns, 1);
    std::vector<float> packed(PackedFloats(depth, columns)), back(b.size());
    PackGemm(b.data(), columns, 1, depth, 0, columns, columns, packed.data());
    UnpackGemm(packed.data(), depth, columns, back.data(), columns, 1);
    EXPECT_EQ(back, b) << columns;
    PackGemm(b.data(), 1, depth, depth, 0, columns, columns, packed.data());
    UnpackGemm(packed.data(), depth, columns, back.data(), 1, depth);
    EXPECT_EQ(back, b) << columns << " transposed";
  }
}

TEST(GemmTest, EveryBorderMatchesPlainLoops) {
  for (int64_t rows : {1, 2, 3, 5, 6, 7, 13}) {
    for (int64_t columns : {1, 7, 16, 33, 64, 100, 130}) {
      const int64_t depth = 29;
      const auto a = RandomFloats(rows * depth, 1), b = RandomFloats(depth * columns, 2);
      const auto bias = RandomFloats(columns, 3), residual = RandomFloats(rows * columns, 4);
      std::vector<float> packed(PackedFloats(depth, columns)), c(rows * columns + 1, -7);
      PackGemm(b.data(), columns, 1, depth, 0, columns, columns, packed.data());
      GemmArgs args;
      args.a = a.data();
      args.lda = depth;
      args.b = packed.data();
      args.c = c.data();
      args.ldc = columns;
      args.rows = rows;
      args.depth = depth;
      args.last_column = columns;
      args.bias = bias.data();
      args.residual = residual.data();
      args.alpha = 0.5f;
      args.activation = GemmActivation::kRelu;
      BestGemm().run(args);
      for (int64_t m = 0; m < rows; ++m) {
        for (int64_t n = 0; n < columns; ++n) {
          double sum = 0;
          for (int64_t k = 0; k < depth; ++k) sum += double{a[m * depth + k]} * b[k * columns + n];
          const double expected = std::max(0.0, 0.5 * sum + bias[n] + residual[m * columns + n]);
          ASSERT_NEAR(c[m * columns + n], expected, 1e-5) << rows << "x" << columns;
        }
      }
      EXPECT_EQ(c.back(), -7) << "written past the end";
    }
  }
}

TEST(GemmTest, ActivationsMatchTheMathLibrary) {
  struct Case {
    GemmActivation activation;
    float p0, p1, p2;
    double (*expected)(double);
  };
  const Case cases[] = {
      {GemmActivation::kSigmoid, 0, 0, 0, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {GemmActivation::kTanh, 0, 0, 0, [](double x) { return std::tanh(x); }},
      {GemmActivation::kGelu, 0, 0, 0,
       [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
      {GemmActivation::kGeluTanh, 0, 0, 0,
       [](double x) {
         return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
       }},
      {GemmActivation::kClip, 0, 6, 0, [](double x) { return std::min(6.0, std::max(0.0, x)); }},
      {GemmActivation::kLeakyRelu, 0.1f, 0, 0, [](double x) { return x > 0 ? x : 0.1 * x; }},
      {GemmActivation::kHardSigmoid, 0.2f, 0.5f, 0,
       [](double x) { return std::min(1.0, std::max(0.0, 0.2 * x + 0.5)); }},
      {GemmActivation::kHardSwish, 0, 0, 0,
       [](double x) { return x * std::min(1.0, std::max(0.0, x / 6 + 0.5)); }},
      {GemmActivation::kLeakyReluClip, 0.1f, -0.5f, 3,
       [](double x) { return std::min(3.0, std::max(-0.5, x > 0 ? x : 0.1 * x)); }},
      {GemmActivation::kHardSwishAffine, 2, -1, 0,
       [](double x) { return 2 * x * std::min(1.0, std::max(0.0, x / 6 + 0.5)) - 1; }},
      {GemmActivation::kElu, 1.5f, 0, 0, [](double x) { return x >= 0 ? x : 1.5 * std::expm1(x); }},
      {GemmActivation::kSoftplus, 0, 0, 0,
       [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }},
      {GemmActivation::kSilu, 0, 0, 0, [](double x) { return x / (1 + std::exp(-x)); }},
  };
  const int64_t columns = 401;
  std::vector<float> b(columns), packed(PackedFloats(1, columns)), c(columns);
  for (int64_t n = 0; n < columns; ++n) b[n] = (n - 200) * 0.1f;
  PackGemm(b.data(), columns, 1, 1, 0, columns, columns, packed.data());
  const float one = 1;
  for (const Case& test : cases) {
    GemmArgs args;
    args.a = &one;
    args.lda = 1;
    args.b = packed.data();
    args.c = c.data();
    args.ldc = columns;
    args.rows = args.depth = 1;
    args.last_column = columns;
    args.activation = test.activation;
    args.p0 = test.p0;
    args.p1 = test.p1;
    args.p2 = test.p2;
    BestGemm().run(args);
    for (int64_t n = 0; n < columns; ++n) {
      ASSERT_NEAR(c[n], test.expected(b[n]), 2e-6 * std::max(1.0f, std::abs(b[n])))
          << static_cast<int>(test.activation) << " at " << b[n];
    }
  }
}

struct WindowCase {
  int64_t images, channels, height, width, out_channels, kernel_height, kernel_width, stride, pad,
      dilation;
  bool merged;
};

class GemmWindowTest : public testing::TestWithParam<WindowCase> {};

TEST_P(GemmWindowTest, MatchesAConvolutionInPlainLoops) {
  const WindowCase& t = GetParam();
  GemmWindows w;
  w.merged = t.merged;
  w.channels = t.channels;
  w.in_height = t.height, w.in_width = t.width;
  w.kernel_height = t.kernel_height, w.kernel_width = t.kernel_width;
  w.stride_height = w.stride_width = t.stride;
  w.dilation_height = t.dilation;
  w.dilation_width = t.merged ? 1 : t.dilation;
  w.pad_top = w.pad_left = t.pad;
  w.out_height =
      (t.height + 2 * t.pad - (t.kernel_height - 1) * w.dilation_height - 1) / t.stride + 1;
  w.out_width = (t.width + 2 * t.pad - (t.kernel_width - 1) * w.dilation_width - 1) / t.stride + 1;
  w.pixel_stride = t.channels + (t.merged ? 0 : 3);
  const int64_t plane = t.height * t.width;
  w.image_stride = plane * w.pixel_stride;
  const std::vector<float> zeros(t.channels * t.kernel_width);
  w.zeros = zeros.data();
  ASSERT_TRUE(GemmCanTake(w));
  auto x_at = [&](int64_t n, int64_t c, int64_t iy, int64_t ix) {
    return n * w.image_stride + (iy * t.width + ix) * w.pixel_stride + c;
  };
  auto depth_at = [&](int64_t c, int64_t ky, int64_t kx) {
    return (ky * t.kernel_width + kx) * t.channels + c;
  };
  const int64_t depth = t.channels * t.kernel_height * t.kernel_width, columns = t.out_channels;
  const int64_t rows = t.images * w.out_height * w.out_width;
  const auto x = RandomFloats(t.images * w.image_stride, 1), b = RandomFloats(depth * columns, 2);
  const auto residual = RandomFloats(rows * columns, 3), bias = RandomFloats(columns, 4);
  std::vector<float> packed(PackedFloats(depth, columns)), c = residual;
  PackGemm(b.data(), columns, 1, depth, 0, columns, columns, packed.data());
  GemmArgs args;
  args.windows = &w;
  args.a = x.data();
  args.b = packed.data();
  args.bias = bias.data();
  args.ldc = columns;
  args.depth = depth;
  args.last_column = columns;
  args.activation = GemmActivation::kLeakyRelu;
  args.p0 = 0.5f;
  // In two pieces; over the residual.
  for (int64_t first : {int64_t{0}, rows / 3}) {
    args.first_row = first;
    args.rows = first ? rows - first : rows / 3;
    args.c = c.data() + first * columns;
    args.residual = args.c;
    BestGemm().run(args);
    if (rows / 3 == 0) break;
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t n = r / (w.out_height * w.out_width), at = r % (w.out_height * w.out_width);
    const int64_t oy = at / w.out_width, ox = at % w.out_width;
    for (int64_t o = 0; o < columns; ++o) {
      double sum = double{bias[o]} + residual[r * columns + o];
      for (int64_t ch = 0; ch < t.channels; ++ch) {
        for (int64_t ky = 0; ky < t.kernel_height; ++ky) {
          for (int64_t kx = 0; kx < t.kernel_width; ++kx) {
            const int64_t iy = oy * t.stride - t.pad + ky * w.dilation_height;
            const int64_t ix = ox * t.stride - t.pad + kx * w.dilation_width;
            if (iy < 0 || ix < 0 || iy >= t.height || ix >= t.width) continue;
            sum += double{x[x_at(n, ch, iy, ix)]} * b[depth_at(ch, ky, kx) * columns + o];
          }
        }
      }
      const double expected = sum >= 0 ? sum : 0.5 * sum;
      ASSERT_NEAR(c[r * columns + o], expected, 2e-5 * std::sqrt(depth)) << "row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GemmWindowTest,
                         testing::Values(WindowCase{1, 3, 9, 11, 20, 3, 3, 1, 1, 1, false},
                                         WindowCase{2, 3, 9, 11, 20, 3, 3, 2, 1, 1, true},
                                         WindowCase{2, 1, 12, 40, 70, 1, 16, 4, 5, 1, true},
                                         WindowCase{1, 3, 16, 16, 64, 7, 7, 2, 3, 1, true},
                                         WindowCase{3, 24, 7, 5, 24, 3, 1, 1, 0, 1, false},
                                         WindowCase{2, 40, 7, 7, 130, 3, 3, 1, 2, 2, false},
                                         // Depth in several chunks, taps in several parts.
                                         WindowCase{1, 300, 6, 6, 70, 3, 3, 1, 1, 1, false},
                                         WindowCase{1, 2050, 4, 4, 20, 1, 1, 1, 0, 1, false},
                                         WindowCase{1, 1031, 5, 4, 20, 3, 1, 2, 1, 1, false}));

}  // namespace
}  // namespace plexus::cpu
