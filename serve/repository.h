// The model repository: a folder of models and pipelines, what of it is loaded, and how it changes
// while requests are in flight.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/runtime.h"
#include "serve/model_config.h"

namespace plexus {

struct TensorMetadata {
  std::string name;
  DType dtype = DType::kUndefined;
  SymbolicShape shape;  // no rank: unknown
};

// Counts of one servable; relaxed atomics, since they order nothing.
struct ServableStats {
  std::atomic<uint64_t> success{0}, failure{0}, pending{0};
  std::atomic<uint64_t> input_ns{0}, queue_ns{0}, compute_ns{0}, output_ns{0};
  std::atomic<uint64_t> request_ns{0}, failure_ns{0};
  std::atomic<uint64_t> cache_hit{0}, cache_miss{0}, cache_hit_ns{0}, cache_miss_ns{0};
  std::atomic<uint64_t> last_inference_ms{0};  // since the epoch
};

// One loaded version of a model, or a pipeline. Immutable but for its stats; a request holds it
// until it ends, so that unloading loses nothing in flight.
struct Servable {
  std::string name;
  std::string version;   // "1"
  std::string platform;  // "onnx", "plexus_pipeline" or "plexus_group"
  std::string tenant;    // whose its requests are that name nobody
  ExecutablePtr executable;
  std::vector<TensorMetadata> inputs, outputs;
  std::vector<std::string> models;    // what a pipeline is made of; of a group, its members
  std::vector<PipelineStage> stages;  // of a pipeline, as written
  // Of a group: what it runs together, one or more, whose statistics count its requests, too.
  std::vector<std::shared_ptr<const Servable>> members;
  // What it keeps from request to request: inputs and outputs of the executable after those above.
  std::vector<PipelineState> states;
  Duration session_idle{0};  // how long a session may stand unused
  uint64_t load_number = 0;  // unique in the process: sessions belong to one load
  ModelConfig config;
  mutable ServableStats stats;
};
using ServablePtr = std::shared_ptr<const Servable>;

// A file of pipelines/ that puts several servables under one name (serve/group.h).
struct GroupFile {
  std::string name, tenant;
  std::vector<std::string> members;
};

struct IndexEntry {
  std::string name, version;
  bool ready = false;
  std::string reason;  // why it is not ready
};

// Layout: NAME/[VERSION/]model.onnx (+ NAME/config.yaml), pipelines/NAME.yaml, which is a pipeline
// or names what a group is made of. Thread-safe: loads
// and unloads are serialised, lookups go on meanwhile and see each change whole or not at all.
class ModelRepository {
 public:
  // Borrows the runtime.
  ModelRepository(std::filesystem::path root, Runtime& runtime);

  // Loads only import and check from now on: no warm_up shape is compiled and no output error
  // measured. For tools that look at models; before the first load.
  void SkipRuns() { skip_runs_ = true; }

  // Called after every change of what is loaded, one call at a time, from the thread that made it.
  // It may look things up here. Before the first load.
  void OnChange(std::function<void()> changed) { changed_ = std::move(changed); }

  // kNotFound or kPermissionDenied when the folder cannot be listed.
  Status CheckReadable() const;

  // Loads everything in the folder. An entry that cannot be loaded is reported by the index and
  // the log; the others load. kNotFound when the folder itself cannot be read.
  Status LoadAll();

  // Loads or reloads one model or pipeline from the folder; pipelines made of a reloaded model are
  // rebuilt with it, and groups with any of their members. Members that are not loaded become part
  // of the group alone. Everything is validated first: on failure what was served goes on as
  // before.
  Status Load(const std::string& name);
  // kNotFound when it is not loaded. What a loaded pipeline or group uses is unloaded with its
  // dependents if asked to; else those go on with what they hold.
  Status Unload(const std::string& name, bool unload_dependents);

  // Loads one model file without entering it into the repository.
  Result<ServablePtr> LoadFile(const std::string& name, int64_t version,
                               const std::filesystem::path& file, const ModelConfig& config);

  // Loads that have not begun fail with kUnavailable from now on.
  void StopLoading() { stopping_.store(true, std::memory_order_relaxed); }  // a hint, no ordering

  // The latest loaded version for "". kNotFound names what is missing; kUnavailable a version or
  // model that exists but failed to load.
  Result<ServablePtr> Find(const std::string& name, const std::string& version) const;
  // Several models or pipelines as one (serve/group.h); errors as Find and MakeGroup have them.
  // What was made is kept, bounded, until a member changes. Making it may take milliseconds.
  Result<ServablePtr> FindGroup(const std::vector<std::string>& names);
  // The same, null when it would have to be made.
  ServablePtr FindKeptGroup(const std::vector<std::string>& names);

  // Everything loaded, by name and version.
  std::vector<ServablePtr> Loaded() const;
  // The loaded versions of one model, oldest first.
  std::vector<ServablePtr> Versions(const std::string& name) const;
  // What lies in the folder or is loaded, by name.
  std::vector<IndexEntry> Index() const;

 private:
  struct Entry {
    std::map<int64_t, ServablePtr> versions;  // loaded
    std::string failure;                      // of the last load
  };
  using Entries = std::map<std::string, Entry>;

  struct Found {
    std::filesystem::path path;  // folder of a model, file of a pipeline
    bool is_pipeline = false;
  };
  Result<std::map<std::string, Found>> Scan() const;
  Result<Entry> LoadEntry(const std::string& name, const Found& found);
  Result<Entry> LoadModel(const std::string& name, const std::filesystem::path& folder);
  Result<Entry> LoadPipeline(const std::string& name, const std::filesystem::path& file);
  Result<Entry> LoadGroup(const std::string& name, const GroupFile& file);
  Result<ServablePtr> FindMember(const std::string& name);
  Result<GraphPtr> ImportModel(const std::string& name) const;
  // The number a version folder is named after; 0 for any other folder.
  static int64_t VersionNumber(const std::string& name);
  static bool IsGroupFile(const Found& found);
  // What is made of one of `names`, directly or not, and those themselves.
  std::set<std::string> WithDependentsLocked(std::set<std::string> names) const;
  std::set<std::string> WithDependents(const std::string& name) const;
  // Whether a group's members are what is loaded now.
  bool IsCurrentLocked(const Servable& group) const;
  std::list<ServablePtr> TakeStaleGroupsLocked();
  Status WarmUp(const Servable& servable);
  void LogOutputError(const Servable& servable, const GraphPtr& graph);

  const std::filesystem::path root_;
  Runtime& runtime_;
  bool skip_runs_ = false;
  std::function<void()> changed_ = [] {};
  std::atomic<bool> stopping_{false};
  std::mutex loading_mutex_;  // serialises loads and unloads; taken before mutex_
  // During one load only; guarded by loading_mutex_.
  struct Loading {
    std::map<std::string, Found> found;
    std::map<std::string, GraphPtr> imported;
    Entries fresh;                               // validated so far
    std::map<std::string, ServablePtr> members;  // of groups, that nobody else loads
    bool in_group = false;
  } loading_;
  mutable std::mutex mutex_;  // guards entries_ and groups_
  Entries entries_;
  // Groups made for requests that name several members; most recently used first.
  std::list<ServablePtr> groups_;
};

}  // namespace plexus
