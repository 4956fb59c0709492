#include "graph/open_shapes.h"

#include <gtest/gtest.h>

#include <random>

namespace plexus {
namespace {

constexpr int64_t kAny = kOpenSize;

// One node with its inputs; an input with contents is a constant.
struct Case {
  std::string op;
  std::vector<Shape> sizes;
  std::map<std::string, Attribute> attributes = {};
  std::optional<std::vector<int64_t>> last = {};  // contents of one more input
  size_t num_outputs = 1;
};

struct Made {
  explicit Made(const Case& c) {
    node.op = c.op;
    node.name = "n";
    node.version = 18;
    node.attributes = c.attributes;
    for (size_t i = 0; i < c.sizes.size() + (c.last ? 1 : 0); ++i) {
      node.inputs.push_back(graph.AddValue({"x" + std::to_string(i), DType::kFloat32, {}, {}}));
    }
    for (size_t i = 0; i < c.num_outputs; ++i) {
      node.outputs.push_back(graph.AddValue({"y" + std::to_string(i), DType::kFloat32, {}, {}}));
    }
  }
  // With all sizes as given.
  std::vector<KnownValue> Inputs(const Case& c, const std::vector<Shape>& sizes) const {
    std::vector<KnownValue> inputs;
    for (const Shape& shape : sizes) {
      KnownValue value;
      value.dtype = DType::kFloat32;
      if (std::count(shape.begin(), shape.end(), kAny) == 0) value.shape = shape;
      inputs.push_back(value);
    }
    if (c.last) {
      const Tensor tensor = Tensor::VectorInt64(*c.last);
      inputs.push_back({DType::kInt64, tensor.shape(), tensor});
    }
    return inputs;
  }
  Result<std::vector<OpenShape>> Open(const Case& c) const {
    std::vector<OpenShape> sizes(c.sizes.begin(), c.sizes.end());
    if (c.last) sizes.push_back(Shape{static_cast<int64_t>(c.last->size())});
    return InferOpenShapes(graph, node, Inputs(c, c.sizes), sizes);
  }
  Graph graph;
  Node node;
};

std::string Infer(const Case& c) {
  const auto shapes = Made(c).Open(c);
  if (!shapes.ok()) return shapes.status().message();
  std::string text;
  for (const OpenShape& shape : *shapes) text += shape ? ShapeToString(*shape) : "?";
  return text;
}

TEST(OpenShapes, KeepsTheSizesThatAreFixed) {
  EXPECT_EQ(Infer({"Relu", {{kAny, 4}}}), "[-1,4]");
  EXPECT_EQ(Infer({"Add", {{kAny, 4}, {4}}}), "[-1,4]");
  EXPECT_EQ(Infer({"Add", {{kAny, 1}, {3, kAny}}}), "[3,-1]");
  EXPECT_EQ(Infer({"MatMul", {{kAny, kAny}, {4, 5}}}), "[-1,5]");
  EXPECT_EQ(Infer({"Gemm", {{kAny, 4}, {5, 4}, {5}}, {{"transB", int64_t{1}}}}), "[-1,5]");
  EXPECT_EQ(Infer({"Conv", {{kAny, kAny, 8, kAny}, {6, 3, 3, 3}}}), "[-1,6,6,-1]");
  EXPECT_EQ(Infer({"GlobalAveragePool", {{kAny, 6, kAny, 5}}}), "[-1,6,1,1]");
  EXPECT_EQ(Infer({"Transpose", {{kAny, 4, 5}}, {{"perm", std::vector<int64_t>{2, 0, 1}}}}),
            "[5,-1,4]");
  EXPECT_EQ(Infer({"Concat", {{kAny, 3}, {2, 4}}, {{"axis", int64_t{1}}}}), "[2,7]");
  EXPECT_EQ(Infer({"Reshape", {{kAny}}, {}, std::vector<int64_t>{-1, 32}}), "[-1,32]");
  EXPECT_EQ(Infer({"Flatten", {{kAny, 4, 5}}}), "[-1,20]");
  EXPECT_EQ(Infer({"ReduceMean", {{kAny, 4}}, {{"keepdims", int64_t{0}}}, {{1}}}), "[-1]");
  EXPECT_EQ(Infer({"Squeeze", {{kAny, kAny, 4}}, {}, {{1}}}), "[-1,4]");
  EXPECT_EQ(Infer({"Split", {{kAny, 6}}, {{"axis", int64_t{1}}}, {}, 2}), "[-1,3][-1,3]");
  EXPECT_EQ(Infer({"BatchNormalization", {{kAny, kAny, 2}, {3}, {3}, {3}, {3}}}), "[-1,3,2]");
}

TEST(OpenShapes, AFaultOfEverySizeNamesTheNodeAndWhatItReads) {
  EXPECT_EQ(Infer({"Gemm", {{kAny, 4}, {3, 5}}}),
            "Gemm node 'n' (inputs float32[-1,4] float32[3,5]): the inner dimensions differ");
  EXPECT_EQ(Infer({"Transpose", {{kAny, 4}}, {{"perm", std::vector<int64_t>{0, 0}}}}),
            "Transpose node 'n' (inputs float32[-1,4]): an axis is named twice");
  EXPECT_EQ(Infer({"Softmax", {{kAny, 4}}, {{"axis", int64_t{2}}}}),
            "Softmax node 'n' (inputs float32[-1,4]): axis 2 is out of range for rank 2");
  EXPECT_NE(Infer({"Add", {{kAny, 4}, {kAny, 3}}}).find("cannot broadcast"), std::string::npos);
  EXPECT_NE(Infer({"Conv", {{kAny, 4, kAny}, {6, 3, 3}}}).find("4 channels"), std::string::npos);
  EXPECT_NE(Infer({"Reshape", {{kAny, 4}}, {}, {{5, 5}}}).find("cannot reshape"),
            std::string::npos);
}

TEST(OpenShapes, WhatDependsOnTheSizeStaysOpen) {
  EXPECT_EQ(Infer({"Reshape", {{kAny, 4}}, {}, std::vector<int64_t>{0, -1}}), "[-1,-1]");
  EXPECT_EQ(Infer({"Slice",
                   {{kAny, 9}},
                   {{"starts", std::vector<int64_t>{0, 0}}, {"ends", std::vector<int64_t>{5, 5}}}}),
            "[-1,5]");
  EXPECT_EQ(Infer({"Squeeze", {{kAny, 4}}}), "?");
  EXPECT_EQ(Infer({"Tile", {{kAny, 4}}, {}, std::vector<int64_t>{1, 2}}), "?");
}

// Random nodes, every choice of their open sizes: a fault must be one of all of them, a size that
// is told must be that of all that run.
class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int64_t Of(const std::vector<int64_t>& from) { return from[engine_() % from.size()]; }
  int64_t Range(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine_() % static_cast<uint32_t>(high - low + 1));
  }
  Shape Sizes(int64_t rank) {
    Shape shape;
    for (int64_t d = 0; d < rank; ++d) shape.push_back(Of({0, 1, 2, 2, 3, 4, 6, kAny, kAny}));
    return shape;
  }

  Case Next() {
    static const std::vector<std::string> ops = {"Add",
                                                 "MatMul",
                                                 "Gemm",
                                                 "Concat",
                                                 "Transpose",
                                                 "Reshape",
                                                 "Flatten",
                                                 "Squeeze",
                                                 "Unsqueeze",
                                                 "Slice",
                                                 "Split",
                                                 "ReduceSum",
                                                 "ArgMax",
                                                 "TopK",
                                                 "Gather",
                                                 "Expand",
                                                 "Pad",
                                                 "Conv",
                                                 "MaxPool",
                                                 "Softmax",
                                                 "Where",
                                                 "OneHot",
                                                 "CumSum",
                                                 "Clip",
                                                 "GlobalMaxPool",
                                                 "LayerNormalization",
                                                 "BatchNormalization"};
    const std::string op = ops[engine_() % ops.size()];
    const int64_t rank = Range(1, 4);
    Case c{op, {Sizes(rank)}};
    const std::vector<int64_t> near = {-3, -2, -1, 0, 1, 2, 3};
    const auto list = [&](int64_t count, const std::vector<int64_t>& from) {
      std::vector<int64_t> values;
      for (int64_t i = 0; i < count; ++i) values.push_back(Of(from));
      return values;
    };
    const int64_t axis = Of(near);
    if (op == "Add" || op == "MatMul" || op == "Gather") c.sizes.push_back(Sizes(Range(1, 3)));
    if (op == "Where") c.sizes.insert(c.sizes.end(), {Sizes(Range(1, 2)), Sizes(1)});
    if (op == "Gemm") {
      c.sizes = {Sizes(2), Sizes(2), Sizes(Range(1, 2))};
      c.attributes = {{"transA", Range(0, 1)}, {"transB", Range(0, 1)}};
    }
    if (op == "Concat") c.sizes.push_back(Sizes(Range(0, 4) == 0 ? 2 : rank));
    if (op == "Concat" || op == "Flatten" || op == "Softmax" || op == "Gather" || op == "ArgMax" ||
        op == "Split" || op == "TopK" || op == "OneHot" || op == "LayerNormalization") {
      c.attributes["axis"] = axis;
    }
    if (op == "LayerNormalization") c.sizes.push_back(Sizes(Range(1, 2)));
    if (op == "Transpose") c.attributes["perm"] = list(rank, {0, 1, 2, 3, -1});
    if (op == "Reshape") c.last = list(Range(1, 3), {-1, 0, 1, 2, 3, 4, 6});
    if (op == "Expand") c.last = list(Range(1, 3), {1, 2, 3, 4});
    if (op == "Squeeze" || op == "Unsqueeze" || op == "ReduceSum") {
      if (Range(0, 3) > 0) c.last = list(Range(1, 2), near);
      c.attributes["keepdims"] = Range(0, 1);
    }
    if (op == "Unsqueeze" && !c.last) c.last = {0};
    if (op == "CumSum") c.last = list(1, near);
    if (op == "TopK") c.last = list(1, {0, 1, 2, 4});
    if (op == "TopK") c.num_outputs = 2;
    if (op == "OneHot") c.sizes.push_back({1});
    if (op == "OneHot") c.attributes["axis"] = axis;
    if (op == "Slice") {
      c.attributes["starts"] = list(1, {-9, -2, 0, 1, 3});
      c.attributes["ends"] = list(1, {-1, 0, 2, 5, 99});
      c.attributes["axes"] = list(1, near);
      c.attributes["steps"] = list(1, {-2, -1, 0, 1, 2});
    }
    if (op == "Pad") c.attributes["pads"] = list(2 * rank, {-2, -1, 0, 1, 2});
    if (op == "Split") {
      c.num_outputs = static_cast<size_t>(Range(1, 3));
      if (Range(0, 1) > 0) c.last = list(static_cast<int64_t>(c.num_outputs), {0, 1, 2, 3});
    }
    if (op == "Conv") {
      c.sizes.push_back({Of({2, 4}), Of({1, 2, 3}), Of({1, 3})});
      c.sizes[0] = Sizes(Range(0, 4) == 0 ? rank : 3);
      c.attributes = {{"group", Of({1, 1, 2})}, {"strides", list(1, {1, 2})}};
    }
    if (op == "MaxPool") {
      c.attributes = {{"kernel_shape", list(std::max<int64_t>(0, rank - 2), {1, 2, 3})},
                      {"strides", list(std::max<int64_t>(0, rank - 2), {1, 2})}};
    }
    if (op == "BatchNormalization") {
      const Shape channels = Sizes(1);
      for (int i = 0; i < 4; ++i) c.sizes.push_back(channels);
    }
    return c;
  }

 private:
  std::mt19937 engine_;
};

std::string Print(const Case& c) {
  std::string text = c.op;
  for (const Shape& shape : c.sizes) text += " " + ShapeToString(shape);
  if (c.last) text += " {" + ShapeToString(*c.last) + "}";
  for (const auto& [name, attribute] : c.attributes) {
    text += " " + name + "=";
    if (const auto* one = std::get_if<int64_t>(&attribute)) text += std::to_string(*one);
    if (const auto* more = std::get_if<std::vector<int64_t>>(&attribute)) {
      text += ShapeToString(*more);
    }
  }
  return text;
}

TEST(OpenShapes, HoldForEveryChoiceOfTheOpenSizes) {
  Random random(1);
  const std::vector<int64_t> choices = {0, 1, 2, 3, 4, 5, 6, 12};
  int faults = 0, told = 0;
  for (int round = 0; round < 4000; ++round) {
    const Case c = random.Next();
    std::vector<int64_t*> open;
    std::vector<Shape> sizes = c.sizes;
    for (Shape& shape : sizes) {
      for (int64_t& size : shape) {
        if (size == kAny) open.push_back(&size);
      }
    }
    if (open.empty() || open.size() > 3) continue;
    const Made made(c);
    const auto shapes = made.Open(c);
    faults += !shapes.ok();
    int64_t combinations = 1;
    for (size_t i = 0; i < open.size(); ++i) combinations *= std::ssize(choices);
    for (int64_t n = 0; n < combinations; ++n) {
      int64_t left = n;
      for (int64_t* size : open) {
        *size = choices[left % choices.size()];
        left /= std::ssize(choices);
      }
      const auto run = InferNode(made.graph, made.node, made.Inputs(c, sizes));
      if (!run.ok()) continue;
      ASSERT_TRUE(shapes.ok()) << Print(c) << ": " << shapes.status().ToString();
      for (size_t i = 0; i < run->size(); ++i) {
        if (!(*shapes)[i] || !(*run)[i].shape) continue;
        const Shape& got = *(*run)[i].shape;
        ASSERT_EQ((*shapes)[i]->size(), got.size()) << Print(c);
        for (size_t d = 0; d < got.size(); ++d) {
          if ((*(*shapes)[i])[d] == kAny) continue;
          ++told;
          ASSERT_EQ((*(*shapes)[i])[d], got[d]) << Print(c) << " gives " << ShapeToString(got);
        }
      }
    }
  }
  EXPECT_GT(faults, 200);
  EXPECT_GT(told, 5000);
}

}  // namespace
}  // namespace plexus
