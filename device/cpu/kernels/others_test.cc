// Resize and recurrent layers.
#include <gtest/gtest.h>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

TEST(Resize, ModesTransformsAndLayouts) {
  for (bool last : {false, true}) {
    for (const char* transform :
         {"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"}) {
      for (const char* mode : {"nearest", "linear"}) {
        for (const char* nearest : {"round_prefer_floor", "floor", "ceil", "round_prefer_ceil"}) {
          KernelTester t;
          const std::map<std::string, Attribute> attributes = {
              {"mode", std::string(mode)},
              {"nearest_mode", std::string(nearest)},
              {"coordinate_transformation_mode", std::string(transform)}};
          const ValueId x = t.Input({2, 21, 7, 9}, last);
          t.Add(
              "Resize",
              {x, ValueId(), t.Constant(Tensor::Of<float>(DType::kFloat32, {4}, {1, 1, 2, 1.5f}))},
              attributes);
          t.Check(2e-6f);
          KernelTester u;
          const ValueId z = u.Input({2, 21, 7, 9}, last);
          u.Add("Resize",
                {z, ValueId(), ValueId(), u.Constant(Tensor::VectorInt64({2, 21, 5, 20}))},
                attributes);
          u.Check(2e-6f);
        }
      }
    }
  }
}

TEST(Lstm, EveryDirectionWithAndWithoutStates) {
  for (const char* direction : {"forward", "reverse", "bidirectional"}) {
    for (bool states : {false, true}) {
      const int64_t d = std::string(direction) == "bidirectional" ? 2 : 1;
      const int64_t steps = 5, batch = 3, inputs = 21, hidden = 37;
      KernelTester t;
      std::vector<ValueId> in = {t.Input({steps, batch, inputs}),
                                 t.Constant(RandomTensor({d, 4 * hidden, inputs}, 1)),
                                 t.Constant(RandomTensor({d, 4 * hidden, hidden}, 2))};
      if (states) {
        in.push_back(t.Constant(RandomTensor({d, 8 * hidden}, 3)));
        in.push_back(ValueId());
        in.push_back(t.Input({d, batch, hidden}));
        in.push_back(t.Input({d, batch, hidden}));
      }
      t.Add("LSTM", in, {{"hidden_size", hidden}, {"direction", std::string(direction)}}, 3);
      t.Check(5e-6f);
    }
  }
}

TEST(Gru, LinearBeforeReset) {
  const int64_t steps = 4, batch = 2, inputs = 10, hidden = 18;
  KernelTester t;
  t.Add("GRU",
        {t.Input({steps, batch, inputs}), t.Constant(RandomTensor({1, 3 * hidden, inputs}, 1)),
         t.Constant(RandomTensor({1, 3 * hidden, hidden}, 2)),
         t.Constant(RandomTensor({1, 6 * hidden}, 3))},
        {{"hidden_size", hidden}, {"linear_before_reset", int64_t{1}}}, 2);
  t.Check(5e-6f);
}

}  // namespace
}  // namespace plexus::cpu
