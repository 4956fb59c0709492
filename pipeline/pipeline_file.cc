#include "pipeline/pipeline_file.h"

#include <algorithm>
#include <optional>
#include <set>

#include "pipeline/glue_rows.h"
#include "pipeline/stage_scope.h"
#include "yaml/yaml_reader.h"

namespace plexus {
namespace {

constexpr double kMaxIdleSeconds = 86400;

SymbolicShape ShapeOf(const std::vector<int64_t>& sizes) {
  SymbolicShape shape;
  shape.has_rank = true;
  for (int64_t d : sizes) {
    SymbolicDim dim;
    if (d >= 0) dim.value = d;
    shape.dims.push_back(dim);
  }
  return shape;
}

std::string UnknownType(const std::string& name) {
  return "unknown dtype '" + name +
         "'; there are: FP16, FP32, FP64, BF16, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, "
         "UINT64, BOOL, BYTES";
}

class PipelineBuilder {
 public:
  PipelineBuilder(std::string file_name, std::filesystem::path folder, const ModelLookup& models)
      : file_{std::move(file_name), std::move(folder), models, {}, 0}, scope_(file_, nullptr, "") {}

  Result<PipelineFile> Build(std::string_view text) {
    PLEXUS_ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(text, file_.name));
    YamlMap map(root, file_.name);
    result_.name = map.String("name");
    result_.tenant = map.String("tenant", "");
    const YAML::Node inputs = map.Child("inputs");
    const YAML::Node stages = map.Child("stages");
    const YAML::Node outputs = map.Child("outputs");
    const YAML::Node states = map.Child("state");
    const double idle = map.Double("idle_seconds", 60);
    if (!states.IsNull() && !states.IsSequence()) {
      map.Fail("state", "expected a list of {name, dtype, shape, initial, next}");
    }
    if (map.Has("idle_seconds") && states.IsNull()) {
      map.Fail("idle_seconds", "a pipeline without 'state' keeps no sessions");
    }
    if (!(idle > 0 && idle <= kMaxIdleSeconds)) {
      map.Fail("idle_seconds", "expected more than 0, at most 86400");
    }
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    result_.session_idle =
        std::chrono::duration_cast<Duration>(std::chrono::duration<double>(idle));
    if (!IsStageName(result_.name)) {
      return file_.Fail("'name' must be letters, digits, '-' and '_'");
    }
    for (const auto& [key, list] :
         {std::pair{"inputs", inputs}, {"stages", stages}, {"outputs", outputs}}) {
      if (!list.IsSequence() || list.size() == 0) {
        return file_.Fail(std::string("'") + key + "' must be a list with at least one entry");
      }
    }
    scope_.graph().name = result_.name;
    for (const YAML::Node& input : inputs) PLEXUS_RETURN_IF_ERROR(AddInput(input));
    for (const YAML::Node& state : states) PLEXUS_RETURN_IF_ERROR(AddState(state));
    PLEXUS_RETURN_IF_ERROR(scope_.Read(stages));
    PLEXUS_RETURN_IF_ERROR(scope_.AddStages());
    for (const YAML::Node& output : outputs) PLEXUS_RETURN_IF_ERROR(AddOutput(output));
    for (size_t i = 0; i < next_.size(); ++i) PLEXUS_RETURN_IF_ERROR(AddNext(i));
    PLEXUS_RETURN_IF_ERROR(scope_.Describe(&result_.stages));
    PLEXUS_RETURN_IF_ERROR(scope_.graph().Validate().WithContext(file_.name));
    result_.models = std::move(file_.used_models);
    result_.graph = std::make_shared<const Graph>(std::move(scope_.graph()));
    return std::move(result_);
  }

 private:
  Status AddInput(const YAML::Node& yaml) {
    YamlMap map(yaml, file_.name + ": input");
    Value value;
    value.name = map.String("name");
    const std::string type = map.String("dtype");
    const std::optional<DType> dtype = DTypeFromProtocolName(type);
    const std::vector<int64_t> shape = map.Ints("shape");
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    const std::string where = "input '" + value.name + "': ";
    if (!dtype) return file_.Fail(where + UnknownType(type));
    value.dtype = *dtype;
    for (int64_t d : shape) {
      if (d < -1) return file_.Fail(where + "'shape' holds sizes, or -1");
    }
    value.shape = ShapeOf(shape);
    if (!IsStageName(value.name)) return file_.Fail(where + "bad name");
    return scope_.AddInput(std::move(value));
  }

  Status AddOutput(const YAML::Node& yaml) {
    YamlMap map(yaml, file_.name + ": output");
    const std::string name = map.String("name");
    const std::string from = map.String("from");
    SymbolicShape declared;
    if (map.Has("shape")) declared = ShapeOf(map.Ints("shape"));
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    const std::string where = "output '" + name + "'";
    if (!IsStageName(name)) return file_.Fail(where + ": bad name");
    if (!output_names_.insert(name).second) {
      return file_.Fail("two outputs are named '" + name + "'");
    }
    PLEXUS_ASSIGN_OR_RETURN(const ValueId source, scope_.Resolve(from, where));
    AddResult("output " + name, source);
    result_.outputs.push_back(name);
    result_.output_shapes.push_back(std::move(declared));
    return OkStatus();
  }

  Status AddState(const YAML::Node& yaml) {
    YamlMap map(yaml, file_.name + ": state");
    Value value;
    value.name = map.String("name");
    const std::string type = map.String("dtype");
    const std::optional<DType> dtype = DTypeFromProtocolName(type);
    Shape sizes = map.Ints("shape");
    const std::string initial = map.String("initial", dtype == DType::kString ? "" : "0");
    next_.push_back(map.String("next"));
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    const std::string where = "state '" + value.name + "': ";
    if (!dtype) return file_.Fail(where + UnknownType(type));
    for (const int64_t d : sizes) {
      if (d < -1) return file_.Fail(where + "'shape' holds sizes, or -1");
    }
    if (!IsStageName(value.name)) return file_.Fail(where + "bad name");
    value.dtype = *dtype;
    value.shape = ShapeOf(sizes);
    PipelineState state{value.name, value.shape, {}};
    std::replace(sizes.begin(), sizes.end(), int64_t{-1}, int64_t{0});
    Result<Tensor> tensor = FilledTensor(*dtype, sizes, initial);
    if (!tensor.ok()) return file_.Fail(where + "key 'initial': " + tensor.status().message());
    state.initial = std::move(*tensor);
    result_.states.push_back(std::move(state));
    return scope_.AddInput(std::move(value));
  }

  Status AddNext(size_t i) {
    const PipelineState& state = result_.states[i];
    const std::string where = "state '" + state.name + "'";
    PLEXUS_ASSIGN_OR_RETURN(const ValueId next, scope_.Resolve(next_[i], where));
    const DType dtype = scope_.graph().value(next).dtype;
    if (dtype != state.initial.dtype()) {
      return file_.Fail(where + " is " + std::string(DTypeProtocolName(state.initial.dtype())) +
                        ", its next value '" + next_[i] + "' is " +
                        std::string(DTypeProtocolName(dtype)));
    }
    AddResult("next " + state.name, next);
    return OkStatus();
  }

  // An Identity gives the output its own name; canonicalisation removes it where it can.
  void AddResult(const std::string& name, ValueId source) {
    Graph& graph = scope_.graph();
    Value value;
    value.name = name;
    value.dtype = graph.value(source).dtype;
    const ValueId out = graph.AddValue(std::move(value));
    Node node;
    node.op = "Identity";
    node.version = 18;
    node.name = name;
    node.inputs = {source};
    node.outputs = {out};
    graph.AddNode(std::move(node));
    graph.outputs().push_back(out);
  }

  StageFile file_;
  StageScope scope_;
  PipelineFile result_;
  std::set<std::string> output_names_;
  std::vector<std::string> next_;  // per state
};

}  // namespace

Result<PipelineFile> ParsePipeline(std::string_view yaml, const std::string& file_name,
                                   const std::filesystem::path& folder, const ModelLookup& models) {
  try {
    return PipelineBuilder(file_name, folder, models).Build(yaml);
  } catch (const std::exception& e) {  // yaml-cpp reports by exceptions
    return InvalidArgumentError(file_name + ": " + e.what());
  }
}

}  // namespace plexus
