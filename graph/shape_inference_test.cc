// Shape rules against the ONNX standard's own cases (testdata/shape_cases.txt, made by the script
// beside it) and against plain arithmetic where the standard has none.
#include "graph/shape_inference.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

namespace plexus {
namespace {

struct Case {
  std::string name;
  Graph graph;
  Node node;
  std::vector<KnownValue> inputs;
  std::vector<std::optional<KnownValue>> outputs;
};

std::vector<std::string> SplitAt(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

std::string Unquote(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<int64_t> Ints(const std::string& text) {
  std::vector<int64_t> values;
  for (const std::string& part : SplitAt(text, ',')) values.push_back(std::stoll(part));
  return values;
}

std::vector<float> Floats(const std::string& text) {
  std::vector<float> values;
  for (const std::string& part : SplitAt(text, ',')) values.push_back(std::stof(part));
  return values;
}

// "TYPE:[DIMS]" or "TYPE:[DIMS]:VALUES"
KnownValue ParseKnown(const std::string& text) {
  const std::vector<std::string> parts = SplitAt(text, ':');
  KnownValue known;
  known.dtype = static_cast<DType>(std::stoi(parts[0]));
  known.shape = Ints(parts[1].substr(1, parts[1].size() - 2));
  const bool empty = text.back() == ':';
  if (parts.size() < 3 && !empty) return known;
  const std::string values = empty ? "" : parts[2];
  if (known.dtype == DType::kInt64) {
    known.contents = Tensor::Of<int64_t>(known.dtype, *known.shape, Ints(values));
  } else if (known.dtype == DType::kInt32) {
    const std::vector<int64_t> wide = Ints(values);
    known.contents = Tensor::Of<int32_t>(known.dtype, *known.shape,
                                         std::vector<int32_t>(wide.begin(), wide.end()));
  } else {
    known.contents = Tensor::Of<float>(known.dtype, *known.shape, Floats(values));
  }
  return known;
}

Attribute ParseAttribute(const std::string& kind, const std::string& value) {
  if (kind == "i") return static_cast<int64_t>(std::stoll(value));
  if (kind == "f") return std::stof(value);
  if (kind == "is") return Ints(value);
  if (kind == "fs") return Floats(value);
  if (kind == "t") return Tensor::Allocate(static_cast<DType>(std::stoi(value)), {1}).value();
  if (kind == "s") return Unquote(value);
  std::vector<std::string> strings;
  for (const std::string& part : SplitAt(value, ',')) strings.push_back(Unquote(part));
  return strings;
}

Case ParseCase(const std::string& line) {
  std::vector<std::string> fields = SplitAt(line, ' ');
  Case out;
  out.name = fields[0];
  out.node.op = fields[1];
  out.node.version = std::stoi(fields[2]);
  out.node.name = fields[0];
  for (size_t i = 3; i < fields.size(); ++i) {
    const std::string body = fields[i].substr(2);
    if (fields[i][0] == 'a') {
      const size_t equals = body.find('='), colon = body.find(':', equals);
      out.node.attributes[body.substr(0, equals)] =
          ParseAttribute(body.substr(equals + 1, colon - equals - 1), body.substr(colon + 1));
    } else if (fields[i][0] == 'i') {
      const bool there = body != "-";
      out.inputs.push_back(there ? ParseKnown(body) : KnownValue());
      out.node.inputs.push_back(there ? out.graph.AddValue({}) : ValueId());
    } else {
      const bool there = body != "-";
      out.outputs.push_back(there ? std::optional(ParseKnown(body)) : std::nullopt);
      out.node.outputs.push_back(there ? out.graph.AddValue({}) : ValueId());
    }
  }
  return out;
}

// Their first output's size follows from the data only.
bool DependsOnData(const std::string& op) {
  static const std::set<std::string> ops = {"NonZero", "NonMaxSuppression", "Compress",
                                            "Unique",  "StringSplit",       "ImageDecoder"};
  return ops.count(op) > 0;
}

TEST(ShapeInference, AgreesWithEveryCaseOfTheStandard) {
  std::ifstream file("graph/testdata/shape_cases.txt");
  ASSERT_TRUE(file.good());
  size_t cases = 0;
  for (std::string line; std::getline(file, line);) {
    const Case test = ParseCase(line);
    ++cases;
    const auto result = InferNode(test.graph, test.node, test.inputs);
    if (!result.ok()) {
      ADD_FAILURE() << test.name << ": " << result.status().ToString();
      continue;
    }
    ASSERT_EQ(result->size(), test.outputs.size());
    for (size_t i = 0; i < result->size(); ++i) {
      if (!test.outputs[i]) continue;
      const KnownValue& got = (*result)[i];
      EXPECT_EQ(DTypeName(got.dtype), DTypeName(test.outputs[i]->dtype)) << line;
      if (DependsOnData(test.node.op) && !got.shape) continue;
      if (test.node.op == "StringNormalizer" && !got.shape) continue;
      ASSERT_TRUE(got.shape.has_value()) << line;
      EXPECT_EQ(ShapeToString(*got.shape), ShapeToString(*test.outputs[i]->shape)) << line;
    }
  }
  EXPECT_GT(cases, 800u);
}

// "-" where the shape is not known.
std::string Infer(const std::string& line) {
  const Case test = ParseCase(line);
  Node node = test.node;
  const size_t dot = node.op.find('.');
  if (dot != std::string::npos) {
    node.domain = node.op.substr(0, dot);
    node.op = node.op.substr(dot + 1);
  }
  const auto result = InferNode(test.graph, node, test.inputs);
  if (!result.ok()) return std::string(StatusCodeName(result.status().code()));
  const KnownValue& first = (*result)[0];
  return first.shape ? ShapeToString(*first.shape) : "-";
}

TEST(ShapeInference, OperatorsThatTheStandardDoesNotTest) {
  const std::pair<const char*, const char*> cases[] = {
      // Fused operators and pipeline glue.
      {"n plexus.Conv 21 a:strides=is:2,2 i:1:[1,3,9,9] i:1:[8,3,3,3] i:- i:1:[1,8,4,4] o:1:[]",
       "[1,8,4,4]"},
      {"n plexus.Conv 21 i:1:[1,3,9,9] i:1:[8,3,3,3] i:- i:1:[1,8,4,4] o:1:[]", "INVALID_ARGUMENT"},
      {"n plexus.MatMul 21 a:trans_b=i:1 i:1:[2,5,4] i:1:[6,4] i:1:[6] o:1:[]", "[2,5,6]"},
      {"n plexus.Attention 21 i:1:[1,2,5,4] i:1:[1,2,7,4] i:1:[1,2,7,3] o:1:[]", "[1,2,5,3]"},
      {"n plexus.Elementwise 21 i:1:[2,1,4] i:1:[3,1] i:1:[] o:1:[]", "[2,3,4]"},
      {"n plexus.QConv 21 i:2:[1,3,9,9] i:1:[] i:2:[] i:3:[8,3,3,3] i:1:[8] i:3:[8] o:1:[]",
       "[1,8,7,7]"},
      {"n plexus.QMatMul 21 i:2:[5,4] i:1:[] i:2:[] i:3:[4,6] i:1:[] i:3:[] o:1:[]", "[5,6]"},
      {"n plexus.QAdd 21 i:2:[5,4] i:1:[] i:2:[] i:2:[4] i:1:[] i:2:[] i:1:[] i:2:[] o:2:[]",
       "[5,4]"},
      {"n plexus.Window 1 a:size=i:4 a:step=i:2 i:1:[9,3] o:1:[]", "[3,4,3]"},
      {"n plexus.Window 1 a:axis=i:1 a:size=i:4 i:1:[2,3] o:1:[]", "[2,0,4]"},
      {"n plexus.Window 1 a:size=i:0 i:1:[9,3] o:1:[]", "INVALID_ARGUMENT"},
      // Nothing in, nothing out.
      {"n Add 14 i:1:[0,4] i:1:[4] o:1:[]", "[0,4]"},
      {"n MatMul 13 i:1:[0,4] i:1:[4,5] o:1:[]", "[0,5]"},
      {"n MatMul 13 i:1:[3,0] i:1:[0,5] o:1:[]", "[3,5]"},
      {"n Conv 11 i:1:[0,3,8,8] i:1:[4,3,3,3] o:1:[]", "[0,4,6,6]"},
      {"n Reshape 13 i:1:[0,4] i:7:[2]:-1,4 o:1:[]", "[0,4]"},
      {"n Reshape 14 a:allowzero=i:1 i:1:[0,4] i:7:[2]:4,0 o:1:[]", "[4,0]"},
      {"n Concat 13 a:axis=i:0 i:1:[0,4] i:1:[2,4] o:1:[]", "[2,4]"},
      {"n Slice 13 i:1:[4] i:7:[1]:3 i:7:[1]:1 o:1:[]", "[0]"},
      {"n ReduceSum 13 a:keepdims=i:0 i:1:[0,4] i:7:[1]:0 o:1:[]", "[4]"},
      {"n Range 11 i:7:[]:5 i:7:[]:5 i:7:[]:1 o:7:[]", "[0]"},
      // Windows: the last one must start inside the input or its leading padding.
      {"n MaxPool 22 a:ceil_mode=i:1 a:kernel_shape=is:1 a:strides=is:2 i:1:[1,1,3] o:1:[]",
       "[1,1,2]"},
      {"n MaxPool 22 a:ceil_mode=i:1 a:kernel_shape=is:1 a:strides=is:3 i:1:[1,1,3] o:1:[]",
       "[1,1,1]"},
      // What is not known stays unknown.
      {"n Reshape 13 i:1:[2,4] i:7:[2] o:1:[]", "-"},
      {"n Slice 13 i:1:[4] i:7:[1] i:7:[1]:1 o:1:[]", "-"},
      {"n NonZero 13 i:1:[4] o:7:[]", "-"},
      // Hostile or contradictory numbers.
      {"n Add 14 i:1:[3] i:1:[4] o:1:[]", "INVALID_ARGUMENT"},
      {"n Add 14 i:1:[3] i:7:[3] o:1:[]", "INVALID_ARGUMENT"},
      {"n MatMul 13 i:1:[3,4] i:1:[5,6] o:1:[]", "INVALID_ARGUMENT"},
      {"n Conv 11 i:1:[1,3,8,8] i:1:[4,3,9,9] o:1:[]", "INVALID_ARGUMENT"},
      {"n Conv 11 a:group=i:0 i:1:[1,3,8,8] i:1:[4,3,3,3] o:1:[]", "INVALID_ARGUMENT"},
      {"n Conv 11 a:strides=is:0,1 i:1:[1,3,8,8] i:1:[4,3,3,3] o:1:[]", "INVALID_ARGUMENT"},
      {"n Conv 11 a:dilations=is:9223372036854775807,1 i:1:[1,3,8,8] i:1:[4,3,3,3] o:1:[]",
       "INVALID_ARGUMENT"},
      {"n Conv 11 a:pads=is:1099511627776,1099511627776,1099511627776,1099511627776 "
       "i:1:[1,3,8,8] i:1:[4,3,3,3] o:1:[]",
       "INVALID_ARGUMENT"},
      {"n Reshape 13 i:1:[2,4] i:7:[2]:3,-1 o:1:[]", "INVALID_ARGUMENT"},
      {"n Reshape 13 i:1:[2,4] i:7:[2]:-1,-1 o:1:[]", "INVALID_ARGUMENT"},
      {"n Slice 13 i:1:[4] i:7:[1]:0 i:7:[1]:9 i:7:[1]:0 i:7:[1]:0 o:1:[]", "INVALID_ARGUMENT"},
      {"n Slice 13 i:1:[4] i:7:[1]:-1 i:7:[1]:-9223372036854775807 i:7:[1]:0 "
       "i:7:[1]:-9223372036854775807 o:1:[]",
       "[1]"},
      {"n Tile 13 i:1:[4] i:7:[1]:4611686018427387904 o:1:[]", "INVALID_ARGUMENT"},
      {"n Expand 13 i:1:[1] i:7:[2]:1099511627776,1099511627776 o:1:[]", "RESOURCE_EXHAUSTED"},
      {"n ConstantOfShape 9 i:7:[1]:-1 o:1:[]", "INVALID_ARGUMENT"},
      {"n Transpose 13 a:perm=is:0,0 i:1:[2,3] o:1:[]", "INVALID_ARGUMENT"},
      {"n Gather 13 a:axis=i:5 i:1:[2,3] i:7:[1] o:1:[]", "INVALID_ARGUMENT"},
      {"n Split 18 i:1:[4] i:7:[1]:3 o:1:[]", "INVALID_ARGUMENT"},
      {"n Range 11 i:7:[]:0 i:7:[]:1 i:7:[]:0 o:7:[]", "INVALID_ARGUMENT"},
      {"n Unheard 13 i:1:[4] o:1:[]", "UNIMPLEMENTED"},
  };
  for (const auto& [line, expected] : cases) EXPECT_EQ(Infer(line), expected) << line;
}

TEST(ShapeInference, ErrorsNameTheNodeAndItsInputs) {
  const Case test = ParseCase("mul MatMul 13 i:1:[3,4] i:1:[5,6] o:1:[]");
  const auto result = InferNode(test.graph, test.node, test.inputs);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().message(),
            "MatMul node 'mul' (inputs float32[3,4] float32[5,6]): the inner dimensions differ: "
            "[3,4] times [5,6]");
}

}  // namespace
}  // namespace plexus
