#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"

namespace plexus {
namespace {

struct QuantizedTest : ::testing::Test {
  TestGraph t;
  int n = 0;

  ValueId U8(uint8_t v) {
    return t.Const("z" + std::to_string(n++), Tensor::Of<uint8_t>(DType::kUint8, {}, {v}));
  }
  ValueId Dequantize(const std::string& name, ValueId q, float scale, uint8_t zero) {
    return t.Op(name, "DequantizeLinear", {q, t.Scalar(scale), U8(zero)});
  }
  ValueId Quantize(const std::string& name, ValueId x, float scale, uint8_t zero) {
    return t.Op(name, "QuantizeLinear", {x, t.Scalar(scale), U8(zero)}, {}, DType::kUint8);
  }
  // Per-channel int8 weights of shape [2, 2, 1, 1], dequantised along `axis`.
  ValueId Weight(const std::string& name, int64_t axis = 0) {
    const ValueId q = t.Const(name, Tensor::Of<int8_t>(DType::kInt8, {2, 2, 1, 1}, {1, -2, 3, 4}));
    return t.Op(name + "_real", "DequantizeLinear",
                {q, t.Floats(name + "_scale", {2}, {0.5f, 0.25f}),
                 t.Const(name + "_zero", Tensor::Of<int8_t>(DType::kInt8, {2}, {0, 0}))},
                {{"axis", axis}});
  }
  ValueId x = t.Input("x", {1, 2, 4, 4}, DType::kUint8);
};

TEST_F(QuantizedTest, ConvolutionWithBiasAndReluBetweenScales) {
  const ValueId real = Dequantize("xr", x, 0.125f, 3);
  ValueId y = t.Op("conv", "Conv", {real, Weight("w"), t.Floats("b", {2}, {1, -1})});
  y = t.Op("relu", "Relu", {y});
  t.Output(Quantize("y", y, 0.5f, 7));
  t.Run(FuseQuantized);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: uint8[1,2,4,4])\n"
            "  %y = plexus.QConv(%x, 0.125, 3, @w, @w_scale, @w_zero, 0.5, 7, @conv/bias) "
            "activation=\"Relu\" : uint8[1,2,4,4]\n"
            "  return %y\n");
  const Tensor bias = t.g.value(t.NodeOf("QConv").inputs[8]).constant->Plain().value();
  EXPECT_EQ(bias.dtype(), DType::kInt32);
  EXPECT_EQ(bias.data<int32_t>()[0], 16);   // 1 / (0.125 * 0.5)
  EXPECT_EQ(bias.data<int32_t>()[1], -32);  // -1 / (0.125 * 0.25)
}

TEST_F(QuantizedTest, WithoutQuantizeLinearTheResultIsFloat) {
  t.Output(t.Op("conv", "Conv", {Dequantize("xr", x, 0.125f, 3), Weight("w")}));
  t.Run(FuseQuantized);
  EXPECT_EQ(t.Ops(), "plexus.QConv");
  EXPECT_EQ(t.NodeOf("QConv").inputs.size(), 6u);
}

TEST_F(QuantizedTest, ScalesAlongTheInputChannelsStay) {
  t.Output(t.Op("conv", "Conv", {Dequantize("xr", x, 0.125f, 3), Weight("w", 1)}));
  t.Run(FuseQuantized);
  EXPECT_EQ(t.Ops(), "DequantizeLinear DequantizeLinear Conv");
}

TEST_F(QuantizedTest, AddOfTwoBecomesQAddAndKeepsTheRoundingBetween) {
  const ValueId real = Dequantize("xr", x, 0.125f, 3);
  const ValueId conv = Quantize("cq", t.Op("conv", "Conv", {real, Weight("w")}), 0.25f, 100);
  ValueId y = t.Op("add", "Add", {Dequantize("cr", conv, 0.25f, 100), real});
  y = t.Op("relu", "Relu", {y});
  t.Output(Quantize("y", y, 0.5f, 0));
  t.Run(FuseQuantized);
  EXPECT_EQ(t.Ops(), "plexus.QConv plexus.QAdd");
  EXPECT_EQ(t.NodeOf("QAdd").StringAttr("activation", ""), "Relu");
}

TEST_F(QuantizedTest, ResidualWithoutRoundingBetweenGoesIntoTheConvolution) {
  const ValueId real = Dequantize("xr", x, 0.125f, 3);
  const ValueId y = t.Op("add", "Add", {t.Op("conv", "Conv", {real, Weight("w")}), real});
  t.Output(Quantize("y", y, 0.5f, 0));
  t.Run(FuseQuantized);
  EXPECT_EQ(t.Ops(), "plexus.QConv");
  EXPECT_EQ(t.NodeOf("QConv").inputs.size(), 12u);
  EXPECT_FALSE(t.NodeOf("QConv").inputs[8].valid());
}

TEST_F(QuantizedTest, PoolingPassesThroughWhenScalesAgree) {
  for (const float scale : {0.125f, 0.25f}) {
    TestGraph fresh;
    std::swap(t, fresh);
    x = t.Input("x", {1, 2, 4, 4}, DType::kUint8);
    const ValueId y = t.Op("pool", "MaxPool", {Dequantize("xr", x, 0.125f, 3)},
                           {{"kernel_shape", std::vector<int64_t>{2, 2}}});
    t.Output(Quantize("y", y, scale, 3));
    t.Run(FuseQuantized);
    EXPECT_EQ(t.Ops(), scale == 0.125f ? "MaxPool" : "DequantizeLinear MaxPool QuantizeLinear");
  }
}

TEST_F(QuantizedTest, GemmWithScalesPerColumn) {
  const ValueId a = Dequantize("ar", t.Input("a", {4, 2}, DType::kUint8), 0.125f, 3);
  const ValueId q = t.Const("w", Tensor::Of<int8_t>(DType::kInt8, {3, 2}, {1, 2, 3, 4, 5, 6}));
  const ValueId w = t.Op("wr", "DequantizeLinear", {q, t.Floats("ws", {3}, {1, 0.5f, 0.25f})},
                         {{"axis", int64_t{0}}});
  t.Output(t.Op("y", "Gemm", {a, w, t.Floats("c", {3}, {1, 1, 1})}, {{"transB", int64_t{1}}}));
  t.Run(FuseQuantized);
  EXPECT_EQ(t.Ops(), "plexus.QMatMul");
  EXPECT_EQ(t.NodeOf("QMatMul").IntAttr("trans_b", 0), 1);
}

}  // namespace
}  // namespace plexus
