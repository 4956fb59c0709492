#include <gtest/gtest.h>

#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"

namespace plexus {
namespace {

using Ints = std::vector<int64_t>;
using Attributes = std::map<std::string, Attribute>;

struct RowsTest : testing::Test {
  TestGraph t;
  RowsTest() { t.infer = false; }

  // An input; -1 is a dimension that is not known.
  ValueId In(const std::string& name, const Shape& shape, DType dtype = DType::kFloat32) {
    SymbolicShape symbolic;
    symbolic.has_rank = true;
    for (int64_t dim : shape) {
      symbolic.dims.push_back({dim < 0 ? std::nullopt : std::optional(dim), dim < 0 ? "N" : ""});
    }
    return t.g.AddInput({name, dtype, symbolic, nullptr});
  }
  std::string WhyNot() {
    std::string why;
    const bool independent = IsRowIndependent(t.g, &why);
    EXPECT_EQ(independent, GeneralizeRows(t.g).ok());
    EXPECT_EQ(independent, why.empty());
    return why;
  }
  Graph Generalised() {
    Result<Graph> result = GeneralizeRows(t.g);
    EXPECT_TRUE(result.ok()) << result.status().ToString();
    if (!result.ok()) return Graph();
    const Status valid = result->Validate();
    EXPECT_TRUE(valid.ok()) << valid.ToString() << result->ToString();
    return std::move(result).value();
  }
  void Reset() {
    t = TestGraph();
    t.infer = false;
  }
};

// A wake-word head: [1,k,96] → Flatten → Gemm, LayerNorm by hand, ... → [1,1].
TEST_F(RowsTest, AHeadFixedAtOneRowTakesAnyNumber) {
  const ValueId x = In("x", {1, 16, 96});
  const ValueId flat = t.Op("flat", "Flatten", {x});
  const ValueId h = t.Op("h", "Gemm", {flat, t.Ramp("w", {32, 1536}), t.Ramp("b", {32})},
                         {{"transB", int64_t{1}}});
  const ValueId mean = t.Op("mean", "ReduceMean", {h, t.Ints({-1})});
  const ValueId d = t.Op("d", "Sub", {h, mean});
  const ValueId r = t.Op("r", "Relu", {d});
  const ValueId z = t.Op("z", "Gemm", {r, t.Ramp("w2", {32, 1})});
  t.Output(t.Op("y", "Sigmoid", {z}));
  EXPECT_EQ(WhyNot(), "");
  const Graph g = Generalised();
  EXPECT_EQ(g.value(g.inputs()[0]).shape.ToString(), "[rows,16,96]");
  EXPECT_EQ(TestGraph::Ops(g), t.Ops());
}

TEST_F(RowsTest, FixedReshapeTargetsFollowTheRows) {
  struct Case {
    Shape x;
    Ints target;
    Ints rewritten;  // empty: as it is
  };
  const Case cases[] = {
      {{1, 2, 3}, {1, 6}, {0, 6}},
      {{1, 2, 3}, {1, -1}, {0, -1}},
      {{1, 2, 3}, {-1, 6}, {}},
      {{1, 2, 3}, {0, 6}, {}},
      {{1, 2, 3}, {1, 1, 3, 2}, {0, 1, 3, 2}},
      {{1, 6}, {1, 2, -1}, {0, 2, -1}},
      {{1, 1, 6}, {1, 6}, {0, 6}},
  };
  for (const Case& test : cases) {
    Reset();
    t.Output(t.Op("y", "Reshape", {In("x", test.x), t.Ints(test.target)}));
    const Graph g = Generalised();
    const ValueId target = g.nodes()[0].inputs[1];
    const auto got = ToInt64Vector(g.value(target).constant->Plain().value()).value();
    EXPECT_EQ(got, test.rewritten.empty() ? test.target : test.rewritten)
        << ShapeToString(test.target);
  }
}

TEST_F(RowsTest, RowsMayBeFlattenedIntoStepsAndComeBack) {
  // [1,4,6] → [4,6] → MatMul → [1,4,5]
  const ValueId x = In("x", {1, 4, 6});
  const ValueId steps = t.Op("steps", "Reshape", {x, t.Ints({4, 6})});
  const ValueId h = t.Op("h", "MatMul", {steps, t.Ramp("w", {6, 5})});
  t.Output(t.Op("y", "Reshape", {h, t.Ints({1, 4, 5})}));
  EXPECT_EQ(WhyNot(), "");
}

TEST_F(RowsTest, NumbersOfRowsComputedFromShapesAreFollowed) {
  // Reshape(x, Concat(Shape(x)[0], -1)) and a class token expanded to the rows.
  const ValueId x = In("x", {-1, 4, 6});
  const ValueId shape = t.Op("shape", "Shape", {x}, {}, DType::kInt64);
  const ValueId rows = t.Op("rows", "Gather", {shape, t.Ints({0})}, {}, DType::kInt64);
  const ValueId wide =
      t.Op("wide", "Concat", {rows, t.Ints({1, 6})}, {{"axis", int64_t{0}}}, DType::kInt64);
  const ValueId token = t.Op("token", "Expand", {t.Ramp("cls", {1, 1, 6}), wide});
  const ValueId joined = t.Op("joined", "Concat", {token, x}, {{"axis", int64_t{1}}});
  const ValueId flat =
      t.Op("flat", "Concat", {rows, t.Ints({-1})}, {{"axis", int64_t{0}}}, DType::kInt64);
  t.Output(t.Op("y", "Reshape", {joined, flat}));
  EXPECT_EQ(WhyNot(), "");
  EXPECT_EQ(TestGraph::Ops(Generalised()), t.Ops());
}

TEST_F(RowsTest, ArithmeticWithTheNumberOfRowsIsNotIndependent) {
  const ValueId x = In("x", {-1, 4});
  const ValueId rows = t.Op("rows", "Shape", {x}, {{"end", int64_t{1}}}, DType::kInt64);
  const ValueId real = t.Op("real", "Cast", {rows}, {{"to", int64_t{1}}});
  t.Output(t.Op("y", "Div", {x, real}));
  EXPECT_EQ(WhyNot(), "node 'real' (Cast): computes with the number of rows");
}

TEST_F(RowsTest, StandInsForUnknownDimensionsNeverReachTheResultNorHideMixing) {
  // [b,T,6] → [T,b,6] → [64,-1] keeps rows whole only where T is 64.
  const ValueId x = In("x", {1, -1, 6});
  const ValueId turned = t.Op("turned", "Transpose", {x}, {{"perm", Ints{1, 0, 2}}});
  const ValueId mixed = t.Op("mixed", "Reshape", {turned, t.Ints({64, -1})});
  const ValueId back = t.Op("back", "Transpose", {mixed});
  t.Output(t.Op("y", "Reshape", {back, t.Ints({-1, 384})}));
  EXPECT_NE(WhyNot().find("node 'mixed'"), std::string::npos);
  // A target of (1, T) would have to be written out as a number.
  Reset();
  const ValueId z = In("z", {1, -1});
  const ValueId steps = t.Op("steps", "Shape", {z}, {{"start", int64_t{1}}}, DType::kInt64);
  const ValueId target =
      t.Op("target", "Concat", {t.Ints({1}), steps}, {{"axis", int64_t{0}}}, DType::kInt64);
  t.Output(t.Op("y", "Reshape", {z, target}));
  EXPECT_NE(WhyNot().find("unknown dimensions"), std::string::npos);
}

TEST_F(RowsTest, AFixedTokenJoinedToEachRowIsExpanded) {
  const ValueId x = In("x", {1, 4, 6});
  t.Output(t.Op("y", "Concat", {t.Ramp("cls", {1, 1, 6}), x}, {{"axis", int64_t{1}}}));
  EXPECT_EQ(Generalised().ToString(),
            "graph t(%x: float32[rows,4,6])\n"
            "  %y/expand0/count = Shape(%x) end=1 start=0 : int64?\n"
            "  %y/expand0/shape = Concat(@y/expand0/Concat/rows, %y/expand0/count, "
            "@y/expand0/Concat/rows_1) axis=0 : int64?\n"
            "  %y/expand0/value = Expand(@cls, %y/expand0/shape) : float32?\n"
            "  %y = Concat(%y/expand0/value, %x) axis=1 : float32?\n"
            "  return %y\n");
}

TEST_F(RowsTest, RecurrentRowsRunAlongTheBatchAxis) {
  const ValueId x = In("x", {1, 7, 4});
  const ValueId time_first = t.Op("time_first", "Transpose", {x}, {{"perm", Ints{1, 0, 2}}});
  const ValueId h = t.Op("h", "LSTM",
                         {time_first, t.Ramp("w", {1, 12, 4}), t.Ramp("r", {1, 12, 3}), ValueId(),
                          ValueId(), t.Ramp("h0", {1, 1, 3})},
                         {{"hidden_size", int64_t{3}}});
  const ValueId squeezed = t.Op("squeezed", "Squeeze", {h, t.Ints({1})});
  t.Output(t.Op("y", "Transpose", {squeezed}, {{"perm", Ints{1, 0, 2}}}));
  EXPECT_EQ(WhyNot(), "");
  EXPECT_EQ(TestGraph::Ops(Generalised()), "Transpose Shape Concat Expand LSTM Squeeze Transpose");
}

TEST_F(RowsTest, ResizedSizesLeaveTheRowAxisAlone) {
  const ValueId x = In("x", {1, 3, 4, 4});
  t.Output(t.Op("y", "Resize", {x, ValueId(), ValueId(), t.Ints({1, 3, 8, 8})}));
  const Graph g = Generalised();
  EXPECT_EQ(g.nodes()[0].IntsAttr("axes"), (Ints{1, 2, 3}));
}

struct OpCase {
  const char* what;
  Shape x;
  const char* op;
  Attributes attributes;
  std::vector<Shape> constants;  // further inputs, filled with ones
  std::vector<Ints> ints;        // further integer inputs, after those
  const char* why;               // part of the reason; nullptr: independent
};

class RowRules : public RowsTest, public testing::WithParamInterface<OpCase> {};

TEST_P(RowRules, Decide) {
  const OpCase& test = GetParam();
  std::vector<ValueId> inputs = {In("x", test.x)};
  for (const Shape& shape : test.constants) {
    inputs.push_back(t.Ramp("c" + std::to_string(inputs.size()), shape));
  }
  for (const Ints& values : test.ints) inputs.push_back(t.Ints(values));
  t.Output(t.Op("y", test.op, inputs, test.attributes));
  const std::string why = WhyNot();
  if (!test.why) {
    EXPECT_EQ(why, "") << test.what;
  } else {
    EXPECT_NE(why.find(test.why), std::string::npos) << test.what << ": " << why;
    EXPECT_NE(why.find(" 'y'"), std::string::npos) << why;
  }
}

const OpCase kCases[] = {
    {"pointwise", {1, 4}, "Relu", {}, {}, {}, nullptr},
    {"a bias per column", {1, 4}, "Add", {}, {{4}}, {}, nullptr},
    {"a bias of one row", {1, 4}, "Add", {}, {{1, 4}}, {}, nullptr},
    {"a table that turns one row into three", {1, 4}, "Add", {}, {{3, 4}}, {}, "row axis"},
    {"convolution", {1, 3, 8, 8}, "Conv", {}, {{4, 3, 3, 3}}, {}, nullptr},
    {"batch norm with fixed statistics",
     {1, 3, 8, 8},
     "BatchNormalization",
     {},
     {{3}, {3}, {3}, {3}},
     {},
     nullptr},
    {"batch norm in training",
     {1, 3, 8, 8},
     "BatchNormalization",
     {{"training_mode", int64_t{1}}},
     {{3}, {3}, {3}, {3}},
     {},
     "statistics"},
    {"pool", {1, 3, 8, 8}, "MaxPool", {{"kernel_shape", Ints{2, 2}}}, {}, {}, nullptr},
    {"a maximum over everything",
     {1, 4},
     "ReduceMax",
     {{"keepdims", int64_t{1}}},
     {},
     {},
     "all axes"},
    {"a mean over the rows", {1, 4}, "ReduceMean", {}, {}, {{0}}, "row axis"},
    {"a mean over columns", {1, 4}, "ReduceMean", {}, {}, {{-1}}, nullptr},
    {"an empty reduction that does nothing",
     {1, 4},
     "ReduceSum",
     {{"noop_with_empty_axes", int64_t{1}}},
     {},
     {},
     nullptr},
    {"softmax over columns", {1, 4}, "Softmax", {}, {}, {}, nullptr},
    {"softmax over rows", {1, 4}, "Softmax", {{"axis", int64_t{0}}}, {}, {}, "row axis"},
    {"layer norm over all",
     {1, 4},
     "LayerNormalization",
     {{"axis", int64_t{0}}},
     {{1, 4}},
     {},
     "row axis"},
    {"layer norm over columns", {1, 4}, "LayerNormalization", {}, {{4}}, {}, nullptr},
    {"a product with weights", {1, 5, 4}, "MatMul", {}, {{4, 6}}, {}, nullptr},
    {"a product summed over rows",
     {1, 5},
     "Gemm",
     {{"transA", int64_t{1}}},
     {{1, 5}},
     {},
     "summed"},
    {"a product with one matrix per row", {1, 5, 4}, "MatMul", {}, {{1, 4, 6}}, {}, nullptr},
    {"a product with three matrices", {1, 5, 4}, "MatMul", {}, {{3, 4, 6}}, {}, "not per row"},
    {"a shape that swallows the rows", {1, 4}, "Reshape", {}, {}, {{4}}, "entries per row"},
    {"rows turned into columns", {1, 4}, "Transpose", {}, {}, {}, "along axis 1"},
    {"rows flattened away", {1, 4}, "Flatten", {{"axis", int64_t{0}}}, {}, {}, "along axis 1"},
    {"rows squeezed away", {1, 4}, "Squeeze", {}, {}, {{0}}, "squeezes"},
    {"another dimension squeezed", {1, 1, 4}, "Squeeze", {}, {}, {{1}}, nullptr},
    {"unsqueezed behind", {1, 4}, "Unsqueeze", {}, {}, {{1}}, nullptr},
    {"unsqueezed in front", {1, 4}, "Unsqueeze", {}, {}, {{0}}, "along axis 1"},
    {"a slice of columns", {1, 4}, "Slice", {}, {}, {{1}, {3}, {1}}, nullptr},
    {"the first row only", {1, 4}, "Slice", {}, {}, {{0}, {1}, {0}}, "slices the row axis"},
    {"all rows by slicing", {1, 4}, "Slice", {}, {}, {{0}, {INT32_MAX}, {0}}, nullptr},
    {"padded rows", {1, 4}, "Pad", {}, {}, {{0, 0, 1, 0}}, "pads"},
    {"padded columns", {1, 4}, "Pad", {}, {}, {{0, 1, 0, 1}}, nullptr},
    {"repeated rows", {1, 4}, "Tile", {}, {}, {{2, 1}}, "repeats"},
    {"rows expanded to three", {1, 4}, "Expand", {}, {}, {{3, 4}}, "expands"},
    {"columns expanded", {1, 1}, "Expand", {}, {}, {{1, 4}}, nullptr},
    {"the first row picked", {1, 4}, "Gather", {}, {}, {{0}}, "picks"},
    {"a column picked", {1, 4}, "Gather", {{"axis", int64_t{1}}}, {}, {{0}}, nullptr},
    {"sums running over rows", {1, 4}, "CumSum", {}, {}, {{0}}, "row axis"},
    {"sums running over columns", {1, 4}, "CumSum", {}, {}, {{1}}, nullptr},
    {"the best columns", {1, 4}, "ArgMax", {{"axis", int64_t{1}}}, {}, {}, nullptr},
    {"the best row", {1, 4}, "ArgMax", {{"axis", int64_t{0}}}, {}, {}, "row axis"},
    {"einsum that keeps rows",
     {1, 4},
     "Einsum",
     {{"equation", std::string("bi,ij->bj")}},
     {{4, 3}},
     {},
     nullptr},
    {"einsum that sums rows",
     {1, 4},
     "Einsum",
     {{"equation", std::string("bi,ij->j")}},
     {{4, 3}},
     {},
     "sums"},
    {"scales found from all rows", {1, 4}, "DynamicQuantizeLinear", {}, {}, {}, "no rule"},
    {"where rows are not zero", {1, 4}, "NonZero", {}, {}, {}, "no rule"},
    {"random numbers", {1, 4}, "RandomNormalLike", {}, {}, {}, "random"},
    {"an operator nobody knows", {1, 4}, "Unheard", {}, {}, {}, "no rule"},
    {"steps of time are rows",
     {1, 1, 4},
     "RNN",
     {{"hidden_size", int64_t{3}}},
     {{1, 3, 4}, {1, 3, 3}},
     {},
     "time"},
};
INSTANTIATE_TEST_SUITE_P(Operators, RowRules, testing::ValuesIn(kCases));

TEST_F(RowsTest, IndicesOfRowsLookUpATable) {
  const ValueId x = In("x", {1, 5}, DType::kInt64);
  t.Output(t.Op("y", "Gather", {t.Ramp("table", {10, 4}), x}));
  EXPECT_EQ(WhyNot(), "");
}

TEST_F(RowsTest, AttentionBetweenTheRowsOfOneRequestIsFineAndAcrossRequestsIsNot) {
  const ValueId x = In("x", {1, 5, 4});
  const ValueId k = t.Op("k", "Transpose", {x}, {{"perm", Ints{0, 2, 1}}});
  t.Output(t.Op("y", "MatMul", {x, k}));
  EXPECT_EQ(WhyNot(), "");
  Reset();
  const ValueId z = In("z", {1, 4});
  const ValueId zt = t.Op("zt", "Transpose", {z});
  t.Output(t.Op("y", "MatMul", {z, zt}));
  EXPECT_NE(WhyNot().find("along different axes"), std::string::npos);
}

TEST_F(RowsTest, ControlFlowOnRowDataIsABarrier) {
  const ValueId x = In("x", {1, 1});
  auto branch = std::make_shared<Graph>();
  const ValueId in = branch->AddValue({"in", DType::kFloat32, {}, nullptr});
  branch->captures() = {in};
  branch->outputs() = {in};
  const ValueId high = t.Op("high", "Cast", {x}, {{"to", int64_t{9}}}, DType::kBool);
  const ValueId y = t.Op("y", "If", {high},
                         {{"then_branch", GraphPtr(branch)}, {"else_branch", GraphPtr(branch)}});
  t.g.nodes().back().implicit_inputs = {x};
  t.Output(y);
  EXPECT_NE(WhyNot().find("node 'y' (If)"), std::string::npos);
}

TEST_F(RowsTest, MapRowsIsIndependentWhateverItsBodyDoes) {
  const ValueId x = In("x", {1, 4});
  auto body = std::make_shared<Graph>();
  const ValueId in = body->AddInput({"row", DType::kFloat32, {}, nullptr});
  const ValueId out =
      body->AddValue({"out", DType::kFloat32, SymbolicShape::FromConcrete({1, 1}), nullptr});
  body->AddNode({"ReduceMax", "", 26, "max", {in}, {out}, {}, {}, 0});
  body->outputs() = {out};
  t.Output(t.Op("y", "MapRows", {x}, {{"body", GraphPtr(body)}}));
  t.g.nodes().back().domain = "plexus";
  EXPECT_EQ(WhyNot(), "");
}

TEST_F(RowsTest, InputsAndOutputsMustCarryRowsOnAxisZero) {
  t.Output(t.Op("y", "Relu", {In("x", {3, 4})}));
  EXPECT_NE(WhyNot().find("input 'x' is fixed at 3 entries"), std::string::npos);
  Reset();
  t.Output(t.Op("y", "Relu", {In("x", {})}));
  EXPECT_NE(WhyNot().find("is a scalar"), std::string::npos);
  Reset();
  (void)In("x", {1, 4});
  t.Output(t.Op("y", "Relu", {t.Ramp("c", {1, 4})}));
  EXPECT_NE(WhyNot().find("output 'y' does not depend on the rows"), std::string::npos);
  Reset();
  const ValueId x = In("x", {-1, 4});
  t.Output(t.Op("y", "Shape", {x}, {}, DType::kInt64));
  EXPECT_NE(WhyNot().find("depends on the number of rows"), std::string::npos);
}

}  // namespace
}  // namespace plexus
