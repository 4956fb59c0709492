// PathIndex: what the loaded pipelines share, kept up to date as they come and go.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/dtype.h"
#include "paths/bodies.h"
#include "paths/finder.h"
#include "paths/summary.h"
#include "pipeline/folding_evaluator.h"
#include "serve/repository.h"

namespace plexus {

// A pipeline is whatever a client may call. Versions other than the latest are named NAME/VERSION.
// Pipelines, and the bodies of stages in them, are cut as the runtime cuts them (PathBook): by
// precision, where users change and where rows mix. Thread-safe.
class PathIndex {
 public:
  // Whether models that a loaded pipeline is made of are pipelines of their own, and groups beside
  // their members, as in a server, whose clients may ask for them. Else they are left out, for
  // people who look at what they wrote.
  enum class Parts { kListed, kLeftOut };
  explicit PathIndex(Parts parts);

  // What is loaded now. Cheap: analysed is only what is there when somebody asks, and what was not
  // there before.
  void Update(const std::vector<ServablePtr>& loaded);

  // `shapes`: by input name, "" for the only input of a pipeline; one that does not fit an input is
  // not for it. Where none is given, fixed shapes count as declared and an open first dimension of
  // several as one row; other open shapes leave FLOPs uncounted.
  PathSummary Summary(const std::map<std::string, Shape>& shapes);

  // PathFinder::FirstDifference.
  Result<std::string> FirstDifference(const std::string& first, const std::string& second);

 private:
  struct Loaded {
    std::weak_ptr<Executable> executable;
    Precision precision = Precision::kFloat32;
    std::vector<TensorMetadata> inputs;
  };
  void Analyse();  // mutex_ is held

  const Parts parts_;
  const FoldingEvaluator evaluator_;
  std::mutex mutex_;  // guards all below
  std::map<std::string, Loaded> loaded_;
  std::map<std::string, Loaded> analysed_;  // what the finders have seen
  std::map<Precision, PathFinder> finders_;
  std::map<Precision, BodyPaths> bodies_;
  std::map<Precision, PathMapPtr> maps_;  // the finders', bodies included
};

}  // namespace plexus
