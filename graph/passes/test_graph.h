// A small language for pass tests: graphs in a few lines, shapes inferred on the way.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "graph/shape_inference.h"

namespace plexus {

class TestGraph {
 public:
  Graph g;
  // Without, values made by Op have a type and no shape.
  bool infer = true;

  TestGraph() { g.name = "t"; }

  ValueId Input(std::string name, Shape shape, DType dtype = DType::kFloat32) {
    Value v;
    v.name = std::move(name);
    v.dtype = dtype;
    if (infer) v.shape = SymbolicShape::FromConcrete(shape);
    return g.AddInput(std::move(v));
  }
  ValueId Const(std::string name, Tensor t) {
    return g.AddConstant(std::move(name), ConstantStore::Get().Intern(std::move(t)));
  }
  ValueId Floats(std::string name, Shape shape, const std::vector<float>& values) {
    return Const(std::move(name), Tensor::Of<float>(DType::kFloat32, std::move(shape), values));
  }
  // Distinct, reproducible numbers around zero.
  ValueId Ramp(std::string name, Shape shape, float first = -0.5f, float step = 0.01f) {
    std::vector<float> values(NumElementsUnchecked(shape));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = first + step * static_cast<float>((i * 7) % 101);
    }
    return Floats(std::move(name), std::move(shape), values);
  }
  ValueId Scalar(float value) {
    return Const("s" + std::to_string(g.num_values()), Tensor::Scalar(value));
  }
  ValueId Ints(const std::vector<int64_t>& values) {
    return Const("i" + std::to_string(g.num_values()), Tensor::VectorInt64(values));
  }
  // One output, named `name`.
  ValueId Op(const std::string& name, const std::string& op, std::vector<ValueId> inputs,
             std::map<std::string, Attribute> attributes = {}, DType dtype = DType::kFloat32) {
    Node n;
    n.op = op;
    n.version = 21;
    n.name = name;
    n.inputs = std::move(inputs);
    n.attributes = std::move(attributes);
    Value v;
    v.name = name;
    v.dtype = dtype;
    if (infer) {
      std::vector<KnownValue> known;
      for (ValueId id : n.inputs) {
        KnownValue k;
        if (id.valid()) {
          k.dtype = g.value(id).dtype;
          if (g.value(id).shape.IsConcrete()) k.shape = g.value(id).shape.ToConcrete();
          if (g.value(id).IsConstant()) k.contents = g.value(id).constant->PlainIfResident();
        }
        known.push_back(std::move(k));
      }
      n.outputs.resize(1);
      n.outputs[0] = ValueId(static_cast<uint32_t>(g.num_values()));
      Result<std::vector<KnownValue>> out = InferNode(g, n, known);
      EXPECT_TRUE(out.ok()) << name << ": " << out.status().ToString();
      if (out.ok() && (*out)[0].shape) {
        v.dtype = (*out)[0].dtype;
        v.shape = SymbolicShape::FromConcrete(*(*out)[0].shape);
      }
    }
    n.outputs = {g.AddValue(std::move(v))};
    g.AddNode(std::move(n));
    return g.value(ValueId(static_cast<uint32_t>(g.num_values() - 1))).dtype == DType::kUndefined
               ? ValueId()
               : ValueId(static_cast<uint32_t>(g.num_values() - 1));
  }
  void Output(ValueId v) { g.outputs().push_back(v); }

  // "Conv Relu plexus.Attention": the operators in order.
  static std::string Ops(const Graph& graph) {
    std::string out;
    for (const Node& n : graph.nodes()) {
      out += (out.empty() ? "" : " ") + (n.domain.empty() ? "" : n.domain + ".") + n.op;
    }
    return out;
  }
  std::string Ops() const { return Ops(g); }
  // Runs one pass; the result must be a valid graph.
  void Run(Status (*pass)(Graph&)) {
    const Status status = pass(g);
    ASSERT_TRUE(status.ok()) << status.ToString();
    const Status valid = g.Validate();
    ASSERT_TRUE(valid.ok()) << valid.ToString() << "\n" << g.ToString();
  }
  const Node& NodeOf(const std::string& op) const {
    for (const Node& n : g.nodes()) {
      if (n.op == op) return n;
    }
    ADD_FAILURE() << "no " << op << " in\n" << g.ToString();
    static const Node none;
    return none;
  }
  std::vector<float> ConstantOf(ValueId v) const {
    const auto data = g.value(v).constant->Plain().value().data<float>();
    return {data.begin(), data.end()};
  }
};

}  // namespace plexus
