#include <gtest/gtest.h>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

using Ints = std::vector<int64_t>;

struct Case {
  int64_t channels, height, width, kernel, stride, pad, dilation;
};

class Depthwise : public testing::TestWithParam<Case> {};

TEST_P(Depthwise, EqualsTheReferenceWithBiasResidualAndActivation) {
  const Case& c = GetParam();
  for (const char* activation : {"", "Relu", "Clip", "HardSwish", "HardSwishAffine", "Tanh"}) {
    for (bool residual : {false, true}) {
      KernelTester t;
      const Shape in = {2, c.channels, c.height, c.width};
      const ValueId w = t.Constant(RandomTensor({c.channels, 1, c.kernel, c.kernel}, 5));
      const ValueId b = t.Constant(RandomTensor({c.channels}, 6));
      std::map<std::string, Attribute> attributes = {{"group", c.channels},
                                                     {"strides", Ints{c.stride, c.stride}},
                                                     {"dilations", Ints{c.dilation, c.dilation}},
                                                     {"pads", Ints{c.pad, c.pad, c.pad, c.pad}}};
      if (*activation) attributes["activation"] = std::string(activation);
      if (std::string(activation) == "Clip") {
        attributes["activation_params"] = std::vector<float>{0, 6};
      } else if (std::string(activation) == "HardSwishAffine") {
        attributes["activation_params"] = std::vector<float>{1.5f, -0.25f};
      }
      const ValueId x = t.Input(in);
      std::vector<ValueId> inputs = {x, w, b};
      if (residual) {
        const int64_t reach = (c.kernel - 1) * c.dilation + 1;
        inputs.push_back(t.Input({2, c.channels, (c.height + 2 * c.pad - reach) / c.stride + 1,
                                  (c.width + 2 * c.pad - reach) / c.stride + 1}));
      }
      t.Add("plexus.Conv", inputs, attributes);
      t.Check(2e-6f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Depthwise,
                         testing::Values(Case{32, 17, 19, 3, 1, 1, 1}, Case{96, 16, 23, 3, 2, 1, 1},
                                         Case{24, 9, 11, 5, 1, 2, 1}, Case{20, 9, 30, 5, 2, 2, 1},
                                         Case{7, 12, 13, 3, 1, 2, 2}, Case{16, 5, 4, 7, 1, 3, 1},
                                         Case{33, 4, 2, 3, 1, 1, 1}, Case{64, 60, 60, 3, 1, 0, 1}));

}  // namespace
}  // namespace plexus::cpu
