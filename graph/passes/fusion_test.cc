// plexus.MatMul, plexus.Elementwise, layout elimination, and Optimize as a whole.
#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"

namespace plexus {
namespace {

using Strings = std::vector<std::string>;
using Perm = std::vector<int64_t>;

ValueId Transpose(TestGraph& t, const std::string& name, ValueId x, Perm perm) {
  return t.Op(name, "Transpose", {x}, {{"perm", std::move(perm)}});
}

TEST(FuseMatMul, ScaleBiasResidualAndActivation) {
  TestGraph t;
  const ValueId x = t.Input("x", {2, 4, 8});
  ValueId y = t.Op("mm", "MatMul", {x, t.Ramp("w", {8, 3})});
  y = t.Op("scale", "Mul", {y, t.Scalar(0.5f)});
  y = t.Op("bias", "Add", {t.Ramp("b", {3}), y});
  y = t.Op("res", "Add", {y, t.Input("r", {2, 4, 3})});
  t.Output(t.Op("y", "Relu", {y}));
  t.Run(FuseMatMulEpilogue);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[2,4,8], %r: float32[2,4,3])\n"
            "  %y = plexus.MatMul(%x, @w, @b, %r) activation=\"Relu\" alpha=0.5 trans_a=0 "
            "trans_b=0 : float32[2,4,3]\n"
            "  return %y\n");
}

TEST(FuseMatMul, GemmScalesItsConstantOperand) {
  TestGraph t;
  t.Output(t.Op("y", "Gemm",
                {t.Input("a", {4, 8}), t.Ramp("w", {3, 8}), t.Floats("c", {1, 3}, {1, 2, 3})},
                {{"transB", int64_t{1}}, {"alpha", 2.0f}, {"beta", 3.0f}}));
  t.Run(FuseMatMulEpilogue);
  EXPECT_EQ(t.Ops(), "plexus.MatMul");
  const Node& n = t.NodeOf("MatMul");
  EXPECT_EQ(n.IntAttr("trans_b", 0), 1);
  EXPECT_EQ(n.FloatAttr("alpha", 0), 2);
  EXPECT_EQ(t.g.value(n.inputs[2]).shape.ToString(), "[3]");
  EXPECT_EQ(t.ConstantOf(n.inputs[2]), (std::vector<float>{3, 6, 9}));
}

TEST(FuseMatMul, ColumnOperandOfGemmIsNoBias) {
  TestGraph t;
  t.Output(t.Op("y", "Gemm", {t.Input("a", {4, 8}), t.Ramp("w", {8, 3}), t.Ramp("c", {4, 1})}));
  t.Run(FuseMatMulEpilogue);
  EXPECT_EQ(t.Ops(), "Gemm");
}

TEST(FuseMatMul, ScaleAfterBiasStays) {
  TestGraph t;
  ValueId y = t.Op("mm", "MatMul", {t.Input("x", {4, 8}), t.Ramp("w", {8, 3})});
  y = t.Op("bias", "Add", {y, t.Ramp("b", {3})});
  t.Output(t.Op("y", "Mul", {y, t.Scalar(2)}));
  t.Run(FuseMatMulEpilogue);
  EXPECT_EQ(t.Ops(), "plexus.MatMul Mul");
}

TEST(FuseMatMul, TransposeOfTheLastTwoAxesIsAbsorbed) {
  TestGraph t;
  const ValueId b = Transpose(t, "bt", t.Input("b", {2, 5, 8}), {0, 2, 1});
  t.Output(t.Op("y", "MatMul", {t.Input("a", {2, 4, 8}), b}));
  t.Run(FuseMatMulEpilogue);
  EXPECT_EQ(t.Ops(), "plexus.MatMul");
  EXPECT_EQ(t.NodeOf("MatMul").IntAttr("trans_b", 0), 1);
}

TEST(FuseMatMul, VectorsAndIntegersStay) {
  TestGraph t;
  t.Output(t.Op("v", "MatMul", {t.Input("a", {4, 8}), t.Input("b", {8})}));
  t.Output(t.Op("i", "MatMul",
                {t.Input("c", {4, 8}, DType::kInt32), t.Input("d", {8, 2}, DType::kInt32)}, {},
                DType::kInt32));
  t.Run(FuseMatMulEpilogue);
  EXPECT_EQ(t.Ops(), "MatMul MatMul");
}

TEST(FuseElementwise, ChainAndDiamondBecomeOneNode) {
  TestGraph t;
  const ValueId x = t.Input("x", {2, 4});
  const ValueId a = t.Op("a", "Exp", {x});
  const ValueId l = t.Op("l", "Neg", {a});
  const ValueId r = t.Op("r", "Sub", {t.Scalar(1), a});
  t.Output(t.Op("y", "Div", {l, r}));
  t.Run(FuseElementwise);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[2,4])\n"
            "  %y = plexus.Elementwise(%x, 1) args=[0,-1,-1,2,-1,-1,1,2,-1,3,4,-1] "
            "ops=[Exp,Neg,Sub,Div] params=[0,0,0,0,0,0,0,0] : float32[2,4]\n"
            "  return %y\n");
}

TEST(FuseElementwise, OrderOfOperandsIsKept) {
  for (const bool swap : {false, true}) {
    TestGraph t;
    const ValueId a = t.Input("a", {4});
    const ValueId b = t.Input("b", {4});
    t.Output(t.Op("y", "Sub", {swap ? b : a, swap ? a : b}));
    t.Run(FuseElementwise);
    const Node& n = t.NodeOf("Elementwise");
    EXPECT_EQ(n.inputs[0], swap ? b : a);
    EXPECT_EQ(n.IntsAttr("args"), (Perm{0, 1, -1}));
  }
}

TEST(FuseElementwise, ValueWithAnOutsideReaderIsNotSwallowed) {
  TestGraph t;
  const ValueId a = t.Op("a", "Exp", {t.Input("x", {4, 4})});
  t.Output(t.Op("y", "Neg", {a}));
  t.Output(t.Op("sum", "ReduceSum", {a}));
  t.Run(FuseElementwise);
  EXPECT_EQ(t.Ops(), "plexus.Elementwise plexus.Elementwise ReduceSum");
}

TEST(FuseElementwise, GraphOutputIsNotSwallowed) {
  TestGraph t;
  const ValueId a = t.Op("a", "Exp", {t.Input("x", {4})});
  t.Output(a);
  t.Output(t.Op("y", "Neg", {a}));
  t.Run(FuseElementwise);
  EXPECT_EQ(t.Ops(), "plexus.Elementwise plexus.Elementwise");
}

TEST(FuseElementwise, DearRowValuesAreNotComputedPerElement) {
  TestGraph t;
  const ValueId x = t.Input("x", {64, 64});
  const ValueId v =
      t.Op("root", "Sqrt", {t.Op("eps", "Add", {t.Input("v", {64, 1}), t.Scalar(1)})});
  t.Output(t.Op("y", "Mul", {x, v}));
  t.Run(FuseElementwise);
  ASSERT_EQ(t.Ops(), "plexus.Elementwise plexus.Elementwise");
  EXPECT_EQ(std::get<Strings>(t.g.nodes()[0].attributes.at("ops")), (Strings{"Add", "Sqrt"}));
}

TEST(FuseElementwise, ComparisonsLiveInsideOnly) {
  TestGraph t;
  const ValueId x = t.Input("x", {4});
  const ValueId c = t.Op("c", "Greater", {x, t.Scalar(0)}, {}, DType::kBool);
  t.Output(t.Op("y", "Where", {c, x, t.Op("n", "Exp", {x})}));
  t.Run(FuseElementwise);
  EXPECT_EQ(t.Ops(), "plexus.Elementwise");

  TestGraph u;  // the mask is read elsewhere too
  const ValueId z = u.Input("x", {4});
  const ValueId d = u.Op("c", "Greater", {z, u.Scalar(0)}, {}, DType::kBool);
  u.Output(d);
  u.Output(u.Op("y", "Where", {d, z, u.Op("n", "Exp", {z})}));
  u.Run(FuseElementwise);
  EXPECT_EQ(u.Ops(), "Greater plexus.Elementwise Where");
}

TEST(FuseElementwise, ClipWithAComputedBoundBecomesMax) {
  TestGraph t;
  t.Output(t.Op("y", "Clip", {t.Input("x", {4}), t.Input("lo", {}), t.Scalar(INFINITY)}));
  t.Run(FuseElementwise);
  EXPECT_EQ(std::get<Strings>(t.NodeOf("Elementwise").attributes.at("ops")), Strings{"Max"});
}

TEST(FuseElementwise, IntegersStay) {
  TestGraph t;
  const ValueId x = t.Input("x", {4}, DType::kInt64);
  t.Output(t.Op("y", "Add", {x, x}, {}, DType::kInt64));
  t.Run(FuseElementwise);
  EXPECT_EQ(t.Ops(), "Add");
}

TEST(FuseElementwise, LongChainsSplitAtTheLimit) {
  TestGraph t;
  ValueId y = t.Input("x", {4});
  for (int i = 0; i < 70; ++i) y = t.Op("n" + std::to_string(i), "Neg", {y});
  t.Output(y);
  t.Run(FuseElementwise);
  EXPECT_EQ(t.Ops(), "plexus.Elementwise plexus.Elementwise plexus.Elementwise");
}

TEST(FuseElementwise, WideSumsSplitAtTheInputLimit) {
  TestGraph t;
  ValueId y = t.Input("x", {4});
  for (int i = 0; i < 20; ++i) {
    y = t.Op("a" + std::to_string(i), "Add", {y, t.Input("x" + std::to_string(i), {4})});
  }
  t.Output(y);
  t.Run(FuseElementwise);
  for (const Node& n : t.g.nodes()) EXPECT_LE(n.inputs.size(), 12u);
  EXPECT_EQ(t.g.num_nodes(), 2u);
}

TEST(EliminateTransposes, InversePairVanishes) {
  TestGraph t;
  const ValueId a = Transpose(t, "a", t.Op("r", "Relu", {t.Input("x", {2, 3, 4})}), {2, 0, 1});
  t.Output(t.Op("y", "Softmax", {Transpose(t, "b", a, {1, 2, 0})}));
  t.Run(EliminateTransposes);
  EXPECT_EQ(t.Ops(), "Relu Softmax");
}

TEST(EliminateTransposes, PairsThatDoNotCancelMerge) {
  TestGraph t;
  const ValueId a = Transpose(t, "a", t.Input("x", {2, 3, 4}), {2, 0, 1});
  t.Output(Transpose(t, "b", a, {2, 0, 1}));
  t.Run(EliminateTransposes);
  ASSERT_EQ(t.Ops(), "Transpose");
  // y[i,j,k] = a[j,k,i] = x[k,i,j]
  EXPECT_EQ(t.g.nodes()[0].IntsAttr("perm"), (Perm{1, 2, 0}));
}

TEST(EliminateTransposes, MovingOnesOnlyIsAReshape) {
  TestGraph t;
  t.Output(Transpose(t, "y", t.Input("x", {2, 1, 4}), {1, 0, 2}));
  t.Run(EliminateTransposes);
  EXPECT_EQ(t.Ops(), "Reshape");
}

TEST(EliminateTransposes, SinkThroughPointwiseAndMeet) {
  TestGraph t;
  const ValueId a = Transpose(t, "a", t.Input("x", {2, 3, 4}), {0, 2, 1});
  const ValueId b = Transpose(t, "b", t.Input("z", {2, 3, 4}), {0, 2, 1});
  ValueId s = t.Op("s", "Add", {t.Op("p", "Pow", {a, t.Scalar(2)}), t.Op("e", "Exp", {b})});
  s = t.Op("c", "Mul", {s, t.Floats("m", {3}, {1, 2, 3})});
  t.Output(Transpose(t, "y", s, {0, 2, 1}));
  t.Run(EliminateTransposes);
  EXPECT_EQ(t.Ops(), "Pow Exp Add Mul");
  EXPECT_EQ(t.g.value(t.NodeOf("Mul").inputs[1]).shape.ToString(), "[1,3,1]");
}

TEST(EliminateTransposes, OperandsUnderDifferentTransposesStay) {
  TestGraph t;
  const ValueId a = Transpose(t, "a", t.Input("x", {4, 4, 4}), {0, 2, 1});
  const ValueId b = Transpose(t, "b", t.Input("z", {4, 4, 4}), {1, 0, 2});
  t.Output(t.Op("s", "Add", {a, b}));
  t.Run(EliminateTransposes);
  EXPECT_EQ(t.Ops(), "Transpose Transpose Add");
}

TEST(EliminateReshapes, ChainsMergeAndNoOpsVanish) {
  TestGraph t;
  const ValueId x = t.Op("r", "Relu", {t.Input("x", {2, 3, 4})});
  ValueId y = t.Op("a", "Reshape", {x, t.Ints({6, 4})});
  y = t.Op("b", "Unsqueeze", {y, t.Ints({0})});
  t.Output(t.Op("c", "Reshape", {y, t.Ints({24})}));
  const ValueId same = t.Op("d", "Reshape", {x, t.Ints({2, 3, 4})});
  t.Output(t.Op("e", "Softmax", {t.Op("m", "Mul", {same, t.Scalar(1)})}));
  t.Run(EliminateReshapes);
  EXPECT_EQ(t.Ops(), "Relu Reshape Softmax");
}

TEST(EliminateReshapes, SliceWithNegativeStepIsNoNoOp) {
  TestGraph t;
  const ValueId x = t.Input("x", {4});
  const ValueId y =
      t.Op("s", "Slice", {x, t.Ints({-1}), t.Ints({-1000}), t.Ints({0}), t.Ints({-1})});
  t.Output(t.Op("y", "Relu", {y}));
  t.Run(EliminateReshapes);
  EXPECT_EQ(t.Ops(), "Slice Relu");
}

TEST(EliminateReshapes, ScalarOneOfHigherRankIsNoNoOp) {
  TestGraph t;
  const ValueId y = t.Op("m", "Mul", {t.Input("x", {4}), t.Floats("one", {1, 1}, {1})});
  t.Output(t.Op("y", "Relu", {y}));
  t.Run(EliminateReshapes);
  EXPECT_EQ(t.Ops(), "Mul Relu");
}

TEST(EliminateReshapes, OutputsKeepTheirNames) {
  TestGraph t;
  const ValueId r = t.Op("r", "Relu", {t.Input("x", {4})});
  t.Output(t.Op("y", "Identity", {r}));
  t.Output(t.Op("z", "Neg", {r}));
  t.Run(EliminateReshapes);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[4])\n"
            "  %y = Relu(%x) : float32[4]\n"
            "  %z = Neg(%y) : float32[4]\n"
            "  return %y, %z\n");
}

TEST(EliminateReshapes, InputPassedStraightToAnOutputStays) {
  TestGraph t;
  t.Output(t.Op("y", "Identity", {t.Input("x", {4})}));
  t.Run(EliminateReshapes);
  EXPECT_EQ(t.Ops(), "Identity");
}

TEST(Optimize, MissingOperandIsAnErrorThatNamesTheNode) {
  TestGraph t;
  t.infer = false;
  const ValueId x = t.Input("x", {4});
  t.Output(t.Op("broken", "Add", {x}));
  const Status status = Optimize(t.g);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("broken"), std::string::npos);
}

TEST(Optimize, SpectrogramTransposesEndInTheProduct) {
  // Two convolutions, transposed, squared, added, multiplied by a filter bank.
  TestGraph t;
  const ValueId x = t.Input("x", {1, 1, 512});
  ValueId power[2];
  for (int i = 0; i < 2; ++i) {
    const std::string n = std::to_string(i);
    ValueId y = t.Op("conv" + n, "Conv", {x, t.Ramp("w" + n, {9, 1, 16})},
                     {{"strides", std::vector<int64_t>{16}}});
    y = t.Op("u" + n, "Unsqueeze", {y, t.Ints({1})});
    power[i] = t.Op("p" + n, "Pow", {Transpose(t, "t" + n, y, {0, 1, 3, 2}), t.Scalar(2)});
  }
  const ValueId sum = t.Op("sum", "Add", {power[0], power[1]});
  t.Output(t.Op("mel", "MatMul", {sum, t.Ramp("bank", {9, 4})}));
  t.Run(Optimize);
  EXPECT_EQ(t.Ops(),
            "plexus.Conv Unsqueeze plexus.Conv Unsqueeze plexus.Elementwise plexus.MatMul");
  EXPECT_EQ(t.NodeOf("MatMul").IntAttr("trans_a", 0), 1);
}

// The groups as "a b | c": nodes by name, groups in order, what stands alone left out.
std::string Groups(const Graph& g) {
  std::map<uint32_t, std::string> groups;
  for (const Node& n : g.nodes()) {
    if (n.fusion_group == 0) continue;
    std::string& names = groups[n.fusion_group];
    names += (names.empty() ? "" : " ") + n.name;
  }
  std::string text;
  for (const auto& [number, names] : groups) text += (text.empty() ? "" : " | ") + names;
  return text;
}

TEST(MarkFusionGroups, EachGroupIsWhatOneKernelWillReplace) {
  TestGraph t;
  const ValueId x = t.Input("x", {1, 4, 8, 8});
  ValueId y = t.Op("conv1", "Conv", {x, t.Ramp("w1", {4, 4, 3, 3})},
                   {{"pads", std::vector<int64_t>{1, 1, 1, 1}}});
  y = t.Op("relu1", "Relu", {y});
  ValueId z = t.Op("conv2", "Conv", {y, t.Ramp("w2", {4, 4, 3, 3})},
                   {{"pads", std::vector<int64_t>{1, 1, 1, 1}}});
  z = t.Op("add", "Add", {z, x});
  z = t.Op("relu2", "Relu", {z});
  z = t.Op("pool", "MaxPool", {z}, {{"kernel_shape", std::vector<int64_t>{2, 2}}});
  z = t.Op("tanh", "Tanh", {z});
  t.Output(t.Op("exp", "Exp", {z}));
  const std::string before = t.g.ToString();
  ASSERT_TRUE(MarkFusionGroups(t.g).ok());
  EXPECT_EQ(Groups(t.g), "conv1 relu1 | conv2 add relu2 | tanh exp");
  EXPECT_EQ(t.g.ToString(), before);
}

TEST(MarkFusionGroups, AValueThatOthersReadEndsItsGroup) {
  TestGraph t;
  const ValueId y = t.Op("mm", "MatMul", {t.Input("x", {4, 8}), t.Ramp("w", {8, 3})});
  t.Output(y);
  t.Output(t.Op("relu", "Relu", {y}));
  ASSERT_TRUE(MarkFusionGroups(t.g).ok());
  EXPECT_EQ(Groups(t.g), "");
}

TEST(MarkFusionGroups, AnEliminatedNodeGoesWithItsReader) {
  TestGraph t;
  ValueId y = Transpose(t, "there", t.Input("x", {2, 3, 4}), {0, 2, 1});
  y = Transpose(t, "back", y, {0, 2, 1});
  t.Output(t.Op("mm", "MatMul", {y, t.Ramp("w", {4, 5})}));
  ASSERT_TRUE(MarkFusionGroups(t.g).ok());
  EXPECT_EQ(Groups(t.g), "there back mm");
}

}  // namespace
}  // namespace plexus
