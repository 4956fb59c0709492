#include "graph/onnx/onnx_import.h"

#include <gtest/gtest.h>

#include "graph/onnx/wire_writer.h"

namespace plexus::onnx {
namespace {

const std::string kData = "graph/onnx/testdata/";

Result<GraphPtr> Import(const std::string& bytes) {
  return ImportOnnxBytes(std::as_bytes(std::span(bytes.data(), bytes.size())));
}
Result<Tensor> ReadTensor(const std::string& bytes) {
  return ReadTensorProto(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

GraphPtr MustImport(Result<GraphPtr> graph) {
  EXPECT_TRUE(graph.ok()) << graph.status().ToString();
  return graph.ok() ? *graph : std::make_shared<const Graph>();
}

const Node* FindNode(const Graph& graph, const std::string& name) {
  for (const Node& node : graph.nodes()) {
    if (node.name == name) return &node;
  }
  ADD_FAILURE() << "no node " << name << " in\n" << graph.ToString();
  return nullptr;
}

std::vector<std::string> NodeOps(const Graph& graph) {
  std::vector<std::string> ops;
  for (const Node& node : graph.nodes()) ops.push_back(node.op);
  return ops;
}

Tensor ConstantOf(const Graph& graph, const std::string& name) {
  const auto id = graph.FindValue(name);
  if (!id || !graph.value(*id).IsConstant()) {
    ADD_FAILURE() << "no constant " << name;
    return {};
  }
  return graph.value(*id).constant->Plain().value();
}

TEST(OnnxImport, ReadsAnOwnWrittenModel) {
  const GraphPtr graph = MustImport(Import(
      ModelBytes(InputField("x") + NodeField("Clip", {"x", "", "hi"}, {"y"}, "", "clip") +
                 BytesField(5, TensorBytes({"hi", {}, 1, BytesField(4, std::string(4, '\0'))})) +
                 OutputField("y"))));
  ASSERT_EQ(graph->num_nodes(), 1u);
  const Node& clip = graph->nodes()[0];
  EXPECT_EQ(clip.name, "clip");
  EXPECT_EQ(clip.version, 17);
  ASSERT_EQ(clip.inputs.size(), 3u);
  EXPECT_FALSE(clip.inputs[1].valid());
  EXPECT_EQ(graph->value(clip.inputs[2]).constant->Plain()->data<float>()[0], 0.0f);
  EXPECT_EQ(graph->value(graph->outputs().at(0)).name, "y");
}

TEST(OnnxImport, AnInputThatIsAnInitialiserIsAConstant) {
  const GraphPtr graph = MustImport(Import(ModelBytes(
      InputField("x") + InputField("w") + NodeField("Add", {"x", "w"}, {"y"}) +
          BytesField(5, TensorBytes({"w", {1}, 1, BytesField(9, "abcd")})) + OutputField("y"),
      "", 8, 3)));
  EXPECT_EQ(graph->inputs().size(), 1u);
}

TEST(OnnxImport, AQuestionMarkNamesNoDimension) {
  const auto dim = [](const std::string& symbol) { return BytesField(1, BytesField(2, symbol)); };
  const std::string shape = dim("?") + dim("N") + dim("?");
  const std::string type = BytesField(1, IntField(1, 1) + BytesField(2, shape));
  const std::string input = BytesField(11, BytesField(1, "x") + BytesField(2, type));
  const GraphPtr graph =
      MustImport(Import(ModelBytes(input + NodeField("Relu", {"x"}, {"y"}) + OutputField("y"))));
  const SymbolicShape& x = graph->value(graph->inputs().at(0)).shape;
  ASSERT_EQ(x.dims.size(), 3u);
  EXPECT_EQ(x.dims[0].symbol, "");
  EXPECT_EQ(x.dims[1].symbol, "N");
  EXPECT_EQ(x.dims[2].symbol, "");
}

TEST(OnnxImport, NodesGetUniqueNames) {
  const GraphPtr graph =
      MustImport(Import(ModelBytes(InputField("x") + NodeField("Relu", {"x"}, {"a"}) +
                                   NodeField("Relu", {"a"}, {"b"}) + OutputField("b"))));
  EXPECT_NE(graph->nodes()[0].name, graph->nodes()[1].name);
  EXPECT_FALSE(graph->nodes()[0].name.empty());
}

TEST(OnnxImport, CapturesPassThroughEveryGraphBetweenAndNodesAreSorted) {
  const GraphPtr graph = MustImport(ImportOnnxFile(kData + "captures.onnx"));
  EXPECT_EQ(NodeOps(*graph), (std::vector<std::string>{"Relu", "If"}));
  const Node& choose = graph->nodes()[1];
  // c2, x and y; w is a constant, which subgraphs hold themselves.
  std::vector<std::string> outer;
  for (ValueId id : choose.implicit_inputs) outer.push_back(graph->value(id).name);
  std::sort(outer.begin(), outer.end());
  EXPECT_EQ(outer, (std::vector<std::string>{"c2", "x", "y"}));
  const Graph* then_branch = choose.GraphAttr("then_branch");
  const Graph* else_branch = choose.GraphAttr("else_branch");
  ASSERT_TRUE(then_branch && else_branch);
  ASSERT_EQ(then_branch->captures().size(), 3u);
  ASSERT_EQ(else_branch->captures().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const std::string& name = graph->value(choose.implicit_inputs[i]).name;
    ASSERT_TRUE(then_branch->captures()[i].valid());
    EXPECT_EQ(then_branch->value(then_branch->captures()[i]).name, name);
    EXPECT_EQ(else_branch->captures()[i].valid(), name == "x");
  }
  const Node& inner = then_branch->nodes().at(0);
  EXPECT_EQ(inner.implicit_inputs.size(), 2u);
  const Graph* inner_else = inner.GraphAttr("else_branch");
  ASSERT_TRUE(inner_else);
  EXPECT_EQ(ConstantOf(*inner_else, "w").data<float>()[1], 2.0f);
  EXPECT_EQ(graph->value(graph->inputs()[2]).shape.ToString(), "[N,2]");
}

TEST(OnnxImport, FunctionsAreInlinedWithTheirAttributes) {
  const GraphPtr graph = MustImport(ImportOnnxFile(kData + "functions.onnx"));
  EXPECT_EQ(NodeOps(*graph),
            (std::vector<std::string>{"Constant", "Add", "Mul", "Sum", "Identity", "Constant",
                                      "Add", "Mul", "Sum", "Constant", "Add", "Mul", "Sum"}));
  const auto alpha = [&](const char* call) {
    const Node* node = FindNode(*graph, std::string(call) + "/Constant");
    return node ? node->FloatAttr("value_float", -1) : -1;
  };
  EXPECT_EQ(alpha("first"), 3.0f);
  EXPECT_EQ(alpha("second"), 0.5f);  // the default
  EXPECT_EQ(alpha("third"), 2.0f);
  const Node* sum = FindNode(*graph, "third/Sum");
  ASSERT_TRUE(sum);
  EXPECT_FALSE(sum->inputs.at(1).valid());  // the call leaves bias out
  EXPECT_EQ(sum->outputs.at(0), graph->outputs().at(0));
  EXPECT_EQ(graph->nodes()[4].inputs.at(0), graph->inputs().at(0));
  EXPECT_EQ(graph->nodes()[4].outputs.at(0), graph->outputs().at(1));
}

TEST(OnnxImport, ExternalDataIsRead) {
  const GraphPtr graph = MustImport(ImportOnnxFile(kData + "external.onnx"));
  const Tensor w = ConstantOf(*graph, "w");
  EXPECT_EQ(w.shape(), (Shape{2, 3}));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(w.data<float>()[i], i);
}

template <typename T>
std::vector<T> Values(const Tensor& t) {
  const auto data = t.data<T>();
  return {data.begin(), data.end()};
}

TEST(OnnxImport, EveryStorageOfTensorsIsRead) {
  const GraphPtr graph = MustImport(ImportOnnxFile(kData + "tensors.onnx"));
  const auto constant = [&](const char* name) { return ConstantOf(*graph, name); };
  EXPECT_EQ(Values<float>(constant("s")), (std::vector<float>{0, 5, 0, 0, 0, 7}));
  EXPECT_EQ(constant("s").shape(), (Shape{2, 3}));
  EXPECT_EQ(Values<int8_t>(constant("i4")), (std::vector<int8_t>{-8, 7, -1, 0, 3}));
  EXPECT_EQ(Values<int8_t>(constant("i4raw")), (std::vector<int8_t>{-1, -8, 2}));
  EXPECT_EQ(Values<uint8_t>(constant("u4")), (std::vector<uint8_t>{15, 1}));
  EXPECT_EQ(Values<uint16_t>(constant("half")), (std::vector<uint16_t>{0x3e00, 0xc000}));
  EXPECT_EQ(constant("text").strings(), (std::vector<std::string>{"ab", ""}));
  EXPECT_EQ(Values<int8_t>(constant("small")), (std::vector<int8_t>{-128, 0, 127}));
  EXPECT_EQ(Values<uint32_t>(constant("unsigned")), (std::vector<uint32_t>{1, 0xffffffff}));
  const auto* pair = reinterpret_cast<const float*>(constant("pair").raw());
  EXPECT_EQ(pair[0], 1.0f);
  EXPECT_EQ(pair[1], 2.0f);
  EXPECT_EQ(Values<double>(constant("double")), std::vector<double>{0.25});
  EXPECT_EQ(graph->value(graph->inputs().at(0)).shape.ToString(), "[batch,2,?]");
}

TEST(OnnxImport, PackedAndUnpackedValuesAreTheSame) {
  const auto packed = ReadTensor(TensorBytes({"t", {2}, 7, BytesField(7, "\x05\xac\x02")}));
  const auto unpacked = ReadTensor(TensorBytes({"t", {2}, 7, IntField(7, 5) + IntField(7, 300)}));
  ASSERT_TRUE(packed.ok() && unpacked.ok());
  EXPECT_TRUE(TensorsEqual(*packed, *unpacked));
  EXPECT_EQ(packed->data<int64_t>()[1], 300);
}

TEST(OnnxImport, BoolsAreZeroOrOne) {
  const auto t = ReadTensor(TensorBytes({"t", {2}, 9, BytesField(9, "\x02\x01")}));
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(Values<uint8_t>(*t), (std::vector<uint8_t>{1, 1}));
}

TEST(OnnxImport, EqualInitialisersAreOneConstant) {
  const std::string raw = BytesField(9, std::string(8, '\x11'));
  const GraphPtr graph =
      MustImport(Import(ModelBytes(BytesField(5, TensorBytes({"a", {2}, 1, raw})) +
                                   BytesField(5, TensorBytes({"b", {2}, 1, raw})) +
                                   NodeField("Add", {"a", "b"}, {"y"}) + OutputField("y"))));
  EXPECT_EQ(graph->value(*graph->FindValue("a")).constant,
            graph->value(*graph->FindValue("b")).constant);
}

TEST(OnnxImport, ValuesOfSequenceTypeKeepNoElementType) {
  const std::string sequence =
      BytesField(1, "s") +
      BytesField(2, BytesField(4, BytesField(1, BytesField(1, IntField(1, 1)))));
  const GraphPtr graph = MustImport(Import(ModelBytes(
      BytesField(11, sequence) + NodeField("SequenceLength", {"s"}, {"n"}) + OutputField("n"))));
  EXPECT_EQ(graph->value(graph->inputs().at(0)).dtype, DType::kUndefined);
}

// Loop bodies may capture, and hand out one value twice.
TEST(OnnxImport, ASubgraphMayNameAnOutputTwiceAndOneOfItsParent) {
  const std::string body = InputField("i") + InputField("c") + NodeField("Neg", {"i"}, {"b"}) +
                           OutputField("c") + OutputField("b") + OutputField("b") +
                           OutputField("x");
  const GraphPtr graph = MustImport(Import(
      ModelBytes(InputField("x") +
                 NodeField("Loop", {"x", ""}, {"p", "q", "r"}, GraphAttribute("body", body)) +
                 OutputField("r"))));
  const Graph* inner = graph->nodes().at(0).GraphAttr("body");
  ASSERT_TRUE(inner);
  EXPECT_EQ(inner->outputs()[1], inner->outputs()[2]);
  EXPECT_EQ(inner->outputs()[3], inner->captures().at(0));
}

}  // namespace
}  // namespace plexus::onnx
