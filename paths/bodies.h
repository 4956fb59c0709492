// Stages within stages (foreach, when, repeat): their bodies as paths of their own, so that what
// they have in common with other pipelines is found.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "paths/finder.h"

namespace plexus {

// The body of a control-flow node as a graph of its own: its captures are trailing inputs.
Graph WithCapturesAsInputs(const Graph& body);

// One body that a node of a graph holds. Bodies keep their identity from a pipeline's graph through
// all passes and cuts.
struct StageBody {
  const Node* node = nullptr;
  std::string attribute;  // of the node: where it stands
  GraphPtr graph;
};
// Of the nodes that are stages, in their order.
std::vector<StageBody> StageBodies(const Graph& graph);

// "stage lines (foreach)"; of a condition's branches "stage turn (when, then)".
std::string StageTitle(const StageBody& body);

// The bodies that a finder's pipelines hold, and the bodies in those, as pipelines of the same
// finder. Their names begin as no other pipeline's may. Thread-compatible.
class BodyPaths {
 public:
  static bool IsBody(const std::string& pipeline) { return pipeline.starts_with("~/"); }

  // What the finder has found, and PathMap::bodies. Bodies that are new in it were added, those
  // that nobody holds any more removed.
  PathMapPtr Follow(PathFinder& finder);

 private:
  struct Body {
    GraphPtr graph;  // kept, so that its address is nobody else's
    std::string name;
  };
  std::map<const Graph*, Body> bodies_;
  uint64_t next_ = 0;
};

}  // namespace plexus
