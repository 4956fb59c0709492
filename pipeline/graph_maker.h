// For tests: small graphs, written down as they are.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "graph/tensor.h"

namespace plexus {

// Builds small graphs: g.In("x", {..}); y = g.Op("Relu", {x}); g.Out(y).
class GraphMaker {
 public:
  ValueId In(const std::string& name, std::vector<int64_t> dims, DType dtype = DType::kFloat32) {
    Value v;
    v.name = name;
    v.dtype = dtype;
    v.shape.has_rank = true;
    for (int64_t d : dims) {
      SymbolicDim dim;
      if (d >= 0) dim.value = d;
      v.shape.dims.push_back(dim);
    }
    return graph.AddInput(v);
  }
  ValueId Op(const std::string& op, std::vector<ValueId> in, DType dtype = DType::kFloat32,
             std::map<std::string, Attribute> attributes = {}, const std::string& domain = "") {
    Value v;
    v.name = op + std::to_string(graph.num_values());
    v.dtype = dtype;
    Node node;
    node.op = op;
    node.domain = domain;
    node.name = v.name;
    node.version = domain.empty() ? 18 : 1;
    node.inputs = std::move(in);
    node.attributes = std::move(attributes);
    node.outputs = {graph.AddValue(v)};
    graph.AddNode(node);
    return node.outputs[0];
  }
  ValueId Const(Tensor t) {
    return graph.AddConstant("c" + std::to_string(graph.num_values()),
                             ConstantStore::Get().Intern(std::move(t)));
  }
  void Out(ValueId v) { graph.outputs().push_back(v); }
  GraphPtr Done() { return std::make_shared<const Graph>(std::move(graph)); }
  Graph graph;
};

inline Tensor Floats(Shape shape, std::vector<float> values) {
  return Tensor::Of<float>(DType::kFloat32, std::move(shape), values);
}

}  // namespace plexus
