#include "paths/cutter.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <unordered_map>

namespace plexus {

void Cutter::Run() {
  Classify();
  GiveBackGlue();
  FindFeeds();
  FindRows();
  CutAll();
  while (DemoteImproper() || DemoteCheap()) CutAll();
}

void Cutter::Classify() {
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

void Cutter::MakePrivate(uint32_t pipeline, uint32_t unit) {
  class_of_[pipeline][unit] = static_cast<uint32_t>(users_.size());
  users_.push_back({pipeline});
}

// Per class: a number for its set of users.
void Cutter::NumberUsers() {
  std::map<std::vector<uint32_t>, uint32_t> numbers;
  signature_.clear();
  for (const std::vector<uint32_t>& users : users_) {
    signature_.push_back(
        numbers.emplace(users, static_cast<uint32_t>(numbers.size())).first->second);
  }
}

// Moving data about is cheaper done again by each user than dispatched once for all, unless it
// lies inside shared work: shared glue that feeds no work which all of its users share goes back to
// them.
void Cutter::GiveBackGlue() {
  std::vector<std::pair<uint32_t, uint32_t>> given;
  std::vector<bool> feeds(users_.size());  // classes that feed one that all of their users share
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
        feeds[from] = feeds[from] || signature_[from] == signature_[c] ||
                      std::includes(users_[c].begin(), users_[c].end(), users_[from].begin(),
                                    users_[from].end());
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

void Cutter::FindFeeds() {
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

bool Cutter::IsInnerButRows(uint32_t pipeline, uint32_t unit, size_t input) const {
  const UnitInput& in = graphs_[pipeline]->units[unit].inputs[input];
  if (in.unit == kNoUnit) return false;
  const uint32_t reader = class_of_[pipeline][unit];
  const uint32_t maker = class_of_[pipeline][in.unit];
  if (signature_[reader] != signature_[maker]) return false;
  return users_[reader].size() == 1 || fed_by_[reader][input].from == maker;
}

bool Cutter::IsInner(uint32_t pipeline, uint32_t unit, size_t input) const {
  if (!IsInnerButRows(pipeline, unit, input)) return false;
  const uint32_t maker = graphs_[pipeline]->units[unit].inputs[input].unit;
  return rows_[class_of_[pipeline][unit]] == rows_[class_of_[pipeline][maker]];
}

void Cutter::FindRows() {
  rows_.assign(users_.size(), true);
  for (uint32_t p = 0; p < graphs_.size(); ++p) {
    for (uint32_t u = 0; u < graphs_[p]->units.size(); ++u) {
      if (!graphs_[p]->units[u].rows) rows_[class_of_[p][u]] = false;
    }
  }
}

void Cutter::CutAll() {
  pieces_.clear();
  exported_.clear();
  for (uint32_t p = 0; p < graphs_.size(); ++p) CutPieces(p);
  FindExports();
}

// From the end back: a unit whose outputs leave a piece that keeps rows apart must give a row per
// entry; if it does not it counts as mixing, and then so may what feeds it.
bool Cutter::DemoteImproper() {
  bool changed = false;
  for (uint32_t p = 0; p < graphs_.size(); ++p) {
    const UnitGraph& graph = *graphs_[p];
    if (graph.proper.empty()) continue;
    std::vector<bool> leaves(graph.graph->num_values());
    for (uint32_t u = static_cast<uint32_t>(graph.units.size()); u-- > 0;) {
      const Unit& unit = graph.units[u];
      const uint32_t c = class_of_[p][u];
      for (uint32_t o = 0; rows_[c] && o < unit.outputs.size(); ++o) {
        const uint32_t value = unit.outputs[o].value();
        if (graph.proper[value] || (!leaves[value] && exported_.count({c, o}) == 0)) continue;
        rows_[c] = false;
        changed = true;
      }
      if (rows_[c]) continue;
      for (const UnitInput& in : unit.inputs) {
        if (in.unit != kNoUnit) leaves[graph.units[in.unit].outputs[in.index].value()] = true;
      }
    }
  }
  return changed;
}

bool Cutter::DemoteCheap() {
  std::vector<bool> cheap(users_.size()), stays(users_.size());
  for (uint32_t p = 0; p < graphs_.size(); ++p) {
    const std::vector<Unit>& units = graphs_[p]->units;
    const size_t count = pieces_[p].units.size();
    std::vector<double> flops(count);
    std::vector<bool> has_weights(count), beside_mixing(count);
    for (uint32_t u = 0; u < units.size(); ++u) {
      const uint32_t piece = pieces_[p].of[u];
      flops[piece] += units[u].flops;
      has_weights[piece] = has_weights[piece] || units[u].anchor;
      for (size_t i = 0; i < units[u].inputs.size(); ++i) {
        const uint32_t from = units[u].inputs[i].unit;
        if (from == kNoUnit || !IsInnerButRows(p, u, i) || IsInner(p, u, i)) continue;
        beside_mixing[piece] = true;
        beside_mixing[pieces_[p].of[from]] = true;
      }
    }
    for (uint32_t u = 0; u < units.size(); ++u) {
      const uint32_t piece = pieces_[p].of[u], c = class_of_[p][u];
      if (!rows_[c]) continue;
      const bool goes =
          beside_mixing[piece] && !has_weights[piece] && flops[piece] < dispatch_flops_;
      (goes ? cheap : stays)[c] = true;
    }
  }
  bool changed = false;
  for (size_t c = 0; c < users_.size(); ++c) {
    if (!cheap[c] || stays[c]) continue;
    rows_[c] = false;
    changed = true;
  }
  return changed;
}

bool Cutter::KeepsRows(uint32_t pipeline, const std::vector<uint32_t>& piece,
                       std::string* why_not) const {
  if (piece.empty() || rows_[class_of_[pipeline][piece[0]]]) return !piece.empty();
  const UnitGraph& graph = *graphs_[pipeline];
  *why_not = graph.proper.empty() ? "its sizes are not known before it runs"
                                  : "it mixes rows, or costs less than its dispatch";
  for (uint32_t u : piece) {
    if (graph.units[u].why_no_rows.empty()) continue;
    *why_not = graph.units[u].why_no_rows;
    break;
  }
  return false;
}

void Cutter::CutPieces(uint32_t p) {
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
void Cutter::FindExports() {
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

}  // namespace plexus
