// IsRowIndependent and GeneralizeRows: the walk. See row_rules.h for what is proved.
#include <algorithm>
#include <memory>
#include <unordered_map>

#include "graph/passes/fused_ops.h"
#include "graph/passes/level.h"
#include "graph/passes/passes.h"
#include "graph/passes/row_rules.h"
#include "graph/shape_rules.h"

namespace plexus {
namespace row_rules {
namespace {

constexpr int64_t kMaxCounts = 64;   // entries of a followed list of numbers
constexpr int64_t kMaxKnown = 4096;  // elements of a constant whose contents rules may read
constexpr char kRowSymbol[] = "rows";

// Inputs that say a shape: their rules look at what the number of rows does to them. Anywhere else
// a number computed from it would make each row's result depend on how many there are.
bool MayVary(const Node& node, size_t input) {
  if (!node.domain.empty()) return false;
  if (node.op == "Reshape" || node.op == "Expand") return input == 1;
  if (node.op == "ConstantOfShape") return input == 0;
  if (node.op == "Slice") return input == 2;
  return node.op == "Resize" && input == 3;
}

RowRule FindRowRule(const Node& node) {
  using Table = std::unordered_map<std::string_view, RowRule>;
  static const Table* const tables[] = {[] {
                                          auto* table = new Table();
                                          for (const RowEntry& e : LayoutRowRules())
                                            table->emplace(e.op, e.rule);
                                          for (const RowEntry& e : ComputeRowRules())
                                            table->emplace(e.op, e.rule);
                                          return table;
                                        }(),
                                        [] {
                                          auto* table = new Table();
                                          for (const RowEntry& e : PlexusRowRules())
                                            table->emplace(e.op, e.rule);
                                          return table;
                                        }()};
  if (!node.domain.empty() && node.domain != kPlexusDomain) return nullptr;
  const Table& table = *tables[node.domain.empty() ? 0 : 1];
  const auto it = table.find(node.op);
  return it == table.end() ? nullptr : it->second;
}

}  // namespace

Status Fail(std::string reason) { return FailedPreconditionError(std::move(reason)); }

bool RowStep::AnyRows(size_t first) const {
  for (size_t i = first; i < in.size(); ++i) {
    if (HasRows(i)) return true;
  }
  return false;
}

std::optional<std::vector<int64_t>> RowStep::Ints(size_t i) const {
  const RowValue* value = In(i);
  if (!value || value->varies || !value->known.contents) return std::nullopt;
  Result<std::vector<int64_t>> ints = ToInt64Vector(*value->known.contents);
  if (!ints.ok()) return std::nullopt;
  return std::move(ints).value();
}

std::optional<std::vector<int64_t>> RowStep::Axes(const std::string& attribute,
                                                  size_t input) const {
  std::optional<std::vector<int64_t>> axes;
  if (node.HasAttr(attribute)) {
    axes = node.IntsAttr(attribute);
  } else if (In(input)) {
    axes = Ints(input);
    if (!axes) return std::nullopt;
  } else {
    return std::vector<int64_t>();
  }
  for (int64_t& axis : *axes) {
    if (axis < 0) axis += in[0]->rank();
  }
  return axes;
}

std::optional<int64_t> RowStep::Axis(int64_t fallback) const {
  const int64_t axis = node.IntAttr("axis", fallback);
  return axis < 0 ? axis + in[0]->rank() : axis;
}

RowValue RowProver::OfConstant(const Constant& constant) const {
  RowValue value;
  value.is_constant = true;
  value.known = {constant.dtype(), constant.shape(), std::nullopt};
  if (constant.num_elements() > kMaxKnown) return value;
  Tensor plain = constant.PlainIfResident();
  if (!plain.defined()) return value;
  if (IsInteger(constant.dtype()) && constant.num_elements() <= kMaxCounts) {
    Result<std::vector<int64_t>> ints = ToInt64Vector(plain);
    if (ints.ok()) value.counts = Counts{*ints, *ints, *ints};
  }
  value.known.contents = std::move(plain);
  return value;
}

Status RowProver::BeginInputs() {
  if (graph_.inputs().empty()) return Fail("the graph has no inputs");
  for (ValueId id : graph_.inputs()) {
    const Value& input = graph_.value(id);
    const std::string what = "input '" + input.name + "' ";
    if (!input.shape.has_rank) return Fail(what + "has no known rank");
    if (input.shape.dims.empty()) return Fail(what + "is a scalar: it has no row axis");
    const std::optional<int64_t>& rows = input.shape.dims[0].value;
    if (rows && *rows != 1) {
      return Fail(what + "is fixed at " + std::to_string(*rows) + " entries along axis 0");
    }
    Shape shape = {1};
    for (size_t i = 1; i < input.shape.dims.size(); ++i) {
      const SymbolicDim& dim = input.shape.dims[i];
      if (dim.value) {
        shape.push_back(*dim.value);
        continue;
      }
      const auto known = std::find_if(unknown_.begin(), unknown_.end(), [&](const auto& u) {
        return !dim.symbol.empty() && u.first == dim.symbol;
      });
      if (known != unknown_.end()) {
        shape.push_back(known->second);
        continue;
      }
      unknown_.push_back({dim.symbol, unknown_extent_ << std::min<size_t>(unknown_.size(), 12)});
      shape.push_back(unknown_.back().second);
    }
    values_[id.value()].known = {input.dtype, std::move(shape), std::nullopt};
    values_[id.value()].axis = 0;
  }
  return OkStatus();
}

Status RowProver::Infer(const Node& node, const std::vector<const RowValue*>& in,
                        std::vector<RowValue>& out) const {
  std::vector<const KnownValue*> pointers;
  for (const RowValue* value : in) pointers.push_back(value ? &value->known : nullptr);
  std::vector<KnownValue> known(node.outputs.size());
  if (shape_rules::FindRule(node) != nullptr) {
    PLEXUS_RETURN_IF_ERROR(shape_rules::InferInto(graph_, node, pointers, known));
  }
  for (size_t i = 0; i < out.size(); ++i) out[i].known = std::move(known[i]);
  return OkStatus();
}

Status RowProver::RunNode(const Node& original) {
  Node node = original;
  std::vector<RowValue> out(node.outputs.size());
  RowStep step{*this, node, {}, out};
  bool rows = false, varies = false, shapes_known = true;
  const auto look = [&](ValueId id) {
    const RowValue* value = id.valid() ? &values_[id.value()] : nullptr;
    if (value) {
      rows |= value->HasRows();
      varies |= value->varies;
      shapes_known &= !value->HasRows() || value->known.shape.has_value();
    }
    return value;
  };
  for (ValueId id : node.inputs) step.in.push_back(look(id));
  bool outer_rows = false;
  for (ValueId id : node.implicit_inputs) {
    const RowValue* value = look(id);
    outer_rows |= value && (value->HasRows() || value->varies);
  }
  const Status inferred = Infer(node, step.in, out);
  contradicted_ = !inferred.ok();
  if (contradicted_) return Fail(inferred.message());
  if (IsNondeterministic(node)) return Fail("draws random numbers");
  if (outer_rows) return Fail("control flow reads rows from outside its body");
  if (!FollowCounts(node, step.in, out) && (rows || varies)) {
    if (!shapes_known) return Fail("reads rows whose shape depends on data");
    for (size_t i = 0; i < step.in.size(); ++i) {
      const bool number_of_rows = step.in[i] && step.in[i]->varies;
      if (number_of_rows && !MayVary(node, i)) return Fail("computes with the number of rows");
    }
    const RowRule rule = FindRowRule(node);
    if (rule == nullptr) return Fail("no rule shows that it keeps rows apart");
    for (size_t i = 0; i < out.size(); ++i) {
      if (node.outputs[i].valid() && !out[i].known.shape) {
        return Fail("the shape of its output depends on data");
      }
    }
    PLEXUS_RETURN_IF_ERROR(rule(step));
  }
  for (size_t i = 0; i < out.size(); ++i) {
    if (!node.outputs[i].valid()) continue;
    values_[node.outputs[i].value()] = std::move(out[i]);
  }
  kept_.push_back(std::move(node));
  return OkStatus();
}

Status RowProver::CheckOutputs() const {
  for (ValueId id : graph_.outputs()) {
    const RowValue& value = values_[id.value()];
    const std::string what = "output '" + graph_.value(id).name + "' ";
    if (value.varies) return Fail(what + "depends on the number of rows");
    if (!value.HasRows()) return Fail(what + "does not depend on the rows");
    if (value.axis != 0) {
      return Fail(what + "has its rows along axis " + std::to_string(value.axis));
    }
    if (value.shape()[0] != 1) {
      return Fail(what + "has " + std::to_string(value.shape()[0]) + " entries per row on axis 0");
    }
  }
  return OkStatus();
}

Graph& RowProver::Rewritten() {
  if (!result_) result_ = graph_;
  return *result_;
}

std::string RowProver::Fresh(const std::string& wanted) {
  if (!names_) names_.emplace(graph_);
  return names_->Fresh(wanted);
}

void RowProver::Begin() {
  values_.resize(graph_.num_values());
  for (size_t v = 0; v < graph_.num_values(); ++v) {
    const Value& value = graph_.values()[v];
    if (value.IsConstant()) values_[v] = OfConstant(*value.constant);
  }
}

Status RowProver::Prove() {
  Begin();
  PLEXUS_RETURN_IF_ERROR(BeginInputs());
  kept_.reserve(graph_.num_nodes());
  for (const Node& node : graph_.nodes()) {
    const Status status = RunNode(node);
    if (!status.ok()) {
      return Fail("node '" + node.name + "' (" + node.op + "): " + status.message());
    }
  }
  return CheckOutputs();
}

void RowProver::PutInts(Node& node, size_t input, const std::vector<int64_t>& values) {
  rewrote_ = true;
  ConstantPtr constant = ConstantStore::Get().Intern(Tensor::VectorInt64(values));
  RowValue known = OfConstant(*constant);
  if (node.inputs.size() <= input) node.inputs.resize(input + 1);
  node.inputs[input] = Rewritten().AddConstant(Fresh(node.name + "/rows"), std::move(constant));
  values_.push_back(std::move(known));
}

void RowProver::ExpandRows(Node& node, size_t input, int64_t axis, size_t like) {
  rewrote_ = true;
  const ValueId source = node.inputs[input], rows = node.inputs[like];
  const RowValue from = values_[source.value()];
  const int64_t row_axis = values_[rows.value()].axis;
  const std::string base = node.name + "/expand" + std::to_string(input);
  const auto add = [&](const char* what, DType dtype) {
    values_.emplace_back();
    return Rewritten().AddValue({Fresh(base + "/" + what), dtype, {}, nullptr});
  };
  const auto emit = [&](const char* op, std::vector<ValueId> inputs, ValueId output) {
    kept_.push_back(
        {op, "", kCanonicalOpset, base + "/" + op, std::move(inputs), {output}, {}, {}, 0});
    return &kept_.back().attributes;
  };
  const ValueId count = add("count", DType::kInt64);
  auto* attributes = emit("Shape", {rows}, count);
  (*attributes)["start"] = row_axis;
  (*attributes)["end"] = row_axis + 1;
  Node target{"Concat", "", kCanonicalOpset, base + "/Concat", {}, {}, {}, {}, 0};
  PutInts(target, 0, std::vector<int64_t>(static_cast<size_t>(axis), 1));
  target.inputs.push_back(count);
  PutInts(target, 2, std::vector<int64_t>(static_cast<size_t>(from.rank() - axis - 1), 1));
  const ValueId shape = add("shape", DType::kInt64);
  target.outputs = {shape};
  target.attributes["axis"] = int64_t{0};
  kept_.push_back(std::move(target));
  const ValueId expanded = add("value", from.known.dtype);
  emit("Expand", {source, shape}, expanded);
  values_[expanded.value()] = from;
  values_[expanded.value()].axis = axis;
  values_[expanded.value()].known.contents.reset();
  node.inputs[input] = expanded;
}

// Dimensions along the rows are no longer fixed.
void RowProver::MarkShapes() {
  for (size_t v = 0; v < values_.size(); ++v) {
    if (!values_[v].HasRows()) continue;
    SymbolicShape& shape = Rewritten().value(ValueId(static_cast<uint32_t>(v))).shape;
    if (!shape.has_rank || static_cast<int64_t>(shape.dims.size()) != values_[v].rank()) {
      shape = SymbolicShape();
      continue;
    }
    const bool one_each = values_[v].shape()[values_[v].axis] == 1;
    SymbolicDim& dim = shape.dims[values_[v].axis];
    if (dim.value || dim.symbol.empty()) dim = {std::nullopt, one_each ? kRowSymbol : ""};
  }
}

Graph RowProver::TakeResult() {
  Rewritten().nodes() = std::move(kept_);
  MarkShapes();
  result_->RemoveDead();
  return std::move(*result_);
}

}  // namespace row_rules

namespace {

// Unknown dimensions get stand-ins. One that happens to equal a number in the model could hide that
// rows mix, so several are tried and none may fail, save those that the model itself cannot run.
Status Prove(const Graph& graph, std::unique_ptr<row_rules::RowProver>& prover) {
  Status contradiction;
  for (int64_t extent : {64, 96, 8, 320, 4096}) {
    auto attempt = std::make_unique<row_rules::RowProver>(graph, extent);
    const Status status = attempt->Prove();
    if (attempt->shapes_are_real() || (!status.ok() && !attempt->contradicted())) {
      prover = std::move(attempt);
      return status;
    }
    if (!status.ok()) {
      contradiction = status;
    } else if (!prover) {
      prover = std::move(attempt);
    }
  }
  return prover ? OkStatus() : contradiction;
}

}  // namespace

RowProof ProveRows(const Graph& graph, std::string* why_not) {
  std::unique_ptr<row_rules::RowProver> prover;
  const Status status = Prove(graph, prover);
  if (why_not) *why_not = status.message();
  if (!status.ok()) return RowProof::kNone;
  return prover->rewrote() ? RowProof::kOneRow : RowProof::kAnyRows;
}

bool IsRowIndependent(const Graph& graph, std::string* why_not) {
  return ProveRows(graph, why_not) != RowProof::kNone;
}

Result<Graph> GeneralizeRows(const Graph& graph) {
  std::unique_ptr<row_rules::RowProver> prover;
  PLEXUS_RETURN_IF_ERROR(Prove(graph, prover).WithContext("graph '" + graph.name + "'"));
  return prover->TakeResult();
}

Result<Graph> SpecializeRows(const Graph& graph, std::span<const KnownInput> one_row, int64_t rows,
                             const Evaluator& evaluator) {
  Graph open = graph;
  std::vector<KnownInput> known(one_row.begin(), one_row.end());
  for (uint32_t v = 0; v < open.num_values(); ++v) {  // shapes may be those of one row
    Value& value = open.value(ValueId(v));
    if (!value.IsConstant()) value.shape = SymbolicShape();
  }
  for (size_t i = 0; i < known.size(); ++i) {
    KnownInput& input = known[i];
    if (!input.shape || input.shape->empty() || (*input.shape)[0] != 1) {
      return FailedPreconditionError("an input does not have one row");
    }
    SymbolicShape shape = SymbolicShape::FromConcrete(*input.shape);
    shape.dims[0] = {std::nullopt, "rows"};
    open.value(open.inputs()[i]).shape = std::move(shape);
    (*input.shape)[0] = rows;
    input.contents.reset();
  }
  std::string why_not;
  const RowProof proof = ProveRows(open, &why_not);
  if (proof == RowProof::kNone) return FailedPreconditionError(why_not);
  if (proof == RowProof::kOneRow) {
    PLEXUS_ASSIGN_OR_RETURN(open, GeneralizeRows(open));
  }
  return Specialize(open, known, evaluator);
}

}  // namespace plexus
