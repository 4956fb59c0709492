#include <gtest/gtest.h>

#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"
#include "graph/passes/tiny_evaluator.h"

namespace plexus {
namespace {

Tensor Bool(bool value) { return Tensor::Of<uint8_t>(DType::kBool, {}, {uint8_t{value}}); }
ConstantPtr Interned(Tensor t) { return ConstantStore::Get().Intern(std::move(t)); }

struct SpecializeTest : testing::Test {
  TestGraph t;
  TinyEvaluator evaluator;
  SpecializeTest() { t.infer = false; }

  KnownInput Float(Shape shape) { return {DType::kFloat32, std::move(shape), std::nullopt}; }
  Graph Specialized(const std::vector<KnownInput>& inputs) {
    Result<Graph> result = Specialize(t.g, inputs, evaluator);
    EXPECT_TRUE(result.ok()) << result.status().ToString();
    if (!result.ok()) return Graph();
    const Status valid = result->Validate();
    EXPECT_TRUE(valid.ok()) << valid.ToString() << result->ToString();
    return std::move(result).value();
  }
  Status Error(const std::vector<KnownInput>& inputs) {
    return Specialize(t.g, inputs, evaluator).status();
  }
};

TEST_F(SpecializeTest, ComputedShapesBecomeConstantsAndAllValuesGetShapes) {
  const ValueId x = t.Input("x", {});
  const ValueId shape = t.Op("shape", "Shape", {x}, {}, DType::kInt64);
  const ValueId rows = t.Op("rows", "Gather", {shape, t.Ints({0})}, {}, DType::kInt64);
  const ValueId target =
      t.Op("target", "Concat", {rows, t.Ints({-1})}, {{"axis", int64_t{0}}}, DType::kInt64);
  const ValueId a = t.Op("a", "Relu", {x});
  t.Output(t.Op("y", "Reshape", {a, target}));
  EXPECT_EQ(Specialized({Float({2, 3, 4})}).ToString(),
            "graph t(%x: float32[2,3,4])\n"
            "  %a = Relu(%x) : float32[2,3,4]\n"
            "  %y = Reshape(%a, @target) : float32[2,12]\n"
            "  return %y\n");
}

TEST_F(SpecializeTest, NoRowsAreFine) {
  const ValueId x = t.Input("x", {});
  const ValueId w = t.Ramp("w", {4, 5});
  t.Output(t.Op("y", "MatMul", {x, w}));
  EXPECT_EQ(Specialized({Float({0, 4})}).ToString(),
            "graph t(%x: float32[0,4])\n"
            "  %y = MatMul(%x, @w) : float32[0,5]\n"
            "  return %y\n");
}

TEST_F(SpecializeTest, WrongInputsAreNamed) {
  t.g.AddInput({"x", DType::kFloat32, SymbolicShape::FromConcrete({2, 3}), nullptr});
  t.Output(t.Op("y", "MatMul", {t.g.inputs()[0], t.Ramp("w", {4, 5})}));
  EXPECT_EQ(Error({}).code(), StatusCode::kInvalidArgument);
  EXPECT_NE(Error({Float({2, 4})}).message().find("input 'x'"), std::string::npos);
  EXPECT_NE(Error({{DType::kInt32, Shape{2, 3}, {}}}).message().find("is int32"),
            std::string::npos);
  const Status contradiction = Error({Float({2, 3})});
  EXPECT_EQ(contradiction.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(contradiction.message().find("MatMul node 'y'"), std::string::npos);
}

TEST_F(SpecializeTest, ValuesThatDependOnDataHaveNoRank) {
  const ValueId x = t.Input("x", {});
  const ValueId a = t.Op("a", "NonZero", {x}, {}, DType::kInt64);
  const ValueId b = t.Op("b", "Neg", {a}, {}, DType::kInt64);
  const ValueId c = t.Op("c", "Unheard", {x});
  t.Output(b);
  t.Output(c);
  EXPECT_EQ(Specialized({Float({2, 3})}).ToString(),
            "graph t(%x: float32[2,3])\n"
            "  %a = NonZero(%x) : int64?\n"
            "  %b = Neg(%a) : int64?\n"
            "  %c = Unheard(%x) : float32?\n"
            "  return %b, %c\n");
}

TEST_F(SpecializeTest, KnownContentsOfAnInputReachItsReaders) {
  const ValueId x = t.Input("x", {});
  const ValueId target = t.Input("target", {}, DType::kInt64);
  t.Output(t.Op("y", "Reshape", {x, target}));
  EXPECT_EQ(
      Specialized({Float({2, 3}), {DType::kInt64, Shape{1}, Tensor::VectorInt64({6})}}).ToString(),
      "graph t(%x: float32[2,3], %target: int64[1])\n"
      "  %y = Reshape(%x, 6) : float32[6]\n"
      "  return %y\n");
}

TEST_F(SpecializeTest, OutputsKeepTheirNames) {
  const ValueId x = t.Input("x", {});
  const ValueId a = t.Op("a", "Relu", {x});
  t.Output(t.Op("same", "Identity", {x}));
  t.Output(t.Op("first", "Identity", {a}));
  t.Output(t.Op("second", "Identity", {a}));
  t.Output(t.Op("size", "Size", {x}, {}, DType::kInt64));
  EXPECT_EQ(Specialized({Float({2, 3})}).ToString(),
            "graph t(%x: float32[2,3])\n"
            "  %first = Relu(%x) : float32[2,3]\n"
            "  %same = Identity(%x) : float32[2,3]\n"
            "  %second = Identity(%first) : float32[2,3]\n"
            "  %size = Identity(6) : int64[]\n"
            "  return %same, %first, %second, %size\n");
}

// A branch that applies `op` to its one capture.
GraphPtr Branch(const std::string& op, std::map<std::string, Attribute> attributes = {}) {
  auto g = std::make_shared<Graph>();
  const ValueId in = g->AddValue({"in", DType::kFloat32, {}, nullptr});
  g->captures() = {in};
  const ValueId out = g->AddValue({"out", DType::kFloat32, {}, nullptr});
  g->AddNode({op, "", 26, "node", {in}, {out}, {}, std::move(attributes), 0});
  g->outputs() = {out};
  return g;
}

TEST_F(SpecializeTest, AKnownConditionPutsItsBranchInPlace) {
  const ValueId x = t.Input("x", {});
  const ValueId size = t.Op("size", "Size", {x}, {}, DType::kInt64);
  const ValueId limit = t.Const("limit", Tensor::ScalarInt64(10));
  const ValueId small = t.Op("small", "Less", {size, limit}, {}, DType::kBool);
  const ValueId y =
      t.Op("y", "If", {small}, {{"then_branch", Branch("Relu")}, {"else_branch", Branch("Neg")}});
  t.g.nodes().back().implicit_inputs = {x};
  t.Output(y);
  EXPECT_EQ(Specialized({Float({2, 3})}).ToString(),
            "graph t(%x: float32[2,3])\n"
            "  %y = Relu(%x) : float32[2,3]\n"
            "  return %y\n");
  EXPECT_EQ(TestGraph::Ops(Specialized({Float({2, 30})})), "Neg");
}

TEST_F(SpecializeTest, AnUnknownConditionGivesTheShapeOnWhichBothBranchesAgree) {
  const ValueId x = t.Input("x", {});
  const ValueId condition = t.Input("condition", {}, DType::kBool);
  const ValueId y = t.Op("y", "If", {condition},
                         {{"then_branch", Branch("Relu")}, {"else_branch", Branch("Neg")}});
  t.g.nodes().back().implicit_inputs = {x};
  const ValueId z = t.Op("z", "If", {condition},
                         {{"then_branch", Branch("Relu")}, {"else_branch", Branch("Flatten")}});
  t.g.nodes().back().implicit_inputs = {x};
  t.Output(y);
  t.Output(z);
  const Graph g = Specialized({Float({2, 3, 4}), {DType::kBool, Shape{}, std::nullopt}});
  EXPECT_EQ(g.value(g.outputs()[0]).shape.ToString(), "[2,3,4]");
  EXPECT_EQ(g.value(g.outputs()[1]).shape.ToString(), "?");
  EXPECT_EQ(g.value(g.outputs()[1]).dtype, DType::kFloat32);
}

// state' = state + x, scanning out the state; goes on as `go_on` says.
GraphPtr LoopBody(bool go_on_is_constant) {
  auto g = std::make_shared<Graph>();
  g->AddInput({"trip", DType::kInt64, {}, nullptr});
  const ValueId condition = g->AddInput({"go", DType::kBool, {}, nullptr});
  const ValueId state = g->AddInput({"state", DType::kFloat32, {}, nullptr});
  const ValueId x = g->AddValue({"x_in", DType::kFloat32, {}, nullptr});
  g->captures() = {x};
  const ValueId next = g->AddValue({"next", DType::kFloat32, {}, nullptr});
  const ValueId again = g->AddValue({"again", DType::kBool, {}, nullptr});
  const ValueId scanned = g->AddValue({"scanned", DType::kFloat32, {}, nullptr});
  g->AddNode({"Add", "", 26, "add", {state, x}, {next}, {}, {}, 0});
  if (go_on_is_constant) {
    g->AddNode({"Identity", "", 26, "again", {condition}, {again}, {}, {}, 0});
  } else {
    g->AddNode({"Cast", "", 26, "again", {next}, {again}, {}, {{"to", int64_t{9}}}, 0});
  }
  g->AddNode({"Relu", "", 26, "scan", {next}, {scanned}, {}, {}, 0});
  g->outputs() = {again, next, scanned};
  return g;
}

struct LoopTest : SpecializeTest {
  void Build(int64_t trips, bool go_on_is_constant) {
    const ValueId x = t.Input("x", {});
    const ValueId m = t.Const("m", Tensor::ScalarInt64(trips));
    const ValueId yes = t.Const("yes", Bool(true));
    const ValueId last = t.Op("last", "Loop", {m, yes, x}, {{"body", LoopBody(go_on_is_constant)}});
    t.g.nodes().back().implicit_inputs = {x};
    const ValueId all = t.g.AddValue({"all", DType::kFloat32, {}, nullptr});
    t.g.nodes().back().outputs.push_back(all);
    t.Output(last);
    t.Output(all);
  }
};

TEST_F(LoopTest, AFewKnownTripsAreUnrolledAndScansJoined) {
  Build(2, true);
  EXPECT_EQ(Specialized({Float({3})}).ToString(),
            "graph t(%x: float32[3])\n"
            "  %last/0/next = Add(%x, %x) : float32[3]\n"
            "  %last/0/scanned = Relu(%last/0/next) : float32[3]\n"
            "  %last = Add(%last/0/next, %x) : float32[3]\n"
            "  %last/1/scanned = Relu(%last) : float32[3]\n"
            "  %last/scan0/wide0 = Unsqueeze(%last/0/scanned, 0) : float32[1,3]\n"
            "  %last/scan0/wide1 = Unsqueeze(%last/1/scanned, 0) : float32[1,3]\n"
            "  %all = Concat(%last/scan0/wide0, %last/scan0/wide1) axis=0 : float32[2,3]\n"
            "  return %last, %all\n");
}

TEST_F(LoopTest, ManyTripsStayALoopWithKnownStateShapes) {
  Build(1000, true);
  const Graph g = Specialized({Float({3})});
  EXPECT_EQ(TestGraph::Ops(g), "Loop");
  EXPECT_EQ(g.value(g.outputs()[0]).shape.ToString(), "[3]");
  EXPECT_EQ(g.value(g.outputs()[1]).shape.ToString(), "?");
}

TEST_F(LoopTest, AConditionOnDataStaysALoop) {
  Build(2, false);
  EXPECT_EQ(TestGraph::Ops(Specialized({Float({3})})), "Loop");
}

TEST_F(SpecializeTest, NestedLoopsDoNotMakeTheWalkExplode) {
  // 64 trips in 64 trips in ... ten deep: more nodes than there is memory, if all were unrolled.
  GraphPtr body;
  for (int depth = 0; depth < 10; ++depth) {
    auto g = std::make_shared<Graph>();
    g->AddInput({"trip", DType::kInt64, {}, nullptr});
    const ValueId condition = g->AddInput({"go", DType::kBool, {}, nullptr});
    const ValueId state = g->AddInput({"state", DType::kFloat32, {}, nullptr});
    const ValueId next = g->AddValue({"next", DType::kFloat32, {}, nullptr});
    if (body) {
      const ValueId m = g->AddConstant("m", Interned(Tensor::ScalarInt64(64)));
      g->AddNode({"Loop", "", 26, "loop", {m, condition, state}, {next}, {}, {{"body", body}}, 0});
    } else {
      g->AddNode({"Relu", "", 26, "relu", {state}, {next}, {}, {}, 0});
    }
    g->outputs() = {condition, next};
    body = g;
  }
  const ValueId x = t.Input("x", {});
  const ValueId m = t.Const("m", Tensor::ScalarInt64(64));
  const ValueId yes = t.Const("yes", Bool(true));
  t.Output(t.Op("y", "Loop", {m, yes, x}, {{"body", body}}));
  EXPECT_LE(Specialized({Float({3})}).num_nodes(), 100'000u);
}

TEST_F(SpecializeTest, OldSoftmaxGetsTodaysFormOnceShapesShowThatItMay) {
  const ValueId x = t.Input("x", {});
  t.Output(t.Op("y", "Softmax", {x}));
  t.g.nodes().back().version = 11;
  EXPECT_EQ(Specialized({Float({2, 5})}).nodes()[0].version, 26);
  EXPECT_EQ(Specialized({Float({2, 5, 1})}).nodes()[0].IntAttr("axis", -1), 1);
  EXPECT_EQ(Specialized({Float({2, 5, 3})}).nodes()[0].version, 11);
}

TEST_F(SpecializeTest, MapRowsKnowsWhatItsBodyMakesOfOneRow) {
  const ValueId x = t.Input("x", {});
  auto body = std::make_shared<Graph>();
  const ValueId in = body->AddInput({"row", DType::kFloat32, {}, nullptr});
  const ValueId out = body->AddValue({"out", DType::kFloat32, {}, nullptr});
  body->AddNode({"Flatten", "", 26, "flatten", {in}, {out}, {}, {}, 0});
  body->outputs() = {out};
  t.Output(t.Op("y", "MapRows", {x}, {{"body", GraphPtr(body)}}));
  t.g.nodes().back().domain = "plexus";
  const Graph g = Specialized({Float({5, 2, 3})});
  EXPECT_EQ(g.value(g.outputs()[0]).shape.ToString(), "[5,6]");
  EXPECT_EQ(g.nodes()[0].GraphAttr("body"), body.get()) << "one body for any number of rows";
}

}  // namespace
}  // namespace plexus
