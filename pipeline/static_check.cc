#include "pipeline/static_check.h"

#include <algorithm>

namespace plexus {
namespace {

// Larger constants are no shapes, axes or sizes.
constexpr int64_t kMaxKnownElements = 4096;

KnownValue FromDeclaration(const Value& value) {
  KnownValue known;
  known.dtype = value.dtype;
  if (value.IsConstant()) {
    known.shape = value.constant->shape();
    if (value.constant->num_elements() <= kMaxKnownElements) {
      Tensor plain = value.constant->PlainIfResident();
      if (plain.defined()) known.contents = std::move(plain);
    }
  } else if (value.shape.IsConcrete()) {
    known.shape = value.shape.ToConcrete();
  }
  return known;
}

Status CheckSize(const KnownValue& value, const Node& node, size_t max_value_bytes) {
  if (!value.shape) return OkStatus();
  const size_t element = std::max<size_t>(1, DTypeSizeBytes(value.dtype));
  const auto count = static_cast<size_t>(NumElementsUnchecked(*value.shape));
  if (count <= max_value_bytes / element) return OkStatus();
  return ResourceExhaustedError("node '" + node.name + "' (" + node.op + "): its result " +
                                std::string(DTypeName(value.dtype)) + ShapeToString(*value.shape) +
                                " is larger than the " + std::to_string(max_value_bytes) +
                                " bytes that a value may have here");
}

// One walk of a graph; the bodies of a pipeline's stages are walked too: who wrote them meant them
// to run. A model's own control flow is left to the run.
class Checker {
 public:
  Checker(const Graph& graph, size_t max_value_bytes)
      : graph_(graph), max_value_bytes_(max_value_bytes), known_(graph.num_values()) {
    for (size_t i = 0; i < known_.size(); ++i) {
      const Value& value = graph.value(ValueId(static_cast<uint32_t>(i)));
      if (value.IsConstant()) known_[i] = FromDeclaration(value);
    }
  }

  Status Run(std::vector<KnownValue> inputs, std::vector<KnownValue> captures) {
    for (size_t i = 0; i < inputs.size(); ++i) Set(graph_.inputs()[i], std::move(inputs[i]));
    for (size_t i = 0; i < captures.size(); ++i) Set(graph_.captures()[i], std::move(captures[i]));
    for (const Node& node : graph_.nodes()) PLEXUS_RETURN_IF_ERROR(RunNode(node));
    return OkStatus();
  }

  KnownValue Output(size_t i) const { return known_[graph_.outputs()[i].value()]; }

 private:
  void Set(ValueId id, KnownValue known) {
    if (id.valid()) known_[id.value()] = std::move(known);
  }
  std::vector<KnownValue> Read(const std::vector<ValueId>& ids) const {
    std::vector<KnownValue> values;
    for (ValueId id : ids) values.push_back(id.valid() ? known_[id.value()] : KnownValue());
    return values;
  }

  Status RunNode(const Node& node) {
    const std::vector<KnownValue> inputs = Read(node.inputs);
    std::vector<KnownValue> outputs(node.outputs.size());
    if (node.HasAttr("stage") && node.op != "FanOut") {
      PLEXUS_RETURN_IF_ERROR(RunStage(node, inputs, outputs));
    } else if (HasShapeRule(node)) {
      Result<std::vector<KnownValue>> inferred = InferNode(graph_, node, inputs);
      if (inferred.ok()) {
        outputs = std::move(*inferred);
      } else if (inferred.status().code() != StatusCode::kUnimplemented) {
        return inferred.status();
      }
    }
    for (size_t i = 0; i < node.outputs.size() && i < outputs.size(); ++i) {
      if (!node.outputs[i].valid()) continue;
      PLEXUS_RETURN_IF_ERROR(CheckSize(outputs[i], node, max_value_bytes_));
      known_[node.outputs[i].value()] = std::move(outputs[i]);
    }
    return OkStatus();
  }

  Status RunStage(const Node& node, std::vector<KnownValue> inputs,
                  std::vector<KnownValue>& outputs) {
    const std::string where = "stage '" + node.name + "'";
    const std::vector<KnownValue> captures = Read(node.implicit_inputs);
    if (node.op == "If") {
      const KnownValue& condition = inputs[0];
      if (condition.shape && NumElementsUnchecked(*condition.shape) != 1) {
        return InvalidArgumentError(where + ": the predicate is " +
                                    ShapeToString(*condition.shape) + ", not one value");
      }
      return RunBranches(node, captures, outputs).WithContext(where);
    }
    for (KnownValue& input : inputs) input.contents.reset();
    if (node.op == "MapRows") return RunRows(node, inputs, captures, outputs).WithContext(where);
    return RunLoop(node, inputs, captures, outputs).WithContext(where);
  }

  Status RunBranches(const Node& node, const std::vector<KnownValue>& captures,
                     std::vector<KnownValue>& outputs) {
    Checker yes(*node.GraphAttr("then_branch"), max_value_bytes_);
    Checker no(*node.GraphAttr("else_branch"), max_value_bytes_);
    PLEXUS_RETURN_IF_ERROR(yes.Run({}, captures));
    PLEXUS_RETURN_IF_ERROR(no.Run({}, captures));
    for (size_t i = 0; i < outputs.size(); ++i) {
      const KnownValue a = yes.Output(i), b = no.Output(i);
      outputs[i].dtype = a.dtype;
      if (a.shape == b.shape) outputs[i].shape = a.shape;
    }
    return OkStatus();
  }

  Status RunRows(const Node& node, std::vector<KnownValue> inputs,
                 const std::vector<KnownValue>& captures, std::vector<KnownValue>& outputs) {
    std::optional<int64_t> rows;
    for (KnownValue& input : inputs) {
      if (!input.shape) continue;
      if (input.shape->empty()) return InvalidArgumentError("a scalar has no axis to walk");
      int64_t& length = (*input.shape)[0];
      if (rows && *rows != length) {
        return InvalidArgumentError("its inputs differ in length: " + std::to_string(*rows) +
                                    " and " + std::to_string(length));
      }
      rows = length;
      length = 1;
    }
    Checker body(*node.GraphAttr("body"), max_value_bytes_);
    PLEXUS_RETURN_IF_ERROR(body.Run(std::move(inputs), captures));
    for (size_t i = 0; i < body.graph_.outputs().size(); ++i) {
      KnownValue made = body.Output(i);
      made.contents.reset();
      if (made.shape && made.shape->empty()) made.shape = Shape{1};
      if (made.shape &&
          (!rows || __builtin_mul_overflow((*made.shape)[0], *rows, &(*made.shape)[0]))) {
        made.shape.reset();
      }
      outputs[i] = std::move(made);
    }
    return OkStatus();
  }

  // The first turn is met by every request; later ones as far as the state keeps its shape.
  Status RunLoop(const Node& node, const std::vector<KnownValue>& inputs,
                 const std::vector<KnownValue>& captures, std::vector<KnownValue>& outputs) {
    std::vector<KnownValue> arguments = {{DType::kInt64, Shape{}, std::nullopt},
                                         {DType::kBool, Shape{}, std::nullopt}};
    arguments.insert(arguments.end(), inputs.begin() + 2, inputs.end());
    for (bool settled = false; !settled;) {
      Checker body(*node.GraphAttr("body"), max_value_bytes_);
      PLEXUS_RETURN_IF_ERROR(body.Run(arguments, captures));
      const KnownValue going = body.Output(0);
      if (going.shape && NumElementsUnchecked(*going.shape) != 1) {
        return InvalidArgumentError("the value of 'while' is " + ShapeToString(*going.shape) +
                                    ", not one value");
      }
      settled = true;
      for (size_t i = 2; i < arguments.size(); ++i) {
        if (!arguments[i].shape || body.Output(i - 1).shape == arguments[i].shape) continue;
        arguments[i].shape.reset();
        settled = false;
      }
    }
    for (size_t i = 0; i < outputs.size(); ++i) outputs[i] = arguments[2 + i];
    return OkStatus();
  }

  const Graph& graph_;
  const size_t max_value_bytes_;
  std::vector<KnownValue> known_;  // by value
};

}  // namespace

Result<std::vector<KnownValue>> InferStatically(const Graph& graph, size_t max_value_bytes) {
  std::vector<KnownValue> inputs;
  for (ValueId id : graph.inputs()) inputs.push_back(FromDeclaration(graph.value(id)));
  Checker checker(graph, max_value_bytes);
  PLEXUS_RETURN_IF_ERROR(checker.Run(std::move(inputs), {}));
  std::vector<KnownValue> results;
  for (size_t i = 0; i < graph.outputs().size(); ++i) results.push_back(checker.Output(i));
  return results;
}

Status CheckDeclaredShape(const SymbolicShape& declared, const Shape& shape) {
  if (!declared.has_rank) return OkStatus();
  bool fits = declared.dims.size() == shape.size();
  for (size_t d = 0; fits && d < shape.size(); ++d) {
    fits = !declared.dims[d].value || *declared.dims[d].value == shape[d];
  }
  if (fits) return OkStatus();
  return InvalidArgumentError("declared with shape " + declared.ToString() + ", the stages give " +
                              ShapeToString(shape));
}

}  // namespace plexus
