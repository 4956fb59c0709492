// What lies in the repository's folder, and how one entry of it is read.
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "base/log.h"
#include "graph/onnx/onnx_import.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/static_check.h"
#include "serve/group.h"
#include "serve/output_error.h"
#include "serve/repository.h"
#include "serve/tenants.h"

namespace plexus {
namespace {

namespace fs = std::filesystem;

constexpr int kReadAttempts = 3;
constexpr size_t kMaxTextBytes = 1 << 20;
constexpr char kPipelines[] = "pipelines";

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

// What stands above a pipeline file's own matters; it lies in `file`.yaml.
Status CheckHead(const std::string& name, const std::string& tenant, const std::string& file) {
  if (name != file) {
    return InvalidArgumentError("its 'name' is '" + name + "', its file is named '" + file + "'");
  }
  return tenant.empty() ? OkStatus() : TenantTable::CheckName(tenant).WithContext("key 'tenant'");
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

int64_t ModelRepository::VersionNumber(const std::string& name) {
  if (name.empty() || name.size() > 18 || name[0] == '0') return 0;
  if (!std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c); })) {
    return 0;
  }
  return std::stoll(name);
}

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

bool ModelRepository::IsGroupFile(const Found& found) {
  if (!found.is_pipeline) return false;
  const Result<std::string> text = ReadText(found.path);
  if (!text.ok()) return false;
  const auto group = ParseGroup(*text, "");
  return group.ok() && *group;
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
  const std::string file_name = file.filename().string();
  PLEXUS_ASSIGN_OR_RETURN(const std::optional<GroupFile> group, ParseGroup(text, file_name));
  if (group) {
    const Status good = CheckHead(group->name, group->tenant, name);
    if (!good.ok()) return good.WithContext(file_name);
    Result<Entry> entry = LoadGroup(name, *group);
    if (entry.ok()) return entry;
    return entry.status().WithContext(file_name);
  }
  const ModelLookup lookup = [this](const std::string& model) -> Result<GraphPtr> {
    GraphPtr& graph = loading_.imported[model];
    if (graph == nullptr) {
      PLEXUS_ASSIGN_OR_RETURN(graph, ImportModel(model));
    }
    return graph;
  };
  PLEXUS_ASSIGN_OR_RETURN(const PipelineFile pipeline,
                          ParsePipeline(text, file_name, file.parent_path(), lookup));
  PLEXUS_RETURN_IF_ERROR(CheckHead(pipeline.name, pipeline.tenant, name).WithContext(file_name));
  auto servable = std::make_shared<Servable>();
  servable->name = name;
  servable->version = "1";
  servable->platform = "plexus_pipeline";
  servable->tenant = pipeline.tenant;
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
  if (!executable.ok()) return executable.status().WithContext(file_name);
  servable->executable = std::move(*executable);
  const auto known = InferStatically(servable->executable->graph(), SIZE_MAX);
  for (size_t i = 0; known.ok() && i < servable->outputs.size(); ++i) {
    if (!(*known)[i].shape) continue;
    PLEXUS_RETURN_IF_ERROR(
        CheckDeclaredShape(servable->outputs[i].shape, *(*known)[i].shape)
            .WithContext(file_name + ": output '" + servable->outputs[i].name + "'"));
  }
  for (size_t i = 0; known.ok() && i < pipeline.states.size(); ++i) {
    const std::optional<Shape>& next = (*known)[pipeline.outputs.size() + i].shape;
    if (!next) continue;
    PLEXUS_RETURN_IF_ERROR(
        CheckDeclaredShape(pipeline.states[i].shape, *next)
            .WithContext(file_name + ": state '" + pipeline.states[i].name + "'"));
  }
  Entry entry;
  entry.versions[1] = std::move(servable);
  return entry;
}

Result<ModelRepository::Entry> ModelRepository::LoadGroup(const std::string& name,
                                                          const GroupFile& file) {
  // One that looks for members of its own would look for itself in the end.
  if (loading_.in_group) return InvalidArgumentError("is a group: groups have no groups in them");
  std::vector<ServablePtr> members;
  for (const std::string& each : file.members) {
    Result<ServablePtr> member = FindMember(each);
    if (!member.ok()) return member.status().WithContext("key 'group'");
    members.push_back(std::move(*member));
  }
  PLEXUS_ASSIGN_OR_RETURN(std::shared_ptr<Servable> group, MakeGroup(runtime_, name, members));
  group->tenant = file.tenant;
  Entry entry;
  entry.versions[1] = std::move(group);
  return entry;
}

// What this load makes of it, else what is loaded, else what lies in the folder.
Result<ServablePtr> ModelRepository::FindMember(const std::string& name) {
  ServablePtr& kept = loading_.members[name];
  if (kept != nullptr) return kept;
  const auto fresh = loading_.fresh.find(name);
  Result<ServablePtr> member = NotFoundError("'" + name + "' is not in the model repository");
  if (fresh != loading_.fresh.end()) {
    member = fresh->second.versions.rbegin()->second;
  } else if (Result<ServablePtr> loaded = Find(name, ""); loaded.ok()) {
    member = std::move(loaded);
  } else if (const auto found = loading_.found.find(name); found != loading_.found.end()) {
    loading_.in_group = true;
    Result<Entry> entry = LoadEntry(name, found->second);
    loading_.in_group = false;
    if (!entry.ok()) return entry.status();
    member = entry->versions.rbegin()->second;
  }
  if (!member.ok()) return member;
  if (!(*member)->members.empty()) {
    return InvalidArgumentError("'" + name + "' is a group: groups have no groups in them");
  }
  return kept = std::move(*member);
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

}  // namespace plexus
