// PathBook: the loaded executables as paths of segments, ready to run.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "paths/bodies.h"
#include "paths/finder.h"
#include "pipeline/folding_evaluator.h"
#include "pipeline/plan.h"

namespace plexus {

class RunPath;
using RunPathPtr = std::shared_ptr<const RunPath>;

// One call of a segment, as part of a path that can run.
struct RunCall {
  PlannedGraphPtr graph;          // equal segments of all paths: one object
  bool shared = false;            // other executables use the segment, too
  bool deterministic = true;      // Segment::deterministic
  std::vector<PathValue> inputs;  // as graph->graph's inputs
  std::vector<uint32_t> drops;    // earlier calls whose outputs nobody reads after this one
  // The path of each body in `graph` that others have something in common with, by the body's
  // PlannedGraph::source.
  std::vector<std::pair<const Graph*, RunPathPtr>> bodies;
};

// An executable's, or that of a body of control flow. Immutable but for what it learned;
// thread-safe.
class RunPath {
 public:
  std::vector<RunCall> calls;      // in topological order
  std::vector<PathValue> outputs;  // as the executable's outputs
  uint64_t family = 0;             // equal for executables that share segments, directly or not

  // What the call took, without waiting: its jobs as ExpectedTime counts them, its host steps.
  void Learn(size_t call, Duration took) const;
  // Of the calls behind this one, as learned; 0 at first.
  Duration After(size_t call) const;
  // The shared calls' part of the whole, those in bodies included, 0 to 1; 1 as long as nothing is
  // learned.
  double SharedPart() const;
  // The part of the whole that would be saved if every shared call ran in batches, 0 to 1. Where
  // that is not known it counts as all, so that it is tried, but not for ever (BatchGain).
  double BatchedPart() const;
  // Of all calls; 0 as long as one is not learned.
  Duration Total() const;
  // Of a body's call: it takes longer than to ask whether somebody is at it. And of a body: one of
  // its shared calls does, or of the bodies inside.
  bool IsWorthJoining(size_t call) const;
  bool IsWorthJoining() const;

 private:
  friend class PathBook;
  double BatchedPart(Duration takes, bool* unknown) const;  // `takes`: the request
  std::vector<std::shared_ptr<TimeEstimate>> times_;  // by call; equal segments have the same one
};

// Thread-safe. Adding and removing is cheap: the new cut is made by Refresh, which its owner runs
// where it holds nobody up. Until then paths are those of the last cut, and nobody has to change
// from one path to another under way.
//
// Executables are cut where their users change and where rows mix (PathOptions::evaluator), so that
// a segment that can be batched has nothing in it that cannot.
class PathBook {
 public:
  // `times` keeps what calls take. `refresh` is called, without a lock held, when there is
  // something to do for Refresh; once until Refresh has returned. `drop` hears of graphs of
  // segments that nobody runs any more; any thread.
  PathBook(std::shared_ptr<ProfileStore> times, std::function<void()> refresh,
           std::function<void(uint64_t graph_id)> drop);

  void Add(const PlannedGraphPtr& planned);
  void Remove(uint64_t graph_id);
  void Refresh();

  // The executable's path, where some of it is shared with others; null where nothing is.
  RunPathPtr Find(uint64_t graph_id) const;
  size_t num_paths() const;

 private:
  using Paths = std::unordered_map<uint64_t, RunPathPtr>;
  // One segment, ready to run, and what it takes.
  struct Ready {
    PlannedGraphPtr graph;
    std::shared_ptr<TimeEstimate> time;
  };
  Ready MakeReady(Precision precision, const SegmentPtr& segment, const std::string& first_user);
  class Cut;  // one cut
  void CutAnew(std::vector<PlannedGraphPtr> added, const std::vector<uint64_t>& removed);

  const std::shared_ptr<ProfileStore> times_;
  const std::function<void()> refresh_;
  const std::function<void(uint64_t)> drop_;
  const FoldingEvaluator evaluator_;
  std::mutex refreshing_;  // one Refresh at a time; taken before mutex_
  // Of one precision each: what others compute is not what they compute. Guarded by refreshing_, as
  // are the graphs of segments, by precision and segment.
  std::map<Precision, PathFinder> finders_;
  struct Known {
    std::weak_ptr<const PlannedGraph> graph;
    std::shared_ptr<TimeEstimate> time;
  };
  std::map<std::pair<Precision, uint64_t>, Known> segments_;
  std::map<uint64_t, std::string> cut_;    // names of the executables of the last cut
  std::map<Precision, BodyPaths> bodies_;  // those in the graphs that would run
  // Of the last cut, by the body's path; null where it shares nothing.
  std::map<Precision, std::map<std::string, RunPathPtr>> body_runs_;
  uint64_t next_family_ = 0;

  mutable std::mutex mutex_;  // guards everything below
  bool asked_ = false;
  std::vector<PlannedGraphPtr> added_;
  std::vector<uint64_t> removed_;
  Paths paths_;
};

}  // namespace plexus
