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

StaticValue Static(KnownValue known) {
  StaticValue value{std::move(known), std::nullopt};
  value.sizes = value.known.shape;
  return value;
}

// A graph input: its declaration holds.
StaticValue FromInput(const Value& value) {
  return {FromDeclaration(value), ToOpenShape(value.shape)};
}

StaticValue WithSizes(DType dtype, OpenShape sizes) {
  StaticValue value;
  value.known.dtype = dtype;
  const bool open = !sizes || std::count(sizes->begin(), sizes->end(), kOpenSize) > 0;
  if (!open) value.known.shape = sizes;
  value.sizes = std::move(sizes);
  return value;
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

bool Contradict(const OpenShape& a, const OpenShape& b) {
  if (!a || !b) return false;
  if (a->size() != b->size()) return true;
  for (size_t d = 0; d < a->size(); ++d) {
    if ((*a)[d] != (*b)[d] && (*a)[d] != kOpenSize && (*b)[d] != kOpenSize) return true;
  }
  return false;
}

std::string Sizes(const OpenShape& sizes) {
  return sizes ? ShapeToString(*sizes) : "of unknown rank";
}

// One walk of a graph; the bodies of a pipeline's stages are walked too: who wrote them meant them
// to run. A model's own control flow is left to the run.
class Checker {
 public:
  // `stages`: for messages; nullptr for none.
  Checker(const Graph& graph, size_t max_value_bytes, const WiredStages* stages)
      : graph_(graph),
        max_value_bytes_(max_value_bytes),
        stages_(stages),
        values_(graph.num_values()),
        wanted_(graph.num_values()) {
    for (size_t i = 0; i < values_.size(); ++i) {
      const Value& value = graph.value(ValueId(static_cast<uint32_t>(i)));
      if (value.IsConstant()) values_[i] = Static(FromDeclaration(value));
    }
    for (ValueId id : graph.outputs()) wanted_[id.value()] = true;
    for (auto node = graph.nodes().rbegin(); node != graph.nodes().rend(); ++node) {
      if (!IsWanted(*node)) continue;
      for (const auto* list : {&node->inputs, &node->implicit_inputs}) {
        for (ValueId id : *list) {
          if (id.valid()) wanted_[id.value()] = true;
        }
      }
    }
  }

  Status Run(std::vector<StaticValue> inputs, std::vector<StaticValue> captures) {
    for (size_t i = 0; i < inputs.size(); ++i) Set(graph_.inputs()[i], std::move(inputs[i]));
    for (size_t i = 0; i < captures.size(); ++i) Set(graph_.captures()[i], std::move(captures[i]));
    for (const Node& node : graph_.nodes()) {
      if (!IsWanted(node)) continue;
      Status status = RunNode(node);
      if (!status.ok()) return stages_ == nullptr ? status : Explain(node, std::move(status));
    }
    return OkStatus();
  }

  StaticValue Output(size_t i) const { return values_[graph_.outputs()[i].value()]; }

 private:
  bool IsWanted(const Node& node) const {
    return std::any_of(node.outputs.begin(), node.outputs.end(),
                       [&](ValueId id) { return id.valid() && wanted_[id.value()]; });
  }
  void Set(ValueId id, StaticValue value) {
    if (id.valid()) values_[id.value()] = std::move(value);
  }
  std::vector<StaticValue> Read(const std::vector<ValueId>& ids) const {
    std::vector<StaticValue> values;
    for (ValueId id : ids) values.push_back(id.valid() ? values_[id.value()] : StaticValue());
    return values;
  }

  Status RunNode(const Node& node) {
    std::vector<StaticValue> outputs(node.outputs.size());
    if (node.HasAttr("stage") && node.op != "FanOut") {
      PLEXUS_RETURN_IF_ERROR(RunStage(node, Read(node.inputs), outputs));
    } else if (node.op == "MapRows" && stages_ != nullptr && stages_->count(node.name) > 0) {
      PLEXUS_RETURN_IF_ERROR(RunRows(node, Read(node.inputs), {}, outputs));
    } else if (HasShapeRule(node)) {
      PLEXUS_RETURN_IF_ERROR(RunRule(node, outputs));
    }
    for (size_t i = 0; i < node.outputs.size() && i < outputs.size(); ++i) {
      if (!node.outputs[i].valid()) continue;
      PLEXUS_RETURN_IF_ERROR(CheckSize(outputs[i].known, node, max_value_bytes_));
      values_[node.outputs[i].value()] = std::move(outputs[i]);
    }
    return OkStatus();
  }

  Status RunRule(const Node& node, std::vector<StaticValue>& outputs) {
    std::vector<KnownValue> inputs;
    std::vector<OpenShape> sizes;
    bool open = false;
    for (ValueId id : node.inputs) {
      inputs.push_back(id.valid() ? values_[id.value()].known : KnownValue());
      sizes.push_back(id.valid() ? values_[id.value()].sizes : std::nullopt);
      open |= id.valid() && !inputs.back().shape;
    }
    Result<std::vector<KnownValue>> inferred = InferNode(graph_, node, inputs);
    if (!inferred.ok()) {
      const bool no_rule = inferred.status().code() == StatusCode::kUnimplemented;
      return no_rule ? OkStatus() : inferred.status();
    }
    for (size_t i = 0; i < outputs.size(); ++i) outputs[i] = Static(std::move((*inferred)[i]));
    if (!open) return OkStatus();
    PLEXUS_ASSIGN_OR_RETURN(std::vector<OpenShape> shapes,
                            InferOpenShapes(graph_, node, inputs, sizes));
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].sizes || !shapes[i]) continue;
      outputs[i] = WithSizes(outputs[i].known.dtype, std::move(shapes[i]));
    }
    return OkStatus();
  }

  Status RunStage(const Node& node, std::vector<StaticValue> inputs,
                  std::vector<StaticValue>& outputs) {
    const std::string where = "stage '" + node.name + "'";
    const std::vector<StaticValue> captures = Read(node.implicit_inputs);
    if (node.op == "If") {
      const KnownValue& condition = inputs[0].known;
      if (condition.shape && NumElementsUnchecked(*condition.shape) != 1) {
        return InvalidArgumentError(where + ": the predicate is " +
                                    ShapeToString(*condition.shape) + ", not one value");
      }
      return RunBranches(node, captures, outputs).WithContext(where);
    }
    for (StaticValue& input : inputs) input.known.contents.reset();
    if (node.op == "MapRows") return RunRows(node, inputs, captures, outputs).WithContext(where);
    return RunLoop(node, inputs, captures, outputs).WithContext(where);
  }

  Status RunBranches(const Node& node, const std::vector<StaticValue>& captures,
                     std::vector<StaticValue>& outputs) {
    Checker yes(*node.GraphAttr("then_branch"), max_value_bytes_, stages_);
    Checker no(*node.GraphAttr("else_branch"), max_value_bytes_, stages_);
    PLEXUS_RETURN_IF_ERROR(yes.Run({}, captures));
    PLEXUS_RETURN_IF_ERROR(no.Run({}, captures));
    for (size_t i = 0; i < outputs.size(); ++i) {
      const StaticValue a = yes.Output(i), b = no.Output(i);
      outputs[i] = WithSizes(a.known.dtype, CommonSizes(a.sizes, b.sizes));
    }
    return OkStatus();
  }

  Status RunRows(const Node& node, std::vector<StaticValue> inputs,
                 const std::vector<StaticValue>& captures, std::vector<StaticValue>& outputs) {
    std::optional<int64_t> rows;
    for (StaticValue& input : inputs) {
      if (!input.sizes) continue;
      if (input.sizes->empty()) return InvalidArgumentError("a scalar has no axis to walk");
      int64_t& length = (*input.sizes)[0];
      if (rows && length != kOpenSize && *rows != length) {
        return InvalidArgumentError("its inputs differ in length: " + std::to_string(*rows) +
                                    " and " + std::to_string(length));
      }
      if (length != kOpenSize) rows = length;
      length = 1;
      input = WithSizes(input.known.dtype, std::move(input.sizes));
    }
    // A model as body has names of its own.
    const bool is_model = !node.HasAttr("stage");
    Checker body(*node.GraphAttr("body"), max_value_bytes_, is_model ? nullptr : stages_);
    PLEXUS_RETURN_IF_ERROR(body.Run(std::move(inputs), captures));
    for (size_t i = 0; i < body.graph_.outputs().size(); ++i) {
      StaticValue made = body.Output(i);
      made.known.contents.reset();
      std::optional<Shape>& shape = made.known.shape;
      if (shape && shape->empty()) shape = Shape{1};
      // Nothing is known of what no rows give.
      if (shape && (!rows || __builtin_mul_overflow((*shape)[0], *rows, &(*shape)[0]))) {
        shape.reset();
      }
      outputs[i] = Static(std::move(made.known));
    }
    return OkStatus();
  }

  // The first turn is met by every request; later ones as far as the state keeps its shape.
  Status RunLoop(const Node& node, const std::vector<StaticValue>& inputs,
                 const std::vector<StaticValue>& captures, std::vector<StaticValue>& outputs) {
    std::vector<StaticValue> arguments = {Static({DType::kInt64, Shape{}, std::nullopt}),
                                          Static({DType::kBool, Shape{}, std::nullopt})};
    arguments.insert(arguments.end(), inputs.begin() + 2, inputs.end());
    for (bool settled = false; !settled;) {
      Checker body(*node.GraphAttr("body"), max_value_bytes_, stages_);
      PLEXUS_RETURN_IF_ERROR(body.Run(arguments, captures));
      const KnownValue going = body.Output(0).known;
      if (going.shape && NumElementsUnchecked(*going.shape) != 1) {
        return InvalidArgumentError("the value of 'while' is " + ShapeToString(*going.shape) +
                                    ", not one value");
      }
      settled = true;
      for (size_t i = 2; i < arguments.size(); ++i) {
        StaticValue& state = arguments[i];
        OpenShape both = CommonSizes(state.sizes, body.Output(i - 1).sizes);
        if (both == state.sizes) continue;
        state = WithSizes(state.known.dtype, std::move(both));
        settled = false;
      }
    }
    for (size_t i = 0; i < outputs.size(); ++i) outputs[i] = arguments[2 + i];
    return OkStatus();
  }

  // The longest stage name that the node's begins with.
  WiredStages::const_iterator StageOf(const Node& node) const {
    for (size_t end = node.name.size(); end != std::string::npos && end > 0;
         end = node.name.rfind('/', end - 1)) {
      const auto it = stages_->find(std::string_view(node.name).substr(0, end));
      if (it != stages_->end()) return it;
    }
    return stages_->end();
  }

  Status Explain(const Node& node, Status status) const;

  const Graph& graph_;
  const size_t max_value_bytes_;
  const WiredStages* const stages_;
  std::vector<StaticValue> values_;  // by value
  std::vector<bool> wanted_;         // by value: an output needs it
};

std::vector<StaticValue> FromInputs(const Graph& graph) {
  std::vector<StaticValue> inputs;
  for (ValueId id : graph.inputs()) inputs.push_back(FromInput(graph.value(id)));
  return inputs;
}

Status Checker::Explain(const Node& node, Status status) const {
  const auto it = StageOf(node);
  if (it == stages_->end()) return status;
  const WiredStage& stage = it->second;
  std::string others;
  for (const WiredStage::Input& input : stage.inputs) {
    if (input.value.value() >= values_.size()) return status;  // a model's attribute 'stage'
    const OpenShape& sizes = values_[input.value.value()].sizes;
    if (Contradict(input.declared, sizes)) {
      return status.WithContext("stage '" + it->first + "': input '" + input.name + "' of model '" +
                                stage.model + "' is declared " + Sizes(input.declared) + ", '" +
                                input.reference + "' is " + Sizes(sizes));
    }
    others += (others.empty() ? ", given '" : ", '") + input.reference + "' " + Sizes(sizes);
  }
  return status.WithContext("stage '" + it->first + "'" + others);
}

}  // namespace

Result<std::vector<StaticValue>> InferStatically(const Graph& graph, size_t max_value_bytes) {
  Checker checker(graph, max_value_bytes, nullptr);
  PLEXUS_RETURN_IF_ERROR(checker.Run(FromInputs(graph), {}));
  std::vector<StaticValue> results;
  for (size_t i = 0; i < graph.outputs().size(); ++i) results.push_back(checker.Output(i));
  return results;
}

Status CheckStages(const Graph& graph, const WiredStages& stages) {
  Checker checker(graph, SIZE_MAX, &stages);
  Status status = checker.Run(FromInputs(graph), {});
  if (status.ok()) return status;
  for (const auto& [name, stage] : stages) {
    if (stage.graph == nullptr) continue;
    if (!InferStatically(*stage.graph, SIZE_MAX).ok()) return OkStatus();
  }
  return status;
}

Status CheckDeclaredShape(const SymbolicShape& declared, const Shape& shape) {
  if (!declared.has_rank) return OkStatus();
  bool fits = declared.dims.size() == shape.size();
  for (size_t d = 0; fits && d < shape.size(); ++d) {
    fits = !declared.dims[d].value || shape[d] == kOpenSize || *declared.dims[d].value == shape[d];
  }
  if (fits) return OkStatus();
  return InvalidArgumentError("declared with shape " + declared.ToString() + ", the stages give " +
                              ShapeToString(shape));
}

}  // namespace plexus
