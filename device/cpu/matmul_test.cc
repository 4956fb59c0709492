#include <gtest/gtest.h>

#include <algorithm>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

TEST(MatMulTest, ATransposedLeftOperandIsReadChannelsLast) {
  for (bool channels_last : {false, true}) {
    for (const Shape& in : {Shape{1, 20, 40}, Shape{3, 20, 7}}) {
      KernelTester t;
      const ValueId w = t.Constant(RandomTensor({20, 33}, 5)),
                    b = t.Constant(RandomTensor({33}, 6));
      t.Add("plexus.MatMul", {t.Input(in, channels_last), w, b},
            {{"trans_a", int64_t{1}}, {"activation", std::string("Relu")}});
      t.Check(2e-6f);
    }
  }
}

TEST(MatMulTest, ATransposedLeftOperandMeetsABatchOfRightOnes) {
  KernelTester t;
  const ValueId a = t.Input({3, 20, 7}), b = t.Input({3, 20, 9});
  t.Add("plexus.MatMul", {a, b}, {{"trans_a", int64_t{1}}});
  t.Check(2e-6f);
}

}  // namespace
}  // namespace plexus::cpu
