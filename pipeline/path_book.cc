#include "pipeline/path_book.h"

#include <algorithm>
#include <numeric>

#include "program/reference/reference.h"

namespace plexus {

// --- RunPath

void RunPath::Learn(size_t call, Duration took) const {
  times_[call]->Add(static_cast<double>(std::max<Duration::rep>(took.count(), 1)));
}

Duration RunPath::After(size_t call) const {
  double ns = 0;
  for (size_t i = call + 1; i < times_.size(); ++i) ns += times_[i]->mean_ns();
  return NanosecondsOf(ns);
}

double RunPath::SharedPart() const {
  double all = 0, shared = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (times_[i]->samples() == 0) return 1;
    all += times_[i]->mean_ns();
    if (calls[i].shared) shared += times_[i]->mean_ns();
  }
  return all > 0 ? shared / all : 1;
}

double RunPath::BatchedPart() const {
  double all = 0, saved = 0;
  bool unknown = false;
  for (size_t i = 0; i < calls.size(); ++i) {
    const double ns = std::max(times_[i]->mean_ns(), 1.0);
    all += ns;
    if (!calls[i].shared) continue;
    const float gain = calls[i].graph->batch_gain->load(std::memory_order_relaxed);
    unknown |= gain < 0;
    saved += ns * std::max(gain, 0.0f);
  }
  if (unknown && trials_left_.load(std::memory_order_relaxed) > 0) {
    trials_left_.fetch_sub(1, std::memory_order_relaxed);  // a few more do no harm
    return 1;
  }
  return all > 0 ? saved / all : 0;
}

Duration RunPath::Total() const {
  double all = 0;
  for (const auto& time : times_) {
    if (time->samples() == 0) return Duration{0};
    all += time->mean_ns();
  }
  return NanosecondsOf(all);
}

void RunPath::KeepTrials(const RunPathPtr& before) const {
  if (before == nullptr || before->calls.size() != calls.size()) return;
  for (size_t i = 0; i < calls.size(); ++i) {
    if (before->calls[i].graph != calls[i].graph) return;
  }
  trials_left_.store(before->trials_left_.load(std::memory_order_relaxed),
                     std::memory_order_relaxed);  // a statistic
}

// --- PathBook

namespace {
std::string NameOf(uint64_t graph_id) { return std::to_string(graph_id); }
}  // namespace

PathBook::PathBook(std::shared_ptr<ProfileStore> times, std::function<void()> refresh,
                   std::function<void(uint64_t graph_id)> drop)
    : times_(std::move(times)),
      refresh_(std::move(refresh)),
      drop_(std::move(drop)),
      evaluator_(ReferenceEvaluator::Get()) {}

void PathBook::Add(const PlannedGraphPtr& planned) {
  {
    std::lock_guard lock(mutex_);
    added_.push_back(planned);
    if (std::exchange(asked_, true)) return;
  }
  refresh_();
}

void PathBook::Remove(uint64_t graph_id) {
  {
    std::lock_guard lock(mutex_);
    removed_.push_back(graph_id);
    if (std::exchange(asked_, true)) return;
  }
  refresh_();
}

void PathBook::Refresh() {
  std::lock_guard refreshing(refreshing_);
  std::vector<PlannedGraphPtr> added;
  std::vector<uint64_t> removed;
  {
    std::lock_guard lock(mutex_);
    asked_ = false;
    added.swap(added_);
    removed.swap(removed_);
  }
  // What came and went between two cuts was never there.
  std::erase_if(added, [&](const PlannedGraphPtr& planned) {
    return std::find(removed.begin(), removed.end(), planned->id) != removed.end();
  });
  for (const PlannedGraphPtr& planned : added) cut_[planned->id] = planned->options.name;
  std::vector<std::string> gone;
  for (const uint64_t id : removed) {
    if (cut_.erase(id) > 0) gone.push_back(NameOf(id));
  }
  std::map<Precision, std::vector<PathFinder::Load>> loads;
  for (const PlannedGraphPtr& planned : added) {
    finders_.try_emplace(planned->options.precision, PathOptions{&evaluator_});
    loads[planned->options.precision].push_back(
        {NameOf(planned->id), GraphPtr(planned, &planned->graph)});
  }
  Paths paths;
  for (auto& [precision, finder] : finders_) {
    const PathMapPtr map = finder.Update(std::move(loads[precision]), gone);
    AddRuns(precision, *map, &paths);
  }
  std::erase_if(segments_, [](const auto& entry) { return entry.second.graph.expired(); });
  std::lock_guard lock(mutex_);
  paths_.swap(paths);
}

RunPathPtr PathBook::Find(uint64_t graph_id) const {
  std::lock_guard lock(mutex_);
  const auto it = paths_.find(graph_id);
  return it != paths_.end() ? it->second : nullptr;
}

size_t PathBook::num_paths() const {
  std::lock_guard lock(mutex_);
  return paths_.size();
}

void PathBook::AddRuns(Precision precision, const PathMap& map, Paths* paths) {
  std::unordered_map<const Segment*, bool> shared;
  for (const SegmentUse& use : map.segments) {
    shared[use.segment.get()] = use.pipelines.size() > 1 && use.segment->deterministic;
  }
  // Families: paths that share a segment, directly or through others.
  std::unordered_map<const Segment*, uint64_t> family_of;
  std::vector<std::pair<const Path*, uint64_t>> members;
  std::vector<uint64_t> root;
  const auto find = [&](uint64_t f) {
    while (root[f] != f) f = root[f] = root[root[f]];
    return f;
  };
  for (const auto& [name, path] : map.paths) {
    const uint64_t own = root.size();
    root.push_back(own);
    for (const Call& call : path->calls) {
      if (!shared[call.segment.get()]) continue;
      const auto [it, is_new] = family_of.emplace(call.segment.get(), own);
      if (!is_new) root[find(own)] = find(it->second);
    }
    members.emplace_back(path.get(), own);
  }
  for (const auto& [path, own] : members) {
    const bool shares = std::any_of(path->calls.begin(), path->calls.end(),
                                    [&](const Call& c) { return shared[c.segment.get()]; });
    if (!shares) continue;
    const uint64_t id = std::stoull(path->pipeline);
    auto run = std::make_shared<RunPath>();
    run->family = next_family_ + find(own);
    run->outputs = path->outputs;
    std::vector<size_t> last_reader(path->calls.size());
    for (size_t i = 0; i < path->calls.size(); ++i) {
      const Call& call = path->calls[i];
      Ready ready = MakeReady(precision, call.segment, cut_.at(id));
      run->times_.push_back(std::move(ready.time));
      run->calls.push_back({std::move(ready.graph),
                            shared[call.segment.get()],
                            call.segment->deterministic,
                            call.inputs,
                            {}});
      for (const PathValue& from : call.inputs) {
        if (from.from == PathValue::From::kCall) last_reader[from.call] = i;
      }
    }
    for (const PathValue& from : path->outputs) {
      if (from.from == PathValue::From::kCall) last_reader[from.call] = 0;
    }
    for (uint32_t i = 0; i < path->calls.size(); ++i) {
      if (last_reader[i] > 0) run->calls[last_reader[i]].drops.push_back(i);
    }
    run->KeepTrials(Find(id));
    (*paths)[id] = std::move(run);
  }
  next_family_ += root.size();
}

PathBook::Ready PathBook::MakeReady(Precision precision, const SegmentPtr& segment,
                                    const std::string& first_user) {
  Known& known = segments_[{precision, segment->id}];
  PlannedGraphPtr planned = known.graph.lock();
  if (planned != nullptr) return {planned, known.time};
  CompileOptions options;
  options.precision = precision;
  options.name = first_user;
  if (segment->graph->num_nodes() > 0) options.name += "/" + segment->graph->nodes()[0].name;
  // Whoever runs it keeps the segment, so that later cuts find it again.
  auto* made = new PlannedGraph(Graph(*segment->graph), options);
  planned = PlannedGraphPtr(made, [segment, drop = drop_](const PlannedGraph* graph) {
    drop(graph->id);
    delete graph;
  });
  known = {planned, times_->GetPath(HashOfPath("segment", *segment->graph, precision))};
  return {planned, known.time};
}

}  // namespace plexus
