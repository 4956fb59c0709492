#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"

namespace plexus {
namespace {

const float kInf = INFINITY;

// conv with two 1x1 output channels over two input channels: weights and bias told by eye.
struct ConvTest : ::testing::Test {
  TestGraph t;
  ValueId x = t.Input("x", {1, 2, 4, 4});
  ValueId Conv(const std::string& name, ValueId in) {
    return t.Op(name, "Conv",
                {in, t.Floats(name + "_w", {2, 2, 1, 1}, {1, 2, 3, 4}),
                 t.Floats(name + "_b", {2}, {10, 20})},
                {{"kernel_shape", std::vector<int64_t>{1, 1}}});
  }
  ValueId BatchNorm(const std::string& name, ValueId in,
                    std::map<std::string, Attribute> attributes = {}) {
    attributes["epsilon"] = 0.0f;
    return t.Op(name, "BatchNormalization",
                {in, t.Floats(name + "_s", {2}, {4, 3}), t.Floats(name + "_o", {2}, {100, 200}),
                 t.Floats(name + "_m", {2}, {1, 2}), t.Floats(name + "_v", {2}, {4, 9})},
                attributes);
  }
};

TEST_F(ConvTest, BatchNormalizationGoesIntoWeightAndBias) {
  t.Output(BatchNorm("bn", Conv("conv", x)));
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[1,2,4,4])\n"
            "  %conv = Conv(%x, @conv_w, @conv_b) kernel_shape=[1,1] : float32[1,2,4,4]\n"
            "  %bn = BatchNormalization(%conv, @bn_s, @bn_o, @bn_m, @bn_v) epsilon=0 : "
            "float32[1,2,4,4]\n"
            "  return %bn\n");
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[1,2,4,4])\n"
            "  %bn = Conv(%x, @conv/weight, @conv/bias) kernel_shape=[1,1] : float32[1,2,4,4]\n"
            "  return %bn\n");
  const Node& conv = t.NodeOf("Conv");
  // scale = gamma/sqrt(var) = {2, 1}; bias = (10-1)*2+100, (20-2)*1+200.
  EXPECT_EQ(t.ConstantOf(conv.inputs[1]), (std::vector<float>{2, 4, 3, 4}));
  EXPECT_EQ(t.ConstantOf(conv.inputs[2]), (std::vector<float>{118, 218}));
}

TEST_F(ConvTest, ChainsOfConstantAffineStepsFoldAtOnce) {
  ValueId y = Conv("conv", x);
  y = t.Op("mul", "Mul", {t.Floats("m", {2, 1, 1}, {2, -1}), y});
  y = t.Op("sub", "Sub", {t.Scalar(5), y});
  y = t.Op("div", "Div", {y, t.Floats("d", {1}, {2})});
  t.Output(t.Op("add", "Add", {y, t.Scalar(1)}));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.Ops(), "Conv");
  const Node& conv = t.NodeOf("Conv");
  // (5 - m*(w·x + b)) / 2 + 1
  EXPECT_EQ(t.ConstantOf(conv.inputs[1]), (std::vector<float>{-1, -2, 1.5, 2}));
  EXPECT_EQ(t.ConstantOf(conv.inputs[2]), (std::vector<float>{-6.5, 13.5}));
}

TEST_F(ConvTest, ScalarStepsBeforeAnUnpaddedConvolutionFoldIntoIt) {
  ValueId y = t.Op("relu", "Relu", {x});
  y = t.Op("mul", "Mul", {y, t.Scalar(2)});
  y = t.Op("add", "Add", {y, t.Scalar(3)});
  t.Output(Conv("conv", y));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.Ops(), "Relu Conv");
  const Node& conv = t.NodeOf("Conv");
  EXPECT_EQ(t.ConstantOf(conv.inputs[1]), (std::vector<float>{2, 4, 6, 8}));
  EXPECT_EQ(t.ConstantOf(conv.inputs[2]), (std::vector<float>{19, 41}));
}

TEST_F(ConvTest, StepsBeforeAPaddedConvolutionStay) {
  const ValueId y = t.Op("add", "Add", {x, t.Scalar(3)});
  t.Output(t.Op("conv", "Conv", {y, t.Floats("w", {2, 2, 1, 1}, {1, 2, 3, 4})},
                {{"pads", std::vector<int64_t>{1, 1, 1, 1}}}));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.Ops(), "Add Conv");
}

TEST_F(ConvTest, TransposedConvolutionScalesTheOutputChannelsOfEachGroup) {
  // Two groups, one input channel each, one output channel each.
  const ValueId y = t.Op("conv", "ConvTranspose", {x, t.Floats("w", {2, 1, 1, 1}, {1, 10})},
                         {{"group", int64_t{2}}});
  t.Output(t.Op("mul", "Mul", {y, t.Floats("m", {2, 1, 1}, {3, 5})}));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.Ops(), "ConvTranspose");
  EXPECT_EQ(t.ConstantOf(t.NodeOf("ConvTranspose").inputs[1]), (std::vector<float>{3, 50}));
}

TEST_F(ConvTest, BatchNormalizationWithoutConvolutionBecomesMulAdd) {
  t.Output(t.Op("relu", "Relu", {BatchNorm("bn", x)}));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[1,2,4,4])\n"
            "  %bn/scaled = Mul(%x, @bn/scale) : float32[1,2,4,4]\n"
            "  %bn = Add(%bn/scaled, @bn/shift) : float32[1,2,4,4]\n"
            "  %relu = Relu(%bn) : float32[1,2,4,4]\n"
            "  return %relu\n");
  EXPECT_EQ(t.ConstantOf(t.NodeOf("Add").inputs[1]), (std::vector<float>{98, 198}));
}

TEST_F(ConvTest, TrainingModeStays) {
  t.Output(BatchNorm("bn", Conv("conv", x), {{"training_mode", int64_t{1}}}));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.Ops(), "Conv BatchNormalization");
}

TEST_F(ConvTest, ConvolutionWithTwoReadersKeepsItsWeights) {
  const ValueId y = Conv("conv", x);
  t.Output(t.Op("mul", "Mul", {y, t.Scalar(2)}));
  t.Output(t.Op("relu", "Relu", {y}));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.Ops(), "Conv Mul Relu");
}

TEST_F(ConvTest, ConvolutionThatIsAnOutputKeepsItsWeights) {
  const ValueId y = Conv("conv", x);
  t.Output(y);
  t.Output(t.Op("mul", "Mul", {y, t.Scalar(2)}));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.Ops(), "Conv Mul");
}

TEST_F(ConvTest, ConstantsThatAreNotPerChannelStay) {
  for (const Shape& shape : {Shape{4}, Shape{1, 4, 1}, Shape{1, 1, 2, 1, 1}}) {
    TestGraph u;
    const ValueId in = u.Input("x", {1, 2, 4, 4});
    const ValueId y = u.Op("conv", "Conv", {in, u.Floats("w", {2, 2, 1, 1}, {1, 2, 3, 4})});
    u.Output(u.Op("mul", "Mul", {y, u.Ramp("m", shape)}));
    u.Run(FuseConvBatchNorm);
    EXPECT_EQ(u.Ops(), "Conv Mul") << ShapeToString(shape);
  }
}

TEST_F(ConvTest, ConstantDividedByTheResultStays) {
  t.Output(t.Op("div", "Div", {t.Scalar(2), Conv("conv", x)}));
  t.Run(FuseConvBatchNorm);
  EXPECT_EQ(t.Ops(), "Conv Div");
}

TEST_F(ConvTest, EpilogueTakesResidualAndActivation) {
  const ValueId y = t.Op("add", "Add", {Conv("conv", x), x});
  t.Output(t.Op("relu", "Relu", {y}));
  t.Run(FuseConvEpilogue);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[1,2,4,4])\n"
            "  %relu = plexus.Conv(%x, @conv_w, @conv_b, %x) activation=\"Relu\" "
            "kernel_shape=[1,1] : float32[1,2,4,4]\n"
            "  return %relu\n");
}

TEST_F(ConvTest, TheLaterOfTwoConvolutionsTakesTheOtherAsResidual) {
  const ValueId a = Conv("a", x);
  const ValueId b = Conv("b", x);
  t.Output(t.Op("add", "Add", {a, b}));
  t.Run(FuseConvEpilogue);
  EXPECT_EQ(t.Ops(), "plexus.Conv plexus.Conv");
  EXPECT_EQ(t.g.nodes()[1].inputs.size(), 4u);
  EXPECT_EQ(t.g.value(t.g.nodes()[1].inputs[3]).name, "a");
}

TEST_F(ConvTest, ResidualThatBroadcastsIsNotTaken) {
  t.Output(t.Op("add", "Add", {Conv("conv", x), t.Input("r", {1, 2, 1, 1})}));
  t.Run(FuseConvEpilogue);
  EXPECT_EQ(t.Ops(), "plexus.Conv Add");
}

TEST_F(ConvTest, SubtractionIsNoResidual) {
  t.Output(t.Op("sub", "Sub", {x, Conv("conv", x)}));
  t.Run(FuseConvEpilogue);
  EXPECT_EQ(t.Ops(), "plexus.Conv Sub");
}

TEST_F(ConvTest, AddOfTheResultToItselfIsNoResidual) {
  const ValueId y = Conv("conv", x);
  t.Output(t.Op("add", "Add", {y, y}));
  t.Run(FuseConvEpilogue);
  EXPECT_EQ(t.Ops(), "plexus.Conv Add");
}

struct ActivationCase {
  const char* name;
  ValueId (*build)(TestGraph& t, ValueId v);
  const char* activation;  // "" when it must not fuse
  std::vector<float> params;
};
class ActivationTest : public ::testing::TestWithParam<ActivationCase> {};

TEST_P(ActivationTest, IsRecognised) {
  TestGraph t;
  const ValueId x = t.Input("x", {1, 2, 4, 4});
  const ValueId y = t.Op("conv", "Conv", {x, t.Floats("w", {2, 2, 1, 1}, {1, 2, 3, 4})});
  t.Output(GetParam().build(t, y));
  t.Run(FuseConvEpilogue);
  const Node& conv = t.NodeOf("Conv");
  EXPECT_EQ(conv.StringAttr("activation", ""), GetParam().activation) << t.g.ToString();
  EXPECT_EQ(conv.FloatsAttr("activation_params"), GetParam().params);
  if (*GetParam().activation) {
    EXPECT_EQ(t.Ops(), "plexus.Conv");
  }
}

ValueId HardSwish(TestGraph& t, ValueId v, float three, float six) {
  ValueId g = t.Op("a", "Add", {v, t.Scalar(three)});
  g = t.Op("c", "Clip", {g, t.Scalar(0), t.Scalar(six)});
  g = t.Op("m", "Mul", {v, g});
  return t.Op("d", "Div", {g, t.Scalar(six)});
}

INSTANTIATE_TEST_SUITE_P(
    Forms, ActivationTest,
    ::testing::Values(
        ActivationCase{"Clip",
                       [](TestGraph& t, ValueId v) {
                         return t.Op("y", "Clip", {v, t.Scalar(0), t.Scalar(6)});
                       },
                       "Clip",
                       {0, 6}},
        ActivationCase{"ClipWithoutMaximum",
                       [](TestGraph& t, ValueId v) {
                         return t.Op("y", "Clip", {v, t.Scalar(-1)});
                       },
                       "Clip",
                       {-1, kInf}},
        ActivationCase{"MaxThenMin",
                       [](TestGraph& t, ValueId v) {
                         v = t.Op("m", "Max", {t.Scalar(0), v});
                         return t.Op("y", "Min", {v, t.Scalar(6)});
                       },
                       "Clip",
                       {0, 6}},
        ActivationCase{"LeakyRelu",
                       [](TestGraph& t, ValueId v) {
                         return t.Op("y", "LeakyRelu", {v}, {{"alpha", 0.25f}});
                       },
                       "LeakyRelu",
                       {0.25f}},
        ActivationCase{"LeakyReluWithFloor",
                       [](TestGraph& t, ValueId v) {
                         v = t.Op("l", "LeakyRelu", {v}, {{"alpha", 0.25f}});
                         return t.Op("y", "Max", {v, t.Floats("f", {1, 1, 1, 1}, {-0.5f})});
                       },
                       "LeakyReluClip",
                       {0.25f, -0.5f, kInf}},
        ActivationCase{"MaxOfScaledAndItself",
                       [](TestGraph& t, ValueId v) {
                         const ValueId s = t.Op("s", "Mul", {v, t.Scalar(0.25f)});
                         return t.Op("y", "Max", {s, v});
                       },
                       "LeakyRelu",
                       {0.25f}},
        ActivationCase{"MaxOfSteepScaleIsNotLeaky",
                       [](TestGraph& t, ValueId v) {
                         const ValueId s = t.Op("s", "Mul", {v, t.Scalar(2)});
                         return t.Op("y", "Max", {s, v});
                       },
                       "",
                       {}},
        ActivationCase{"HardSwishSpeltOut",
                       [](TestGraph& t, ValueId v) { return HardSwish(t, v, 3, 6); },
                       "HardSwish",
                       {}},
        ActivationCase{"HardSwishWithOtherConstants",
                       [](TestGraph& t, ValueId v) { return HardSwish(t, v, 2.5f, 6); },
                       "",
                       {}},
        ActivationCase{"HardSwishWithoutItsDivision",
                       [](TestGraph& t, ValueId v) {
                         ValueId g = t.Op("a", "Add", {v, t.Scalar(3)});
                         g = t.Op("c", "Clip", {g, t.Scalar(0), t.Scalar(6)});
                         return t.Op("m", "Mul", {v, g});
                       },
                       "HardSwishAffine",
                       {6, 0}},
        ActivationCase{"HardSwishThenAffine",
                       [](TestGraph& t, ValueId v) {
                         v = HardSwish(t, v, 3, 6);
                         v = t.Op("k", "Mul", {t.Scalar(0.5f), v});
                         return t.Op("y", "Add", {v, t.Scalar(2)});
                       },
                       "HardSwishAffine",
                       {0.5f, 2}},
        ActivationCase{"GateReadTwice",
                       [](TestGraph& t, ValueId v) {
                         const ValueId s = t.Op("s", "Sigmoid", {v});
                         t.Output(s);
                         return t.Op("y", "Mul", {v, s});
                       },
                       "",
                       {}},
        ActivationCase{"Silu",
                       [](TestGraph& t, ValueId v) {
                         return t.Op("y", "Mul", {t.Op("s", "Sigmoid", {v}), v});
                       },
                       "Silu",
                       {}},
        ActivationCase{"HardSigmoidSpeltOut",
                       [](TestGraph& t, ValueId v) {
                         v = t.Op("a", "Add", {v, t.Scalar(3)});
                         v = t.Op("c", "Clip", {v, t.Scalar(0), t.Scalar(6)});
                         return t.Op("y", "Mul", {v, t.Scalar(1.0f / 6)});
                       },
                       "HardSigmoid",
                       {1.0f / 6, 0.5f}},
        ActivationCase{"ClipWithComputedBound",
                       [](TestGraph& t, ValueId v) {
                         return t.Op("y", "Clip", {v, t.Input("lo", {})});
                       },
                       "",
                       {}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plexus
