#include "serve/repository.h"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "base/log.h"
#include "graph/onnx/onnx_import.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/static_check.h"
#include "serve/group.h"
#include "serve/output_error.h"

namespace plexus {
namespace {

namespace fs = std::filesystem;

constexpr int kReadAttempts = 3;
constexpr size_t kMaxTextBytes = 1 << 20;
constexpr char kPipelines[] = "pipelines";
constexpr size_t kKeptGroups = 64;

bool IsServableName(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.size() <= 255 &&
         name.find('/') == std::string::npos;
}

// What must not differ between the begin and the end of a read.
struct FileStamp {
  ino_t inode = 0;
  off_t size = 0;
  int64_t modified_ns = 0;
  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

Result<FileStamp> Stamp(const fs::path& file) {
  struct stat s;
  if (::stat(file.c_str(), &s) != 0) return NotFoundError("'" + file.string() + "' is not there");
  return FileStamp{s.st_ino, s.st_size, s.st_mtim.tv_sec * 1'000'000'000LL + s.st_mtim.tv_nsec};
}

// Imports a file that may be written to meanwhile: only a read that saw one state counts.
Result<GraphPtr> ImportStable(const fs::path& file) {
  for (int attempt = 0; attempt < kReadAttempts; ++attempt) {
    PLEXUS_ASSIGN_OR_RETURN(const FileStamp before, Stamp(file));
    Result<GraphPtr> graph = ImportOnnxFile(file);
    PLEXUS_ASSIGN_OR_RETURN(const FileStamp after, Stamp(file));
    if (before == after) return graph;
  }
  return UnavailableError("'" + file.string() + "' keeps changing while it is read");
}

Result<std::string> ReadText(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return NotFoundError("cannot read '" + file.string() + "'");
  std::string text(kMaxTextBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMaxTextBytes) {
    return InvalidArgumentError("'" + file.string() + "' is larger than 1 MiB");
  }
  return text;
}

// The number a version folder is named after; 0 for any other folder.
int64_t VersionNumber(const std::string& name) {
  if (name.empty() || name.size() > 18 || name[0] == '0') return 0;
  if (!std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c); })) {
    return 0;
  }
  return std::stoll(name);
}

std::vector<TensorMetadata> Metadata(const Graph& graph, const std::vector<ValueId>& ids) {
  std::vector<TensorMetadata> out;
  for (ValueId id : ids) {
    const Value& value = graph.value(id);
    out.push_back({value.name, value.dtype, value.shape});
  }
  return out;
}

}  // namespace

ModelRepository::ModelRepository(fs::path root, Runtime& runtime)
    : root_(std::move(root)), runtime_(runtime) {}

Result<std::map<std::string, ModelRepository::Found>> ModelRepository::Scan() const {
  std::error_code error;
  std::map<std::string, Found> found;
  fs::directory_iterator it(root_, error);
  if (error) {
    return NotFoundError("model repository '" + root_.string() + "': " + error.message());
  }
  for (; it != fs::directory_iterator(); it.increment(error)) {
    if (error) break;
    const std::string name = it->path().filename().string();
    if (!IsServableName(name) || name == kPipelines || !it->is_directory(error)) continue;
    found[name] = {it->path(), false};
  }
  const fs::path pipelines = root_ / kPipelines;
  for (fs::directory_iterator p(pipelines, error); !error && p != fs::directory_iterator();
       p.increment(error)) {
    if (p->path().extension() != ".yaml") continue;
    const std::string name = p->path().stem().string();
    if (IsServableName(name)) found[name] = {p->path(), true};
  }
  return found;
}

Result<GraphPtr> ModelRepository::ImportModel(const std::string& name) const {
  const fs::path folder = root_ / name;
  std::error_code error;
  if (!IsServableName(name) || !fs::is_directory(folder, error)) {
    return NotFoundError("model '" + name + "' is not in the repository");
  }
  fs::path file = folder / "model.onnx";
  int64_t latest = 0;
  for (fs::directory_iterator it(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    const int64_t version = VersionNumber(it->path().filename().string());
    if (version > latest && fs::exists(it->path() / "model.onnx", error)) {
      latest = version;
      file = it->path() / "model.onnx";
    }
  }
  return ImportStable(file);
}

Result<ServablePtr> ModelRepository::LoadFile(const std::string& name, int64_t version,
                                              const fs::path& file, const ModelConfig& config) {
  PLEXUS_ASSIGN_OR_RETURN(const GraphPtr graph, ImportStable(file));
  auto servable = std::make_shared<Servable>();
  servable->name = name;
  servable->version = std::to_string(version);
  servable->platform = "onnx";
  servable->config = config;
  servable->inputs = Metadata(*graph, graph->inputs());
  servable->outputs = Metadata(*graph, graph->outputs());
  CompileOptions options;
  options.precision = config.precision;
  Result<ExecutablePtr> executable = runtime_.Load(name, graph, options);
  if (!executable.ok()) return executable.status().WithContext(file.string());
  servable->executable = std::move(*executable);
  if (!skip_runs_) {
    PLEXUS_RETURN_IF_ERROR(WarmUp(*servable));
    LogOutputError(*servable, graph);
  }
  return ServablePtr(std::move(servable));
}

// Reduced precision is never silent: what it costs stands in the log.
void ModelRepository::LogOutputError(const Servable& servable, const GraphPtr& graph) {
  const bool bf16 = servable.config.precision == Precision::kBFloat16;
  if (!bf16 && !IsQuantized(*graph)) return;
  const auto& warm_up = servable.config.warm_up;
  const Result<double> error =
      MeasureOutputError(runtime_, graph, servable.executable,
                         warm_up.empty() ? std::map<std::string, Shape>() : warm_up[0]);
  const std::string what = "model '" + servable.name + "' in " + (bf16 ? "bf16" : "int8");
  if (error.ok()) {
    PLEXUS_LOG(kInfo) << what << ": outputs differ from float32's by " << *error
                      << " of the largest";
  } else {
    PLEXUS_LOG(kWarning) << what << ": output error not measured (" << error.status().message()
                         << "); shapes in warm_up help";
  }
}

Status ModelRepository::WarmUp(const Servable& servable) {
  for (const auto& shapes : servable.config.warm_up) {
    std::vector<Tensor> inputs;
    for (const TensorMetadata& input : servable.inputs) {
      const auto shape = shapes.find(input.name);
      if (shape == shapes.end()) {
        return InvalidArgumentError("warm_up does not give the shape of input '" + input.name +
                                    "'");
      }
      PLEXUS_ASSIGN_OR_RETURN(Tensor zeros, Tensor::Allocate(input.dtype, shape->second));
      std::fill_n(zeros.raw_mutable(), zeros.size_bytes(), std::byte{0});
      inputs.push_back(std::move(zeros));
    }
    PLEXUS_RETURN_IF_ERROR(runtime_.Warm(servable.executable, inputs).WithContext("warm_up"));
  }
  return OkStatus();
}

Result<ModelRepository::Entry> ModelRepository::LoadModel(const std::string& name,
                                                          const fs::path& folder) {
  ModelConfig config;
  std::error_code error;
  if (fs::exists(folder / "config.yaml", error)) {
    PLEXUS_ASSIGN_OR_RETURN(const std::string text, ReadText(folder / "config.yaml"));
    PLEXUS_ASSIGN_OR_RETURN(config, ParseModelConfig(text, name + "/config.yaml"));
  }
  std::map<int64_t, fs::path> files;
  if (fs::exists(folder / "model.onnx", error)) files[1] = folder / "model.onnx";
  for (fs::directory_iterator it(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    const int64_t version = VersionNumber(it->path().filename().string());
    if (version > 0 && fs::exists(it->path() / "model.onnx", error)) {
      files[version] = it->path() / "model.onnx";
    }
  }
  if (files.empty()) return NotFoundError("no model.onnx, and no VERSION/model.onnx");
  std::string missing;
  for (const int64_t version : config.listed_versions) {
    if (files.count(version) == 0)
      missing += (missing.empty() ? "" : ", ") + std::to_string(version);
  }
  if (!missing.empty()) {
    return NotFoundError(name + "/config.yaml: key 'versions': not there: " + missing);
  }
  Entry entry;
  for (const auto& [version, file] : files) {
    const bool wanted =
        config.versions == ModelConfig::Versions::kAll ||
        (config.versions == ModelConfig::Versions::kLatest && version == files.rbegin()->first) ||
        std::count(config.listed_versions.begin(), config.listed_versions.end(), version) > 0;
    if (!wanted) continue;
    PLEXUS_ASSIGN_OR_RETURN(entry.versions[version], LoadFile(name, version, file, config));
  }
  return entry;
}

Result<ModelRepository::Entry> ModelRepository::LoadPipeline(const std::string& name,
                                                             const fs::path& file) {
  PLEXUS_ASSIGN_OR_RETURN(const std::string text, ReadText(file));
  const ModelLookup lookup = [this](const std::string& model) -> Result<GraphPtr> {
    GraphPtr& graph = imported_[model];
    if (graph == nullptr) {
      PLEXUS_ASSIGN_OR_RETURN(graph, ImportModel(model));
    }
    return graph;
  };
  PLEXUS_ASSIGN_OR_RETURN(const PipelineFile pipeline, ParsePipeline(text, file.filename().string(),
                                                                     file.parent_path(), lookup));
  if (pipeline.name != name) {
    return InvalidArgumentError("its 'name' is '" + pipeline.name + "', its file is named '" +
                                name + "'");
  }
  auto servable = std::make_shared<Servable>();
  servable->name = name;
  servable->version = "1";
  servable->platform = "plexus_pipeline";
  servable->models = pipeline.models;
  servable->stages = pipeline.stages;
  servable->states = pipeline.states;
  servable->session_idle = pipeline.session_idle;
  static std::atomic<uint64_t> loads{0};
  servable->load_number = loads.fetch_add(1, std::memory_order_relaxed);  // only unique
  servable->inputs = Metadata(*pipeline.graph, pipeline.graph->inputs());
  servable->inputs.resize(servable->inputs.size() - pipeline.states.size());
  servable->outputs = Metadata(*pipeline.graph, pipeline.graph->outputs());
  servable->outputs.resize(pipeline.outputs.size());
  for (size_t i = 0; i < pipeline.outputs.size(); ++i) {
    servable->outputs[i].name = pipeline.outputs[i];
    servable->outputs[i].shape = pipeline.output_shapes[i];
  }
  Result<ExecutablePtr> executable = runtime_.Load(name, pipeline.graph, {});
  if (!executable.ok()) return executable.status().WithContext(file.filename().string());
  servable->executable = std::move(*executable);
  const auto known = InferStatically(servable->executable->graph(), SIZE_MAX);
  for (size_t i = 0; known.ok() && i < servable->outputs.size(); ++i) {
    if (!(*known)[i].shape) continue;
    PLEXUS_RETURN_IF_ERROR(CheckDeclaredShape(servable->outputs[i].shape, *(*known)[i].shape)
                               .WithContext(file.filename().string() + ": output '" +
                                            servable->outputs[i].name + "'"));
  }
  for (size_t i = 0; known.ok() && i < pipeline.states.size(); ++i) {
    const std::optional<Shape>& next = (*known)[pipeline.outputs.size() + i].shape;
    if (!next) continue;
    PLEXUS_RETURN_IF_ERROR(
        CheckDeclaredShape(pipeline.states[i].shape, *next)
            .WithContext(file.filename().string() + ": state '" + pipeline.states[i].name + "'"));
  }
  Entry entry;
  entry.versions[1] = std::move(servable);
  return entry;
}

Result<ModelRepository::Entry> ModelRepository::LoadEntry(const std::string& name,
                                                          const Found& found) {
  if (stopping_.load(std::memory_order_relaxed)) {
    return UnavailableError("the server is shutting down");
  }
  Result<Entry> entry =
      found.is_pipeline ? LoadPipeline(name, found.path) : LoadModel(name, found.path);
  if (entry.ok()) return entry;
  return entry.status().WithContext((found.is_pipeline ? "pipeline '" : "model '") + name + "'");
}

Status ModelRepository::CheckReadable() const {
  std::error_code error;
  const fs::directory_iterator it(root_, error);
  if (!error) return OkStatus();
  const std::string message = "model repository '" + root_.string() + "': " + error.message();
  if (error == std::errc::permission_denied) return PermissionDeniedError(message);
  return NotFoundError(message);
}

Status ModelRepository::LoadAll() {
  std::lock_guard loading(loading_mutex_);
  PLEXUS_ASSIGN_OR_RETURN(const auto found, Scan());
  for (const auto& [name, what] : found) {
    Result<Entry> entry = LoadEntry(name, what);
    std::lock_guard lock(mutex_);
    if (entry.ok()) {
      entries_[name] = std::move(*entry);
      PLEXUS_LOG(kInfo) << "loaded " << name;
    } else {
      entries_[name].failure = entry.status().message();
      PLEXUS_LOG(kError) << "not loaded: " << entry.status().ToString();
    }
  }
  imported_.clear();
  changed_();
  return OkStatus();
}

Status ModelRepository::Load(const std::string& name) {
  std::lock_guard loading(loading_mutex_);
  PLEXUS_ASSIGN_OR_RETURN(const auto found, Scan());
  const auto wanted = found.find(name);
  if (wanted == found.end()) {
    return NotFoundError("'" + name + "' is not in the model repository");
  }
  // The entry itself, then every loaded pipeline that is made of it: all or none.
  Entries fresh;
  Status status;
  const auto load = [&](const std::string& which, const Found& what) {
    Result<Entry> entry = LoadEntry(which, what);
    if (entry.ok()) {
      fresh[which] = std::move(*entry);
    } else if (status.ok()) {
      status = entry.status();
    }
  };
  load(name, wanted->second);
  for (const ServablePtr& servable : Loaded()) {
    const auto dependent = found.find(servable->name);
    if (!status.ok() || dependent == found.end()) continue;
    if (std::count(servable->models.begin(), servable->models.end(), name) > 0) {
      load(servable->name, dependent->second);
    }
  }
  imported_.clear();
  std::list<ServablePtr> stale;
  {
    std::lock_guard lock(mutex_);
    if (!status.ok()) {
      entries_[name].failure = status.message();
      return status;
    }
    // What was there is destroyed after the lock is released.
    for (auto& [fresh_name, entry] : fresh) std::swap(entries_[fresh_name], entry);
    stale = TakeStaleGroupsLocked();
  }
  changed_();
  return OkStatus();
}

Status ModelRepository::Unload(const std::string& name, bool unload_dependents) {
  std::lock_guard loading(loading_mutex_);
  // Destroyed after the lock is released: the last reference may free much memory.
  std::vector<Entry> dropped;
  std::list<ServablePtr> stale;
  std::unique_lock lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end() || it->second.versions.empty()) {
    return NotFoundError("'" + name + "' is not loaded");
  }
  std::set<std::string> names = {name};
  for (const auto& [other, entry] : entries_) {
    if (!unload_dependents || entry.versions.empty()) continue;
    const auto& models = entry.versions.rbegin()->second->models;
    if (std::count(models.begin(), models.end(), name) > 0) names.insert(other);
  }
  for (const std::string& each : names) {
    dropped.push_back(std::move(entries_[each]));
    entries_[each] = Entry{{}, "unloaded"};
  }
  stale = TakeStaleGroupsLocked();
  lock.unlock();
  changed_();
  return OkStatus();
}

Result<ServablePtr> ModelRepository::Find(const std::string& name,
                                          const std::string& version) const {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return NotFoundError("unknown model '" + name + "'");
  const Entry& entry = it->second;
  if (entry.versions.empty()) {
    return UnavailableError("model '" + name + "' is not ready: " + entry.failure);
  }
  if (version.empty()) return entry.versions.rbegin()->second;
  const auto found = entry.versions.find(VersionNumber(version));
  if (found == entry.versions.end()) {
    return NotFoundError("model '" + name + "' has no version '" + version + "'");
  }
  return found->second;
}

bool ModelRepository::IsCurrentLocked(const Servable& group) const {
  return std::all_of(group.members.begin(), group.members.end(), [this](const auto& member) {
    const auto entry = entries_.find(member->name);
    return entry != entries_.end() && !entry->second.versions.empty() &&
           entry->second.versions.rbegin()->second == member;
  });
}

std::list<ServablePtr> ModelRepository::TakeStaleGroupsLocked() {
  std::list<ServablePtr> stale;
  for (auto it = groups_.begin(); it != groups_.end();) {
    const auto next = std::next(it);
    if (!IsCurrentLocked(**it)) stale.splice(stale.end(), groups_, it);
    it = next;
  }
  return stale;
}

ServablePtr ModelRepository::FindKeptGroup(const std::vector<std::string>& names) {
  std::lock_guard lock(mutex_);
  for (auto it = groups_.begin(); it != groups_.end(); ++it) {
    if ((*it)->models != names) continue;
    groups_.splice(groups_.begin(), groups_, it);
    return groups_.front();
  }
  return nullptr;
}

Result<ServablePtr> ModelRepository::FindGroup(const std::vector<std::string>& names) {
  if (ServablePtr kept = FindKeptGroup(names)) return kept;
  std::vector<ServablePtr> members;
  std::string joined;
  for (const std::string& name : names) {
    PLEXUS_ASSIGN_OR_RETURN(ServablePtr member, Find(name, ""));
    joined += (joined.empty() ? "" : ",") + name;
    members.push_back(std::move(member));
  }
  PLEXUS_ASSIGN_OR_RETURN(ServablePtr group, MakeGroup(runtime_, joined, members));
  std::lock_guard lock(mutex_);
  if (!IsCurrentLocked(*group)) return group;  // for this request only
  groups_.push_front(group);
  if (groups_.size() > kKeptGroups) groups_.pop_back();
  return group;
}

std::vector<ServablePtr> ModelRepository::Loaded() const {
  std::vector<ServablePtr> out;
  std::lock_guard lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    for (const auto& [version, servable] : entry.versions) out.push_back(servable);
  }
  return out;
}

std::vector<ServablePtr> ModelRepository::Versions(const std::string& name) const {
  std::vector<ServablePtr> out;
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return out;
  for (const auto& [version, servable] : it->second.versions) out.push_back(servable);
  return out;
}

std::vector<IndexEntry> ModelRepository::Index() const {
  std::vector<IndexEntry> out;
  const auto found = Scan();
  std::lock_guard lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    for (const auto& [version, servable] : entry.versions) {
      out.push_back({name, std::to_string(version), true, entry.failure});
    }
    if (entry.versions.empty()) out.push_back({name, "", false, entry.failure});
  }
  if (!found.ok()) return out;
  for (const auto& [name, what] : *found) {
    if (entries_.count(name) == 0) out.push_back({name, "", false, "not loaded"});
  }
  return out;
}

}  // namespace plexus
