#include "pipeline/path_book.h"

#include <algorithm>
#include <set>

#include "program/reference/reference.h"

namespace plexus {
namespace {

std::string NameOf(uint64_t graph_id) { return std::to_string(graph_id); }

}  // namespace

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
    double part = calls[i].shared ? 1 : 0;
    if (!calls[i].shared) {
      for (const auto& [source, body] : calls[i].bodies) part = std::max(part, body->SharedPart());
    }
    all += times_[i]->mean_ns();
    shared += part * times_[i]->mean_ns();
  }
  return all > 0 ? shared / all : 1;
}

double RunPath::BatchedPart() const {
  bool unknown = false;
  const double part = BatchedPart(Total(), &unknown);
  return unknown ? 1 : part;
}

double RunPath::BatchedPart(Duration takes, bool* unknown) const {
  double all = 0, saved = 0;
  for (size_t i = 0; i < calls.size(); ++i) {
    const double ns = std::max(times_[i]->mean_ns(), 1.0);
    all += ns;
    if (calls[i].shared) {
      BatchGain& gain = *calls[i].graph->batch_gain;
      *unknown |= gain.TakeTrial(takes);
      saved += ns * std::max(gain.part().value_or(0), 0.0);
    } else {
      double part = 0;
      for (const auto& [source, body] : calls[i].bodies) {
        part = std::max(part, body->BatchedPart(takes, unknown));
      }
      saved += ns * part;
    }
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

bool RunPath::IsWorthJoining(size_t call) const {
  constexpr double kWorthJoiningNs = 10'000;
  return times_[call]->samples() == 0 || times_[call]->mean_ns() >= kWorthJoiningNs;
}

bool RunPath::IsWorthJoining() const {
  for (size_t i = 0; i < calls.size(); ++i) {
    if (calls[i].shared && IsWorthJoining(i)) return true;
    for (const auto& [source, body] : calls[i].bodies) {
      if (body->IsWorthJoining()) return true;
    }
  }
  return false;
}

// --- PathBook

// What runs after one cut: a path for each executable that has something in common with another,
// and for the bodies in it that have.
class PathBook::Cut {
 public:
  Cut(PathBook* book, Precision precision, const PathMap& map)
      : book_(*book), precision_(precision), map_(map) {}

  void Run(Paths* paths) {
    for (const auto& [name, path] : map_.paths) {
      if (BodyPaths::IsBody(name)) continue;
      tops_.push_back(path.get());
      root_.push_back(tops_.size() - 1);
      std::set<const Path*> seen;
      NoteUsers(*path, tops_.size() - 1, &seen);
    }
    for (size_t top = 0; top < tops_.size(); ++top) {
      const uint64_t id = std::stoull(tops_[top]->pipeline);
      const std::shared_ptr<RunPath> run = Make(*tops_[top], book_.cut_.at(id));
      if (run == nullptr) continue;
      run->family = book_.next_family_ + Find(top);
      (*paths)[id] = run;
    }
    book_.next_family_ += tops_.size();
    book_.body_runs_[precision_] = std::move(made_);
  }

 private:
  // Of a segment: the first executable that runs it, perhaps in a body, and whether others do.
  struct Users {
    size_t first;
    bool several = false;
  };

  size_t Find(size_t top) {
    while (root_[top] != top) top = root_[top] = root_[root_[top]];
    return top;
  }

  // Null where bodies nest too deeply.
  const Path* BodyPath(const GraphPtr& body) const {
    const auto known = map_.bodies.find(body.get());
    return known != map_.bodies.end() ? map_.paths.at(known->second).get() : nullptr;
  }

  // Who has segments in common, directly or through others, is of one family.
  void NoteUsers(const Path& path, size_t top, std::set<const Path*>* seen) {
    if (!seen->insert(&path).second) return;
    for (const Call& call : path.calls) {
      const auto [it, is_new] = users_.emplace(call.segment.get(), Users{top});
      if (it->second.first != top) it->second.several = true;
      if (call.segment->deterministic) root_[Find(top)] = Find(it->second.first);
      for (const StageBody& body : StageBodies(*call.segment->graph)) {
        if (const Path* inner = BodyPath(body.graph)) NoteUsers(*inner, top, seen);
      }
    }
  }

  // Null where nothing is shared.
  std::shared_ptr<RunPath> Make(const Path& path, const std::string& user) {
    auto run = std::make_shared<RunPath>();
    run->outputs = path.outputs;
    bool shares = false;
    for (const Call& call : path.calls) {
      const bool shared = users_.at(call.segment.get()).several && call.segment->deterministic;
      Ready ready = book_.MakeReady(precision_, call.segment, user);
      run->times_.push_back(std::move(ready.time));
      run->calls.push_back({std::move(ready.graph),
                            shared,
                            call.segment->deterministic,
                            call.inputs,
                            {},
                            Bodies(*call.segment->graph, user)});
      shares |= shared || !run->calls.back().bodies.empty();
    }
    if (!shares) return nullptr;
    DropAfterLastReader(path, run.get());
    return run;
  }

  std::vector<std::pair<const Graph*, RunPathPtr>> Bodies(const Graph& graph,
                                                          const std::string& user) {
    std::vector<std::pair<const Graph*, RunPathPtr>> bodies;
    for (const StageBody& body : StageBodies(graph)) {
      const Path* path = BodyPath(body.graph);
      if (path == nullptr) continue;
      const auto [made, is_new] = made_.emplace(path->pipeline, nullptr);
      if (is_new) {
        made_[path->pipeline] = Make(*path, user);
      }
      if (const RunPathPtr& run = made_[path->pipeline]) bodies.emplace_back(body.graph.get(), run);
    }
    return bodies;
  }

  static void DropAfterLastReader(const Path& path, RunPath* run) {
    std::vector<size_t> last_reader(path.calls.size());
    for (size_t i = 0; i < path.calls.size(); ++i) {
      for (const PathValue& from : path.calls[i].inputs) {
        if (from.from == PathValue::From::kCall) last_reader[from.call] = i;
      }
    }
    for (const PathValue& from : path.outputs) {
      if (from.from == PathValue::From::kCall) last_reader[from.call] = 0;
    }
    for (uint32_t i = 0; i < path.calls.size(); ++i) {
      if (last_reader[i] > 0) run->calls[last_reader[i]].drops.push_back(i);
    }
  }

  PathBook& book_;
  const Precision precision_;
  const PathMap& map_;
  std::vector<const Path*> tops_;  // executables, and their families as a forest
  std::vector<size_t> root_;
  std::unordered_map<const Segment*, Users> users_;
  std::map<std::string, RunPathPtr> made_;  // of bodies
};

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

// Nobody is asked for another one meanwhile: that would only stand in the way of other work until
// this one, which may take long, has ended.
void PathBook::Refresh() {
  std::lock_guard refreshing(refreshing_);
  while (true) {
    std::vector<PlannedGraphPtr> added;
    std::vector<uint64_t> removed;
    {
      std::lock_guard lock(mutex_);
      if (added_.empty() && removed_.empty()) {
        asked_ = false;
        return;
      }
      added.swap(added_);
      removed.swap(removed_);
    }
    CutAnew(std::move(added), removed);
  }
}

void PathBook::CutAnew(std::vector<PlannedGraphPtr> added, const std::vector<uint64_t>& removed) {
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
    finder.Update(std::move(loads[precision]), gone);
    const PathMapPtr map = bodies_[precision].Follow(finder);
    Cut(this, precision, *map).Run(&paths);
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
