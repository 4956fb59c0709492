// Specialize's control flow: branches taken, loops unrolled, bodies inferred on their own.
#include <algorithm>

#include "graph/passes/level.h"
#include "graph/passes/specializer.h"
#include "graph/shape_rules.h"

namespace plexus {

std::optional<std::vector<int64_t>> Specializer::KnownInts(ValueId id) const {
  if (!id.valid() || !Known(id).contents) return std::nullopt;
  Result<std::vector<int64_t>> values = ToInt64Vector(*Known(id).contents);
  if (!values.ok()) return std::nullopt;
  return std::move(values).value();
}

// Infers a subgraph on its own, to learn the shapes that it makes; nothing when it cannot run with
// these inputs: it may never be entered.
std::unique_ptr<Specializer> Specializer::DryRun(Scope& scope, const Node& node, const Graph& body,
                                                 const std::vector<KnownValue>& inputs) {
  if (!MayEnter() || body.captures().size() != node.implicit_inputs.size()) return nullptr;
  auto run = std::make_unique<Specializer>(body, evaluator_, depth_ + 1, work_);
  std::vector<KnownValue> captures;
  for (ValueId id : node.implicit_inputs) {
    captures.push_back(id.valid() ? Known(scope.map[id.value()]) : KnownValue());
  }
  run->Begin(inputs, captures);
  return run->Run().ok() ? std::move(run) : nullptr;
}

void Specializer::Learn(ValueId id, DType dtype, const std::optional<Shape>& shape) {
  if (dtype != DType::kUndefined) known_[id.value()].dtype = out_.value(id).dtype = dtype;
  if (!shape) return;
  known_[id.value()].shape = *shape;
  out_.value(id).shape = SymbolicShape::FromConcrete(*shape);
}

Status Specializer::RunIf(Scope& scope, const Node& node) {
  const Graph* branches[] = {node.GraphAttr("then_branch"), node.GraphAttr("else_branch")};
  if (!branches[0] || !branches[1] || node.inputs.size() != 1 ||
      branches[0]->outputs().size() != node.outputs.size() ||
      branches[1]->outputs().size() != node.outputs.size()) {
    return InvalidArgumentError("If node '" + node.name + "' has malformed branches");
  }
  const auto condition = KnownInts(scope.map[node.inputs[0].value()]);
  if (condition && condition->size() == 1) {
    const Graph& branch = *branches[(*condition)[0] != 0 ? 0 : 1];
    Scope inner{branch, scope.prefix + node.name + "/", {}};
    inner.map.resize(branch.num_values());
    for (size_t i = 0; i < node.implicit_inputs.size(); ++i) {
      const ValueId capture = branch.captures()[i];
      if (capture.valid()) {
        inner.map[capture.value()] = scope.map[node.implicit_inputs[i].value()];
      }
    }
    PLEXUS_RETURN_IF_ERROR(RunNodes(inner));
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      if (node.outputs[i].valid()) {
        Alias(scope, node.outputs[i], Lookup(inner, branch.outputs()[i]));
      }
    }
    return OkStatus();
  }
  std::unique_ptr<Specializer> runs[2] = {DryRun(scope, node, *branches[0], {}),
                                          DryRun(scope, node, *branches[1], {})};
  Node copy = node;
  std::vector<KnownValue> agreed(node.outputs.size());
  for (size_t i = 0; runs[0] && runs[1] && i < node.outputs.size(); ++i) {
    const KnownValue a = runs[0]->KnownOutput(i), &b = runs[1]->KnownOutput(i);
    if (a.dtype == b.dtype) agreed[i].dtype = a.dtype;
    if (a.shape == b.shape) agreed[i].shape = a.shape;
  }
  const char* names[] = {"then_branch", "else_branch"};
  for (int b = 0; b < 2; ++b) {
    // A pipeline's branches stay the graphs that they are, so that their plans serve every shape
    // that the pipeline is given.
    if (!runs[b] || node.HasAttr("stage")) continue;
    PLEXUS_ASSIGN_OR_RETURN(Graph branch, runs[b]->Finish());
    copy.attributes[names[b]] = std::make_shared<const Graph>(std::move(branch));
  }
  PLEXUS_RETURN_IF_ERROR(Emit(scope, copy));
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    Learn(scope.map[node.outputs[i].value()], agreed[i].dtype, agreed[i].shape);
  }
  return OkStatus();
}

Status Specializer::RunLoop(Scope& scope, const Node& node) {
  const Graph* body = node.GraphAttr("body");
  const size_t carried = node.inputs.size() < 2 ? 0 : node.inputs.size() - 2;
  if (!body || node.inputs.size() < 2 || body->inputs().size() != carried + 2 ||
      body->outputs().size() != node.outputs.size() + 1 || node.outputs.size() < carried) {
    return InvalidArgumentError("Loop node '" + node.name + "' has a malformed body");
  }
  std::optional<int64_t> trips;
  if (node.inputs[0].valid()) {
    const auto m = KnownInts(scope.map[node.inputs[0].value()]);
    if (m && m->size() == 1) trips = std::max<int64_t>(0, (*m)[0]);
  }
  if (trips && *trips <= kMaxUnrolledTrips && MayEnter()) {
    PLEXUS_ASSIGN_OR_RETURN(const bool done, Unroll(scope, node, *body, *trips));
    if (done) return OkStatus();
  }
  std::vector<KnownValue> inputs(2 + carried);
  inputs[0] = {DType::kInt64, Shape{}, std::nullopt};
  inputs[1] = {DType::kBool, Shape{}, std::nullopt};
  for (size_t i = 0; i < carried; ++i) {
    if (!node.inputs[2 + i].valid()) continue;
    inputs[2 + i] = Known(scope.map[node.inputs[2 + i].value()]);
    inputs[2 + i].contents.reset();
  }
  // A carried shape is known if one turn leaves it as it was; assume so for all, drop what moves,
  // until nothing moves.
  std::unique_ptr<Specializer> run;
  for (bool settled = false; !settled;) {
    run = DryRun(scope, node, *body, inputs);
    settled = true;
    for (size_t i = 0; run && i < carried; ++i) {
      if (!inputs[2 + i].shape || run->KnownOutput(1 + i).shape == inputs[2 + i].shape) continue;
      inputs[2 + i].shape.reset();
      settled = false;
    }
  }
  PLEXUS_RETURN_IF_ERROR(Emit(scope, node));
  for (size_t i = 0; run && i < node.outputs.size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    Learn(scope.map[node.outputs[i].value()], run->KnownOutput(1 + i).dtype,
          i < carried ? inputs[2 + i].shape : std::nullopt);
  }
  return OkStatus();
}

// False, with nothing changed, when a condition turns out to depend on data.
Result<bool> Specializer::Unroll(Scope& scope, const Node& node, const Graph& body, int64_t trips) {
  const size_t carried = node.inputs.size() - 2, scans = node.outputs.size() - carried;
  const size_t nodes_before = out_.num_nodes();
  bool go_on = true;
  if (node.inputs[1].valid()) {
    const auto condition = KnownInts(scope.map[node.inputs[1].value()]);
    if (!condition || condition->size() != 1) return false;
    go_on = (*condition)[0] != 0;
  }
  std::vector<ValueId> state;
  for (size_t i = 0; i < carried; ++i) {
    if (!node.inputs[2 + i].valid()) return false;
    state.push_back(scope.map[node.inputs[2 + i].value()]);
  }
  const auto give_up = [&] {
    out_.nodes().resize(nodes_before);
    return false;
  };
  std::vector<std::vector<ValueId>> collected(scans);
  for (int64_t trip = 0; trip < trips && go_on; ++trip) {
    Scope inner{body, scope.prefix + node.name + "/" + std::to_string(trip) + "/", {}};
    inner.map.resize(body.num_values());
    for (size_t i = 0; i < node.implicit_inputs.size(); ++i) {
      const ValueId capture = body.captures()[i];
      if (capture.valid()) {
        inner.map[capture.value()] = scope.map[node.implicit_inputs[i].value()];
      }
    }
    const Tensor yes = Tensor::Of<uint8_t>(DType::kBool, {}, {1});
    inner.map[body.inputs()[0].value()] =
        NewConstant(Fresh(inner.prefix + "trip"), Tensor::ScalarInt64(trip));
    inner.map[body.inputs()[1].value()] = NewConstant(Fresh(inner.prefix + "condition"), yes);
    for (size_t i = 0; i < carried; ++i) inner.map[body.inputs()[2 + i].value()] = state[i];
    PLEXUS_RETURN_IF_ERROR(RunNodes(inner));
    if (out_.num_nodes() - nodes_before > kMaxUnrolledNodes || !MayEnter()) return give_up();
    for (size_t i = 0; i < carried; ++i) state[i] = Lookup(inner, body.outputs()[1 + i]);
    for (size_t i = 0; i < scans; ++i) {
      collected[i].push_back(Lookup(inner, body.outputs()[1 + carried + i]));
    }
    const auto condition = KnownInts(Lookup(inner, body.outputs()[0]));
    if (!condition || condition->size() != 1) return give_up();
    go_on = (*condition)[0] != 0;
  }
  if (go_on && node.HasAttr("at_limit")) return give_up();  // the run reports it
  if (scans > 0 && collected[0].empty()) return give_up();
  for (size_t i = 0; i < carried; ++i) {
    if (node.outputs[i].valid()) Alias(scope, node.outputs[i], state[i]);
  }
  PLEXUS_RETURN_IF_ERROR(FinishScanOutputs(scope, node, body, collected));
  return true;
}

// Each scan output is its turns' values, unsqueezed and joined.
Status Specializer::FinishScanOutputs(Scope& scope, const Node& node, const Graph& body,
                                      const std::vector<std::vector<ValueId>>& collected) {
  const size_t carried = node.outputs.size() - collected.size();
  for (size_t i = 0; i < collected.size(); ++i) {
    const ValueId target = node.outputs[carried + i];
    if (!target.valid()) continue;
    // A little graph of its own, run through the same walk, so that shapes and contents follow.
    Graph join;
    const ValueId axes =
        join.AddConstant("axes", ConstantStore::Get().Intern(Tensor::VectorInt64({0})));
    Scope inner{join, scope.prefix + node.name + "/scan" + std::to_string(i) + "/", {}};
    Node concat{"Concat", "", node.version, "join", {}, {}, {}, {}, 0};
    concat.attributes["axis"] = int64_t{0};
    std::vector<ValueId> parts;
    for (size_t trip = 0; trip < collected[i].size(); ++trip) {
      const std::string turn = std::to_string(trip);
      const DType dtype = body.value(body.outputs()[1 + carried + i]).dtype;
      const ValueId part = join.AddValue({"part" + turn, dtype, {}, nullptr});
      const ValueId wide = join.AddValue({"wide" + turn, dtype, {}, nullptr});
      join.AddNode({"Unsqueeze", "", 13, "unsqueeze" + turn, {part, axes}, {wide}, {}, {}, 0});
      parts.push_back(part);
      concat.inputs.push_back(wide);
    }
    const ValueId result = join.AddValue({"joined", DType::kUndefined, {}, nullptr});
    concat.outputs.push_back(result);
    join.AddNode(std::move(concat));
    inner.map.resize(join.num_values());
    for (size_t trip = 0; trip < parts.size(); ++trip) {
      inner.map[parts[trip].value()] = collected[i][trip];
    }
    PLEXUS_RETURN_IF_ERROR(RunNodes(inner));
    Alias(scope, target, Lookup(inner, result));
  }
  return OkStatus();
}

// Scan (opset 9 and later): states keep their shapes, scan outputs gain the sequence's length.
Status Specializer::RunScan(Scope& scope, const Node& node) {
  PLEXUS_RETURN_IF_ERROR(Emit(scope, node));
  const Graph* body = node.GraphAttr("body");
  const int64_t scanned = node.IntAttr("num_scan_inputs", 0);
  if (node.version < 9 || !body || scanned < 1 ||
      static_cast<size_t>(scanned) > node.inputs.size() ||
      body->inputs().size() != node.inputs.size() ||
      body->outputs().size() != node.outputs.size()) {
    return OkStatus();
  }
  const size_t states = node.inputs.size() - static_cast<size_t>(scanned);
  if (states > node.outputs.size()) return OkStatus();
  const std::vector<int64_t> axes = node.IntsAttr("scan_input_axes");
  std::optional<int64_t> length;
  std::vector<KnownValue> inputs;
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid()) return OkStatus();
    inputs.push_back(Known(scope.map[node.inputs[i].value()]));
    inputs[i].contents.reset();
    if (i < states || !inputs[i].shape) continue;
    const int64_t axis = axes.size() > i - states ? axes[i - states] : 0;
    PLEXUS_ASSIGN_OR_RETURN(
        const int64_t at,
        shape_rules::NormalizeAxis(axis, static_cast<int64_t>(inputs[i].shape->size())));
    length = (*inputs[i].shape)[at];
    inputs[i].shape->erase(inputs[i].shape->begin() + at);
  }
  const std::unique_ptr<Specializer> run = DryRun(scope, node, *body, inputs);
  if (!run) return OkStatus();
  const std::vector<int64_t> out_axes = node.IntsAttr("scan_output_axes");
  for (size_t i = 0; i < states; ++i) {
    if (run->KnownOutput(i).shape != inputs[i].shape) return OkStatus();
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    const KnownValue& made = run->KnownOutput(i);
    std::optional<Shape> shape = made.shape;
    if (i >= states && shape) {
      if (!length) continue;
      const int64_t axis = out_axes.size() > i - states ? out_axes[i - states] : 0;
      PLEXUS_ASSIGN_OR_RETURN(const int64_t at, shape_rules::NormalizeAxis(
                                                    axis, static_cast<int64_t>(shape->size()) + 1));
      shape->insert(shape->begin() + at, *length);
    }
    Learn(scope.map[node.outputs[i].value()], made.dtype, shape);
  }
  return OkStatus();
}

// The body sees one row at a time. It stays the graph that it is: what one row needs does not
// depend on how many there are, so its plans serve any number of them.
Status Specializer::RunMapRows(Scope& scope, const Node& node) {
  const Graph* body = node.GraphAttr("body");
  if (!body || node.inputs.empty() || body->inputs().size() != node.inputs.size()) {
    return InvalidArgumentError("MapRows node '" + node.name + "' has a malformed body");
  }
  std::vector<KnownValue> row;
  for (ValueId id : node.inputs) {
    row.push_back(id.valid() ? Known(scope.map[id.value()]) : KnownValue());
    row.back().contents.reset();
    if (row.back().shape && !row.back().shape->empty()) (*row.back().shape)[0] = 1;
  }
  const std::unique_ptr<Specializer> run = DryRun(scope, node, *body, row);
  PLEXUS_RETURN_IF_ERROR(Emit(scope, node));
  const std::optional<Shape> rows = Known(scope.map[node.inputs[0].value()]).shape;
  for (size_t i = 0; i < body->outputs().size() && i < node.outputs.size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    const ValueId id = scope.map[node.outputs[i].value()];
    // What the body's values declare may be an example's size.
    known_[id.value()].shape.reset();
    out_.value(id).shape = SymbolicShape();
    if (!run) continue;
    std::optional<Shape> shape = run->KnownOutput(i).shape;
    if (shape && shape->empty()) shape = Shape{1};  // a scalar is one row
    if (shape &&
        (!rows || rows->empty() || __builtin_mul_overflow((*shape)[0], (*rows)[0], &(*shape)[0]))) {
      shape.reset();
    }
    Learn(id, run->KnownOutput(i).dtype, shape);
  }
  return OkStatus();
}

// Once the numbers of rows are known and good, nothing is left to do.
Status Specializer::RunFanOut(Scope& scope, const Node& node) {
  std::vector<const KnownValue*> inputs;
  for (ValueId id : node.inputs) {
    inputs.push_back(&Known(scope.map[id.value()]));
    if (!inputs.back()->shape) return Emit(scope, node);
  }
  std::vector<KnownValue> outputs;
  PLEXUS_RETURN_IF_ERROR(shape_rules::InferInto(scope.source, node, inputs, outputs));
  for (size_t i = 0; i < node.outputs.size() && i < node.inputs.size(); ++i) {
    if (node.outputs[i].valid()) {
      Alias(scope, node.outputs[i], scope.map[node.inputs[i].value()]);
    }
  }
  return OkStatus();
}

// Before opset 13, softmax ran over all dimensions from the axis on, taken together. Where at most
// one of them is not 1, that is today's softmax along that one; elsewhere the old form stays.
Status Specializer::RunOldSoftmax(Scope& scope, const Node& node) {
  const KnownValue& x = Known(scope.map[node.inputs[0].value()]);
  if (!x.shape || x.shape->empty()) return Emit(scope, node);
  const int64_t rank = static_cast<int64_t>(x.shape->size());
  const int64_t given = node.IntAttr("axis", 1);
  const int64_t axis = given < 0 ? given + rank : given;
  if (axis < 0 || axis >= rank) return Emit(scope, node);
  int64_t along = rank - 1, wide = 0;
  for (int64_t i = axis; i < rank; ++i) {
    if ((*x.shape)[i] == 1) continue;
    along = i;
    ++wide;
  }
  if (wide > 1) return Emit(scope, node);
  Node copy = node;
  copy.version = kCanonicalOpset;
  copy.attributes.erase("axis");
  if (along != rank - 1) copy.attributes["axis"] = along;
  return Emit(scope, copy);
}

}  // namespace plexus
