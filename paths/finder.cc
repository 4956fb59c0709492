#include "paths/finder.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "graph/passes/passes.h"
#include "paths/cutter.h"

namespace plexus {
namespace {

// Who uses each segment, in order of first use.
void Account(PathMap& map) {
  std::map<const Segment*, uint32_t> index;
  for (const auto& [name, path] : map.paths) {
    for (const Call& call : path->calls) {
      const auto [it, is_new] =
          index.emplace(call.segment.get(), static_cast<uint32_t>(map.segments.size()));
      if (is_new) map.segments.push_back({call.segment, {}, 0});
      SegmentUse& use = map.segments[it->second];
      ++use.calls;
      if (use.pipelines.empty() || use.pipelines.back() != name) use.pipelines.push_back(name);
    }
  }
  for (const SegmentUse& use : map.segments) {
    map.constant_bytes_saved += use.segment->constant_bytes * (use.pipelines.size() - 1);
  }
}

// Fills what Segment says of batching. `shapes`: what is known of its inputs in every request.
void ProveBatchable(std::vector<SymbolicShape> shapes, Graph graph, Segment* segment) {
  bool one_row = true;
  for (size_t i = 0; i < shapes.size(); ++i) {
    std::vector<SymbolicDim>& dims = shapes[i].dims;
    one_row &= !dims.empty() && dims[0].value == 1;
    if (!dims.empty()) dims[0] = {std::nullopt, "rows"};
    graph.value(graph.inputs()[i]).shape = shapes[i];
  }
  const RowProof proof = ProveRows(graph, &segment->why_not_batchable);
  if (proof == RowProof::kOneRow && !one_row) {
    segment->why_not_batchable = "it takes one row, and a request may bring several";
    return;
  }
  segment->batchable = proof != RowProof::kNone;
  if (!segment->batchable) return;
  if (proof == RowProof::kOneRow) {
    for (SymbolicShape& shape : shapes) shape.dims[0] = {1, ""};
  }
  segment->row_shapes = std::move(shapes);
}

}  // namespace

PathPtr PathFinder::EmitPath(const Cutter& cutter, uint32_t p, const UnitGraph& graph) {
  auto path = std::make_shared<Path>();
  path->pipeline = graph.pipeline;
  for (ValueId id : graph.graph->inputs()) path->inputs.push_back(graph.graph->value(id));
  std::unordered_map<uint32_t, PathValue> made;  // value → where it comes from
  const auto source = [&](ValueId id) {
    PathValue value;
    const auto it = made.find(id.value());
    if (it != made.end()) return it->second;
    if (graph.graph->value(id).IsConstant()) {
      value.from = PathValue::From::kConstant;
      value.constant = graph.graph->value(id).constant;
    } else {
      value.index = graph.made_by[id.value()].index;
    }
    return value;
  };
  for (const std::vector<uint32_t>& piece : cutter.pieces(p)) {
    std::vector<uint32_t> nodes;
    // By kind, so that the order of the file does not matter.
    std::vector<std::tuple<ContentHash, uint32_t, ValueId>> exports;
    for (uint32_t u : piece) {
      const Unit& unit = graph.units[u];
      nodes.insert(nodes.end(), unit.nodes.begin(), unit.nodes.end());
      for (uint32_t o = 0; o < unit.outputs.size(); ++o) {
        if (!cutter.IsExported(p, u, o)) continue;
        exports.emplace_back(unit.kind, o, unit.outputs[o]);
      }
    }
    if (exports.empty()) continue;  // nobody reads it
    std::sort(exports.begin(), exports.end());
    std::vector<ValueId> outputs, inputs;
    for (const auto& [kind, index, id] : exports) outputs.push_back(id);
    Call call;
    std::string mixes;
    cutter.KeepsRows(p, piece, &mixes);
    call.segment = Intern(graph, std::move(nodes), outputs, mixes, &inputs);
    for (ValueId id : inputs) call.inputs.push_back(source(id));
    const uint32_t index = static_cast<uint32_t>(path->calls.size());
    path->calls.push_back(std::move(call));
    for (uint32_t o = 0; o < outputs.size(); ++o) {
      made[outputs[o].value()] = {PathValue::From::kCall, index, o, nullptr};
    }
  }
  for (ValueId id : graph.graph->outputs()) path->outputs.push_back(source(id));
  return path;
}

PathFinder::PathFinder(PathOptions options)
    : options_(options), map_(std::make_shared<PathMap>()) {}
PathFinder::~PathFinder() = default;

void PathFinder::Insert(Load load) {
  if (pipelines_.count(load.pipeline) > 0) Erase(load.pipeline);
  UnitGraph units = MakeUnits(load.pipeline, load.graph);
  if (options_.evaluator != nullptr) AnalyzeRows(&units, *options_.evaluator);
  UnitGraph& kept = pipelines_[load.pipeline];
  kept = std::move(units);
  for (const Unit& unit : kept.units) {
    std::vector<const UnitGraph*>& users = users_[unit.kind];
    if (users.empty() || users.back() != &kept) users.push_back(&kept);
  }
}

void PathFinder::Erase(const std::string& pipeline) {
  const auto it = pipelines_.find(pipeline);
  for (const Unit& unit : it->second.units) {
    const auto users = users_.find(unit.kind);
    if (users == users_.end()) continue;  // a second unit of one kind
    std::erase(users->second, &it->second);
    if (users->second.empty()) users_.erase(users);
  }
  pipelines_.erase(it);
}

void PathFinder::Reach(const UnitGraph& pipeline, std::set<std::string>* names) const {
  if (!names->insert(pipeline.pipeline).second) return;
  std::unordered_set<ContentHash> seen;
  std::vector<const UnitGraph*> open = {&pipeline};
  while (!open.empty()) {
    const UnitGraph& next = *open.back();
    open.pop_back();
    for (const Unit& unit : next.units) {
      if (!seen.insert(unit.kind).second) continue;
      for (const UnitGraph* user : users_.at(unit.kind)) {
        if (names->insert(user->pipeline).second) open.push_back(user);
      }
    }
  }
}

PathMapPtr PathFinder::Update(std::vector<Load> add, const std::vector<std::string>& remove) {
  std::set<std::string> changed;
  std::vector<std::string> gone = remove;
  for (const Load& load : add) gone.push_back(load.pipeline);  // replaced
  std::erase_if(gone, [this](const std::string& name) { return pipelines_.count(name) == 0; });
  for (const std::string& name : gone) Reach(pipelines_.at(name), &changed);
  for (const std::string& name : std::set<std::string>(gone.begin(), gone.end())) {
    Erase(name);
    changed.erase(name);
  }
  std::set<std::string> added;
  for (Load& load : add) {
    added.insert(load.pipeline);
    Insert(std::move(load));
  }
  for (const std::string& name : added) Reach(pipelines_.at(name), &changed);

  std::vector<const UnitGraph*> graphs;
  for (const std::string& name : changed) graphs.push_back(&pipelines_.at(name));
  Cutter cutter(graphs, options_.dispatch_flops);
  cutter.Run();
  auto map = std::make_shared<PathMap>();
  map->paths = map_->paths;
  for (const std::string& name : gone) map->paths.erase(name);
  for (uint32_t p = 0; p < graphs.size(); ++p) {
    map->paths[graphs[p]->pipeline] = EmitPath(cutter, p, *graphs[p]);
  }
  Account(*map);
  map_ = std::move(map);
  std::erase_if(interned_, [](const auto& entry) { return entry.second.expired(); });
  return map_;
}

SegmentPtr PathFinder::Intern(const UnitGraph& source, std::vector<uint32_t> nodes,
                              const std::vector<ValueId>& outputs, const std::string& mixes,
                              std::vector<ValueId>* inputs) {
  const Graph& from = *source.graph;
  std::sort(nodes.begin(), nodes.end());
  std::vector<uint32_t> order;
  std::string text = FunctionText(from, nodes, outputs, /*by_content=*/false, inputs, &order);
  bool deterministic = true, anchored = false;
  for (const Unit& unit : source.units) {
    if (!std::binary_search(nodes.begin(), nodes.end(), unit.nodes[0])) continue;
    deterministic &= !unit.random;
    anchored |= unit.anchor;
  }
  // Without weights it is known by what comes in, as its units are.
  for (ValueId id : *inputs) {
    const bool own = source.made_by[id.value()].unit == kNoUnit;
    if (!anchored && own) text += " " + InputText(from, id);
  }
  if (!deterministic) text += source.pipeline;  // nobody else's
  std::weak_ptr<const Segment>& known = interned_[text];
  if (SegmentPtr segment = known.lock()) return segment;

  auto segment = std::make_shared<Segment>();
  static std::atomic<uint64_t> next_id{1};
  segment->id = next_id.fetch_add(1, std::memory_order_relaxed);  // a number of its own
  segment->deterministic = deterministic;
  Graph graph;
  std::unordered_map<uint32_t, ValueId> map;
  ConstantSet constants;
  for (ValueId id : *inputs) {
    Value input = from.value(id);
    input.shape = SymbolicShape();  // other users bring other sizes
    map[id.value()] = graph.AddInput(std::move(input));
  }
  const auto read = [&](ValueId id) {
    if (!id.valid()) return id;
    const auto [it, is_new] = map.emplace(id.value(), ValueId());
    if (is_new) {
      it->second = graph.AddValue(from.value(id));  // a constant
    }
    return it->second;
  };
  for (uint32_t n : order) {
    Node node = from.nodes()[n];
    CollectConstants(from, node, &constants);
    if (graph.name.empty()) graph.name = from.name + "/" + node.name;
    for (ValueId& id : node.inputs) id = read(id);
    for (ValueId& id : node.implicit_inputs) id = read(id);
    for (ValueId& id : node.outputs) {
      if (id.valid()) id = map[id.value()] = graph.AddValue(from.value(id));
    }
    graph.AddNode(std::move(node));
  }
  for (ValueId id : outputs) graph.outputs().push_back(map.at(id.value()));
  for (const Constant* constant : constants) segment->constant_bytes += constant->size_bytes();
  segment->why_not_batchable = mixes;
  if (mixes.empty()) {
    std::vector<SymbolicShape> shapes;
    for (ValueId id : *inputs) shapes.push_back(source.shapes[id.value()]);
    ProveBatchable(std::move(shapes), graph, segment.get());
  }
  segment->graph = std::make_shared<const Graph>(std::move(graph));
  known = segment;
  return segment;
}

}  // namespace plexus
