#include "pipeline/pipeline_file.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "graph/passes/fused_ops.h"
#include "pipeline/glue.h"
#include "yaml/yaml_reader.h"

namespace plexus {
namespace {

constexpr size_t kMaxStages = 1000;

// A stage as written, before any of it is looked up.
struct StageSpec {
  std::string name;
  YAML::Node yaml;
  std::string model, op;                                    // exactly one is set
  std::vector<std::pair<std::string, std::string>> inputs;  // (model input or "", reference)
  bool map_rows = false;
};

bool IsName(const std::string& name) {
  return !name.empty() && name.size() <= 128 &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; });
}

class PipelineBuilder {
 public:
  PipelineBuilder(std::string file_name, std::filesystem::path folder, const ModelLookup& models)
      : file_(std::move(file_name)), folder_(std::move(folder)), models_(models) {}

  Result<PipelineFile> Build(std::string_view text) {
    PLEXUS_ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(text, file_));
    YamlMap map(root, file_);
    result_.name = map.String("name");
    result_.tenant = map.String("tenant", "");
    const YAML::Node inputs = map.Child("inputs");
    const YAML::Node stages = map.Child("stages");
    const YAML::Node outputs = map.Child("outputs");
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    if (!IsName(result_.name)) {
      return Fail("'name' must be letters, digits, '-' and '_'");
    }
    for (const auto& [key, list] :
         {std::pair{"inputs", inputs}, {"stages", stages}, {"outputs", outputs}}) {
      if (!list.IsSequence() || list.size() == 0) {
        return Fail(std::string("'") + key + "' must be a list with at least one entry");
      }
    }
    if (stages.size() > kMaxStages) return Fail("more than 1000 stages");
    graph_.name = result_.name;
    for (const YAML::Node& input : inputs) PLEXUS_RETURN_IF_ERROR(AddInput(input));
    for (const YAML::Node& stage : stages) PLEXUS_RETURN_IF_ERROR(ReadStage(stage));
    for (const StageSpec& stage : stages_) PLEXUS_RETURN_IF_ERROR(AddStage(stage.name));
    for (const YAML::Node& output : outputs) PLEXUS_RETURN_IF_ERROR(AddOutput(output));
    for (const StageSpec& stage : stages_) PLEXUS_RETURN_IF_ERROR(DescribeStage(stage));
    PLEXUS_RETURN_IF_ERROR(graph_.Validate().WithContext(file_));
    result_.graph = std::make_shared<const Graph>(std::move(graph_));
    return std::move(result_);
  }

 private:
  enum class Visit { kNone, kOpen, kDone };
  // What a stage gives: its outputs by name, in order.
  using Outputs = std::vector<GlueOutput>;

  Status Fail(const std::string& what) const { return InvalidArgumentError(file_ + ": " + what); }

  Status AddInput(const YAML::Node& yaml) {
    YamlMap map(yaml, file_ + ": input");
    Value value;
    value.name = map.String("name");
    const std::optional<DType> dtype = DTypeFromProtocolName(map.String("dtype"));
    const std::vector<int64_t> shape = map.Ints("shape");
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    if (!dtype) return Fail("input '" + value.name + "': unknown dtype");
    value.dtype = *dtype;
    value.shape.has_rank = true;
    for (int64_t d : shape) {
      if (d < -1) return Fail("input '" + value.name + "': 'shape' holds sizes, or -1");
      SymbolicDim dim;
      if (d >= 0) dim.value = d;
      value.shape.dims.push_back(dim);
    }
    if (!IsName(value.name)) return Fail("input '" + value.name + "': bad name");
    if (!visits_.emplace(value.name, Visit::kDone).second) {
      return Fail("two inputs or stages are named '" + value.name + "'");
    }
    const std::string name = value.name;
    made_[name] = {{"", graph_.AddInput(std::move(value))}};
    return OkStatus();
  }

  Status ReadStage(const YAML::Node& yaml) {
    if (!yaml.IsMap()) return Fail("stage: expected a mapping of keys to values");
    StageSpec stage;
    stage.yaml = yaml;
    // The operator's own keys are checked when it is added; here only what all stages share.
    YamlMap map(yaml, file_ + ": stage");
    stage.name = map.String("name");
    stage.model = map.String("model", "");
    stage.op = map.String("op", "");
    const YAML::Node inputs = map.Child("inputs");
    if (map.Has("input")) stage.inputs.emplace_back("", map.String("input"));
    stage.map_rows = map.Bool("map_rows", false);
    if (inputs.IsSequence()) {
      for (const std::string& reference : map.Strings("inputs")) {
        stage.inputs.emplace_back("", reference);
      }
    } else if (inputs.IsMap()) {
      for (const auto& entry : inputs) {
        if (!entry.first.IsScalar() || !entry.second.IsScalar()) {
          return Fail("stage '" + stage.name + "': 'inputs' maps input names to values");
        }
        stage.inputs.emplace_back(entry.first.Scalar(), entry.second.Scalar());
      }
    } else if (!inputs.IsNull()) {
      return Fail("stage '" + stage.name + "': 'inputs' must be a list or a mapping");
    }
    if (!IsName(stage.name)) return Fail("stage '" + stage.name + "': bad name");
    if (stage.model.empty() == stage.op.empty()) {
      return Fail("stage '" + stage.name + "': give either 'model' or 'op'");
    }
    if (!visits_.emplace(stage.name, Visit::kNone).second) {
      return Fail("two inputs or stages are named '" + stage.name + "'");
    }
    stages_.push_back(std::move(stage));
    return OkStatus();
  }

  // Adds a stage after everything it reads; stages may be listed in any order.
  Status AddStage(const std::string& name) {
    Visit& visit = visits_[name];
    if (visit == Visit::kDone) return OkStatus();
    if (visit == Visit::kOpen) return Fail("stage '" + name + "' is part of a cycle");
    visit = Visit::kOpen;
    const StageSpec& stage = *std::find_if(stages_.begin(), stages_.end(),
                                           [&](const StageSpec& s) { return s.name == name; });
    std::vector<ValueId> values;
    for (const auto& [to, reference] : stage.inputs) {
      const std::string producer = StageOf(reference);
      if (visits_.count(producer) == 0) {
        return Fail("stage '" + name + "' reads '" + reference + "', which is no input or stage");
      }
      PLEXUS_RETURN_IF_ERROR(AddStage(producer));
      PLEXUS_ASSIGN_OR_RETURN(const ValueId value, Resolve(reference, "stage '" + name + "'"));
      values.push_back(value);
    }
    YamlMap options(stage.yaml, file_ + ": stage '" + name + "'");
    for (const char* common : {"name", "model", "op", "input", "inputs"}) options.Child(common);
    Result<Outputs> outputs = Outputs();
    if (stage.model.empty()) {
      GlueContext context{graph_, name, values, folder_, options};
      outputs = AddGlue(stage.op, context);
    } else {
      options.Child("map_rows");
      PLEXUS_RETURN_IF_ERROR(options.Finish());
      outputs = AddModel(stage, values);
    }
    PLEXUS_RETURN_IF_ERROR(outputs.status());
    made_[name] = std::move(*outputs);
    visits_[name] = Visit::kDone;
    return OkStatus();
  }

  // References are "stage" or "stage.output"; a stage's name holds no dot, an output's may.
  static std::string StageOf(const std::string& reference) {
    return reference.substr(0, reference.find('.'));
  }

  Result<ValueId> Resolve(const std::string& reference, const std::string& reader) {
    const auto made = made_.find(StageOf(reference));
    if (made == made_.end()) {
      return Fail(reader + " reads '" + reference + "', which is no input or stage");
    }
    const size_t dot = reference.find('.');
    if (dot == std::string::npos) {
      if (made->second.size() == 1) return made->second[0].value;
      return Fail(reader + " reads '" + reference +
                  "', which has several outputs: " + OutputNames(made->second));
    }
    const std::string wanted = reference.substr(dot + 1);
    for (const GlueOutput& output : made->second) {
      if (output.name == wanted) return output.value;
    }
    return Fail(reader + " reads '" + reference + "'; there are: " + OutputNames(made->second));
  }

  static std::string OutputNames(const Outputs& outputs) {
    std::string names;
    for (const GlueOutput& o : outputs) names += (names.empty() ? "'" : ", '") + o.name + "'";
    return names;
  }

  Result<Outputs> AddModel(const StageSpec& stage, const std::vector<ValueId>& values) {
    const std::string where = "stage '" + stage.name + "'";
    Result<GraphPtr> found = models_(stage.model);
    if (!found.ok()) return found.status().WithContext(file_ + ": " + where);
    const GraphPtr model = *found;
    if (std::count(result_.models.begin(), result_.models.end(), stage.model) == 0) {
      result_.models.push_back(stage.model);
    }
    std::vector<ValueId> bound(model->inputs().size());
    for (size_t i = 0; i < stage.inputs.size(); ++i) {
      PLEXUS_ASSIGN_OR_RETURN(const size_t at, ModelInput(*model, stage, stage.inputs[i].first, i));
      const Value& want = model->value(model->inputs()[at]);
      if (bound[at].valid()) return Fail(where + ": input '" + want.name + "' is given twice");
      const DType got = graph_.value(values[i]).dtype;
      if (want.dtype != got) {
        return Fail(where + ": input '" + want.name + "' of model '" + stage.model + "' is " +
                    std::string(DTypeProtocolName(want.dtype)) + ", '" + stage.inputs[i].second +
                    "' is " + std::string(DTypeProtocolName(got)));
      }
      bound[at] = values[i];
    }
    for (size_t i = 0; i < bound.size(); ++i) {
      if (!bound[i].valid()) {
        return Fail(where + ": input '" + model->value(model->inputs()[i]).name + "' of model '" +
                    stage.model + "' is not given");
      }
    }
    return stage.map_rows ? MapRows(stage, model, bound) : Inline(stage, *model, bound);
  }

  Result<size_t> ModelInput(const Graph& model, const StageSpec& stage, const std::string& name,
                            size_t position) const {
    if (name.empty() && position < model.inputs().size()) return position;
    for (size_t i = 0; i < model.inputs().size(); ++i) {
      if (model.value(model.inputs()[i]).name == name) return i;
    }
    return Fail("stage '" + stage.name + "': model '" + stage.model + "' has no input '" + name +
                "'");
  }

  Outputs MapRows(const StageSpec& stage, const GraphPtr& model,
                  const std::vector<ValueId>& inputs) {
    Node node;
    node.domain = std::string(kPlexusDomain);
    node.op = "MapRows";
    node.version = 1;
    node.name = stage.name;
    node.inputs = inputs;
    node.attributes["body"] = model;
    Outputs outputs;
    for (ValueId id : model->outputs()) {
      Value value;
      value.name = stage.name + "/" + model->value(id).name;
      value.dtype = model->value(id).dtype;
      const ValueId out = graph_.AddValue(std::move(value));
      node.outputs.push_back(out);
      outputs.push_back({model->value(id).name, out});
    }
    graph_.AddNode(std::move(node));
    return outputs;
  }

  Outputs Inline(const StageSpec& stage, const Graph& model, const std::vector<ValueId>& inputs) {
    std::vector<ValueId> map(model.num_values());
    for (size_t i = 0; i < inputs.size(); ++i) map[model.inputs()[i].value()] = inputs[i];
    const auto wire = [&](ValueId id) {
      if (!id.valid()) return id;
      ValueId& mapped = map[id.value()];
      if (!mapped.valid()) {
        Value value = model.value(id);
        value.name = stage.name + "/" + value.name;
        // A declared size may be an example's; what flows here is inferred anew per request.
        if (!value.IsConstant()) value.shape = SymbolicShape();
        mapped = graph_.AddValue(std::move(value));
      }
      return mapped;
    };
    for (Node node : model.nodes()) {
      node.name = stage.name + "/" + node.name;
      for (ValueId& id : node.inputs) id = wire(id);
      for (ValueId& id : node.implicit_inputs) id = wire(id);
      for (ValueId& id : node.outputs) id = wire(id);
      graph_.AddNode(std::move(node));
    }
    Outputs outputs;
    for (ValueId id : model.outputs()) outputs.push_back({model.value(id).name, wire(id)});
    return outputs;
  }

  Status DescribeStage(const StageSpec& stage) {
    PipelineStage described{stage.name, stage.model, stage.op, stage.map_rows, {}, 0, 0};
    for (const auto& [to, reference] : stage.inputs) described.inputs.push_back(reference);
    if (!stage.model.empty()) {
      PLEXUS_ASSIGN_OR_RETURN(const GraphPtr model, models_(stage.model));
      described.nodes = model->num_nodes();
      for (const Value& value : model->values()) {
        if (value.IsConstant()) described.constant_bytes += value.constant->size_bytes();
      }
    }
    result_.stages.push_back(std::move(described));
    return OkStatus();
  }

  Status AddOutput(const YAML::Node& yaml) {
    YamlMap map(yaml, file_ + ": output");
    const std::string name = map.String("name");
    const std::string from = map.String("from");
    SymbolicShape declared;
    if (map.Has("shape")) {
      declared.has_rank = true;
      for (int64_t d : map.Ints("shape")) {
        SymbolicDim dim;
        if (d >= 0) dim.value = d;
        declared.dims.push_back(dim);
      }
    }
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    if (!IsName(name)) return Fail("output '" + name + "': bad name");
    if (!output_names_.insert(name).second) return Fail("two outputs are named '" + name + "'");
    PLEXUS_ASSIGN_OR_RETURN(const ValueId source, Resolve(from, "output '" + name + "'"));
    // An Identity gives the output its own name; canonicalisation removes it where it can.
    Value value;
    value.name = "output " + name;
    value.dtype = graph_.value(source).dtype;
    const ValueId out = graph_.AddValue(std::move(value));
    Node node;
    node.op = "Identity";
    node.version = 18;
    node.name = "output " + name;
    node.inputs = {source};
    node.outputs = {out};
    graph_.AddNode(std::move(node));
    graph_.outputs().push_back(out);
    result_.outputs.push_back(name);
    result_.output_shapes.push_back(std::move(declared));
    return OkStatus();
  }

  const std::string file_;
  const std::filesystem::path folder_;
  const ModelLookup& models_;
  PipelineFile result_;
  Graph graph_;
  std::vector<StageSpec> stages_;
  std::map<std::string, Visit> visits_;
  std::map<std::string, Outputs> made_;
  std::set<std::string> output_names_;
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
