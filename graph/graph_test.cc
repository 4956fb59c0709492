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

TEST(GraphTest, SameGraphSeesEveryDifferenceButTheName) {
  const auto make = [](int64_t axis, float constant, const char* name, int64_t size) {
    Graph inner;
    inner.name = "inner";
    Graph graph;
    graph.name = name;
    Value x;
    x.name = "x";
    x.dtype = DType::kFloat32;
    x.shape = SymbolicShape{true, {{size, ""}}};
    Node node;
    node.op = "Op";
    node.name = "n";
    node.attributes = {{"axis", axis},
                       {"text", std::string("t")},
                       {"tensor", Tensor::Scalar(2)},
                       {"body", std::make_shared<const Graph>(inner)}};
    node.inputs = {graph.AddInput(x),
                   graph.AddConstant("c", ConstantStore::Get().Intern(Tensor::Scalar(constant)))};
    Value y;
    y.name = "y";
    node.outputs = {graph.AddValue(y)};
    graph.outputs() = node.outputs;
    graph.AddNode(node);
    return graph;
  };
  const Graph graph = make(1, 3, "a", 4);
  EXPECT_TRUE(SameGraph(graph, make(1, 3, "b", 4)));
  EXPECT_FALSE(SameGraph(graph, make(2, 3, "a", 4)));
  EXPECT_FALSE(SameGraph(graph, make(1, 5, "a", 4)));
  EXPECT_FALSE(SameGraph(graph, make(1, 3, "a", 5)));
  Graph other = make(1, 3, "a", 4);
  other.nodes()[0].attributes["tensor"] = Tensor::Scalar(9);
  EXPECT_FALSE(SameGraph(graph, other));
  other = make(1, 3, "a", 4);
  Graph signs = make(1, 3, "a", 4);
  other.nodes()[0].attributes["alpha"] = 0.0f;
  signs.nodes()[0].attributes["alpha"] = -0.0f;
  EXPECT_FALSE(SameGraph(signs, other));
  other = make(1, 3, "a", 4);
  Graph body;
  body.AddInput(Value{});
  other.nodes()[0].attributes["body"] = std::make_shared<const Graph>(body);
  EXPECT_FALSE(SameGraph(graph, other));
}

}  // namespace
}  // namespace plexus
