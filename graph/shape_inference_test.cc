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

}  // namespace
}  // namespace plexus
