#include <gtest/gtest.h>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

struct Sizes {
  int64_t images, heads, queries, keys, depth, width;
};

class Attention : public testing::TestWithParam<Sizes> {};

TEST_P(Attention, EqualsTheReferenceWithEveryMask) {
  const Sizes& s = GetParam();
  const Shape masks[] = {{},
                         {s.images, 1, 1, s.keys},
                         {s.images, s.heads, s.queries, s.keys},
                         {1, 1, s.queries, s.keys},
                         {s.keys}};
  for (const Shape& mask : masks) {
    KernelTester t;
    std::vector<ValueId> inputs = {t.Input({s.images, s.heads, s.queries, s.depth}),
                                   t.Input({s.images, s.heads, s.keys, s.depth}),
                                   t.Input({s.images, s.heads, s.keys, s.width})};
    if (!mask.empty()) inputs.push_back(t.Input(mask));
    t.Add("plexus.Attention", inputs, {{"scale", 0.2f}});
    t.Check(3e-6f);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Attention,
                         testing::Values(Sizes{1, 2, 128, 128, 64, 64}, Sizes{2, 3, 17, 29, 20, 24},
                                         Sizes{1, 1, 1, 70, 32, 32}, Sizes{1, 4, 300, 300, 64, 64},
                                         Sizes{2, 2, 3, 65, 7, 5}));

}  // namespace
}  // namespace plexus::cpu
