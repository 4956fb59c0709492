#include "pipeline/plan.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/hash.h"
#include "graph/graph_hash.h"
#include "graph/passes/fused_ops.h"
#include "graph/shape_inference.h"
#include "paths/bodies.h"
#include "paths/unit.h"
#include "pipeline/held_bytes.h"
#include "pipeline/plan_batcher.h"

namespace plexus {
namespace {

constexpr size_t kKernelBytes = 2048;  // roughly, of a kernel

uint64_t NextPlannedGraphId() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);  // only uniqueness matters
}

bool IsControlFlow(const Node& node) {
  if (node.domain == kPlexusDomain) return node.op == "MapRows";
  return node.domain.empty() && (node.op == "If" || node.op == "Loop" || node.op == "Scan");
}

// Written as stages inside a stage of a pipeline file.
bool IsStage(const Node& node) { return node.HasAttr("stage"); }

// Work worth a kernel whatever its size.
bool IsHeavy(const Node& node) {
  static const std::set<std::string> heavy = {"Conv", "ConvTranspose", "MatMul", "Gemm",
                                              "LSTM", "GRU",           "RNN",    "Einsum"};
  return heavy.count(node.op) > 0;
}

bool IsStaticTensor(const Value& value) {
  return value.IsConstant() ? value.dtype != DType::kString
                            : value.shape.IsConcrete() && DTypeSizeBytes(value.dtype) > 0;
}

bool IsStatic(const Graph& graph, const Node& node) {
  if (IsControlFlow(node)) return false;
  const auto known = [&](ValueId id) { return !id.valid() || IsStaticTensor(graph.value(id)); };
  return std::all_of(node.inputs.begin(), node.inputs.end(), known) &&
         std::all_of(node.outputs.begin(), node.outputs.end(), known);
}

// Nothing in a plan can depend on the shapes that such a node reads: it runs on the host whatever
// they are, and tells nothing of its results before.
bool RunsOnHostAnyway(const Node& node) {
  if (IsControlFlow(node)) return node.op == "If" || (node.op == "MapRows" && IsStage(node));
  return !HasShapeRule(node);
}

std::vector<bool> ShapesThatMatter(const Graph& graph);

// Marks what goes into `node`'s subgraphs and is read there by nodes to which its shape matters.
void MarkForBodies(const Node& node, std::vector<bool>& matters) {
  const auto mark = [&](ValueId id) {
    if (id.valid()) matters[id.value()] = true;
  };
  const bool rows = node.domain == kPlexusDomain && node.op == "MapRows";
  for (const auto& [name, attribute] : node.attributes) {
    const auto* body = std::get_if<GraphPtr>(&attribute);
    if (body == nullptr) continue;
    const std::vector<bool> inner = ShapesThatMatter(**body);
    const auto mark_if_read = [&](const std::vector<ValueId>& given,
                                  const std::vector<ValueId>& taken) {
      for (size_t i = 0; i < given.size(); ++i) {
        const bool unread = i < taken.size() && (!taken[i].valid() || !inner[taken[i].value()]);
        if (!unread) mark(given[i]);
      }
    };
    mark_if_read(node.implicit_inputs, (*body)->captures());
    if (rows) mark_if_read(node.inputs, (*body)->inputs());
  }
}

// Per value of `graph`: whether a plan depends on its shape.
std::vector<bool> ShapesThatMatter(const Graph& graph) {
  std::vector<bool> matters(graph.num_values(), false);
  // Readers first: what goes through an Identity matters if what comes out of it does.
  for (size_t n = graph.num_nodes(); n-- > 0;) {
    const Node& node = graph.nodes()[n];
    MarkForBodies(node, matters);
    bool all = !RunsOnHostAnyway(node);
    if (node.op == "Identity" && node.domain.empty() && node.outputs[0].valid()) {
      all = matters[node.outputs[0].value()];
    }
    for (ValueId id : node.inputs) {
      if (all && id.valid()) matters[id.value()] = true;
    }
  }
  return matters;
}

std::vector<bool> InputShapesThatMatter(const Graph& graph) {
  const std::vector<bool> all = ShapesThatMatter(graph);
  std::vector<bool> matter;
  for (ValueId id : graph.inputs()) matter.push_back(all[id.value()]);
  return matter;
}

// Copies the nodes in `mask` into a graph of their own. Inputs: what they read from outside, in
// order of first use; outputs: as given. `outer_inputs` receives the matching outer values.
Graph Extract(const Graph& graph, const std::vector<bool>& mask,
              const std::vector<ValueId>& outputs, std::vector<ValueId>* outer_inputs) {
  Graph out;
  out.name = graph.name;
  std::vector<ValueId> map(graph.num_values());
  const auto read = [&](ValueId id) {
    if (!id.valid()) return id;
    ValueId& inner = map[id.value()];
    if (inner.valid()) return inner;
    if (graph.value(id).IsConstant()) return inner = out.AddValue(graph.value(id));
    outer_inputs->push_back(id);
    return inner = out.AddInput(graph.value(id));
  };
  for (size_t n = 0; n < graph.num_nodes(); ++n) {
    if (!mask[n]) continue;
    Node node = graph.nodes()[n];
    for (ValueId& id : node.inputs) id = read(id);
    for (ValueId& id : node.implicit_inputs) id = read(id);
    for (ValueId& id : node.outputs) {
      if (id.valid()) id = map[id.value()] = out.AddValue(graph.value(id));
    }
    out.AddNode(std::move(node));
  }
  for (ValueId id : outputs) out.outputs().push_back(map[id.value()]);
  return out;
}

// Values with a zero-sized shape need no computing: they become empty constants.
Status FoldEmptyValues(Graph& graph) {
  std::set<ValueId> inputs(graph.inputs().begin(), graph.inputs().end());
  std::vector<Node>& nodes = graph.nodes();
  for (Node& node : nodes) {
    for (ValueId& id : node.outputs) {
      if (!id.valid()) continue;
      Value& value = graph.value(id);
      if (!IsStaticTensor(value) || value.IsConstant()) continue;
      const Shape shape = value.shape.ToConcrete();
      if (std::find(shape.begin(), shape.end(), 0) == shape.end()) continue;
      PLEXUS_ASSIGN_OR_RETURN(Tensor empty, Tensor::Allocate(value.dtype, shape));
      value.constant = ConstantStore::Get().Intern(std::move(empty));
      id = ValueId();
    }
  }
  // A graph output may be such a constant now; RemoveDead drops the nodes that made them.
  graph.RemoveDead();
  return OkStatus();
}

// Whether everything that goes in and comes out has one row, going by shapes.
bool MayTakeRows(const Graph& region) {
  const auto one_row = [&](ValueId id) {
    const Value& value = region.value(id);
    return IsStaticTensor(value) && !value.shape.dims.empty() && value.shape.dims[0].value == 1 &&
           DTypeSizeBytes(value.dtype) > 0;
  };
  return !region.inputs().empty() &&
         std::all_of(region.inputs().begin(), region.inputs().end(), one_row) &&
         std::all_of(region.outputs().begin(), region.outputs().end(), one_row) &&
         IsDeterministic(region);
}

// Of what differs between rests of one graph: which values there are, their shapes and contents.
uint64_t HashOfValues(const Graph& graph) {
  uint64_t hash = graph.num_nodes();
  for (const Value& value : graph.values()) {
    hash = HashCombine(hash, reinterpret_cast<uintptr_t>(value.constant.get()));
    for (const SymbolicDim& dim : value.shape.dims) {
      hash = HashCombine(hash, static_cast<uint64_t>(dim.value.value_or(-1)));
    }
  }
  return hash;
}

// Builds one GraphPlan; a class only to share the slot table between its steps.
class PlanBuilder {
 public:
  PlanBuilder(const PlannedGraph& planned, const Evaluator& evaluator, Compiler& compiler,
              ProfileStore& times)
      : planned_(planned),
        evaluator_(evaluator),
        compiler_(compiler),
        times_(times),
        held_(planned.graph) {}

  Result<GraphPlanPtr> Build(std::span<const KnownInput> inputs) {
    PLEXUS_ASSIGN_OR_RETURN(Graph special, Specialize(planned_.graph, inputs, evaluator_));
    PLEXUS_RETURN_IF_ERROR(FoldEmptyValues(special));
    PLEXUS_RETURN_IF_ERROR(FoldConstants(special, evaluator_));
    graph_ = std::make_shared<const Graph>(std::move(special));
    slots_.assign(graph_->num_values(), kNoSlot);
    for (ValueId id : graph_->inputs()) slots_[id.value()] = plan_->num_slots++;
    Classify();
    PLEXUS_RETURN_IF_ERROR(CompileRegion());
    AddHostSteps();
    AddRest();
    for (ValueId id : graph_->outputs()) {
      PLEXUS_ASSIGN_OR_RETURN(const Slot slot, SlotOf(id));
      plan_->outputs.push_back(slot);
    }
    plan_->bytes += 4096 + held_.Add(*graph_);
    PLEXUS_RETURN_IF_ERROR(error_);
    if (!plan_->host_steps.empty() || plan_->rest != nullptr) {
      plan_->after = times_.GetPath(HashOfPath("after", *graph_, planned_.options.precision));
    }
    plan_->takes_rows = TakesRows();
    return GraphPlanPtr(std::move(plan_));
  }

 private:
  enum class Kind { kRegion, kHost, kRest };

  // Region: static and fed by static work only. Host: everything it reads is there after the
  // region, or after an earlier host step, and no shape would change how it runs. Rest: needs a
  // shape that only a host step will tell; a static node after a host step is rest too, so that it
  // is compiled rather than interpreted.
  void Classify() {
    kind_.assign(graph_->num_nodes(), Kind::kRest);
    std::vector<Kind> made_by(graph_->num_values(), Kind::kRegion);
    double region_work = 0;
    bool heavy = false;
    for (size_t n = 0; n < graph_->num_nodes(); ++n) {
      const Node& node = graph_->nodes()[n];
      Kind latest = Kind::kRegion;
      const auto read = [&](ValueId id) {
        if (id.valid()) latest = std::max(latest, made_by[id.value()]);
      };
      std::for_each(node.inputs.begin(), node.inputs.end(), read);
      std::for_each(node.implicit_inputs.begin(), node.implicit_inputs.end(), read);
      if (latest == Kind::kRegion && IsStatic(*graph_, node)) {
        kind_[n] = Kind::kRegion;
        heavy |= IsHeavy(node);
        for (ValueId id : node.outputs) {
          if (id.valid()) {
            region_work +=
                static_cast<double>(NumElementsUnchecked(graph_->value(id).shape.ToConcrete()));
          }
        }
      } else {
        const bool now =
            latest == Kind::kRegion || (latest == Kind::kHost && RunsOnHostAnyway(node));
        kind_[n] = now ? Kind::kHost : Kind::kRest;
      }
      for (ValueId id : node.outputs) {
        if (id.valid()) made_by[id.value()] = kind_[n];
      }
    }
    // A few hundred elements are cheaper interpreted here than compiled and dispatched.
    constexpr double kTrifle = 256;
    const bool has_host = std::count(kind_.begin(), kind_.end(), Kind::kHost) > 0;
    if (!heavy && region_work <= kTrifle && has_host) {
      std::replace(kind_.begin(), kind_.end(), Kind::kRegion, Kind::kHost);
    }
  }

  bool ReadOutside(ValueId id, Kind kind) const {
    if (graph_->IsGraphOutput(id)) return true;
    for (size_t n = 0; n < graph_->num_nodes(); ++n) {
      if (kind_[n] == kind) continue;
      const Node& node = graph_->nodes()[n];
      for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
        if (std::find(list->begin(), list->end(), id) != list->end()) return true;
      }
    }
    return false;
  }

  std::vector<ValueId> OutputsOf(Kind kind) const {
    const bool whole =
        std::count(kind_.begin(), kind_.end(), kind) == static_cast<std::ptrdiff_t>(kind_.size());
    std::set<ValueId> outputs(graph_->outputs().begin(), graph_->outputs().end());
    std::vector<ValueId> out;
    for (size_t n = 0; n < graph_->num_nodes(); ++n) {
      if (kind_[n] != kind) continue;
      for (ValueId id : graph_->nodes()[n].outputs) {
        if (!id.valid()) continue;
        // Usually the whole graph is one region: then only graph outputs leave it.
        if (whole ? outputs.count(id) > 0 : ReadOutside(id, kind)) out.push_back(id);
      }
    }
    return out;
  }

  std::vector<bool> Mask(Kind kind) const {
    std::vector<bool> mask(kind_.size());
    for (size_t n = 0; n < kind_.size(); ++n) mask[n] = kind_[n] == kind;
    return mask;
  }

  Status CompileRegion() {
    const std::vector<bool> mask = Mask(Kind::kRegion);
    const std::vector<ValueId> outputs = OutputsOf(Kind::kRegion);
    if (outputs.empty()) return OkStatus();
    std::vector<ValueId> outer_inputs;
    Graph region = Extract(*graph_, mask, outputs, &outer_inputs);
    for (ValueId id : outer_inputs) plan_->program_inputs.push_back(slots_[id.value()]);
    if (MayTakeRows(region)) {
      plan_->region = {std::make_shared<const Graph>(region), planned_.options,
                       planned_.batch_gain};
      plan_->bytes += held_.Add(region);
    }
    PLEXUS_RETURN_IF_ERROR(Optimize(region));
    // Kernels hold what they read: what was folded for these shapes may be large.
    plan_->bytes += held_.Add(region);
    PLEXUS_ASSIGN_OR_RETURN(plan_->program, compiler_.Compile(region, planned_.options));
    plan_->bytes += plan_->program->constant_bytes + kKernelBytes * plan_->program->kernels.size();
    for (ValueId id : outputs) {
      plan_->program_outputs.push_back(slots_[id.value()] = plan_->num_slots++);
    }
    return OkStatus();
  }

  bool TakesRows() const {
    const std::vector<Slot>& made = plan_->program_outputs;
    return plan_->region.graph != nullptr && plan_->host_steps.empty() && plan_->rest == nullptr &&
           std::all_of(plan_->program_inputs.begin(), plan_->program_inputs.end(),
                       [&](Slot slot) { return slot < graph_->inputs().size(); }) &&
           std::all_of(plan_->outputs.begin(), plan_->outputs.end(),
                       [&](Slot slot) {
                         return std::find(made.begin(), made.end(), slot) != made.end();
                       }) &&
           TakesAnyRows();
  }

  // As a segment it knows nothing of its inputs' sizes: what it is planned for holds but for rows.
  bool TakesAnyRows() const {
    Graph graph = planned_.graph;
    for (size_t i = 0; i < graph.inputs().size(); ++i) {
      SymbolicShape shape = graph_->value(graph_->inputs()[i]).shape;
      if (shape.dims.empty()) return false;
      shape.dims[0] = {std::nullopt, "rows"};
      graph.value(graph.inputs()[i]).shape = std::move(shape);
    }
    return ProveRows(graph, nullptr) == RowProof::kAnyRows;
  }

  // The slot of a value that is known by now; constants get one when first asked for.
  Result<Slot> SlotOf(ValueId id) {
    if (!id.valid()) return kNoSlot;
    Slot& slot = slots_[id.value()];
    if (slot != kNoSlot) return slot;
    const Value& value = graph_->value(id);
    if (!value.IsConstant()) {
      return InternalError("plan of '" + graph_->name + "' lost value '" + value.name + "'");
    }
    const bool resident = value.constant->PlainIfResident().defined();
    PLEXUS_ASSIGN_OR_RETURN(Tensor plain, value.constant->Plain());
    if (!resident) plan_->bytes += plain.size_bytes();  // a copy of its own
    slot = plan_->num_slots++;
    plan_->constants.emplace_back(slot, std::move(plain));
    return slot;
  }

  std::vector<Slot> SlotsOf(const std::vector<ValueId>& ids) {
    std::vector<Slot> slots;
    for (ValueId id : ids) {
      Result<Slot> slot = SlotOf(id);
      if (!slot.ok() && error_.ok()) error_ = slot.status();
      slots.push_back(slot.ok() ? *slot : kNoSlot);
    }
    return slots;
  }

  void AddHostSteps() {
    for (size_t n = 0; n < graph_->num_nodes(); ++n) {
      if (kind_[n] != Kind::kHost) continue;
      const Node& node = graph_->nodes()[n];
      HostStep step;
      step.owner = graph_;
      step.node = NodeId(static_cast<uint32_t>(n));
      step.inputs = SlotsOf(node.inputs);
      step.captures = SlotsOf(node.implicit_inputs);
      for (ValueId id : node.outputs) {
        step.outputs.push_back(id.valid() ? slots_[id.value()] = plan_->num_slots++ : kNoSlot);
      }
      for (const auto& [name, attribute] : node.attributes) {
        const auto* body = std::get_if<GraphPtr>(&attribute);
        if (body != nullptr && IsControlFlow(node)) {
          step.bodies.emplace_back(name, planned_.bodies->Get(*body, planned_));
        }
      }
      plan_->host_steps.push_back(std::move(step));
    }
  }

  void AddRest() {
    const std::vector<bool> mask = Mask(Kind::kRest);
    if (std::count(mask.begin(), mask.end(), true) == 0) return;
    const std::vector<ValueId> outputs = OutputsOf(Kind::kRest);
    std::vector<ValueId> outer_inputs;
    Graph rest = Extract(*graph_, mask, outputs, &outer_inputs);
    plan_->rest_inputs = SlotsOf(outer_inputs);
    plan_->rest = planned_.bodies->GetRest(std::move(rest), planned_);
    for (ValueId id : outputs) {
      plan_->rest_outputs.push_back(slots_[id.value()] = plan_->num_slots++);
    }
  }

  const PlannedGraph& planned_;
  const Evaluator& evaluator_;
  Compiler& compiler_;
  ProfileStore& times_;
  HeldBytes held_;
  std::shared_ptr<GraphPlan> plan_ = std::make_shared<GraphPlan>();
  GraphPtr graph_;
  std::vector<Slot> slots_;  // by value
  std::vector<Kind> kind_;   // by node
  Status error_;
};

// Puts `body` in place of `node`: inputs and outputs are wired through by position.
void InlineGraph(Graph& into, const Graph& body, const Node& node, std::vector<Node>* nodes) {
  std::vector<ValueId> map(body.num_values());
  for (size_t i = 0; i < body.inputs().size(); ++i) map[body.inputs()[i].value()] = node.inputs[i];
  for (size_t i = 0; i < body.outputs().size(); ++i) {
    map[body.outputs()[i].value()] = node.outputs[i];
  }
  const auto wire = [&](ValueId id) {
    if (!id.valid()) return id;
    ValueId& mapped = map[id.value()];
    if (!mapped.valid()) {
      Value value = body.value(id);
      value.name = node.name + "/" + value.name;
      if (!value.IsConstant()) value.shape = SymbolicShape();
      mapped = into.AddValue(std::move(value));
    }
    return mapped;
  };
  for (Node inner : body.nodes()) {
    inner.name = node.name + "/" + inner.name;
    for (ValueId& id : inner.inputs) id = wire(id);
    for (ValueId& id : inner.implicit_inputs) id = wire(id);
    for (ValueId& id : inner.outputs) id = wire(id);
    nodes->push_back(std::move(inner));
  }
}

// The node with its inputs checked for what it would have checked: as many rows as it may walk, and
// as each other.
Node WithCheckedRows(Graph& graph, Node node, std::vector<Node>* nodes) {
  Node check;
  check.domain = std::string(kPlexusDomain);
  check.op = "FanOut";
  check.version = 1;
  check.name = node.name;
  check.inputs = node.inputs;
  check.attributes["stage"] = int64_t{1};
  check.attributes["limit"] = node.IntAttr("limit", INT64_MAX);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    const Value& source = graph.value(node.inputs[i]);
    node.inputs[i] =
        graph.AddValue({node.name + "/rows" + std::to_string(i), source.dtype, source.shape, {}});
    check.outputs.push_back(node.inputs[i]);
  }
  nodes->push_back(std::move(check));
  return node;
}

// MapRows over a body whose rows are proven independent becomes the body itself, on all rows.
Status InlineRowMaps(Graph& graph) {
  std::vector<Node> nodes;
  bool changed = false;
  for (const Node& node : std::vector<Node>(graph.nodes())) {
    const Graph* body = node.op == "MapRows" ? node.GraphAttr("body") : nullptr;
    const bool wires_through =
        body != nullptr && body->captures().empty() && !node.HasAttr("sizes") &&
        std::all_of(node.outputs.begin(), node.outputs.end(),
                    [](ValueId id) { return id.valid(); }) &&
        std::none_of(body->outputs().begin(), body->outputs().end(), [&](ValueId id) {
          return body->value(id).IsConstant() ||
                 std::count(body->inputs().begin(), body->inputs().end(), id) > 0 ||
                 std::count(body->outputs().begin(), body->outputs().end(), id) > 1;
        });
    if (!wires_through || !IsRowIndependent(*body, nullptr)) {
      nodes.push_back(node);
      continue;
    }
    PLEXUS_ASSIGN_OR_RETURN(const Graph general, GeneralizeRows(*body));
    const bool checked = node.HasAttr("limit") || node.inputs.size() > 1;
    InlineGraph(graph, general, checked ? WithCheckedRows(graph, node, &nodes) : node, &nodes);
    changed = true;
  }
  if (changed) graph.nodes() = std::move(nodes);
  return OkStatus();
}

Status CheckSupported(const Graph& graph, const Evaluator& evaluator) {
  for (const Node& node : graph.nodes()) {
    if (!evaluator.Supports(node)) {
      return UnimplementedError("node '" + node.name + "': operator '" +
                                (node.domain.empty() ? "" : node.domain + ".") + node.op +
                                "' (opset " + std::to_string(node.version) + ") is not supported");
    }
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* body = std::get_if<GraphPtr>(&attribute)) {
        PLEXUS_RETURN_IF_ERROR(CheckSupported(**body, evaluator));
      }
    }
  }
  return OkStatus();
}

// What is left to do after Canonicalize, which has been in the bodies already. The bodies of a
// pipeline's stages hold whole models: they are treated as such, once, not for each shape class.
Status PrepareCanonical(Graph& graph) {
  PLEXUS_RETURN_IF_ERROR(InlineRowMaps(graph));
  PLEXUS_RETURN_IF_ERROR(OptimizeWeights(graph));
  for (Node& node : graph.nodes()) {
    if (!node.HasAttr("stage") && node.op != "MapRows") continue;
    for (auto& [name, attribute] : node.attributes) {
      auto* body = std::get_if<GraphPtr>(&attribute);
      if (body == nullptr) continue;
      Graph prepared = **body;
      PLEXUS_RETURN_IF_ERROR(PrepareCanonical(prepared));
      *body = std::make_shared<const Graph>(std::move(prepared));
    }
  }
  return MarkFusionGroups(graph);
}

}  // namespace

PlannedGraph::PlannedGraph(Graph g, CompileOptions o)
    : id(NextPlannedGraphId()),
      graph(std::move(g)),
      options(std::move(o)),
      bodies(std::make_shared<BodyTable>()),
      shape_matters(InputShapesThatMatter(graph)) {}

PlannedGraph::PlannedGraph(Graph g, const PlannedGraph& whole, GraphPtr from)
    : id(NextPlannedGraphId()),
      graph(std::move(g)),
      options(whole.options),
      bodies(whole.bodies),
      shape_matters(InputShapesThatMatter(graph)),
      source(std::move(from)) {}

PlannedGraphPtr BodyTable::Get(const GraphPtr& body, const PlannedGraph& whole) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(body.get());
  // An entry whose source has gone may stand under the address of another graph by now.
  if (found != entries_.end() && found->second.source.lock() == body) {
    if (PlannedGraphPtr planned = found->second.planned.lock()) return planned;
  }
  std::erase_if(entries_, [](const auto& e) { return e.second.planned.expired(); });
  PlannedGraphPtr planned =
      std::make_shared<const PlannedGraph>(WithCapturesAsInputs(*body), whole, body);
  entries_[body.get()] = {body, planned};
  return planned;
}

PlannedGraphPtr BodyTable::GetRest(Graph rest, const PlannedGraph& whole) {
  const uint64_t hash = HashOfValues(rest);
  std::lock_guard lock(mutex_);
  std::erase_if(rests_, [](const auto& entry) { return entry.second.expired(); });
  const auto [begin, end] = rests_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const PlannedGraphPtr known = it->second.lock();
    if (known != nullptr && SameGraph(known->graph, rest)) return known;
  }
  auto made = std::make_shared<const PlannedGraph>(std::move(rest), whole);
  rests_.emplace(hash, made);
  return made;
}

PlannedGraphPtr HostStep::Body(const std::string& attribute) const {
  for (const auto& [name, body] : bodies) {
    if (name == attribute) return body;
  }
  return nullptr;
}

ContentHash HashOfPath(std::string_view what, const Graph& graph, Precision precision) {
  ContentHasher hasher;
  hasher.UpdateString(what);
  hasher.UpdateInt(static_cast<int64_t>(precision));
  HashGraph(graph, hasher);
  return hasher.Finish();
}

Result<GraphPlanPtr> BuildPlan(const PlannedGraph& planned, std::span<const KnownInput> inputs,
                               const Evaluator& evaluator, Compiler& compiler,
                               ProfileStore& times) {
  return PlanBuilder(planned, evaluator, compiler, times).Build(inputs);
}

Result<ProgramPtr> BuildBatch(const BatchRegion& region, const Program& one, uint32_t rows,
                              const Evaluator& evaluator, Compiler& compiler, size_t* bytes) {
  const Graph& graph = *region.graph;
  std::vector<KnownInput> one_row;
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    one_row.push_back({value.dtype, value.shape.ToConcrete(), std::nullopt});
  }
  PLEXUS_ASSIGN_OR_RETURN(Graph special, SpecializeRows(graph, one_row, rows, evaluator));
  PLEXUS_RETURN_IF_ERROR(FoldConstants(special, evaluator));
  PLEXUS_RETURN_IF_ERROR(Optimize(special));
  const size_t held = HeldBytes(graph).Add(special);
  CompileOptions options = region.options;
  options.name += " x" + std::to_string(rows);
  PLEXUS_ASSIGN_OR_RETURN(ProgramPtr program, compiler.Compile(special, options));
  bool fits =
      program->inputs.size() == one.inputs.size() && program->outputs.size() == one.outputs.size();
  for (size_t i = 0; fits && i < program->outputs.size(); ++i) {
    Shape shape = one.outputs[i].shape;
    shape[0] = rows;
    fits = program->outputs[i].shape == shape && program->outputs[i].dtype == one.outputs[i].dtype;
  }
  if (!fits) return FailedPreconditionError("its outputs do not have a row for each input row");
  // Packed weights are those of the program for one row.
  *bytes = held + kKernelBytes * program->kernels.size();
  return program;
}

const std::shared_ptr<PlanBatcher>& GraphPlan::Batcher(RequestEnvironment& env) const {
  std::call_once(batcher_made_,
                 [&] { batcher_ = std::make_shared<PlanBatcher>(env, program, region); });
  return batcher_;
}

Result<Graph> PrepareGraph(const Graph& imported, const Evaluator& evaluator) {
  Graph graph = imported;
  PLEXUS_RETURN_IF_ERROR(CheckSupported(graph, evaluator));
  PLEXUS_RETURN_IF_ERROR(Canonicalize(graph, evaluator));
  PLEXUS_RETURN_IF_ERROR(PrepareCanonical(graph));
  PLEXUS_RETURN_IF_ERROR(graph.Validate());
  return graph;
}

}  // namespace plexus
