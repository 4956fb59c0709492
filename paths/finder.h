// PathFinder: finds what the loaded pipelines share, exactly, from
// structure and weights, in prefixes, middles and suffixes, through models and the glue between
// them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "paths/path_map.h"
#include "paths/unit.h"

namespace plexus {

class Cutter;

struct PathOptions {
  // Not null: pipelines are also cut where rows mix, so that no segment has parts that could be
  // batched and parts that could not (Segment::batchable). Borrowed.
  const Evaluator* evaluator = nullptr;
  // What a device computes in the time that a dispatch takes. The default is a CPU core's: 20
  // GFLOP/s for 50 µs.
  double dispatch_flops = 1e6;
};

// Thread-compatible. The result does not depend on the order of loading, but for names and ids.
class PathFinder {
 public:
  struct Load {
    std::string pipeline;
    GraphPtr graph;  // prepared: canonical, weights folded, fusion groups marked
  };
  explicit PathFinder(PathOptions options = {});
  ~PathFinder();

  // Adds (or replaces) and removes pipelines in one step, then cuts anew what may have changed:
  // what has a unit in common with one of them, directly or through others. Pipelines are analysed
  // once, when they are added; segments that are still used, and paths that did not change, stay
  // the same objects.
  PathMapPtr Update(std::vector<Load> add, const std::vector<std::string>& remove = {});
  PathMapPtr map() const { return map_; }

  // Why the second pipeline does not use what the first one does: the first place, in the first
  // one's order, where they part. Empty when all of the first is shared; kNotFound names a pipeline
  // that is not loaded.
  Result<std::string> FirstDifference(const std::string& a, const std::string& b) const;

 private:
  PathPtr EmitPath(const Cutter& cutter, uint32_t pipeline, const UnitGraph& graph);
  // `mixes`: why it is not batchable, if the cutter knows already.
  SegmentPtr Intern(const UnitGraph& graph, std::vector<uint32_t> nodes,
                    const std::vector<ValueId>& outputs, const std::string& mixes,
                    std::vector<ValueId>* inputs);

  void Insert(Load load);
  void Erase(const std::string& pipeline);
  // Adds to `names` what has units of one kind with `pipeline`, directly or through others, itself
  // included; does not go on from what is there already.
  void Reach(const UnitGraph& pipeline, std::set<std::string>* names) const;

  const PathOptions options_;
  std::map<std::string, UnitGraph> pipelines_;
  // Who has units of a kind. Points into pipelines_.
  std::unordered_map<ContentHash, std::vector<const UnitGraph*>> users_;
  std::map<std::string, std::weak_ptr<const Segment>> interned_;  // by FunctionText
  PathMapPtr map_;
};

}  // namespace plexus
