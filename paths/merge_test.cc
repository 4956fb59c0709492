#include "paths/merge.h"

#include <algorithm>
#include <set>

#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"

namespace plexus {
namespace {

// A pipeline from input `x` through layers of numbered weights; ops after them.
MergePart Part(const std::string& name, const std::vector<int>& layers,
               const std::vector<std::string>& ops = {}, const std::string& input = "x",
               Shape shape = {1, 16}) {
  TestGraph t;
  ValueId value = t.Input(input, std::move(shape));
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string n = std::to_string(i);
    const ValueId weights = t.Ramp("w" + n, {16, 16}, static_cast<float>(layers[i]));
    value = t.Op("m" + n, "MatMul", {value, weights});
    value = t.Op("r" + n, "Relu", {value});
  }
  for (const std::string& op : ops) value = t.Op(op, op, {value});
  t.Output(value);
  EXPECT_TRUE(MarkFusionGroups(t.g).ok());
  return {name, std::make_shared<const Graph>(t.g)};
}

Graph Merged(const std::vector<MergePart>& parts) {
  Result<Graph> graph = MergeGraphs("group", parts);
  EXPECT_TRUE(graph.ok()) << graph.status().ToString();
  EXPECT_TRUE(graph->Validate().ok()) << graph->Validate().ToString();
  return std::move(*graph);
}

size_t Count(const Graph& graph, const std::string& op) {
  size_t count = 0;
  for (const Node& node : graph.nodes()) count += node.op == op ? 1 : 0;
  return count;
}

TEST(MergeTest, WhatAllPartsBeginWithIsThereOnce) {
  const Graph graph = Merged({Part("a", {1, 2, 3}), Part("b", {1, 2, 4}), Part("c", {1, 2, 3})});
  EXPECT_EQ(Count(graph, "MatMul"), 4u);
  EXPECT_EQ(graph.inputs().size(), 1u);
  ASSERT_EQ(graph.outputs().size(), 3u);
  EXPECT_EQ(graph.outputs()[0], graph.outputs()[2]) << "the whole of a and c is the same";
  EXPECT_NE(graph.outputs()[0], graph.outputs()[1]);
}

TEST(MergeTest, EqualLayersOfDifferentValuesStayApart) {
  EXPECT_EQ(Count(Merged({Part("a", {1, 3}), Part("b", {2, 3})}), "MatMul"), 4u);
}

TEST(MergeTest, DifferentInputsStayApart) {
  const Graph graph = Merged({Part("a", {1}, {}, "x"), Part("b", {1}, {}, "y")});
  EXPECT_EQ(graph.inputs().size(), 2u);
  EXPECT_EQ(graph.value(graph.inputs()[1]).name, "y");
  EXPECT_EQ(Count(graph, "MatMul"), 2u);
}

TEST(MergeTest, AFusionGroupIsSharedWholeOrNotAtAll) {
  // In one the product feeds a Relu that fuses with it; in the other it is read by itself, too.
  TestGraph t;
  const ValueId product = t.Op("m", "MatMul", {t.Input("x", {1, 16}), t.Ramp("w", {16, 16}, 1)});
  t.Output(t.Op("r", "Relu", {product}));
  t.Output(product);
  ASSERT_TRUE(MarkFusionGroups(t.g).ok());
  const Graph graph = Merged({Part("a", {1}), {"b", std::make_shared<const Graph>(t.g)}});
  EXPECT_EQ(Count(graph, "MatMul"), 2u);
  std::set<uint32_t> groups;
  for (const Node& node : graph.nodes()) {
    if (node.name.rfind("a/", 0) == 0) groups.insert(node.fusion_group);
  }
  EXPECT_EQ(groups.size(), 1u) << graph.ToString();
}

TEST(MergeTest, FusionGroupsOfDifferentPartsStayDifferent) {
  const Graph graph = Merged({Part("a", {1}), Part("b", {2})});
  std::set<uint32_t> groups;
  for (const Node& node : graph.nodes()) groups.insert(node.fusion_group);
  EXPECT_EQ(groups.size(), 2u) << graph.ToString();
}

TEST(MergeTest, RandomWorkIsDoneForEachPart) {
  const std::vector<std::string> noise = {"RandomUniformLike"};
  const Graph graph = Merged({Part("a", {1}, noise), Part("b", {1}, noise)});
  EXPECT_EQ(Count(graph, "MatMul"), 1u);
  EXPECT_EQ(Count(graph, "RandomUniformLike"), 2u);
}

TEST(MergeTest, OpenSizesTakeWhatAnotherPartFixes) {
  MergePart open = Part("a", {1});
  Graph graph = *open.graph;
  graph.value(graph.inputs()[0]).shape.dims[0] = SymbolicDim{std::nullopt, "n"};
  open.graph = std::make_shared<const Graph>(graph);
  for (const auto& parts : {std::vector{open, Part("b", {2})}, {Part("b", {2}), open}}) {
    const Graph merged = Merged(parts);
    EXPECT_EQ(merged.value(merged.inputs()[0]).shape.ToString(), "[1,16]");
  }
}

TEST(MergeTest, InputsThatCannotBeOneAreRefusedByName) {
  const std::vector<MergePart> parts = {Part("a", {1}), Part("b", {1}, {}, "x", {2, 16})};
  const Status status = MergeGraphs("group", parts).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  for (const char* word : {"'x'", "[1,16]", "[2,16]", "'a'", "'b'"}) {
    EXPECT_NE(status.message().find(word), std::string::npos) << status.message();
  }
}

// A pipeline that walks the rows of `x` through layers of numbered weights and then `ops`, and
// reads the value `k` of its own from outside.
MergePart RowsPart(const std::string& name, const std::vector<int>& layers,
                   const std::vector<std::string>& ops, int64_t limit = 9) {
  TestGraph body;
  ValueId value = body.Input("element of " + name, {1, 16});
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string n = std::to_string(i);
    const ValueId weights = body.Ramp("w" + n, {16, 16}, static_cast<float>(layers[i]));
    value = body.Op("m" + n, "MatMul", {value, weights});
  }
  Value k;
  k.name = "k of " + name;
  k.dtype = DType::kFloat32;
  const ValueId capture = body.g.AddValue(k);
  body.g.captures() = {capture};
  value = body.Op("plus", "Add", {value, capture});
  for (const std::string& op : ops) value = body.Op(op, op, {value});
  body.Output(value);
  EXPECT_TRUE(MarkFusionGroups(body.g).ok());
  TestGraph t;
  t.infer = false;
  const ValueId x = t.Input("x", {});
  const ValueId outer = t.Op("k", "Neg", {x});
  const ValueId y = t.Op("lines", "MapRows", {x},
                         {{"body", std::make_shared<const Graph>(body.g)},
                          {"stage", int64_t{1}},
                          {"limit", limit},
                          {"sizes", std::vector<int64_t>{0}},
                          {"pad_0", Tensor::Scalar(static_cast<float>(ops.size()))}});
  Node& node = t.g.nodes().back();
  node.domain = "plexus";
  node.version = 1;
  node.implicit_inputs = {outer};
  Value sizes;
  sizes.name = "sizes";
  sizes.dtype = DType::kInt64;
  node.outputs.push_back(t.g.AddValue(sizes));
  t.Output(y);
  t.Output(t.g.nodes().back().outputs[1]);
  return {name, std::make_shared<const Graph>(t.g)};
}

TEST(MergeTest, FanOutsOverTheSameRowsWalkThemOnce) {
  const Graph graph =
      Merged({RowsPart("a", {1, 2}, {"Relu"}), RowsPart("b", {1, 2}, {"Relu", "Neg"})});
  ASSERT_EQ(Count(graph, "MapRows"), 1u) << graph.ToString();
  const Node& both = *std::find_if(graph.nodes().begin(), graph.nodes().end(),
                                   [](const Node& n) { return n.op == "MapRows"; });
  const Graph& body = *both.GraphAttr("body");
  EXPECT_EQ(Count(body, "MatMul"), 2u);
  EXPECT_EQ(body.inputs().size(), 1u);
  EXPECT_EQ(body.captures().size(), 1u) << "both capture the same value";
  EXPECT_EQ(body.outputs().size(), 2u);
  // The rows of a, of b, then how many rows each gave.
  const std::vector<ValueId> want = {graph.outputs()[0], graph.outputs()[2], graph.outputs()[1],
                                     graph.outputs()[3]};
  EXPECT_EQ(both.outputs, want);
  EXPECT_EQ(both.IntsAttr("sizes"), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(both.TensorAttr("pad_0")->data<float>()[0], 1);
  EXPECT_EQ(both.TensorAttr("pad_1")->data<float>()[0], 2);
}

TEST(MergeTest, FanOutsThatDoNotBelongTogetherStayApart) {
  const MergePart a = RowsPart("a", {1, 2}, {});
  EXPECT_EQ(Count(Merged({a, RowsPart("b", {3}, {"Relu"})}), "MapRows"), 2u) << "nothing in common";
  EXPECT_EQ(Count(Merged({a, RowsPart("b", {1, 2}, {"Relu"}, 5)}), "MapRows"), 2u)
      << "another limit";
}

// The second fan-out of a pipeline may capture what the first made.
TEST(MergeTest, AFanOutThatReadsAnotherStaysBehindIt) {
  MergePart a = RowsPart("a", {1, 2}, {});
  Graph graph = *a.graph;
  Node second = graph.nodes().back();
  second.name = "again";
  second.implicit_inputs = {graph.nodes().back().outputs[0]};
  for (ValueId& id : second.outputs) {
    Value value = graph.value(id);
    value.name += " again";
    id = graph.AddValue(value);
  }
  graph.outputs() = second.outputs;
  graph.AddNode(second);
  a.graph = std::make_shared<const Graph>(graph);
  EXPECT_EQ(Count(Merged({a}), "MapRows"), 2u);
}

TEST(MergeTest, NothingIsAnEmptyGraph) { EXPECT_EQ(Merged({}).num_nodes(), 0u); }

}  // namespace
}  // namespace plexus
