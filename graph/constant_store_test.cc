#include "graph/constant_store.h"

#include <gtest/gtest.h>

#include <thread>

namespace plexus {
namespace {

Tensor Ramp(int n, float offset = 0) {
  std::vector<float> values(n);
  for (int i = 0; i < n; ++i) values[i] = offset + static_cast<float>(i);
  return Tensor::Of<float>(DType::kFloat32, {n}, values);
}

TEST(ConstantStoreTest, EqualContentsAreOneConstant) {
  ConstantStore store;
  ConstantPtr a = store.Intern(Ramp(100));
  ConstantPtr b = store.Intern(Ramp(100));
  EXPECT_EQ(a, b);
  EXPECT_EQ(store.GetStats().constants, 1u);
  EXPECT_EQ(store.GetStats().shared_bytes, 400u);
}

TEST(ConstantStoreTest, OtherBytesShapeOrTypeAreOtherConstants) {
  ConstantStore store;
  ConstantPtr a = store.Intern(Ramp(4));
  EXPECT_NE(a, store.Intern(Ramp(4, 1)));
  EXPECT_NE(a, store.Intern(Ramp(4).Reshaped({2, 2})));
  EXPECT_NE(a, store.Intern(Tensor::FromBuffer(DType::kInt32, {4}, Ramp(4).buffer())));
}

TEST(ConstantStoreTest, AConstantDiesWithItsLastHolder) {
  ConstantStore store;
  ConstantPtr a = store.Intern(Ramp(100));
  a.reset();
  EXPECT_EQ(store.GetStats().constants, 0u);
}

DerivedConstant Negated(const Tensor& plain) {
  auto buffer = Buffer::Allocate(plain.size_bytes()).value();
  auto* out = reinterpret_cast<float*>(buffer->data());
  for (int64_t i = 0; i < plain.num_elements(); ++i) out[i] = -plain.data<float>()[i];
  return DerivedConstant{std::move(buffer)};
}

TEST(ConstantTest, DerivedFormsAreMadeOnceWhileHeld) {
  ConstantStore store;
  ConstantPtr a = store.Intern(Ramp(100));
  int made = 0;
  const auto make = [&](const Tensor& plain) -> Result<DerivedConstant> {
    ++made;
    return Negated(plain);
  };
  DerivedPtr first = a->Derived("negated", make).value();
  EXPECT_EQ(first, a->Derived("negated", make).value());
  EXPECT_EQ(made, 1);
  first.reset();
  ASSERT_TRUE(a->Derived("negated", make).ok());
  EXPECT_EQ(made, 2);
}

TEST(ConstantTest, EvictedPlainBytesComeBackExactly) {
  ConstantStore store;
  ConstantPtr a = store.Intern(Ramp(2000));
  DerivedPtr derived = a->Derived("negated", [](const Tensor& t) -> Result<DerivedConstant> {
                          return Negated(t);
                        }).value();
  a->EvictPlain(derived, [](const DerivedConstant& from) -> Result<Tensor> {
    Tensor t = Tensor::Allocate(DType::kFloat32, {2000}).value();
    const auto* in = reinterpret_cast<const float*>(from.buffer->data());
    for (int i = 0; i < 2000; ++i) t.mutable_data<float>()[i] = -in[i];
    return t;
  });
  derived.reset();
  EXPECT_FALSE(a->PlainIfResident().defined());
  EXPECT_TRUE(TensorsEqual(a->Plain().value(), Ramp(2000)));
  EXPECT_EQ(a, store.Intern(Ramp(2000))) << "an evicted constant is still found by its contents";
}

TEST(ConstantTest, SmallConstantsAreNotEvicted) {
  ConstantStore store;
  ConstantPtr a = store.Intern(Ramp(8));
  a->EvictPlain(nullptr, nullptr);
  EXPECT_TRUE(a->PlainIfResident().defined());
}

TEST(ConstantStoreTest, ConcurrentInterningAgreesOnOneConstant) {
  ConstantStore store;
  std::vector<ConstantPtr> got(8);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&, i] { got[i] = store.Intern(Ramp(1000)); });
  for (auto& t : threads) t.join();
  for (const auto& c : got) EXPECT_EQ(c, got[0]);
}

}  // namespace
}  // namespace plexus
