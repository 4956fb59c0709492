#include "paths/finder.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace plexus {

// One cut over all pipelines.
//
// 1. Units of one kind, over all pipelines, form a class; a class's users are the pipelines that
//    hold it.
// 2. An edge is inner when both ends have the same users and every occurrence of the reader is fed
//    from that class: then no pipeline sees anything between them.
// 3. A unit's depth counts the cuts behind it. Units of the same users and depth that inner edges
//    connect form a piece; edges between pieces go from lower to higher depth, or between pieces of
//    one depth never: so calls have an order.
// 4. Pieces are told apart by what they compute, exactly (FunctionText): equal ones are one
//    segment. Steps 1 to 3 only choose where to cut.
class PathFinder::Cutter {
 public:
  explicit Cutter(PathFinder& finder) : finder_(finder) {
    for (const auto& [name, graph] : finder.pipelines_) graphs_.push_back(&graph);
  }

  PathMapPtr Run() {
    Classify();
    GiveBackGlue();
    FindInnerEdges();
    for (uint32_t p = 0; p < graphs_.size(); ++p) CutPieces(p);
    FindExports();
    for (uint32_t p = 0; p < graphs_.size(); ++p) EmitPath(p);
    Account();
    return std::move(result_);
  }

 private:
  struct Pieces {
    std::vector<uint32_t> of;                  // per unit
    std::vector<std::vector<uint32_t>> units;  // per piece, in topological order
  };

  void Classify() {
    std::unordered_map<ContentHash, uint32_t> numbers;
    class_of_.resize(graphs_.size());
    for (uint32_t p = 0; p < graphs_.size(); ++p) {
      for (const Unit& unit : graphs_[p]->units) {
        const auto [it, is_new] = numbers.emplace(unit.kind, users_.size());
        if (is_new) users_.emplace_back();
        class_of_[p].push_back(it->second);
        std::vector<uint32_t>& users = users_[it->second];
        if (users.empty() || users.back() != p) users.push_back(p);
      }
    }
    // Random work is nobody else's.
    for (uint32_t p = 0; p < graphs_.size(); ++p) {
      for (uint32_t u = 0; u < graphs_[p]->units.size(); ++u) {
        if (graphs_[p]->units[u].random) MakePrivate(p, u);
      }
    }
    NumberUsers();
  }

  void MakePrivate(uint32_t pipeline, uint32_t unit) {
    class_of_[pipeline][unit] = static_cast<uint32_t>(users_.size());
    users_.push_back({pipeline});
  }

  // Per class: a number for its set of users.
  void NumberUsers() {
    std::map<std::vector<uint32_t>, uint32_t> numbers;
    signature_.clear();
    for (const std::vector<uint32_t>& users : users_) {
      signature_.push_back(
          numbers.emplace(users, static_cast<uint32_t>(numbers.size())).first->second);
    }
  }

  // Moving data about is cheaper done again by each user than dispatched once for all, unless it
  // lies inside shared work: shared glue that feeds no shared work goes back to its users.
  void GiveBackGlue() {
    std::vector<std::pair<uint32_t, uint32_t>> given;
    std::vector<bool> feeds(users_.size());  // classes that feed a class of the same users
    std::vector<bool> all_glue(users_.size(), true);
    for (uint32_t p = 0; p < graphs_.size(); ++p) {
      const std::vector<Unit>& units = graphs_[p]->units;
      for (uint32_t u = static_cast<uint32_t>(units.size()); u-- > 0;) {
        const uint32_t c = class_of_[p][u];
        all_glue[c] = all_glue[c] && units[u].glue;
        if (all_glue[c] && !feeds[c]) continue;
        for (const UnitInput& in : units[u].inputs) {
          if (in.unit == kNoUnit) continue;
          const uint32_t from = class_of_[p][in.unit];
          if (signature_[from] == signature_[c]) feeds[from] = true;
        }
      }
    }
    for (uint32_t p = 0; p < graphs_.size(); ++p) {
      for (uint32_t u = 0; u < graphs_[p]->units.size(); ++u) {
        const uint32_t c = class_of_[p][u];
        if (users_[c].size() > 1 && all_glue[c] && !feeds[c]) given.emplace_back(p, u);
      }
    }
    for (const auto& [p, u] : given) MakePrivate(p, u);
    NumberUsers();
  }

  void FindInnerEdges() {
    // Per class and input: what feeds it, the same everywhere or "several".
    fed_by_.resize(users_.size());
    for (uint32_t p = 0; p < graphs_.size(); ++p) {
      const std::vector<Unit>& units = graphs_[p]->units;
      for (uint32_t u = 0; u < units.size(); ++u) {
        std::vector<Feed>& feeds = fed_by_[class_of_[p][u]];
        const bool first = feeds.empty();
        if (first) feeds.resize(units[u].inputs.size());
        for (size_t i = 0; i < feeds.size(); ++i) {
          const UnitInput& in = units[u].inputs[i];
          const Feed feed = {in.unit == kNoUnit ? kInput : class_of_[p][in.unit], in.index};
          if (first) {
            feeds[i] = feed;
          } else if (feeds[i] != feed) {
            feeds[i] = {kSeveral, 0};
          }
        }
      }
    }
  }

  bool IsInner(uint32_t pipeline, uint32_t unit, size_t input) const {
    const UnitInput& in = graphs_[pipeline]->units[unit].inputs[input];
    if (in.unit == kNoUnit) return false;
    const uint32_t reader = class_of_[pipeline][unit];
    const uint32_t maker = class_of_[pipeline][in.unit];
    if (signature_[reader] != signature_[maker]) return false;
    return users_[reader].size() == 1 || fed_by_[reader][input].from == maker;
  }

  void CutPieces(uint32_t p) {
    const std::vector<Unit>& units = graphs_[p]->units;
    std::vector<uint32_t> depth(units.size()), root(units.size());
    std::iota(root.begin(), root.end(), 0u);
    const auto find = [&](uint32_t x) {
      while (root[x] != x) x = root[x] = root[root[x]];
      return x;
    };
    for (uint32_t u = 0; u < units.size(); ++u) {
      for (size_t i = 0; i < units[u].inputs.size(); ++i) {
        const uint32_t from = units[u].inputs[i].unit;
        if (from == kNoUnit) continue;
        depth[u] = std::max(depth[u], depth[from] + (IsInner(p, u, i) ? 0 : 1));
      }
      for (size_t i = 0; i < units[u].inputs.size(); ++i) {
        const uint32_t from = units[u].inputs[i].unit;
        if (from != kNoUnit && IsInner(p, u, i) && depth[from] == depth[u]) {
          root[find(from)] = find(u);
        }
      }
    }
    // Pieces in an order in which calls may run: by depth, then as in the file.
    std::map<std::pair<uint32_t, uint32_t>, uint32_t> number;  // (depth, first unit) → piece
    std::vector<uint32_t> first(units.size(), kNoUnit);
    for (uint32_t u = 0; u < units.size(); ++u) {
      uint32_t& f = first[find(u)];
      if (f == kNoUnit) f = u;
      number.emplace(std::pair(depth[u], f), 0);
    }
    uint32_t next = 0;
    for (auto& [key, n] : number) n = next++;
    Pieces pieces;
    pieces.units.resize(next);
    for (uint32_t u = 0; u < units.size(); ++u) {
      pieces.of.push_back(number.at({depth[u], first[find(u)]}));
      pieces.units[pieces.of.back()].push_back(u);
    }
    pieces_.push_back(std::move(pieces));
  }

  // What any user reads of a piece, the piece gives to all: else they would differ.
  void FindExports() {
    for (uint32_t p = 0; p < graphs_.size(); ++p) {
      const UnitGraph& graph = *graphs_[p];
      const auto mark = [&](const UnitInput& made) {
        if (made.unit != kNoUnit) exported_.insert({class_of_[p][made.unit], made.index});
      };
      for (uint32_t u = 0; u < graph.units.size(); ++u) {
        for (const UnitInput& in : graph.units[u].inputs) {
          if (in.unit != kNoUnit && pieces_[p].of[in.unit] != pieces_[p].of[u]) mark(in);
        }
      }
      for (ValueId id : graph.graph->outputs()) mark(graph.made_by[id.value()]);
    }
  }

  void EmitPath(uint32_t p) {
    const UnitGraph& graph = *graphs_[p];
    auto path = std::make_shared<Path>();
    path->pipeline = graph.pipeline;
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
    for (const std::vector<uint32_t>& piece : pieces_[p].units) {
      std::vector<uint32_t> nodes;
      // By kind, so that the order of the file does not matter.
      std::vector<std::tuple<ContentHash, uint32_t, ValueId>> exports;
      for (uint32_t u : piece) {
        const Unit& unit = graph.units[u];
        nodes.insert(nodes.end(), unit.nodes.begin(), unit.nodes.end());
        for (uint32_t o = 0; o < unit.outputs.size(); ++o) {
          if (exported_.count({class_of_[p][u], o}) == 0) continue;
          exports.emplace_back(unit.kind, o, unit.outputs[o]);
        }
      }
      if (exports.empty()) continue;  // nobody reads it
      std::sort(exports.begin(), exports.end());
      std::vector<ValueId> outputs, inputs;
      for (const auto& [kind, index, id] : exports) outputs.push_back(id);
      Call call;
      call.segment = finder_.Intern(graph, std::move(nodes), outputs, &inputs);
      for (ValueId id : inputs) call.inputs.push_back(source(id));
      const uint32_t index = static_cast<uint32_t>(path->calls.size());
      path->calls.push_back(std::move(call));
      for (uint32_t o = 0; o < outputs.size(); ++o) {
        made[outputs[o].value()] = {PathValue::From::kCall, index, o, nullptr};
      }
    }
    for (ValueId id : graph.graph->outputs()) path->outputs.push_back(source(id));
    result_->paths[graph.pipeline] = std::move(path);
  }

  void Account() {
    std::map<const Segment*, uint32_t> index;
    for (const auto& [name, path] : result_->paths) {
      for (const Call& call : path->calls) {
        const auto [it, is_new] =
            index.emplace(call.segment.get(), static_cast<uint32_t>(result_->segments.size()));
        if (is_new) result_->segments.push_back({call.segment, {}, 0});
        SegmentUse& use = result_->segments[it->second];
        ++use.calls;
        if (use.pipelines.empty() || use.pipelines.back() != name) use.pipelines.push_back(name);
      }
    }
    for (const SegmentUse& use : result_->segments) {
      result_->constant_bytes_saved += use.segment->constant_bytes * (use.pipelines.size() - 1);
    }
  }

  static constexpr uint32_t kInput = UINT32_MAX, kSeveral = UINT32_MAX - 1;
  struct Feed {
    uint32_t from = kInput, index = 0;
    friend bool operator==(const Feed&, const Feed&) = default;
  };

  PathFinder& finder_;
  std::vector<const UnitGraph*> graphs_;
  std::vector<std::vector<uint32_t>> class_of_;       // per pipeline and unit
  std::vector<std::vector<uint32_t>> users_;          // per class: pipelines, ascending
  std::vector<uint32_t> signature_;                   // per class
  std::vector<std::vector<Feed>> fed_by_;             // per class and input
  std::vector<Pieces> pieces_;                        // per pipeline
  std::set<std::pair<uint32_t, uint32_t>> exported_;  // (class, output)
  std::shared_ptr<PathMap> result_ = std::make_shared<PathMap>();
};

PathFinder::PathFinder() : map_(std::make_shared<PathMap>()) {}
PathFinder::~PathFinder() = default;

PathMapPtr PathFinder::Update(std::vector<Load> add, const std::vector<std::string>& remove) {
  for (const std::string& name : remove) pipelines_.erase(name);
  for (Load& load : add) {
    pipelines_.insert_or_assign(load.pipeline, MakeUnits(load.pipeline, load.graph));
  }
  map_ = Cutter(*this).Run();
  std::erase_if(interned_, [](const auto& entry) { return entry.second.expired(); });
  return map_;
}

SegmentPtr PathFinder::Intern(const UnitGraph& source, std::vector<uint32_t> nodes,
                              const std::vector<ValueId>& outputs, std::vector<ValueId>* inputs) {
  const Graph& from = *source.graph;
  std::sort(nodes.begin(), nodes.end());
  std::vector<uint32_t> order;
  std::string text = FunctionText(from, nodes, outputs, /*by_content=*/false, inputs, &order);
  bool deterministic = true;
  for (const Unit& unit : source.units) {
    deterministic &= !unit.random || !std::binary_search(nodes.begin(), nodes.end(), unit.nodes[0]);
  }
  if (!deterministic) text += source.pipeline;  // nobody else's
  std::weak_ptr<const Segment>& known = interned_[text];
  if (SegmentPtr segment = known.lock()) return segment;

  auto segment = std::make_shared<Segment>();
  segment->id = next_id_++;
  segment->deterministic = deterministic;
  Graph graph;
  std::unordered_map<uint32_t, ValueId> map;
  std::set<const Constant*> constants;
  for (ValueId id : *inputs) map[id.value()] = graph.AddInput(from.value(id));
  const auto read = [&](ValueId id) {
    if (!id.valid()) return id;
    const auto [it, is_new] = map.emplace(id.value(), ValueId());
    if (is_new) {
      it->second = graph.AddValue(from.value(id));  // a constant
      const Constant* constant = from.value(id).constant.get();
      if (constants.insert(constant).second) segment->constant_bytes += constant->size_bytes();
    }
    return it->second;
  };
  for (uint32_t n : order) {
    Node node = from.nodes()[n];
    if (graph.name.empty()) graph.name = from.name + "/" + node.name;
    for (ValueId& id : node.inputs) id = read(id);
    for (ValueId& id : node.implicit_inputs) id = read(id);
    for (ValueId& id : node.outputs) {
      if (id.valid()) id = map[id.value()] = graph.AddValue(from.value(id));
    }
    graph.AddNode(std::move(node));
  }
  for (ValueId id : outputs) graph.outputs().push_back(map.at(id.value()));
  segment->graph = std::make_shared<const Graph>(std::move(graph));
  known = segment;
  return segment;
}

}  // namespace plexus
