// Single operators and RunGraph on hand-made graphs. The standard's own cases are run by
// tests/conformance_test.cc; here stand the domain plexus and what bad input must do.
#include "program/reference/reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "program/reference/float8.h"
#include "program/reference/kernels_util.h"

namespace plexus {
namespace {

Tensor Floats(Shape shape, std::vector<float> values) {
  return Tensor::Of(DType::kFloat32, std::move(shape), values);
}
Tensor Bytes8(Shape shape, std::vector<uint8_t> values) {
  return Tensor::Of(DType::kUint8, std::move(shape), values);
}

std::vector<float> FloatsOf(const Tensor& t) {
  return {t.data<float>().begin(), t.data<float>().end()};
}
std::vector<int64_t> IntsOf(const Tensor& t) { return ToInt64Vector(t).value(); }

// One node on its own: Op("plexus", "Head").Set("size", 3).Run({x}).
class Op {
 public:
  Op(std::string domain, std::string op, int version = 18) {
    node_.domain = std::move(domain);
    node_.op = std::move(op);
    node_.version = version;
    node_.name = "under_test";
  }
  template <typename T>
  Op& Set(const std::string& name, T value) {
    node_.attributes[name] = Attribute(std::move(value));
    return *this;
  }
  Op& Outputs(size_t count) {
    outputs_ = count;
    return *this;
  }
  Result<std::vector<Tensor>> RunAll(const std::vector<Tensor>& inputs) {
    uint32_t next = 0;
    for (size_t i = 0; i < inputs.size(); ++i) node_.inputs.push_back(ValueId(next++));
    for (size_t i = 0; i < outputs_; ++i) node_.outputs.push_back(ValueId(next++));
    return ReferenceEvaluator::Get().Evaluate(Graph(), node_, inputs, {});
  }
  Result<Tensor> Run(const std::vector<Tensor>& inputs) {
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, RunAll(inputs));
    return outputs[0];
  }

 private:
  Node node_;
  size_t outputs_ = 1;
};

StatusCode CodeOf(const Result<Tensor>& result) { return result.status().code(); }

// --- Glue ----------------------------------------------------------------------------------------

TEST(GlueTest, WindowMakesOverlappingWindows) {
  const Tensor x = Floats({5, 2}, {0, 1, 10, 11, 20, 21, 30, 31, 40, 41});
  const Tensor y =
      Op("plexus", "Window").Set("size", int64_t{3}).Set("step", int64_t{2}).Run({x}).value();
  EXPECT_EQ(y.shape(), (Shape{2, 3, 2}));
  EXPECT_EQ(FloatsOf(y), (std::vector<float>{0, 1, 10, 11, 20, 21, 20, 21, 30, 31, 40, 41}));
}

TEST(GlueTest, WindowOfTooFewRowsHasNoRows) {
  const Tensor y = Op("plexus", "Window")
                       .Set("size", int64_t{76})
                       .Set("step", int64_t{8})
                       .Run({Floats({2, 1}, {1, 2})})
                       .value();
  EXPECT_EQ(y.shape(), (Shape{0, 76, 1}));
}

TEST(GlueTest, WindowAlongAnInnerAxis) {
  const Tensor y = Op("plexus", "Window")
                       .Set("axis", int64_t{1})
                       .Set("size", int64_t{2})
                       .Run({Floats({2, 3}, {1, 2, 3, 4, 5, 6})})
                       .value();
  EXPECT_EQ(y.shape(), (Shape{2, 2, 2}));
  EXPECT_EQ(FloatsOf(y), (std::vector<float>{1, 2, 2, 3, 4, 5, 5, 6}));
}

TEST(GlueTest, BytesStripHeadTailPadToWorkOnText) {
  const Tensor text = Tensor::FromStrings({1}, {" \n ab c\t"});
  const Tensor bytes = Op("plexus", "Bytes").Run({text}).value();
  EXPECT_EQ(bytes.shape(), Shape{8});
  const Tensor left = Op("plexus", "Strip").Set("side", std::string("left")).Run({bytes}).value();
  EXPECT_EQ(IntsOf(left), (std::vector<int64_t>{'a', 'b', ' ', 'c', '\t'}));
  const Tensor both = Op("plexus", "Strip").Run({bytes}).value();
  EXPECT_EQ(IntsOf(both), (std::vector<int64_t>{'a', 'b', ' ', 'c'}));
  EXPECT_EQ(IntsOf(Op("plexus", "Head").Set("size", int64_t{2}).Run({both}).value()),
            (std::vector<int64_t>{'a', 'b'}));
  EXPECT_EQ(IntsOf(Op("plexus", "Tail").Set("size", int64_t{9}).Run({both}).value()),
            (std::vector<int64_t>{'a', 'b', ' ', 'c'}));
}

TEST(GlueTest, StripOfNothingButWhiteSpaceIsEmpty) {
  const Tensor y = Op("plexus", "Strip").Run({Bytes8({3}, {' ', '\n', '\v'})}).value();
  EXPECT_EQ(y.shape(), Shape{0});
}

TEST(GlueTest, PadToFillsEitherSideAndKeepsLongerInput) {
  const Tensor x = Tensor::Of<int32_t>(DType::kInt32, {2}, {7, 8});
  auto pad = [&](const char* side, int64_t size) {
    return Op("plexus", "PadTo")
        .Set("size", size)
        .Set("side", std::string(side))
        .Set("value", int64_t{256})
        .Run({x});
  };
  EXPECT_EQ(IntsOf(pad("right", 4).value()), (std::vector<int64_t>{7, 8, 256, 256}));
  EXPECT_EQ(IntsOf(pad("left", 4).value()), (std::vector<int64_t>{256, 256, 7, 8}));
  EXPECT_EQ(IntsOf(pad("left", 1).value()), (std::vector<int64_t>{7, 8}));
}

// Probabilities f32[1,T,4] whose likeliest class at step t is path[t], with 0.1 times t + 1.
Tensor CtcPath(const std::vector<int>& path) {
  std::vector<float> values(4 * path.size(), 0.0f);
  for (size_t t = 0; t < path.size(); ++t) {
    values[4 * t + path[t]] = 0.1f * static_cast<float>(t + 1);
  }
  return Floats({1, static_cast<int64_t>(path.size()), 4}, values);
}

TEST(GlueTest, CtcTextDropsRepeatsAndBlanksAndAveragesWhatIsLeft) {
  const std::vector<std::string> labels = {"a", "b", "\xc3\xa9"};
  const auto decode = [&](const std::vector<int>& path) {
    return Op("plexus", "CtcText").Set("labels", labels).Outputs(2).RunAll({CtcPath(path)}).value();
  };
  std::vector<Tensor> got = decode({1, 1, 0, 1, 3, 3, 0});
  EXPECT_EQ(got[0].strings(), std::vector<std::string>{"aa\xc3\xa9"});
  EXPECT_NEAR(got[1].data<float>()[0], (0.1 + 0.4 + 0.5) / 3, 1e-6);
  got = decode({0, 0});
  EXPECT_EQ(got[0].strings(), std::vector<std::string>{""});
  EXPECT_EQ(got[1].data<float>()[0], 0.0f);
  EXPECT_EQ(decode({})[0].strings(), std::vector<std::string>{""});
}

TEST(GlueTest, CtcTextKeepsTheClassesGivenAndTakesAnyBlank) {
  const std::vector<std::string> labels = {"a", "b", "c"};
  // Class 0, then 2, then 0 again: only "c" is kept, with its own probability.
  const Tensor x =
      Floats({3, 4}, {0.6f, 0.3f, 0.1f, 0.0f, 0.1f, 0.2f, 0.7f, 0.0f, 0.6f, 0.3f, 0.1f, 0.0f});
  std::vector<Tensor> got = Op("plexus", "CtcText")
                                .Set("labels", labels)
                                .Set("blank", int64_t{3})
                                .Set("classes", std::vector<int64_t>{1, 2})
                                .Outputs(2)
                                .RunAll({x})
                                .value();
  EXPECT_EQ(got[0].strings(), std::vector<std::string>{"c"});
  EXPECT_NEAR(got[1].data<float>()[0], 0.7, 1e-6);
  EXPECT_EQ(got[0].shape(), Shape{1});
}

TEST(GlueTest, CtcTextRejectsWhatDoesNotFitItsLabels) {
  const std::vector<std::string> labels = {"a", "b", "c"};
  const auto code = [&](const Tensor& x, int64_t blank, std::vector<int64_t> classes) {
    return CodeOf(Op("plexus", "CtcText")
                      .Set("labels", labels)
                      .Set("blank", blank)
                      .Set("classes", std::move(classes))
                      .Outputs(2)
                      .Run({x}));
  };
  EXPECT_EQ(code(CtcPath({1}), 0, {}), StatusCode::kOk);
  EXPECT_EQ(code(Floats({1, 1, 3}, {0, 0, 1}), 0, {}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Floats({4}, {0, 0, 0, 1}), 0, {}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(CtcPath({1}), 4, {}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(CtcPath({1}), 0, {-1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code(Bytes8({1, 1, 4}, {0, 0, 0, 1}), 0, {}), StatusCode::kInvalidArgument);
}

TEST(GlueTest, LabelLookupGivesLabelsAndRejectsUnknownIndices) {
  const std::vector<std::string> labels = {"c", "html", "python"};
  const Tensor y =
      Op("plexus", "LabelLookup").Set("labels", labels).Run({Tensor::VectorInt64({2, 0})}).value();
  EXPECT_EQ(y.strings(), (std::vector<std::string>{"python", "c"}));
  EXPECT_EQ(
      CodeOf(Op("plexus", "LabelLookup").Set("labels", labels).Run({Tensor::VectorInt64({3})})),
      StatusCode::kInvalidArgument);
}

// --- Fused operators -----------------------------------------------------------------------------

TEST(FusedTest, ConvAddsBiasAndResidualBeforeTheActivation) {
  const Tensor x = Floats({1, 1, 2, 2}, {1, 2, 3, 4});
  const Tensor w = Floats({1, 1, 1, 1}, {2});
  const Tensor bias = Floats({1}, {1});
  const Tensor residual = Floats({1, 1, 2, 2}, {-10, 0, 0, -10});
  const Tensor y = Op("plexus", "Conv")
                       .Set("activation", std::string("Relu"))
                       .Run({x, w, bias, residual})
                       .value();
  EXPECT_EQ(FloatsOf(y), (std::vector<float>{0, 5, 7, 0}));
}

TEST(FusedTest, MatMulTransposesScalesAndAddsBias) {
  const Tensor a = Floats({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor b = Floats({2, 3}, {1, 0, 1, 0, 1, 0});
  const Tensor y = Op("plexus", "MatMul")
                       .Set("trans_b", int64_t{1})
                       .Set("alpha", 0.5f)
                       .Run({a, b, Floats({2}, {10, 20})})
                       .value();
  EXPECT_EQ(FloatsOf(y), (std::vector<float>{12, 21, 15, 22.5}));
}

TEST(FusedTest, ElementwiseRunsItsStepsWithBroadcasting) {
  // y = Where(a > b, a + b, clip(a, -1, 1))
  const Tensor a = Floats({2, 2}, {3, -5, 0.5, 4});
  const Tensor b = Floats({2}, {1, 2});
  const std::vector<std::string> ops = {"Greater", "Add", "Clip", "Where"};
  const std::vector<int64_t> args = {0, 1, -1, 0, 1, -1, 0, -1, -1, 2, 3, 4};
  const std::vector<float> params = {0, 0, 0, 0, -1, 1, 0, 0};
  const Tensor y = Op("plexus", "Elementwise")
                       .Set("ops", ops)
                       .Set("args", args)
                       .Set("params", params)
                       .Run({a, b})
                       .value();
  EXPECT_EQ(FloatsOf(y), (std::vector<float>{4, -1, 0.5, 6}));
}

TEST(FusedTest, ElementwiseRejectsAStepThatReadsALaterOne) {
  EXPECT_EQ(CodeOf(Op("plexus", "Elementwise")
                       .Set("ops", std::vector<std::string>{"Neg", "Neg"})
                       .Set("args", std::vector<int64_t>{2, -1, -1, 1, -1, -1})
                       .Run({Floats({1}, {1})})),
            StatusCode::kInvalidArgument);
}

TEST(FusedTest, AttentionWithOneKeyReturnsItsValue) {
  const Tensor q = Floats({1, 1, 2, 2}, {1, 2, 3, 4});
  const Tensor k = Floats({1, 1, 1, 2}, {1, 1});
  const Tensor v = Floats({1, 1, 1, 3}, {7, 8, 9});
  const Tensor y = Op("plexus", "Attention").Set("scale", 1.0f).Run({q, k, v}).value();
  EXPECT_EQ(FloatsOf(y), (std::vector<float>{7, 8, 9, 7, 8, 9}));
}

TEST(FusedTest, QMatMulRoundsHalfToEvenAndSaturates) {
  // real(a) = 0.5·(a - 1); real(b) = b; y = 0.5 steps around 3.
  const Tensor a = Bytes8({1, 2}, {2, 3});
  const Tensor b = Tensor::Of<int8_t>(DType::kInt8, {2, 2}, {1, 100, 1, 127});
  const Tensor one = Tensor::Scalar(1);
  const Tensor y = Op("plexus", "QMatMul")
                       .Run({a, Tensor::Scalar(0.5f), Bytes8({}, {1}), b, one,
                             Tensor::Of<int8_t>(DType::kInt8, {}, {0}), one, Bytes8({}, {3})})
                       .value();
  // 0.5·(1·1 + 2·1) = 1.5 → 2 + 3; 0.5·(100 + 254) = 177 + 3.
  EXPECT_EQ(IntsOf(y), (std::vector<int64_t>{5, 180}));
}

TEST(FusedTest, QConvWithoutAnOutputScaleGivesRealNumbers) {
  const Tensor x = Bytes8({1, 1, 1, 3}, {10, 12, 14});
  const Tensor w = Tensor::Of<int8_t>(DType::kInt8, {2, 1, 1, 1}, {2, -4});
  const Tensor bias = Tensor::Of<int32_t>(DType::kInt32, {2}, {1, 0});
  const Tensor y = Op("plexus", "QConv")
                       .Run({x, Tensor::Scalar(0.5f), Bytes8({}, {10}), w, Floats({2}, {1, 0.25}),
                             Tensor(), Tensor(), Tensor(), bias})
                       .value();
  EXPECT_EQ(FloatsOf(y), (std::vector<float>{0.5, 2.5, 4.5, 0, -1, -2}));
}

// --- Bad input
// -------------------------------------------------------------------------------------

TEST(BadInputTest, IndicesOutOfRangeAreInvalid) {
  const Tensor x = Floats({3}, {1, 2, 3});
  for (int64_t index : {int64_t{3}, int64_t{-4}, std::numeric_limits<int64_t>::min(),
                        std::numeric_limits<int64_t>::max()}) {
    const Tensor at = Tensor::VectorInt64({index});
    EXPECT_EQ(CodeOf(Op("", "Gather").Run({x, at})), StatusCode::kInvalidArgument);
    EXPECT_EQ(CodeOf(Op("", "GatherElements").Run({x, at})), StatusCode::kInvalidArgument);
    EXPECT_EQ(CodeOf(Op("", "GatherND").Run({x, at.Reshaped({1, 1})})),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(CodeOf(Op("", "ScatterElements").Run({x, at, Floats({1}, {0})})),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(CodeOf(Op("", "ScatterND").Run({x, at.Reshaped({1, 1}), Floats({1}, {0})})),
              StatusCode::kInvalidArgument);
  }
}

TEST(BadInputTest, HugeResultsAreExhaustionNotAborts) {
  const Tensor huge = Tensor::VectorInt64({int64_t{1} << 39});
  EXPECT_EQ(CodeOf(Op("", "ConstantOfShape").Run({huge})), StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeOf(Op("", "Expand").Run({Floats({1}, {1}), huge})), StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeOf(Op("", "Tile").Run({Floats({1}, {1}), huge})), StatusCode::kResourceExhausted);
  EXPECT_EQ(
      CodeOf(Op("", "Pad").Run({Floats({1}, {1}), Tensor::VectorInt64({0, int64_t{1} << 39})})),
      StatusCode::kResourceExhausted);
  EXPECT_FALSE(
      Op("", "Range").Run({Tensor::Scalar(0), Tensor::Scalar(1), Tensor::Scalar(1e-30f)}).ok());
}

TEST(BadInputTest, MissingInputsAndMismatchedShapesAreInvalid) {
  EXPECT_EQ(CodeOf(Op("", "Add").Run({Floats({2}, {1, 2})})), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(Op("", "Add").Run({Floats({2}, {1, 2}), Floats({3}, {1, 2, 3})})),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(
      CodeOf(Op("", "Reshape").Run({Floats({4}, {1, 2, 3, 4}), Tensor::VectorInt64({3, -1})})),
      StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(Op("", "Div").Run({Tensor::VectorInt64({1}), Tensor::VectorInt64({0})})),
            StatusCode::kInvalidArgument);
}

TEST(BadInputTest, UnknownOperatorsAreUnimplementedAndNamed) {
  const Result<Tensor> result = Op("", "NoSuchThing").Run({});
  EXPECT_EQ(CodeOf(result), StatusCode::kUnimplemented);
  EXPECT_NE(result.status().message().find("NoSuchThing"), std::string::npos);
  EXPECT_NE(result.status().message().find("under_test"), std::string::npos);
}

TEST(BadInputTest, IntegerEdgesWrapInsteadOfTrapping) {
  const int64_t lowest = std::numeric_limits<int64_t>::min();
  const Tensor x = Tensor::VectorInt64({lowest});
  EXPECT_EQ(IntsOf(Op("", "Div").Run({x, Tensor::VectorInt64({-1})}).value()),
            std::vector<int64_t>{lowest});
  EXPECT_EQ(IntsOf(Op("", "Mod").Run({x, Tensor::VectorInt64({-1})}).value()),
            std::vector<int64_t>{0});
  EXPECT_EQ(IntsOf(Op("", "Neg").Run({x}).value()), std::vector<int64_t>{lowest});
  EXPECT_EQ(IntsOf(Op("", "Sub").Run({x, Tensor::VectorInt64({1})}).value()),
            std::vector<int64_t>{std::numeric_limits<int64_t>::max()});
}

// --- Small floats
// ----------------------------------------------------------------------------------

TEST(Float8Test, EveryCodeSurvivesTheRoundTrip) {
  for (DType type : {DType::kFloat8E4M3FN, DType::kFloat8E4M3FNUZ, DType::kFloat8E5M2,
                     DType::kFloat8E5M2FNUZ, DType::kFloat4E2M1}) {
    for (int code = 0; code < (type == DType::kFloat4E2M1 ? 16 : 256); ++code) {
      const float value = reference::SmallFloatToFloat(code, type);
      const uint8_t back = reference::FloatToSmallFloat(value, type, false);
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(reference::SmallFloatToFloat(back, type)));
      } else {
        EXPECT_EQ(back, code) << DTypeName(type) << " " << value;
      }
    }
  }
}

TEST(Float8Test, RoundsToEvenAndSaturatesAsTheStandardSays) {
  auto e4m3 = [](float value, bool saturate) {
    return reference::SmallFloatToFloat(
        reference::FloatToSmallFloat(value, DType::kFloat8E4M3FN, saturate), DType::kFloat8E4M3FN);
  };
  EXPECT_EQ(e4m3(17, true), 16);  // between 16 and 18
  EXPECT_EQ(e4m3(19, true), 20);  // between 18 and 20
  EXPECT_EQ(e4m3(1000, true), 448);
  EXPECT_EQ(e4m3(464, false), 448);
  EXPECT_TRUE(std::isnan(e4m3(465, false)));
}

// --- Graphs
// ----------------------------------------------------------------------------------------

Value Named(std::string name) {
  Value value;
  value.name = std::move(name);
  value.dtype = DType::kFloat32;
  return value;
}

TEST(RunGraphTest, RunsNodesInOrderAndChecksTheNumberOfInputs) {
  Graph graph;
  graph.name = "twice";
  const ValueId x = graph.AddInput(Named("x"));
  const ValueId y = graph.AddValue(Named("y"));
  const ValueId z = graph.AddValue(Named("z"));
  Node add;
  add.op = "Add";
  add.version = 18;
  add.name = "add";
  add.inputs = {x, x};
  add.outputs = {y};
  graph.AddNode(add);
  Node neg;
  neg.op = "Neg";
  neg.version = 18;
  neg.name = "neg";
  neg.inputs = {y};
  neg.outputs = {z};
  graph.AddNode(neg);
  graph.outputs() = {z, y};
  const Tensor input = Floats({2}, {1, 2});
  const std::vector<Tensor> outputs = RunGraph(graph, {&input, 1}).value();
  EXPECT_EQ(FloatsOf(outputs[0]), (std::vector<float>{-2, -4}));
  EXPECT_EQ(FloatsOf(outputs[1]), (std::vector<float>{2, 4}));
  EXPECT_EQ(RunGraph(graph, {}).status().code(), StatusCode::kInvalidArgument);
}

TEST(RunGraphTest, MapRowsRunsItsBodyRowByRowAndKeepsZeroRows) {
  auto body = std::make_shared<Graph>();
  Value row = Named("row");
  row.shape = SymbolicShape::FromConcrete({1, 2});
  const ValueId in = body->AddInput(row);
  const ValueId offset = body->AddValue(Named("offset"));
  row.name = "out";
  const ValueId out = body->AddValue(row);
  Node add;
  add.op = "Add";
  add.version = 18;
  add.name = "add";
  add.inputs = {in, offset};
  add.outputs = {out};
  body->AddNode(add);
  body->captures() = {offset};
  body->outputs() = {out};

  Node map;
  map.op = "MapRows";
  map.domain = "plexus";
  map.version = 1;
  map.name = "map";
  map.inputs = {ValueId(0)};
  map.outputs = {ValueId(1)};
  map.attributes["body"] = std::shared_ptr<const Graph>(body);
  const Tensor capture = Floats({}, {10});
  auto run = [&](const Tensor& x) {
    return ReferenceEvaluator::Get().Evaluate(Graph(), map, {&x, 1}, {&capture, 1}).value()[0];
  };
  const Tensor y = run(Floats({2, 2}, {1, 2, 3, 4}));
  EXPECT_EQ(y.shape(), (Shape{2, 2}));
  EXPECT_EQ(FloatsOf(y), (std::vector<float>{11, 12, 13, 14}));
  EXPECT_EQ(run(Floats({0, 2}, {})).shape(), (Shape{0, 2}));
}

}  // namespace
}  // namespace plexus
