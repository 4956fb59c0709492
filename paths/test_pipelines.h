// For tests: small pipelines in a few words, and what a cut of them looks like.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"
#include "paths/finder.h"

namespace plexus {

// Pipelines of small layers: each layer of [4] → [4] has weights named by a number.
class Builder {
 public:
  explicit Builder(std::string input = "x") { value_ = t_.Input(std::move(input), {1, 16}); }

  // MatMul and Relu, one fusion group; equal numbers have equal weights.
  Builder& Layer(int weights) {
    value_ = t_.Op(Name(), "MatMul", {value_, Weights(weights)});
    value_ = t_.Op(Name(), "Relu", {value_});
    return *this;
  }
  Builder& Op(const std::string& op, std::map<std::string, Attribute> attributes = {}) {
    value_ = t_.Op(Name(), op, {value_}, std::move(attributes));
    return *this;
  }
  Builder& AddLayerOf(ValueId other, int weights) {
    const ValueId product = t_.Op(Name(), "MatMul", {other, Weights(weights)});
    value_ = t_.Op(Name(), "Add", {value_, product});
    return *this;
  }
  Builder& From(ValueId value) {
    value_ = value;
    return *this;
  }
  Builder& Out() {
    t_.Output(value_);
    return *this;
  }
  ValueId value() const { return value_; }
  TestGraph& graph() { return t_; }

  GraphPtr Done() {
    if (t_.g.outputs().empty()) Out();
    EXPECT_TRUE(MarkFusionGroups(t_.g).ok());
    EXPECT_TRUE(t_.g.Validate().ok());
    return std::make_shared<const Graph>(t_.g);
  }

 private:
  std::string Name() { return "n" + std::to_string(next_++); }
  ValueId Weights(int number) {
    return t_.Ramp("w" + std::to_string(number) + "_" + std::to_string(next_++), {16, 16},
                   static_cast<float>(number));
  }
  TestGraph t_;
  ValueId value_;
  int next_ = 0;
};

// "MatMul Relu {a b}" per segment, sorted.
inline std::multiset<std::string> Segments(const PathMap& map) {
  std::multiset<std::string> out;
  for (const SegmentUse& use : map.segments) {
    std::string text = TestGraph::Ops(*use.segment->graph) + " {";
    for (size_t i = 0; i < use.pipelines.size(); ++i) text += (i ? " " : "") + use.pipelines[i];
    out.insert(text + "}");
  }
  return out;
}
using Set = std::multiset<std::string>;

inline PathMapPtr Find(std::map<std::string, GraphPtr> pipelines, PathOptions options = {}) {
  PathFinder finder(options);
  std::vector<PathFinder::Load> loads;
  for (auto& [name, graph] : pipelines) loads.push_back({name, graph});
  return finder.Update(std::move(loads));
}

}  // namespace plexus
