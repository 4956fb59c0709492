#include <gtest/gtest.h>

#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"
#include "graph/passes/tiny_evaluator.h"

namespace plexus {
namespace {

struct CanonicalizeTest : testing::Test {
  TestGraph t;
  TinyEvaluator evaluator;

  CanonicalizeTest() { t.infer = false; }
  // A node of the given opset; outputs of type float32 without a shape.
  ValueId At(int version, const std::string& name, const std::string& op,
             std::vector<ValueId> inputs, std::map<std::string, Attribute> attributes = {}) {
    const ValueId out = t.Op(name, op, std::move(inputs), std::move(attributes));
    t.g.nodes().back().version = version;
    return out;
  }
  std::string Picture() {
    const Status status = Canonicalize(t.g, evaluator);
    EXPECT_TRUE(status.ok()) << status.ToString();
    const Status valid = t.g.Validate();
    EXPECT_TRUE(valid.ok()) << valid.ToString() << t.g.ToString();
    return t.g.ToString();
  }
};

TEST_F(CanonicalizeTest, IdentitiesAndInferenceDropoutsGo) {
  const ValueId x = t.Input("x", {2});
  const ValueId a = At(13, "a", "Identity", {x});
  const ValueId b = At(13, "b", "Relu", {a});
  const ValueId c = At(13, "c", "Dropout", {b});
  const ValueId d = At(13, "d", "Neg", {c});
  const ValueId y = At(13, "y", "Identity", {d});
  t.Output(y);
  EXPECT_EQ(Picture(),
            "graph t(%x: float32?)\n"
            "  %b = Relu(%x) : float32?\n"
            "  %y = Neg(%b) : float32?\n"
            "  return %y\n");
}

TEST_F(CanonicalizeTest, EarlierReadersOfAValueThatBecomesAnOutputFollow) {
  const ValueId x = t.Input("x", {2});
  const ValueId a = At(13, "a", "Relu", {x});
  const ValueId b = At(13, "b", "Neg", {a});
  const ValueId y = At(13, "y", "Identity", {a});
  t.Output(b);
  t.Output(y);
  EXPECT_EQ(Picture(),
            "graph t(%x: float32?)\n"
            "  %y = Relu(%x) : float32?\n"
            "  %b = Neg(%y) : float32?\n"
            "  return %b, %y\n");
}

TEST_F(CanonicalizeTest, AnOutputThatIsAnInputOrAConstantKeepsOneIdentity) {
  const ValueId x = t.Input("x", {2});
  const ValueId a = At(13, "a", "Identity", {x});
  const ValueId y = At(13, "y", "Dropout", {a});
  const ValueId z = At(13, "z", "Constant", {}, {{"value_int", int64_t{7}}});
  t.Output(y);
  t.Output(z);
  EXPECT_EQ(Picture(),
            "graph t(%x: float32?)\n"
            "  %y = Identity(%x) : float32?\n"
            "  %z = Identity(7) : int64[]\n"
            "  return %y, %z\n");
}

TEST_F(CanonicalizeTest, TrainingDropoutAndDropoutWithAMaskStay) {
  const ValueId x = t.Input("x", {2});
  const ValueId ratio = t.Scalar(0.5f);
  const ValueId on = t.Const("on", Tensor::Of<uint8_t>(DType::kBool, {}, {1}));
  const ValueId a = At(13, "a", "Dropout", {x, ratio, on});
  const ValueId b = At(13, "b", "Dropout", {a, ratio});
  const ValueId mask = t.g.AddValue({"mask", DType::kBool, {}, nullptr});
  t.g.nodes().back().outputs.push_back(mask);
  t.Output(b);
  t.Output(mask);
  Picture();
  EXPECT_EQ(t.Ops(), "Dropout Dropout");
}

TEST_F(CanonicalizeTest, AttributesThatBecameInputsMove) {
  struct Case {
    const char* op;
    int version;
    std::map<std::string, Attribute> attributes;
    const char* line;
  };
  using Ints = std::vector<int64_t>;
  const Case cases[] = {
      {"Squeeze", 11, {{"axes", Ints{0}}}, "Squeeze(%x, 0)"},
      {"Unsqueeze", 11, {{"axes", Ints{2}}}, "Unsqueeze(%x, 2)"},
      {"ReduceMean", 13, {{"axes", Ints{-1}}, {"keepdims", int64_t{1}}}, "ReduceMean(%x, -1)"},
      {"ReduceSum",
       11,
       {{"axes", Ints{1}}, {"keepdims", int64_t{0}}},
       "ReduceSum(%x, 1) keepdims=0"},
      {"Slice", 9, {{"starts", Ints{1}}, {"ends", Ints{5}}}, "Slice(%x, 1, 5)"},
      {"Slice",
       9,
       {{"starts", Ints{1}}, {"ends", Ints{5}}, {"axes", Ints{2}}},
       "Slice(%x, 1, 5, 2)"},
      {"Clip", 6, {{"min", 0.0f}, {"max", 6.0f}}, "Clip(%x, 0, 6)"},
      {"Clip", 6, {{"max", 6.0f}}, "Clip(%x, _, 6)"},
      {"Pad", 2, {{"pads", Ints{1, 1}}, {"value", 2.0f}}, "Pad(%x, @y/pads, 2)"},
      {"TopK", 9, {{"k", int64_t{3}}}, "TopK(%x, 3)"},
      {"Split", 11, {}, "Split(%x) num_outputs=1"},
      {"Split", 11, {{"split", Ints{4}}}, "Split(%x, 4)"},
      {"Upsample",
       7,
       {{"scales", std::vector<float>{2}}, {"mode", std::string("linear")}},
       "Resize(%x, _, 2) coordinate_transformation_mode=\"asymmetric\" mode=\"linear\" "
       "nearest_mode=\"floor\""},
      {"DFT", 17, {}, "DFT(%x, _, 1)"},
      {"GridSample", 16, {{"mode", std::string("bicubic")}}, "GridSample(%x) mode=\"cubic\""},
      {"GridSample", 16, {{"mode", std::string("bilinear")}}, "GridSample(%x)"},
      {"RoiAlign", 10, {}, "RoiAlign(%x) coordinate_transformation_mode=\"output_half_pixel\""},
      {"BatchNormalization", 9, {{"momentum", 0.9f}}, "BatchNormalization(%x)"},
      {"Conv",
       11,
       {{"strides", Ints{1, 1}},
        {"dilations", Ints{1, 1}},
        {"group", int64_t{1}},
        {"pads", Ints{0, 0, 0, 0}},
        {"auto_pad", std::string("NOTSET")}},
       "Conv(%x)"},
      {"Conv",
       11,
       {{"strides", Ints{2, 1}}, {"auto_pad", std::string("VALID")}},
       "Conv(%x) strides=[2,1]"},
  };
  for (const Case& test : cases) {
    t = TestGraph();
    t.infer = false;
    const ValueId x = t.Input("x", {});
    t.Output(At(test.version, "y", test.op, {x}, test.attributes));
    EXPECT_EQ(Picture(), "graph t(%x: float32?)\n  %y = " + std::string(test.line) +
                             " : float32?\n  return %y\n");
    EXPECT_EQ(t.g.nodes()[0].version, 26);
  }
}

TEST_F(CanonicalizeTest, BoundsOfAHalfPrecisionClipAreHalfPrecision) {
  const ValueId x = t.Input("x", {2}, DType::kFloat16);
  const ValueId a = t.Op("a", "Relu", {x}, {}, DType::kUndefined);
  (void)a;
  const ValueId made = t.g.nodes().back().outputs[0];
  t.Output(At(6, "y", "Clip", {made}, {{"min", 0.5f}}));
  Picture();
  const Node& clip = t.NodeOf("Clip");
  EXPECT_EQ(t.g.value(clip.inputs[1]).dtype, DType::kFloat16);
}

TEST_F(CanonicalizeTest, OldSoftmaxMovesOnlyWhereItMeansTheSame) {
  const ValueId x =
      t.g.AddInput({"x", DType::kFloat32, SymbolicShape::FromConcrete({2, 3, 4}), nullptr});
  const ValueId a = At(11, "a", "Softmax", {x}, {{"axis", int64_t{2}}});
  const ValueId b = At(11, "b", "Softmax", {x});
  const ValueId c = At(13, "c", "Softmax", {x}, {{"axis", int64_t{1}}});
  for (ValueId id : {a, b, c}) t.Output(id);
  Picture();
  EXPECT_EQ(t.g.nodes()[0].version, 26);
  EXPECT_FALSE(t.g.nodes()[0].HasAttr("axis"));
  EXPECT_EQ(t.g.nodes()[1].version, 11);
  EXPECT_EQ(t.g.nodes()[2].version, 26);
  EXPECT_EQ(t.g.nodes()[2].IntAttr("axis", -1), 1);
}

TEST_F(CanonicalizeTest, ModesThatAreGoneKeepTheirOpset) {
  const ValueId x = t.Input("x", {2});
  const ValueId scales = t.Floats("scales", {4}, {1, 1, 2, 2});
  const ValueId none = t.Floats("none", {0}, {});
  const ValueId a = At(11, "a", "Resize", {x, none, scales});
  const ValueId b = At(11, "b", "Resize", {x, none, scales},
                       {{"coordinate_transformation_mode", std::string("tf_half_pixel_for_nn")}});
  const ValueId c =
      At(18, "c", "GroupNormalization", {x, none, none}, {{"num_groups", int64_t{2}}});
  for (ValueId id : {a, b, c}) t.Output(id);
  Picture();
  EXPECT_FALSE(t.g.nodes()[0].inputs[1].valid());
  EXPECT_EQ(t.g.nodes()[0].version, 26);
  EXPECT_EQ(t.g.nodes()[1].version, 11);
  EXPECT_EQ(t.g.nodes()[2].version, 18);
}

TEST_F(CanonicalizeTest, EqualArithmeticIsNeitherMergedNorReordered) {
  const ValueId x = t.Input("x", {2}), y = t.Input("y", {2});
  for (const char* name : {"a", "b"}) t.Output(At(13, name, "Sub", {x, y}));
  t.Output(At(13, "c", "Sub", {y, x}));
  EXPECT_EQ(Picture(),
            "graph t(%x: float32?, %y: float32?)\n"
            "  %a = Sub(%x, %y) : float32?\n"
            "  %b = Sub(%x, %y) : float32?\n"
            "  %c = Sub(%y, %x) : float32?\n"
            "  return %a, %b, %c\n");
}

TEST_F(CanonicalizeTest, CapturedConstantsMoveIntoSubgraphsAndFoldThere) {
  const ValueId condition = t.Input("condition", {}, DType::kBool);
  const ValueId unused = t.Input("unused", {});
  const ValueId one = t.Const("one", Tensor::ScalarInt64(1));
  const auto branch = [&](int64_t add) {
    auto g = std::make_shared<Graph>();
    const ValueId capture = g->AddValue({"one_in", DType::kInt64, {}, nullptr});
    const ValueId other = g->AddValue({"other_in", DType::kFloat32, {}, nullptr});
    g->captures() = {capture, other};
    const ValueId c = g->AddConstant("c", ConstantStore::Get().Intern(Tensor::ScalarInt64(add)));
    const ValueId sum = g->AddValue({"sum", DType::kInt64, {}, nullptr});
    g->AddNode({"Add", "", 13, "add", {capture, c}, {sum}, {}, {}, 0});
    g->outputs() = {sum};
    return GraphPtr(std::move(g));
  };
  const ValueId y =
      At(13, "y", "If", {condition}, {{"then_branch", branch(1)}, {"else_branch", branch(2)}});
  t.g.nodes().back().implicit_inputs = {one, unused};
  t.Output(y);
  Picture();
  const Node& node = t.NodeOf("If");
  EXPECT_TRUE(node.implicit_inputs.empty());
  EXPECT_EQ(node.GraphAttr("then_branch")->ToString(),
            "graph ()\n  %sum = Identity(2) : int64[]\n  return %sum\n");
  EXPECT_EQ(node.GraphAttr("else_branch")->ToString(),
            "graph ()\n  %sum = Identity(3) : int64[]\n  return %sum\n");
}

TEST_F(CanonicalizeTest, IsIdempotent) {
  const ValueId x = t.Input("x", {2});
  const ValueId a = At(9, "a", "Upsample", {x, t.Floats("s", {2}, {1, 2})});
  const ValueId b = At(11, "b", "ReduceMean", {a}, {{"axes", std::vector<int64_t>{1}}});
  t.Output(At(6, "y", "Clip", {b}, {{"min", 0.0f}}));
  const std::string once = Picture();
  EXPECT_EQ(Picture(), once);
}

struct FoldTest : CanonicalizeTest {
  ValueId Int(int64_t value) {
    return t.Const("k" + std::to_string(t.g.num_values()), Tensor::VectorInt64({value}));
  }
};

TEST_F(FoldTest, ChainsOfConstantsBecomeOne) {
  const ValueId x = t.Input("x", {2}, DType::kInt64);
  const ValueId a = At(13, "a", "Add", {Int(1), Int(2)});
  const ValueId b = At(13, "b", "Add", {a, Int(4)});
  t.Output(At(13, "y", "Add", {x, b}));
  ASSERT_TRUE(FoldConstants(t.g, evaluator).ok());
  EXPECT_EQ(t.g.ToString(), "graph t(%x: int64?)\n  %y = Add(%x, 7) : float32?\n  return %y\n");
}

TEST_F(FoldTest, AFoldedOutputKeepsItsNameAndAnIdentity) {
  t.Output(At(13, "y", "Add", {Int(1), Int(2)}));
  ASSERT_TRUE(FoldConstants(t.g, evaluator).ok());
  EXPECT_EQ(t.g.ToString(), "graph t()\n  %y = Identity(3) : int64[1]\n  return %y\n");
  ASSERT_TRUE(FoldConstants(t.g, evaluator).ok());
  EXPECT_EQ(t.Ops(), "Identity");
}

TEST_F(FoldTest, RandomNumbersAndQuantisedWeightsStay) {
  t.Output(At(13, "r", "RandomNormal", {}, {{"shape", std::vector<int64_t>{2}}}));
  t.Output(At(13, "q", "DequantizeLinear", {Int(1), Int(2)}));
  ASSERT_TRUE(FoldConstants(t.g, evaluator).ok());
  EXPECT_EQ(t.Ops(), "RandomNormal DequantizeLinear");
  EXPECT_EQ(evaluator.calls, 0);
}

TEST_F(FoldTest, LargeResultsStayUnmade) {
  t.Output(At(13, "y", "Tile", {Int(1), Int(int64_t{1} << 33)}));
  ASSERT_TRUE(FoldConstants(t.g, evaluator).ok());
  EXPECT_EQ(t.Ops(), "Tile");
  EXPECT_EQ(evaluator.calls, 0);
}

// Budget: 4 * (8 + 64) bytes, of which 16 + 32 + 64 + 128 are taken; the next takes 256.
TEST_F(FoldTest, AChainThatDoublesStopsAtTheBudget) {
  ValueId v = Int(1);
  for (int i = 0; i < 20; ++i) {
    v = At(13, "v" + std::to_string(i), "Concat", {v, v}, {{"axis", int64_t{0}}});
  }
  t.Output(v);
  ASSERT_TRUE(FoldConstants(t.g, evaluator, 64).ok());
  EXPECT_EQ(evaluator.calls, 4);
  EXPECT_EQ(t.g.num_nodes(), 16u);
}

// Budget: 4 * (16 + 64) bytes for results of 8 bytes.
TEST_F(FoldTest, AChainOfSmallResultsStopsAtTheBudget) {
  const ValueId one = Int(1);
  ValueId v = Int(0);
  for (int i = 0; i < 100; ++i) v = At(13, "v" + std::to_string(i), "Add", {v, one});
  t.Output(v);
  ASSERT_TRUE(FoldConstants(t.g, evaluator, 64).ok());
  EXPECT_EQ(evaluator.calls, 40);
  EXPECT_EQ(t.g.num_nodes(), 60u);
}

TEST_F(FoldTest, ANodeThatCannotRunIsLeftToTheRunItself) {
  const ValueId pair = t.Const("pair", Tensor::VectorInt64({1, 2}));
  const ValueId triple = t.Const("triple", Tensor::VectorInt64({1, 2, 3}));
  t.Output(At(13, "y", "Add", {pair, triple}));
  ASSERT_TRUE(FoldConstants(t.g, evaluator).ok());
  EXPECT_EQ(t.Ops(), "Add");
}

}  // namespace
}  // namespace plexus
