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
    float p0, p1;
    double (*expected)(double);
  };
  const Case cases[] = {
      {GemmActivation::kSigmoid, 0, 0, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {GemmActivation::kTanh, 0, 0, [](double x) { return std::tanh(x); }},
      {GemmActivation::kGelu, 0, 0,
       [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }},
      {GemmActivation::kGeluTanh, 0, 0,
       [](double x) {
         return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
       }},
      {GemmActivation::kClip, 0, 6, [](double x) { return std::min(6.0, std::max(0.0, x)); }},
      {GemmActivation::kLeakyRelu, 0.1f, 0, [](double x) { return x > 0 ? x : 0.1 * x; }},
      {GemmActivation::kHardSigmoid, 0.2f, 0.5f,
       [](double x) { return std::min(1.0, std::max(0.0, 0.2 * x + 0.5)); }},
      {GemmActivation::kHardSwish, 0, 0,
       [](double x) { return x * std::min(1.0, std::max(0.0, x / 6 + 0.5)); }},
      {GemmActivation::kSilu, 0, 0, [](double x) { return x / (1 + std::exp(-x)); }},
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
    BestGemm().run(args);
    for (int64_t n = 0; n < columns; ++n) {
      ASSERT_NEAR(c[n], test.expected(b[n]), 2e-6 * std::max(1.0f, std::abs(b[n])))
          << static_cast<int>(test.activation) << " at " << b[n];
    }
  }
}

}  // namespace
}  // namespace plexus::cpu
