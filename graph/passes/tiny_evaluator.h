// A few operators on small tensors: what the tests of folding and specialisation need, so that the
// graph layer need not link the reference operators.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "graph/evaluator.h"

namespace plexus {

// Add and Less on int64 scalars or equal-sized lists, Gather and Concat on lists, Unsqueeze,
// Identity; RandomNormal and DequantizeLinear only in name: nobody may ask for them.
class TinyEvaluator : public Evaluator {
 public:
  mutable int calls = 0;

  bool Supports(const Node& node) const override {
    for (const char* op : {"Add", "Less", "Gather", "Concat", "Unsqueeze", "Identity", "Tile",
                           "RandomNormal", "DequantizeLinear"}) {
      if (node.op == op) return true;
    }
    return false;
  }

  Result<std::vector<Tensor>> Evaluate(const Graph&, const Node& node,
                                       std::span<const Tensor> inputs,
                                       std::span<const Tensor>) const override {
    ++calls;
    std::vector<std::vector<int64_t>> in;
    for (const Tensor& t : inputs) {
      PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> values, ToInt64Vector(t));
      in.push_back(std::move(values));
    }
    std::vector<int64_t> out;
    Shape shape = inputs[0].shape();
    if (node.op == "Add" || node.op == "Less") {
      if (in[0].size() != in[1].size()) return InvalidArgumentError("sizes differ");
      for (size_t i = 0; i < in[0].size(); ++i) {
        out.push_back(node.op == "Add" ? in[0][i] + in[1][i] : in[0][i] < in[1][i]);
      }
    } else if (node.op == "Gather") {
      for (int64_t i : in[1]) out.push_back(in[0].at(static_cast<size_t>(i)));
      shape = inputs[1].shape();
    } else if (node.op == "Concat") {
      for (const auto& part : in) out.insert(out.end(), part.begin(), part.end());
      shape = {static_cast<int64_t>(out.size())};
    } else if (node.op == "Unsqueeze") {
      out = in[0];
      shape.insert(shape.begin(), 1);
    } else if (node.op == "Tile") {
      for (int64_t r = 0; r < in[1][0]; ++r) out.insert(out.end(), in[0].begin(), in[0].end());
      shape = {static_cast<int64_t>(out.size())};
    } else {
      out = in[0];
    }
    if (node.op == "Less") {
      return std::vector<Tensor>{
          Tensor::Of<uint8_t>(DType::kBool, shape, {out.begin(), out.end()})};
    }
    return std::vector<Tensor>{Tensor::Of<int64_t>(DType::kInt64, shape, out)};
  }
};

}  // namespace plexus
