// PathIndex: what the loaded pipelines share, kept up to date as they come and go.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/dtype.h"
#include "paths/finder.h"
#include "paths/summary.h"
#include "pipeline/folding_evaluator.h"
#include "serve/repository.h"

namespace plexus {

// A pipeline is whatever a client may call. Versions other than the latest are named NAME/VERSION.
// Thread-safe.
class PathIndex {
 public:
  // Whether models that a loaded pipeline is made of are pipelines of their own, and groups beside
  // their members: so a server runs them. Else they are left out, for people who look at what they
  // wrote.
  enum class Parts { kListed, kLeftOut };
  explicit PathIndex(Parts parts);

  // What is loaded now. Only what came since the last call is analysed.
  void Update(const std::vector<ServablePtr>& loaded);

  // `shapes`: by input name, "" for the only input of a pipeline; one that does not fit an input is
  // not for it. Where none is given, fixed shapes count as declared and an open first dimension of
  // several as one row; other open shapes leave FLOPs uncounted.
  PathSummary Summary(const std::map<std::string, Shape>& shapes) const;

  // PathFinder::FirstDifference.
  Result<std::string> FirstDifference(const std::string& first, const std::string& second) const;

 private:
  const Parts parts_;
  mutable std::mutex mutex_;  // guards all below
  FoldingEvaluator evaluator_;
  PathFinder finder_;
  std::map<std::string, std::weak_ptr<Executable>> held_;  // what the finder has seen
  std::map<std::string, std::vector<TensorMetadata>> inputs_;
};

}  // namespace plexus
