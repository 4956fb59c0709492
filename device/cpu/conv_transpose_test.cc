#include <gtest/gtest.h>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

using Ints = std::vector<int64_t>;

struct Case {
  Shape in;
  int64_t filters, kernel_height, kernel_width;
  bool bias;
};

class ConvTransposeTest : public testing::TestWithParam<Case> {};

TEST_P(ConvTransposeTest, EqualsTheReference) {
  const Case& c = GetParam();
  KernelTester t;
  std::vector<ValueId> inputs = {t.Input(c.in)};
  Shape weights = {c.in[1], c.filters, c.kernel_height, c.kernel_width};
  Ints strides = {c.kernel_height, c.kernel_width};
  if (c.in.size() == 3) {
    weights = {c.in[1], c.filters, c.kernel_width};
    strides = {c.kernel_width};
  }
  inputs.push_back(t.Constant(RandomTensor(weights, 5)));
  if (c.bias) inputs.push_back(t.Constant(RandomTensor({c.filters}, 6)));
  t.Add("ConvTranspose", inputs, {{"strides", strides}});
  t.Check(2e-6f);
}

INSTANTIATE_TEST_SUITE_P(All, ConvTransposeTest,
                         testing::Values(Case{{2, 24, 9, 13}, 24, 2, 2, true},
                                         Case{{1, 24, 40, 50}, 1, 2, 2, true},
                                         Case{{1, 3, 5, 7}, 40, 3, 2, false},
                                         Case{{2, 5, 11}, 6, 1, 4, true},
                                         Case{{1, 1, 1, 1}, 1, 1, 1, false}));

TEST(ConvTransposeTest, OverlappingWindowsAreLeftToTheReference) {
  KernelTester t;
  const ValueId w = t.Constant(RandomTensor({4, 3, 3, 3}, 5));
  t.Add("ConvTranspose", {t.Input({1, 4, 5, 5}), w}, {{"strides", Ints{2, 2}}});
  t.Check(2e-6f, /*by_reference=*/true);
}

}  // namespace
}  // namespace plexus::cpu
