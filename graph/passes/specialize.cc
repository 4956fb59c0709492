#include <algorithm>

#include "graph/passes/passes.h"
#include "graph/passes/specializer.h"
#include "graph/shape_rules.h"

namespace plexus {
namespace {

KnownValue OfConstant(const Constant& constant) {
  KnownValue known{constant.dtype(), constant.shape(), std::nullopt};
  if (constant.num_elements() <= kMaxKnownElements) {
    Tensor plain = constant.PlainIfResident();
    if (plain.defined()) known.contents = std::move(plain);
  }
  return known;
}

}  // namespace

ValueId Specializer::NewValue(Value value, KnownValue known) {
  if (known.dtype == DType::kUndefined) known.dtype = value.dtype;
  value.dtype = known.dtype;
  value.shape = known.shape ? SymbolicShape::FromConcrete(*known.shape) : SymbolicShape();
  known_.push_back(std::move(known));
  return out_.AddValue(std::move(value));
}

ValueId Specializer::NewConstant(const std::string& name, Tensor contents) {
  KnownValue known{contents.dtype(), contents.shape(), contents};
  Value value;
  value.name = name;
  return NewValue(std::move(value), std::move(known));
}

std::string Specializer::Fresh(const std::string& wanted) {
  if (!names_) {
    names_ = std::make_unique<NameTable>(source_);
    for (const Value& value : out_.values()) (void)names_->Fresh(value.name);
  }
  return names_->Fresh(wanted);
}

// Constants of a source graph come over when something first reads them.
ValueId Specializer::Lookup(Scope& scope, ValueId id) {
  if (!id.valid()) return id;
  ValueId& mapped = scope.map[id.value()];
  if (mapped.valid()) return mapped;
  const Value& value = scope.source.value(id);
  PLEXUS_CHECK(value.IsConstant());
  Value copy{value.name, value.dtype, {}, value.constant};
  if (!scope.prefix.empty()) copy.name = Fresh(scope.prefix + value.name);
  mapped = NewValue(std::move(copy), OfConstant(*value.constant));
  return mapped;
}

// An input whose contents are known stays an input, and its readers get a constant.
ValueId Specializer::NewInput(ValueId source_id, const KnownValue& known) {
  if (!source_id.valid()) return source_id;
  const Value& value = source_.value(source_id);
  KnownValue outside = known;
  outside.contents.reset();
  const ValueId id = NewValue({value.name, value.dtype, {}, nullptr}, std::move(outside));
  root_->map[source_id.value()] =
      known.contents ? NewConstant(Fresh(value.name + "_known"), *known.contents) : id;
  return id;
}

void Specializer::Begin(std::span<const KnownValue> inputs, std::span<const KnownValue> captures) {
  root_ = std::make_unique<Scope>(Scope{source_, "", {}});
  root_->map.resize(source_.num_values());
  for (size_t i = 0; i < source_.inputs().size(); ++i) {
    out_.inputs().push_back(NewInput(source_.inputs()[i], inputs[i]));
  }
  for (size_t i = 0; i < source_.captures().size(); ++i) {
    out_.captures().push_back(NewInput(source_.captures()[i], captures[i]));
  }
}

Status Specializer::Run() { return RunNodes(*root_); }

Status Specializer::RunNodes(Scope& scope) {
  if (depth_ > 0 || !scope.prefix.empty()) {
    work_ += static_cast<int64_t>(scope.source.num_nodes());
  }
  for (const Node& node : scope.source.nodes()) PLEXUS_RETURN_IF_ERROR(RunNode(scope, node));
  return OkStatus();
}

Status Specializer::RunNode(Scope& scope, const Node& node) {
  for (ValueId id : node.inputs) Lookup(scope, id);
  for (ValueId id : node.implicit_inputs) Lookup(scope, id);
  if (FoldShape(scope, node) || FoldIdentity(scope, node)) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const bool folded, FoldKnown(scope, node));
  if (folded) return OkStatus();
  return RunControlFlow(scope, node);
}

Status Specializer::RunControlFlow(Scope& scope, const Node& node) {
  const bool standard = node.domain.empty();
  if (standard && node.op == "If") return RunIf(scope, node);
  if (standard && node.op == "Loop") return RunLoop(scope, node);
  if (standard && node.op == "Scan") return RunScan(scope, node);
  if (!standard && node.op == "MapRows") return RunMapRows(scope, node);
  if (!standard && node.op == "FanOut") return RunFanOut(scope, node);
  if (standard && node.version < 13 &&
      (node.op == "Softmax" || node.op == "LogSoftmax" || node.op == "Hardmax")) {
    return RunOldSoftmax(scope, node);
  }
  return Emit(scope, node);
}

// Shape and Size need no contents.
bool Specializer::FoldShape(Scope& scope, const Node& node) {
  if (!node.domain.empty() || node.inputs.empty() || node.outputs.size() != 1) return false;
  const bool is_shape = node.op == "Shape", is_size = node.op == "Size";
  if (!is_shape && !is_size) return false;
  const KnownValue& x = Known(Lookup(scope, node.inputs[0]));
  if (!x.shape) return false;
  Tensor result;
  if (is_size) {
    result = Tensor::ScalarInt64(NumElementsUnchecked(*x.shape));
  } else {
    const int64_t rank = static_cast<int64_t>(x.shape->size());
    int64_t start = node.IntAttr("start", 0), end = node.IntAttr("end", rank);
    if (start < 0) start += rank;
    if (end < 0) end += rank;
    start = std::clamp<int64_t>(start, 0, rank);
    end = std::clamp<int64_t>(end, start, rank);
    result = Tensor::VectorInt64({x.shape->begin() + start, x.shape->begin() + end});
  }
  KnownValue known{DType::kInt64, result.shape(), std::move(result)};
  SetKnown(scope, node, 0, std::move(known));
  return true;
}

// Inlined branches are full of these.
bool Specializer::FoldIdentity(Scope& scope, const Node& node) {
  if (node.op != "Identity" || !node.domain.empty() || node.inputs.size() != 1) return false;
  Alias(scope, node.outputs[0], Lookup(scope, node.inputs[0]));
  return true;
}

// Gives output i of a source node a value of the result.
void Specializer::SetKnown(Scope& scope, const Node& node, size_t i, KnownValue known) {
  if (!node.outputs[i].valid()) return;
  const Value& made = scope.source.value(node.outputs[i]);
  Value value{
      scope.prefix.empty() ? made.name : Fresh(scope.prefix + made.name), made.dtype, {}, nullptr};
  scope.map[node.outputs[i].value()] = NewValue(std::move(value), std::move(known));
}

// Runs the node now when everything it reads is known and what it makes is small.
Result<bool> Specializer::FoldKnown(Scope& scope, const Node& node) {
  if (node.inputs.empty() && node.implicit_inputs.empty() && node.attributes.empty()) return false;
  int64_t elements = 0;
  const auto is_known = [&](ValueId id) {
    if (!id.valid()) return true;
    const KnownValue& known = Known(scope.map[id.value()]);
    if (!known.contents) return false;
    elements += known.contents->num_elements();
    return true;
  };
  if (!std::all_of(node.inputs.begin(), node.inputs.end(), is_known)) return false;
  if (!std::all_of(node.implicit_inputs.begin(), node.implicit_inputs.end(), is_known))
    return false;
  if (elements > kMaxKnownElements || !MayFold(node) || !evaluator_.Supports(node)) return false;

  pointers_.assign(node.inputs.size(), nullptr);
  std::vector<Tensor> inputs(node.inputs.size()), captures(node.implicit_inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!node.inputs[i].valid()) continue;
    pointers_[i] = &Known(scope.map[node.inputs[i].value()]);
    inputs[i] = *pointers_[i]->contents;
  }
  for (size_t i = 0; i < captures.size(); ++i) {
    if (!node.implicit_inputs[i].valid()) continue;
    captures[i] = *Known(scope.map[node.implicit_inputs[i].value()]).contents;
  }
  if (shape_rules::FindRule(node) != nullptr) {
    PLEXUS_RETURN_IF_ERROR(shape_rules::InferInto(scope.source, node, pointers_, inferred_));
    for (const KnownValue& result : inferred_) {
      if (result.shape && NumElementsUnchecked(*result.shape) > kMaxKnownElements) return false;
    }
  }
  Result<std::vector<Tensor>> results = evaluator_.Evaluate(scope.source, node, inputs, captures);
  if (!results.ok()) {
    // Not known, or too much work for here: the run will tell.
    if (results.status().code() == StatusCode::kUnimplemented ||
        results.status().code() == StatusCode::kResourceExhausted) {
      return false;
    }
    return results.status();  // names the node
  }
  if (results->size() != node.outputs.size()) return false;
  for (size_t i = 0; i < results->size(); ++i) {
    if (node.outputs[i].valid() && !(*results)[i].defined()) return false;
  }
  for (size_t i = 0; i < results->size(); ++i) {
    Tensor& t = (*results)[i];
    if (!node.outputs[i].valid()) continue;
    KnownValue known{t.dtype(), t.shape(), std::nullopt};
    known.contents = std::move(t);
    SetKnown(scope, node, i, std::move(known));
  }
  return true;
}

// The node stays: its known inputs become constants, its outputs get what the rules say.
Status Specializer::Emit(Scope& scope, const Node& node) {
  Node copy = node;
  if (!scope.prefix.empty()) copy.name = scope.prefix + node.name;
  const auto wire = [&](ValueId& id) {
    if (!id.valid()) return;
    id = scope.map[id.value()];
    Value& value = out_.value(id);
    const KnownValue& known = Known(id);
    if (known.contents && !value.IsConstant()) {
      value.constant = ConstantStore::Get().Intern(*known.contents);
    }
  };
  for (ValueId& id : copy.inputs) wire(id);
  for (ValueId& id : copy.implicit_inputs) wire(id);
  pointers_.assign(copy.inputs.size(), nullptr);
  for (size_t i = 0; i < copy.inputs.size(); ++i) {
    if (copy.inputs[i].valid()) pointers_[i] = &Known(copy.inputs[i]);
  }
  if (shape_rules::FindRule(node) != nullptr) {
    PLEXUS_RETURN_IF_ERROR(shape_rules::InferInto(scope.source, node, pointers_, inferred_));
  } else {
    inferred_.assign(node.outputs.size(), KnownValue());
  }
  std::vector<KnownValue> inferred = std::move(inferred_);
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    SetKnown(scope, node, i, std::move(inferred[i]));
    copy.outputs[i] = scope.map[node.outputs[i].value()];
  }
  inferred_ = std::move(inferred);
  out_.AddNode(std::move(copy));
  return OkStatus();
}

// Outputs keep their names: the value that took an output's place is renamed, or, where it is an
// input, a constant or another output, an Identity makes the output.
Result<Graph> Specializer::Finish() {
  std::vector<bool> made(out_.num_values(), false);
  for (const Node& node : out_.nodes()) {
    for (ValueId id : node.outputs) {
      if (id.valid()) made[id.value()] = true;
    }
  }
  for (ValueId source_id : source_.outputs()) {
    ValueId id = Lookup(*root_, source_id);
    const Value& wanted = source_.value(source_id);
    const bool taken = id.value() >= made.size() || !made[id.value()];
    if (!taken && out_.value(id).name != wanted.name) out_.value(id).name = wanted.name;
    if (taken) {
      KnownValue known = Known(id);
      if (known.contents && !out_.value(id).IsConstant()) {
        out_.value(id).constant = ConstantStore::Get().Intern(*known.contents);
      }
      known.contents.reset();
      if (out_.value(id).name == wanted.name) out_.value(id).name = Fresh(wanted.name + "_value");
      const ValueId result = NewValue({wanted.name, wanted.dtype, {}, nullptr}, std::move(known));
      Node identity{"Identity", "", 18, wanted.name, {id}, {result}, {}, {}, 0};
      out_.AddNode(std::move(identity));
      id = result;
    } else {
      made[id.value()] = false;  // a second output of the same value needs its own
    }
    out_.outputs().push_back(id);
  }
  out_.RemoveDead();
  return std::move(out_);
}

namespace {

Status CheckInput(const Graph& graph, size_t i, const KnownInput& given) {
  const Value& declared = graph.value(graph.inputs()[i]);
  const std::string what = "input '" + declared.name + "' of graph '" + graph.name + "': ";
  if (declared.dtype != DType::kUndefined && given.dtype != declared.dtype) {
    return InvalidArgumentError(what + "is " + std::string(DTypeName(given.dtype)) + ", wanted " +
                                std::string(DTypeName(declared.dtype)));
  }
  if (!given.shape) {
    return given.contents ? InvalidArgumentError(what + "contents, but no shape") : OkStatus();
  }
  const Shape& shape = *given.shape;
  const Status size = NumElements(shape).status();
  if (!size.ok()) return size.WithContext(what);
  if (declared.shape.has_rank) {
    bool fits = declared.shape.dims.size() == shape.size();
    for (size_t d = 0; fits && d < shape.size(); ++d) {
      const auto& dim = declared.shape.dims[d].value;
      fits = !dim || *dim == shape[d];
    }
    if (!fits) {
      return InvalidArgumentError(what + "has shape " + ShapeToString(shape) + ", wanted " +
                                  declared.shape.ToString());
    }
  }
  if (given.contents &&
      (given.contents->dtype() != given.dtype || given.contents->shape() != shape)) {
    return InvalidArgumentError(what + "the given contents have another type or shape");
  }
  return OkStatus();
}

}  // namespace

Result<Graph> Specialize(const Graph& graph, std::span<const KnownInput> inputs,
                         const Evaluator& evaluator) {
  if (inputs.size() != graph.inputs().size()) {
    return InvalidArgumentError("graph '" + graph.name + "' has " +
                                std::to_string(graph.inputs().size()) + " inputs, given " +
                                std::to_string(inputs.size()));
  }
  std::vector<KnownValue> known;
  for (size_t i = 0; i < inputs.size(); ++i) {
    PLEXUS_RETURN_IF_ERROR(CheckInput(graph, i, inputs[i]));
    known.push_back({inputs[i].dtype, inputs[i].shape, inputs[i].contents});
  }
  int64_t work = 0;
  Specializer specializer(graph, evaluator, 0, work);
  specializer.Begin(known, {});
  PLEXUS_RETURN_IF_ERROR(specializer.Run().WithContext("graph '" + graph.name + "'"));
  return specializer.Finish();
}

}  // namespace plexus
