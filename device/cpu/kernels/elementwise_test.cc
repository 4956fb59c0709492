#include <gtest/gtest.h>

#include <limits>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

using Strings = std::vector<std::string>;
using Ints = std::vector<int64_t>;
using Floats = std::vector<float>;

struct Function {
  const char* name;
  float low, high;
  float tolerance;
  float p0 = 0, p1 = 0;
};

class OneOperand : public testing::TestWithParam<Function> {};

TEST_P(OneOperand, EqualsReferenceWithSpecialValues) {
  const Function& f = GetParam();
  Tensor x = RandomTensor({3, 1201}, 5, f.low, f.high);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float special[] = {0.0f,    -0.0f,     1.0f,
                           -1.0f,   kInfinity, -kInfinity,
                           1e-30f,  -1e-6f,    1e-6f,
                           88.5f,   -88.5f,    100.0f,
                           -100.0f, 1e-40f,    3e38f,
                           -3e38f,  0.5f,      1.5f,
                           2.5f,    -0.5f,     std::numeric_limits<float>::quiet_NaN()};
  std::copy(std::begin(special), std::end(special), x.mutable_data<float>().begin());
  // The reference takes NaN for negative here; the standard's formula gives NaN.
  if (std::string(f.name) == "Celu") x.mutable_data<float>()[std::size(special) - 1] = 0;
  KernelTester t;
  t.Add("plexus.Elementwise", {t.Input(x)},
        {{"ops", Strings{f.name}}, {"args", Ints{0, -1, -1}}, {"params", Floats{f.p0, f.p1}}});
  t.Check(f.tolerance);
}

INSTANTIATE_TEST_SUITE_P(
    All, OneOperand,
    testing::Values(
        Function{"Abs", -5, 5, 0}, Function{"Neg", -5, 5, 0}, Function{"Exp", -20, 20, 5e-7f},
        Function{"Log", 0, 1000, 5e-7f}, Function{"Sqrt", -1, 50, 1e-7f},
        Function{"Reciprocal", -3, 3, 1e-7f}, Function{"Erf", -5, 5, 5e-7f},
        Function{"Sigmoid", -20, 20, 5e-7f}, Function{"Tanh", -10, 10, 5e-7f},
        Function{"Floor", -9, 9, 0}, Function{"Ceil", -9, 9, 0}, Function{"Round", -9, 9, 0},
        Function{"Sign", -1, 1, 0}, Function{"Relu", -1, 1, 0},
        Function{"Softplus", -30, 30, 1e-6f}, Function{"Softsign", -9, 9, 3e-7f},
        Function{"HardSwish", -5, 5, 5e-7f}, Function{"Silu", -20, 20, 5e-7f},
        Function{"Gelu", -6, 6, 1e-6f}, Function{"GeluTanh", -6, 6, 1e-6f},
        Function{"Mish", -9, 9, 1e-6f}, Function{"Not", -1, 1, 0},
        Function{"LeakyRelu", -3, 3, 1e-7f, 0.1f}, Function{"Elu", -6, 3, 5e-7f, 1.3f},
        Function{"Celu", -6, 3, 5e-7f, 0.7f}, Function{"Selu", -6, 3, 1e-6f, 1.67f, 1.05f},
        Function{"ThresholdedRelu", -3, 3, 0, 0.5f},
        Function{"HardSigmoid", -6, 6, 3e-7f, 0.2f, 0.5f}, Function{"Clip", -9, 9, 0, -1.5f, 4},
        Function{"Sin", -9, 9, 1e-6f}, Function{"Cos", -9, 9, 1e-6f}),
    [](const auto& info) { return info.param.name; });

// Every pattern of broadcasting, with both layouts, for each arity.
struct Pattern {
  Shape a, b;
};

class TwoOperands : public testing::TestWithParam<Pattern> {};

TEST_P(TwoOperands, BroadcastAsTheReferenceDoes) {
  const Pattern& p = GetParam();
  for (const char* op : {"Add", "Sub", "Div", "PRelu", "Max", "Less"}) {
    for (int layouts = 0; layouts < 4; ++layouts) {
      const bool a_last = layouts & 1, b_last = layouts & 2;
      if ((a_last && p.a.size() < 3) || (b_last && p.b.size() < 3)) continue;
      if (a_last && p.a.size() > 4) continue;
      SCOPED_TRACE(std::string(op) + " layouts " + std::to_string(layouts));
      KernelTester t;
      const ValueId a = t.Input(p.a, a_last), b = t.Input(p.b, b_last);
      t.Add("plexus.Elementwise", {a, b},
            {{"ops", Strings{op}}, {"args", Ints{0, 1, -1}}, {"params", Floats{0, 0}}});
      t.Check(2e-7f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, TwoOperands,
    testing::Values(Pattern{{5}, {5}}, Pattern{{3, 700}, {1}}, Pattern{{}, {2, 3}},
                    Pattern{{2, 19, 7, 5}, {19, 1, 1}}, Pattern{{2, 19, 7, 5}, {1, 19, 1, 1}},
                    Pattern{{2, 19, 7, 5}, {2, 19, 1, 1}}, Pattern{{2, 19, 7, 5}, {2, 1, 7, 5}},
                    Pattern{{1, 600, 3, 2}, {1, 600, 1, 1}}, Pattern{{1, 24, 40, 30}, {24, 1, 1}},
                    Pattern{{4, 33, 768}, {768}}, Pattern{{4, 33, 768}, {4, 33, 1}},
                    Pattern{{4, 33, 7}, {4, 1, 7}}, Pattern{{2, 3, 17, 1300}, {2, 1, 1, 1300}},
                    Pattern{{2, 1, 17, 1}, {1, 5, 1, 9}}, Pattern{{7, 1}, {1, 2000}},
                    Pattern{{1, 16, 161, 160}, {1, 16, 161, 160}},
                    Pattern{{3, 1, 2, 4, 5}, {2, 1, 5}}));

TEST(Elementwise, ProgramsWithJoinedStepsAndReusedSlots) {
  KernelTester t;
  const ValueId x = t.Input({2, 12, 9, 11}, true);
  const ValueId scale = t.Constant(RandomTensor({12, 1, 1}, 3));
  const ValueId shift = t.Constant(RandomTensor({12, 1, 1}, 4));
  const ValueId half = t.Constant(Tensor::Scalar(0.5f));
  // r = relu(x·scale + shift); y = r where r < half, else sigmoid(r)·r + x
  t.Add("plexus.Elementwise", {x, scale, shift, half},
        {{"ops", Strings{"Mul", "Add", "Relu", "Sigmoid", "Mul", "Add", "Less", "Where"}},
         {"args",
          Ints{0, 1, -1, 4, 2, -1, 5, -1, -1, 6, -1, -1, 7, 6, -1, 8, 0, -1, 6, 3, -1, 10, 6, 9}},
         {"params", Floats(16, 0.0f)}});
  t.Check(1e-6f);
}

TEST(Elementwise, PowersWithAndWithoutLogarithm) {
  for (float exponent : {2.0f, 1.0f, -1.0f, 0.5f, 3.7f}) {
    KernelTester t;
    const ValueId x = t.Input(RandomTensor({5, 77}, 9, 0, 4));
    t.Add("plexus.Elementwise", {x, t.Constant(Tensor::Scalar(exponent))},
          {{"ops", Strings{"Pow"}}, {"args", Ints{0, 1, -1}}, {"params", Floats{0, 0}}});
    t.Check(3e-7f);
  }
}

TEST(Elementwise, LargeTensorsAreCutIntoBlocks) {
  KernelTester t;
  const ValueId x = t.Input({2, 16, 181, 160}, true), r = t.Input({2, 16, 181, 160}, true);
  t.Add("plexus.Elementwise", {x, r, t.Constant(RandomTensor({16, 1, 1}, 4))},
        {{"ops", Strings{"Add", "Mul"}},
         {"args", Ints{0, 1, -1, 3, 2, -1}},
         {"params", Floats(4, 0.0f)}});
  t.Check(2e-7f);
}

TEST(Elementwise, SingleOperators) {
  KernelTester t;
  t.Add("LeakyRelu", {t.Input({3, 5})}, {{"alpha", 0.3f}});
  t.Check(2e-7f);
  KernelTester u;
  u.Add("Clip", {u.Input({3, 5}), u.Constant(Tensor::Scalar(-0.5f))});
  u.Check(0);
  KernelTester w;
  w.Add("Sum", {w.Input({3, 5}), w.Input({5}), w.Input({3, 1})});
  w.Check(2e-7f);
}

}  // namespace
}  // namespace plexus::cpu
