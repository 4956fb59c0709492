// FLOPs of segments on inputs of given shapes.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "graph/evaluator.h"
#include "graph/shape_inference.h"
#include "paths/path_map.h"

namespace plexus {

// A count of floating-point operations. Not complete: some of the work depends on data (loops,
// shapes that only a run tells) or not all shapes were known; that part is left out.
struct Flops {
  double count = 0;
  bool complete = true;
};

// The work of all nodes of a specialised graph (WorkOf). A control-flow body counts as often as it
// runs, of the branches of an `If` the larger one; those of Loop and Scan are left out.
Flops CountFlops(const Graph& specialised);
Flops CountFlops(const Graph& specialised, const Node& node);

// Counts for segments, and remembers what it has counted. Thread-compatible; borrows the evaluator.
class FlopCounter {
 public:
  explicit FlopCounter(const Evaluator& evaluator) : evaluator_(evaluator) {}

  // One entry for each call of `path`, in their order. `inputs` as the pipeline's; those without a
  // shape leave what depends on them uncounted.
  std::vector<Flops> CountPath(const Path& path, const std::vector<KnownValue>& inputs);

 private:
  struct Counted {
    Flops flops;
    std::vector<KnownValue> outputs;  // as Segment::graph's outputs
  };
  const Counted& Count(const Segment& segment, const std::vector<KnownValue>& inputs);
  Counted CountAnew(const Graph& graph, const std::vector<KnownValue>& inputs) const;

  const Evaluator& evaluator_;
  std::unordered_map<std::string, Counted> counted_;  // by segment and what is known of its inputs
};

}  // namespace plexus
