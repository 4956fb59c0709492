#include "graph/graph.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

Value Named(const std::string& name) {
  Value v;
  v.name = name;
  v.dtype = DType::kFloat32;
  return v;
}

Node MakeNode(const std::string& op, std::vector<ValueId> in, std::vector<ValueId> out) {
  Node node;
  node.op = op;
  node.name = op;
  node.version = 17;
  node.inputs = std::move(in);
  node.outputs = std::move(out);
  return node;
}

struct Chain {
  Graph graph;
  ValueId x, y, z;
  Chain() {
    graph.name = "chain";
    x = graph.AddInput(Named("x"));
    y = graph.AddValue(Named("y"));
    z = graph.AddValue(Named("z"));
    graph.outputs() = {z};
  }
};

TEST(GraphTest, SortsNodesAndKeepsTheFilesOrderOtherwise) {
  Chain c;
  c.graph.AddNode(MakeNode("Second", {c.y}, {c.z}));
  c.graph.AddNode(MakeNode("First", {c.x}, {c.y}));
  EXPECT_FALSE(c.graph.Validate().ok());
  ASSERT_TRUE(c.graph.SortTopologically().ok());
  EXPECT_EQ(c.graph.nodes()[0].op, "First");
  EXPECT_TRUE(c.graph.Validate().ok());
}

TEST(GraphTest, ReportsACycleWithANodeOnIt) {
  Chain c;
  c.graph.AddNode(MakeNode("A", {c.z}, {c.y}));
  c.graph.AddNode(MakeNode("B", {c.y}, {c.z}));
  const Status s = c.graph.SortTopologically();
  EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(s.message().find("node 'A'"), std::string::npos) << s.message();
}

TEST(GraphTest, RefusesAValueMadeTwice) {
  Chain c;
  c.graph.AddNode(MakeNode("A", {c.x}, {c.z}));
  c.graph.AddNode(MakeNode("B", {c.x}, {c.z}));
  EXPECT_NE(c.graph.Validate().message().find("second time"), std::string::npos);
}

TEST(GraphTest, RemovesDeadNodesAndValuesButKeepsInputs) {
  Chain c;
  c.graph.AddInput(Named("unused_input"));
  const ValueId dead = c.graph.AddValue(Named("dead"));
  c.graph.AddNode(MakeNode("A", {c.x}, {c.y}));
  c.graph.AddNode(MakeNode("Dead", {c.y}, {dead}));
  c.graph.AddNode(MakeNode("B", {c.y}, {c.z}));
  c.graph.RemoveDead();
  EXPECT_EQ(c.graph.ToString(),
            "graph chain(%x: float32?, %unused_input: float32?)\n"
            "  %y = A(%x) : float32?\n"
            "  %z = B(%y) : float32?\n"
            "  return %z\n");
  EXPECT_TRUE(c.graph.Validate().ok());
}

TEST(GraphTest, ListsEachConsumerOncePerValue) {
  Chain c;
  c.graph.AddNode(MakeNode("Mul", {c.x, c.x}, {c.y}));
  c.graph.AddNode(MakeNode("B", {c.y}, {c.z}));
  const auto consumers = c.graph.Consumers();
  EXPECT_EQ(consumers[c.x.value()].size(), 1u);
  EXPECT_EQ(c.graph.Producers()[c.z.value()], NodeId(1));
  EXPECT_FALSE(c.graph.Producers()[c.x.value()].valid());
}

}  // namespace
}  // namespace plexus
