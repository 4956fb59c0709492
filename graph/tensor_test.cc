#include "graph/tensor.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

TEST(TensorTest, CopiesShareStorageAndClonesDoNot) {
  Tensor a = Tensor::Of<float>(DType::kFloat32, {2}, {1, 2});
  Tensor b = a;
  Tensor c = a.Clone().value();
  b.mutable_data<float>()[0] = 9;
  EXPECT_EQ(a.data<float>()[0], 9);
  EXPECT_EQ(c.data<float>()[0], 1);
}

TEST(TensorTest, RefusesShapesThatCannotBe) {
  EXPECT_EQ(Tensor::Allocate(DType::kFloat32, {-1}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Tensor::Allocate(DType::kFloat32, {int64_t{1} << 39, 4}).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(Tensor::Allocate(DType::kUndefined, {1}).status().code(), StatusCode::kInvalidArgument);
}

TEST(TensorTest, ZeroSizedTensorsAreFine) {
  Tensor t = Tensor::Allocate(DType::kFloat32, {0, 3}).value();
  EXPECT_EQ(t.size_bytes(), 0u);
  EXPECT_NE(t.raw(), nullptr);
  EXPECT_TRUE(TensorsEqual(t, t.Clone().value()));
}

TEST(TensorTest, ReadsAnyNumberTypeAsInt64) {
  EXPECT_EQ(*ToInt64Vector(Tensor::Of<int32_t>(DType::kInt32, {2}, {-5, 7})),
            (std::vector<int64_t>{-5, 7}));
  EXPECT_FALSE(ToInt64Vector(Tensor::Of<uint64_t>(DType::kUint64, {1}, {UINT64_MAX})).ok());
  EXPECT_FALSE(ToInt64Vector(Tensor::FromStrings({1}, {"x"})).ok());
}

}  // namespace
}  // namespace plexus
