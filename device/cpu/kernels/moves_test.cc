#include <gtest/gtest.h>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

using Ints = std::vector<int64_t>;

Tensor Bytes(DType dtype, const Shape& shape) {
  Tensor t = Tensor::Allocate(dtype, shape).value();
  for (size_t i = 0; i < t.size_bytes(); ++i) t.raw_mutable()[i] = static_cast<std::byte>(i * 37);
  return t;
}

TEST(Transpose, AnyPermutationShapeAndElementSize) {
  const std::pair<Shape, Ints> cases[] = {{{37, 53}, {1, 0}},
                                          {{2, 5, 67}, {0, 2, 1}},
                                          {{2, 19, 3, 64}, {0, 2, 1, 3}},
                                          {{2, 19, 3, 64}, {0, 2, 3, 1}},
                                          {{3, 4, 5, 6}, {3, 2, 1, 0}},
                                          {{2, 3, 4, 5, 6}, {4, 0, 3, 1, 2}},
                                          {{1, 300, 700}, {2, 1, 0}},
                                          {{2, 33, 17, 18}, {0, 3, 1, 2}}};
  for (const auto& [shape, perm] : cases) {
    for (DType dtype : {DType::kUint8, DType::kFloat16, DType::kInt32, DType::kInt64}) {
      KernelTester t;
      t.Add("Transpose", {t.Input(Bytes(dtype, shape))}, {{"perm", perm}});
      t.Check(0);
    }
    if (shape.size() > 2 && shape.size() < 5) {
      KernelTester t;
      t.Add("Transpose", {t.Input(shape, true)}, {{"perm", perm}});
      t.Check(0);
    }
  }
}

TEST(Slice, StartsStepsAndBothLayouts) {
  for (bool last : {false, true}) {
    KernelTester t;
    const ValueId x = t.Input({2, 21, 9, 14}, last);
    t.Add("Slice", {x, t.Constant(Tensor::VectorInt64({3, -2, 100})),
                    t.Constant(Tensor::VectorInt64({-1, 200, -200})),
                    t.Constant(Tensor::VectorInt64({1, 2, -1})),
                    t.Constant(Tensor::VectorInt64({2, 1, -3}))});
    t.Check(0);
  }
}

TEST(Split, AlongChannelsAndOtherAxes) {
  for (bool last : {false, true}) {
    for (int64_t axis : {1, 3}) {
      KernelTester t;
      const ValueId x = t.Input({2, 12, 5, 12}, last);
      t.Add("Split", {x, t.Constant(Tensor::VectorInt64({3, 7, 2}))}, {{"axis", axis}}, 3);
      t.Check(0);
    }
  }
}

TEST(Concat, AnyAxisBothLayoutsAndCutIntoBlocks) {
  for (bool last : {false, true}) {
    for (int64_t axis : {0, 1, 2, -1}) {
      KernelTester t;
      Shape a = {2, 24, 60, 60}, b = a;
      b[axis < 0 ? 3 : axis] += 3;
      const ValueId x = t.Input(a, last), y = t.Input(b, last), z = t.Input(a);
      t.Add("Concat", {x, y, z}, {{"axis", axis}});
      t.Check(0);
    }
  }
  KernelTester t;
  t.Add("Concat", {t.Input(Bytes(DType::kInt64, {3})), t.Input(Bytes(DType::kInt64, {2}))},
        {{"axis", int64_t{0}}});
  t.Check(0);
}

TEST(ExpandAndTile, RepeatElements) {
  for (bool last : {false, true}) {
    KernelTester t;
    t.Add("Expand", {t.Input({2, 1, 5, 1}, last), t.Constant(Tensor::VectorInt64({1, 7, 1, 3}))});
    t.Check(0);
    KernelTester u;
    u.Add("Tile", {u.Input({2, 3, 5, 2}, last), u.Constant(Tensor::VectorInt64({1, 2, 3, 2}))});
    u.Check(0);
  }
  KernelTester t;
  t.Add("Expand",
        {t.Input(Bytes(DType::kBool, {3, 1})), t.Constant(Tensor::VectorInt64({4, 3, 5}))});
  t.Check(0);
}

TEST(Pad, ConstantWithCroppingInBothLayouts) {
  for (bool last : {false, true}) {
    KernelTester t;
    t.Add("Pad",
          {t.Input({2, 5, 7, 6}, last), t.Constant(Tensor::VectorInt64({0, 1, 2, -1, 1, 0, -3, 4})),
           t.Constant(Tensor::Scalar(2.5f))});
    t.Check(0);
  }
}

TEST(Gather, RowsOfTablesWithNegativeIndices) {
  for (int64_t axis : {0, 1, 2}) {
    KernelTester t;
    t.Add("Gather",
          {t.Input({6, 7, 8}), t.Input(Tensor::Of<int64_t>(DType::kInt64, {2, 2}, {5, -1, 0, 3}))},
          {{"axis", axis}});
    t.Check(0);
  }
  KernelTester t;
  t.Add("Gather", {t.Constant(RandomTensor({50, 64}, 1)),
                   t.Input(Tensor::Of<int32_t>(DType::kInt32, {3}, {49, 0, 7}))});
  t.Check(0);
}

TEST(DepthToSpace, BothModesAndBack) {
  for (bool last : {false, true}) {
    for (const char* mode : {"DCR", "CRD"}) {
      KernelTester t;
      t.Add("DepthToSpace", {t.Input({2, 12, 5, 3}, last)},
            {{"blocksize", int64_t{2}}, {"mode", std::string(mode)}});
      t.Check(0);
    }
    KernelTester t;
    t.Add("SpaceToDepth", {t.Input({2, 3, 8, 6}, last)}, {{"blocksize", int64_t{2}}});
    t.Check(0);
  }
}

}  // namespace
}  // namespace plexus::cpu
