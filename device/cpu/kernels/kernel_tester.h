// Small graphs for kernel tests: every node is run by the reference as it is added, so that the
// tester knows its outputs' shapes and expected values.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace plexus::cpu {

Tensor RandomTensor(const Shape& shape, uint32_t seed, float low = -1, float high = 1);

class KernelTester {
 public:
  // `channels_last`: a pooling layer that changes nothing stands between the input and its users,
  // so that they find the value channels-last (rank 3 and 4).
  ValueId Input(Tensor tensor, bool channels_last = false);
  ValueId Input(const Shape& shape, bool channels_last = false);
  ValueId Constant(Tensor tensor);
  // Adds a node with `num_outputs` outputs; the first is returned. An empty id leaves an input out.
  ValueId Add(const std::string& op, std::vector<ValueId> inputs,
              std::map<std::string, Attribute> attributes = {}, size_t num_outputs = 1);
  const Shape& shape(ValueId v) const { return tensors_[v.value()].shape(); }
  // Replaces the expectation of a value.
  void Expect(ValueId v, Tensor tensor) { tensors_[v.value()] = std::move(tensor); }

  // ONNX version of the nodes added from now on.
  int version = 18;

  // Marks all outputs of the last node as program outputs, compiles for two workers, runs blocks in
  // order and shuffled, and compares: |got - expected| <= tolerance * (1 + |expected|); NaN and
  // infinities must agree. Fails if a kernel but those of `by_reference` runs on the reference.
  void Check(float tolerance, bool by_reference = false);
  // Of the last Check.
  std::vector<std::string> kernel_names;

 private:
  ValueId NewValue(Tensor tensor);

  Graph graph_;
  std::vector<Tensor> tensors_;  // per value
  std::vector<Tensor> inputs_;
  std::vector<ValueId> last_outputs_;
};

}  // namespace plexus::cpu
