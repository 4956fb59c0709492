#include <gtest/gtest.h>

#include "device/cpu/kernels/kernel_tester.h"

namespace plexus::cpu {
namespace {

Tensor SmallInts(DType dtype, const Shape& shape, int64_t seed) {
  Tensor t = Tensor::Allocate(dtype, shape).value();
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    const int64_t v = (i * 7 + seed) % 11 - 5;
    if (dtype == DType::kInt64) t.mutable_data<int64_t>()[i] = v;
    if (dtype == DType::kInt32) t.mutable_data<int32_t>()[i] = static_cast<int32_t>(v);
    if (dtype == DType::kFloat32) t.mutable_data<float>()[i] = static_cast<float>(v) * 0.75f;
    if (dtype == DType::kBool) t.mutable_data<uint8_t>()[i] = v > 0;
  }
  return t;
}

TEST(Typed, ArithmeticAndComparisonsOfIntegers) {
  for (const char* op : {"Add", "Sub", "Mul", "Min", "Max", "Equal", "Less", "LessOrEqual",
                         "Greater", "GreaterOrEqual"}) {
    for (DType dtype : {DType::kInt64, DType::kInt32}) {
      KernelTester t;
      t.Add(op, {t.Input(SmallInts(dtype, {3, 1, 7}, 1)), t.Input(SmallInts(dtype, {5, 7}, 4))});
      t.Check(0);
    }
  }
}

TEST(Typed, ComparisonsOfFloatsAndLogic) {
  for (const char* op : {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"}) {
    KernelTester t;
    t.Add(op, {t.Input(SmallInts(DType::kFloat32, {3, 16384}, 1)),
               t.Input(SmallInts(DType::kFloat32, {3, 1}, 2))});
    t.Check(0);
  }
  for (const char* op : {"And", "Or", "Xor"}) {
    KernelTester t;
    t.Add(op,
          {t.Input(SmallInts(DType::kBool, {3, 5}, 1)), t.Input(SmallInts(DType::kBool, {5}, 2))});
    t.Check(0);
  }
  KernelTester t;
  t.Add("Not", {t.Input(SmallInts(DType::kBool, {3, 5}, 1))});
  t.Check(0);
}

TEST(Typed, WhereOfEveryElementSize) {
  for (DType dtype : {DType::kBool, DType::kFloat32, DType::kInt64}) {
    KernelTester t;
    t.Add("Where", {t.Input(SmallInts(DType::kBool, {4, 1, 6}, 1)),
                    t.Input(SmallInts(dtype, {4, 5, 6}, 2)), t.Input(SmallInts(dtype, {1}, 3))});
    t.Check(0);
  }
}

TEST(Typed, CastsBetweenCommonTypes) {
  const std::pair<DType, DType> cases[] = {
      {DType::kInt64, DType::kFloat32}, {DType::kInt32, DType::kFloat32},
      {DType::kBool, DType::kFloat32},  {DType::kFloat32, DType::kInt64},
      {DType::kFloat32, DType::kBool},  {DType::kInt64, DType::kInt32},
      {DType::kInt64, DType::kBool},    {DType::kInt32, DType::kInt64},
      {DType::kBool, DType::kInt64}};
  for (const auto& [from, to] : cases) {
    KernelTester t;
    t.Add("Cast", {t.Input(SmallInts(from, {3, 37}, 1))}, {{"to", static_cast<int64_t>(to)}});
    t.Check(0);
  }
}

}  // namespace
}  // namespace plexus::cpu
