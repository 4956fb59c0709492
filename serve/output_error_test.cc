#include "serve/output_error.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

// Conv 3x3, 16 to 16 channels over [N,16,8,8], weights from a fixed ramp.
GraphPtr ConvModel() {
  Graph graph;
  graph.name = "conv";
  Value x;
  x.name = "x";
  x.dtype = DType::kFloat32;
  x.shape = SymbolicShape{true, {{std::nullopt, "N"}, {16, ""}, {8, ""}, {8, ""}}};
  std::vector<float> weights(16 * 16 * 9);
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 333.0f;
  }
  const ValueId in = graph.AddInput(x);
  const ValueId w = graph.AddConstant("w", ConstantStore::Get().Intern(Tensor::Of<float>(
                                               DType::kFloat32, {16, 16, 3, 3}, weights)));
  Value y;
  y.name = "y";
  y.dtype = DType::kFloat32;
  Node node;
  node.op = "Conv";
  node.name = "conv";
  node.version = 17;
  node.inputs = {in, w};
  node.outputs = {graph.AddValue(y)};
  graph.outputs() = node.outputs;
  graph.AddNode(node);
  return std::make_shared<const Graph>(std::move(graph));
}

class OutputErrorTest : public ::testing::Test {
 protected:
  OutputErrorTest() {
    RuntimeOptions options;
    options.threads = 1;
    runtime_ = Runtime::Create(options).value();
  }
  std::unique_ptr<Runtime> runtime_;
};

TEST_F(OutputErrorTest, Float32AgainstItselfIsExact) {
  const GraphPtr graph = ConvModel();
  const ExecutablePtr same = runtime_->Load("conv", graph, {}).value();
  EXPECT_EQ(*MeasureOutputError(*runtime_, graph, same, {}), 0);
}

TEST_F(OutputErrorTest, BFloat16IsWithinItsEightBits) {
  const GraphPtr graph = ConvModel();
  CompileOptions options;
  options.precision = Precision::kBFloat16;
  const ExecutablePtr reduced = runtime_->Load("conv", graph, options).value();
  // 0 on a CPU without bf16, where float32 is used instead.
  EXPECT_LT(*MeasureOutputError(*runtime_, graph, reduced, {{"x", {2, 16, 8, 8}}}), 0.02);
}

TEST_F(OutputErrorTest, ShapesThatTheModelRefusesAreSaid) {
  const GraphPtr graph = ConvModel();
  const ExecutablePtr same = runtime_->Load("conv", graph, {}).value();
  EXPECT_EQ(MeasureOutputError(*runtime_, graph, same, {{"x", {1, 3}}}).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST(IsQuantizedTest, IsAboutIntegerArithmeticOnly) {
  Graph graph = *ConvModel();
  EXPECT_FALSE(IsQuantized(graph));
  graph.nodes()[0].op = "QLinearConv";
  EXPECT_TRUE(IsQuantized(graph));
}

}  // namespace
}  // namespace plexus
