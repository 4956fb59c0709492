#include "paths/merge.h"

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

TEST(MergeTest, NothingIsAnEmptyGraph) { EXPECT_EQ(Merged({}).num_nodes(), 0u); }

}  // namespace
}  // namespace plexus
