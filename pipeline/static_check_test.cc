#include "pipeline/static_check.h"

#include <gtest/gtest.h>

#include "pipeline/graph_maker.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

Status LoadStatus(GraphMaker& maker) {
  static const std::unique_ptr<Runtime> runtime = [] {
    RuntimeOptions options;
    options.threads = 1;
    return Runtime::Create(options).value();
  }();
  return runtime->Load("m", maker.Done(), {}).status();
}

TEST(StaticCheck, AFaultThatEveryRequestWouldMeetIsFoundWhileLoading) {
  {
    GraphMaker g;
    g.Out(g.Op("Add", {g.In("a", {-1}), g.In("b", {-1}, DType::kInt64)}));
    const Status status = LoadStatus(g);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("Add"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("do not match"), std::string::npos) << status.message();
  }
  {
    GraphMaker g;
    g.Out(g.Op("MatMul", {g.In("a", {2, 3}), g.Const(Floats({4, 1}, {1, 2, 3, 4}))}));
    EXPECT_EQ(LoadStatus(g).code(), StatusCode::kInvalidArgument);
  }
  {
    GraphMaker g;
    g.Out(g.Op("Concat", {g.In("a", {2, 3}), g.In("b", {2, 3})}, DType::kFloat32,
               {{"axis", int64_t{5}}}));
    EXPECT_EQ(LoadStatus(g).code(), StatusCode::kInvalidArgument);
  }
  {
    GraphMaker g;
    g.Out(g.Op("Expand", {g.In("a", {1}), g.Const(Tensor::VectorInt64({int64_t{1} << 40}))}));
    const Status status = LoadStatus(g);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
    EXPECT_NE(status.message().find("Expand"), std::string::npos) << status.message();
  }
}

TEST(StaticCheck, ANodeWithoutItsFirstOperandIsAnError) {
  for (const char* op : {"Relu", "Elu", "Log", "Max", "Min", "Gelu", "MaxPool", "LSTM", "Concat",
                         "Split", "Shape", "If", "Resize", "NonZero"}) {
    for (const bool left_out : {false, true}) {
      GraphMaker g;
      g.In("x", {-1});
      g.Out(g.Op(op, left_out ? std::vector<ValueId>{ValueId()} : std::vector<ValueId>()));
      EXPECT_FALSE(LoadStatus(g).ok()) << op;
    }
  }
}

TEST(StaticCheck, AModelThatIsFineForSomeShapesLoads) {
  GraphMaker g;
  g.Out(g.Op("Add", {g.In("a", {-1}), g.In("b", {-1})}));
  g.Out(g.Op("MatMul", {g.In("c", {-1, -1}), g.Const(Floats({4, 1}, {1, 2, 3, 4}))}));
  EXPECT_TRUE(LoadStatus(g).ok());
}

TEST(StaticCheck, TellsWhatIsKnownOfTheOutputs) {
  GraphMaker g;
  g.Out(g.Op("Relu", {g.In("a", {2, 3})}));
  g.Out(g.Op("Relu", {g.In("b", {-1, 3})}));
  const auto known = InferStatically(*g.Done(), SIZE_MAX).value();
  EXPECT_EQ(known[0].known.shape, (Shape{2, 3}));
  EXPECT_EQ(known[1].known.shape, std::nullopt);
  EXPECT_EQ(known[1].sizes, (Shape{kOpenSize, 3}));
  EXPECT_EQ(known[1].known.dtype, DType::kFloat32);
}

TEST(StaticCheck, ADeclaredShapeHoldsSizesOrLeavesThemOpen) {
  const SymbolicShape declared{true, {{std::nullopt, ""}, {3, ""}}};
  EXPECT_TRUE(CheckDeclaredShape(declared, {7, 3}).ok());
  EXPECT_TRUE(CheckDeclaredShape(SymbolicShape(), {1}).ok());
  EXPECT_FALSE(CheckDeclaredShape(declared, {7, 4}).ok());
  EXPECT_FALSE(CheckDeclaredShape(declared, {3}).ok());
  EXPECT_TRUE(CheckDeclaredShape(declared, {7, kOpenSize}).ok());
  EXPECT_EQ(CheckDeclaredShape(declared, {kOpenSize, 4}).message(),
            "declared with shape [?,3], the stages give [-1,4]");
}

// "linear": x[N,3] times [3,2]. "example": declares x[N,3], its nodes take any shape. "flat": x[3],
// of which its nodes take several rows too. "heads": x[N,3] to "relu" of any shape and "product".
// "odd": declares x[N,4] and multiplies by [3,2].
Result<GraphPtr> Model(const std::string& name) {
  GraphMaker g;
  const ValueId weights = g.Const(Floats({3, 2}, {1, 2, 3, 4, 5, 6}));
  const auto output = [&](ValueId value, const std::string& as) {
    g.graph.value(value).name = as;
    g.Out(value);
  };
  if (name == "linear") output(g.Op("MatMul", {g.In("x", {-1, 3}), weights}), "y");
  if (name == "example") output(g.Op("Relu", {g.In("x", {-1, 3})}), "y");
  if (name == "flat") output(g.Op("MatMul", {g.In("x", {3}), weights}), "y");
  if (name == "odd") output(g.Op("MatMul", {g.In("x", {-1, 4}), weights}), "y");
  if (name == "heads") {
    const ValueId x = g.In("x", {-1, 3});
    output(g.Op("Relu", {x}), "relu");
    output(g.Op("MatMul", {x, weights}), "product");
  }
  return g.Done();
}

// Of a pipeline with inputs three [-1,3] and four [-1,4] and the output s.
std::string PipelineError(const std::string& stages, const std::string& from = "s") {
  const auto parsed = ParsePipeline(
      "name: p\ninputs:\n  - {name: three, dtype: FP32, shape: [-1, 3]}\n"
      "  - {name: four, dtype: FP32, shape: [-1, 4]}\n"
      "  - {name: fixed, dtype: FP32, shape: [5, 4]}\n"
      "  - {name: yes, dtype: BOOL, shape: []}\nstages:\n" +
          stages + "outputs: [{name: out, from: " + from + "}]\n",
      "p.yaml", "/", Model);
  return parsed.ok() ? "none" : parsed.status().message();
}

TEST(StaticCheck, AModelThatCannotTakeWhatAStageFeedsItIsToldByStageAndInput) {
  EXPECT_EQ(PipelineError("  - {name: s, model: linear, input: four}\n"),
            "p.yaml: stage 's': input 'x' of model 'linear' is declared [-1,3], 'four' is [-1,4]: "
            "MatMul node 's/MatMul2' (inputs float32[-1,4] float32[3,2]): the inner dimensions "
            "differ: [-1,4] times [3,2]");
  EXPECT_EQ(PipelineError("  - {name: s, model: linear, input: fixed}\n")
                .find("p.yaml: stage 's': input 'x' of model 'linear' is declared [-1,3], 'fixed' "
                      "is [5,4]: "),
            0u);
  EXPECT_EQ(PipelineError("  - {name: a, op: scale, input: four}\n"
                          "  - {name: s, model: linear, input: a, map_rows: true}\n")
                .find("p.yaml: stage 's': input 'x' of model 'linear' is declared [-1,3], 'a' is "
                      "[-1,4]: "),
            0u);
  // The output of one model is the input of the next.
  EXPECT_EQ(PipelineError("  - {name: a, model: linear, input: three}\n"
                          "  - {name: s, model: linear, input: a.y}\n")
                .find("p.yaml: stage 's': input 'x' of model 'linear' is declared [-1,3], 'a.y' is "
                      "[-1,2]: "),
            0u);
  const std::string inner = "p.yaml: stage 's': stage 's/i': input 'x' of model 'linear' is ";
  EXPECT_EQ(PipelineError("  - {name: s, foreach: four, as: e, stages: [{name: i, model: linear, "
                          "input: e}], outputs: [i]}\n")
                .find(inner + "declared [-1,3], 'e' is [1,4]: "),
            0u);
  EXPECT_EQ(PipelineError("  - name: s\n    repeat: {limit: 3}\n"
                          "    state: [{name: t, from: four, next: t}]\n"
                          "    stages: [{name: i, model: linear, input: t}]\n"
                          "    outputs: [i]\n")
                .find(inner + "declared [-1,3], 't' is [-1,4]: "),
            0u);
}

TEST(StaticCheck, AnOperatorWithABadAxisIsToldByStageAndInputThoughSizesAreOpen) {
  EXPECT_EQ(PipelineError("  - {name: s, op: transpose, input: four, perm: [0, 0]}\n"),
            "p.yaml: stage 's', given 'four' [-1,4]: Transpose node 's' (inputs float32[-1,4]): an "
            "axis is named twice");
  EXPECT_EQ(PipelineError("  - {name: s, op: softmax, input: four, axis: 2}\n")
                .find("p.yaml: stage 's', given 'four' [-1,4]: "),
            0u);
  EXPECT_EQ(PipelineError("  - {name: s, op: add, inputs: [three, four]}\n")
                .find("p.yaml: stage 's', given 'three' [-1,3], 'four' [-1,4]: "),
            0u);
  EXPECT_EQ(PipelineError("  - {name: s, op: concat, inputs: [three, four]}\n")
                .find("p.yaml: stage 's', given 'three' [-1,3], 'four' [-1,4]: "),
            0u);
}

TEST(StaticCheck, WhatSomeRequestCouldRunLoads) {
  for (const char* stages : {
           "  - {name: s, model: linear, input: three}\n",
           "  - {name: s, model: example, input: four}\n",  // its nodes take it
           "  - {name: s, model: flat, input: three}\n",
           "  - {name: s, model: odd, input: three}\n",
           "  - {name: s, model: odd, input: four}\n",  // a fault of the model: told as its own
           "  - {name: s, op: concat, inputs: [three, four], axis: 1}\n",
           "  - {name: s, op: reshape, input: four, shape: [-1, 32]}\n",
           // Rows of both may be alike, or one.
           "  - {name: a, op: reduce, kind: sum, input: three, axes: [1]}\n"
           "  - {name: b, op: reduce, kind: sum, input: four, axes: [1]}\n"
           "  - {name: s, op: add, inputs: [a, b]}\n",
           // As many rows as there are columns.
           "  - {name: a, op: transpose, input: four, perm: [1, 0]}\n"
           "  - {name: s, model: linear, input: a}\n",
           // Either branch gives other sizes.
           "  - {name: a, when: yes, then: {outputs: [{name: v, from: three}]}, "
           "else: {outputs: [{name: v, from: four}]}}\n"
           "  - {name: s, model: linear, input: a}\n",
           // The state changes its size.
           "  - name: s\n    repeat: {limit: 3}\n"
           "    state: [{name: t, from: three, next: i}]\n"
           "    stages: [{name: i, op: concat, inputs: [t, three], axis: 0}]\n"
           "    outputs: [t]\n",
       }) {
    EXPECT_EQ(PipelineError(stages), "none") << stages;
  }
  const std::string heads = "  - {name: s, model: heads, input: four}\n";
  EXPECT_EQ(PipelineError(heads, "s.relu"), "none");  // nothing reads what cannot be made
  EXPECT_EQ(PipelineError(heads, "s.product").find("p.yaml: stage 's': input 'x' of model 'heads'"),
            0u);
}

}  // namespace
}  // namespace plexus
