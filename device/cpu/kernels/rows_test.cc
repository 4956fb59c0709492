#include <gtest/gtest.h>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

using Ints = std::vector<int64_t>;

TEST(Softmax, EveryAxisLayoutAndLength) {
  for (const char* op : {"Softmax", "LogSoftmax"}) {
    for (bool last : {false, true}) {
      for (int64_t axis : {1, 2, -1}) {
        KernelTester t;
        t.Add(op, {t.Input({2, 37, 9, 70}, last)}, {{"axis", axis}});
        t.Check(1e-6f);
      }
    }
    for (int64_t n : {1, 7, 16, 31, 128, 1000}) {
      KernelTester t;
      t.Add(op, {t.Input(RandomTensor({5, n}, 3, -40, 40))});
      t.Check(2e-6f);
    }
  }
}

TEST(Softmax, MaskedEntriesAreZero) {
  Tensor x = RandomTensor({4, 33}, 3);
  for (int i = 0; i < 33; i += 2) x.mutable_data<float>()[i] = -__builtin_inff();
  for (int i = 40; i < 60; ++i) x.mutable_data<float>()[i] = -3.4e38f;
  KernelTester t;
  t.Add("Softmax", {t.Input(x)});
  t.Check(1e-6f);
}

TEST(LayerNormalization, RowsOfAnyLengthWithAndWithoutBias) {
  for (int64_t n : {2, 5, 16, 100, 768, 1031}) {
    for (bool bias : {false, true}) {
      KernelTester t;
      std::vector<ValueId> inputs = {t.Input({3, 11, n}), t.Constant(RandomTensor({n}, 1))};
      if (bias) inputs.push_back(t.Constant(RandomTensor({n}, 2)));
      t.Add("LayerNormalization", inputs, {{"epsilon", 1e-5f}});
      t.Check(5e-6f);
    }
  }
  KernelTester t;
  t.Add("LayerNormalization", {t.Input({2, 6, 5, 7}, true), t.Constant(RandomTensor({6, 5, 7}, 1))},
        {{"axis", int64_t{1}}});
  t.Check(5e-6f);
}

TEST(InstanceNormalization, EachChannelOfEachImage) {
  KernelTester t;
  t.Add("InstanceNormalization", {t.Input({2, 6, 13, 7}), t.Constant(RandomTensor({6}, 1)),
                                  t.Constant(RandomTensor({6}, 2))});
  t.Check(5e-6f);
}

TEST(Reduce, EveryOperatorAxesAndLayout) {
  for (const char* op : {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd",
                         "ReduceSumSquare", "ReduceL2", "ReduceL1"}) {
    for (bool last : {false, true}) {
      for (const Ints& axes : {Ints{2, 3}, Ints{-1}, Ints{1}, Ints{0}, Ints{1, 2, 3}, Ints{}}) {
        for (int64_t keep : {0, 1}) {
          SCOPED_TRACE(std::string(op) + (last ? " channels-last" : " row-major") + " axes " +
                       std::to_string(axes.size()) + " keep " + std::to_string(keep));
          KernelTester t;
          std::vector<ValueId> inputs = {t.Input({3, 21, 5, 7}, last)};
          std::map<std::string, Attribute> attributes = {{"keepdims", keep}};
          const bool by_input = std::string(op) == "ReduceSum";
          t.version = by_input ? 13 : 12;
          if (!axes.empty()) {
            if (by_input) {
              inputs.push_back(t.Constant(Tensor::VectorInt64(axes)));
            } else {
              attributes["axes"] = axes;
            }
          }
          t.Add(op, inputs, attributes);
          t.Check(2e-5f);
        }
      }
    }
  }
}

TEST(Reduce, NanIsTheMaximum) {
  Tensor x = RandomTensor({3, 40}, 3);
  x.mutable_data<float>()[50] = __builtin_nanf("");
  KernelTester t;
  t.version = 12;
  t.Add("ReduceMax", {t.Input(x)}, {{"axes", Ints{1}}});
  t.Check(0);
}

}  // namespace
}  // namespace plexus::cpu
