#include "serve/output_error.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "program/reference/reference.h"

namespace plexus {
namespace {

Result<std::vector<Tensor>> DrawInputs(const Graph& graph,
                                       const std::map<std::string, Shape>& shapes) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<Tensor> inputs;
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    Shape shape;
    const auto given = shapes.find(value.name);
    if (given != shapes.end()) {
      shape = given->second;
    } else {
      for (const SymbolicDim& dim : value.shape.dims) shape.push_back(dim.value.value_or(1));
    }
    PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(value.dtype, shape));
    if (value.dtype == DType::kFloat32) {
      for (float& x : tensor.mutable_data<float>()) x = normal(random);
    } else {
      std::fill_n(tensor.raw_mutable(), tensor.size_bytes(), std::byte{0});
    }
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}

Result<std::vector<Tensor>> RunInFloat32(Runtime& runtime, const GraphPtr& graph,
                                         const std::vector<Tensor>& inputs) {
  if (IsQuantized(*graph)) return RunGraph(*graph, inputs);
  PLEXUS_ASSIGN_OR_RETURN(const ExecutablePtr plain,
                          runtime.Load(graph->name + " in float32", graph, {}));
  RunResult result = runtime.Run(plain, inputs);
  PLEXUS_RETURN_IF_ERROR(result.status);
  return std::move(result.outputs);
}

}  // namespace

bool IsQuantized(const Graph& graph) {
  return std::any_of(graph.nodes().begin(), graph.nodes().end(), [](const Node& node) {
    return node.domain.empty() &&
           (node.op == "QuantizeLinear" || node.op == "DequantizeLinear" ||
            node.op == "DynamicQuantizeLinear" || node.op == "QLinearConv" ||
            node.op == "QLinearMatMul" || node.op == "ConvInteger" || node.op == "MatMulInteger");
  });
}

Result<double> MeasureOutputError(Runtime& runtime, const GraphPtr& graph,
                                  const ExecutablePtr& reduced,
                                  const std::map<std::string, Shape>& shapes) {
  Result<std::vector<Tensor>> inputs = DrawInputs(*graph, shapes);
  if (!inputs.ok()) return FailedPreconditionError(inputs.status().message());
  Result<std::vector<Tensor>> expected = RunInFloat32(runtime, graph, *inputs);
  if (!expected.ok()) return FailedPreconditionError(expected.status().message());
  RunResult actual = runtime.Run(reduced, *inputs);
  if (!actual.status.ok()) return FailedPreconditionError(actual.status.message());
  double worst = 0;
  for (size_t i = 0; i < expected->size(); ++i) {
    if ((*expected)[i].dtype() == DType::kString) continue;
    PLEXUS_ASSIGN_OR_RETURN(const std::vector<double> want, ToDoubleVector((*expected)[i]));
    PLEXUS_ASSIGN_OR_RETURN(const std::vector<double> got, ToDoubleVector(actual.outputs[i]));
    double difference = 0, magnitude = 0;
    for (size_t k = 0; k < want.size() && k < got.size(); ++k) {
      difference = std::max(difference, std::abs(want[k] - got[k]));
      magnitude = std::max(magnitude, std::abs(want[k]));
    }
    if (magnitude > 0) worst = std::max(worst, difference / magnitude);
  }
  return worst;
}

}  // namespace plexus
