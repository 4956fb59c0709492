#include "pipeline/stage_scope.h"

#include <algorithm>

#include "graph/passes/fused_ops.h"

namespace plexus {
namespace {

// References are "stage" or "stage.output"; a stage's name holds no dot, an output's may.
std::string StageOf(const std::string& reference) {
  return reference.substr(0, reference.find('.'));
}

std::string OutputNames(const std::vector<GlueOutput>& outputs) {
  std::string names;
  for (const GlueOutput& o : outputs) names += (names.empty() ? "'" : ", '") + o.name + "'";
  return names;
}

}  // namespace

bool IsStageName(const std::string& name) {
  return !name.empty() && name.size() <= 128 &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; });
}

bool StageScope::Defines(const std::string& name) const {
  return visits_.count(name) > 0 || (outer_ != nullptr && outer_->Defines(name));
}

Status StageScope::AddInput(Value value) {
  const std::string name = value.name;
  if (Defines(name)) return file_.Fail("two inputs or stages are named '" + name + "'");
  visits_[name] = Visit::kDone;
  value.name = prefix_ + name;
  made_[name] = {{"", graph_.AddInput(std::move(value))}};
  return OkStatus();
}

Status StageScope::Read(const YAML::Node& stages) {
  file_.num_stages += stages.size();
  if (file_.num_stages > kMaxStages) return file_.Fail("more than 1000 stages");
  for (const YAML::Node& stage : stages) PLEXUS_RETURN_IF_ERROR(ReadStage(stage));
  return OkStatus();
}

Status StageScope::ReadInputs(const YAML::Node& yaml, YamlMap& map, Spec* spec) {
  if (map.Has("input")) spec->inputs.emplace_back("", map.String("input"));
  if (yaml.IsSequence()) {
    for (const std::string& reference : map.Strings("inputs")) {
      spec->inputs.emplace_back("", reference);
    }
  } else if (yaml.IsMap()) {
    for (const auto& entry : yaml) {
      if (!entry.first.IsScalar() || !entry.second.IsScalar()) {
        return file_.Fail(Where(*spec) + ": 'inputs' maps input names to values");
      }
      spec->inputs.emplace_back(entry.first.Scalar(), entry.second.Scalar());
    }
  } else if (!yaml.IsNull()) {
    return file_.Fail(Where(*spec) + ": 'inputs' must be a list or a mapping");
  }
  return OkStatus();
}

Status StageScope::ReadStage(const YAML::Node& yaml) {
  if (!yaml.IsMap()) return file_.Fail("stage: expected a mapping of keys to values");
  Spec spec;
  spec.yaml = yaml;
  // A kind's own keys are checked when it is added; here only what all stages share.
  YamlMap map(yaml, file_.name + ": stage");
  spec.name = map.String("name");
  if (!IsStageName(spec.name)) return file_.Fail(Where(spec) + ": bad name");
  std::vector<std::string> kinds;
  for (const char* kind : {"model", "op", "when", "foreach", "repeat"}) {
    if (map.Has(kind)) kinds.emplace_back(kind);
  }
  if (kinds.size() != 1) {
    return file_.Fail(Where(spec) +
                      ": give either 'model' or 'op', or one of 'when', 'foreach', 'repeat'");
  }
  spec.kind = kinds[0];
  if (spec.kind == "model" || spec.kind == "op") {
    spec.what = map.String(spec.kind);
    if (spec.what.empty()) return file_.Fail(Where(spec) + ": key '" + spec.kind + "' is empty");
    spec.map_rows = map.Bool("map_rows", false);
    PLEXUS_RETURN_IF_ERROR(ReadInputs(map.Child("inputs"), map, &spec));
  }
  if (Defines(spec.name)) {
    return file_.Fail("two inputs or stages are named '" + prefix_ + spec.name + "'");
  }
  visits_[spec.name] = Visit::kNone;
  specs_.push_back(std::move(spec));
  return OkStatus();
}

Status StageScope::AddStages() {
  for (const Spec& spec : specs_) PLEXUS_RETURN_IF_ERROR(AddStage(spec.name));
  return OkStatus();
}

// Adds a stage after everything it reads.
Status StageScope::AddStage(const std::string& name) {
  Visit& visit = visits_[name];
  if (visit == Visit::kDone) return OkStatus();
  Spec& spec =
      *std::find_if(specs_.begin(), specs_.end(), [&](const Spec& s) { return s.name == name; });
  if (visit == Visit::kOpen) return file_.Fail(Where(spec) + " is part of a cycle");
  visit = Visit::kOpen;
  std::vector<ValueId> values;
  for (const auto& [to, reference] : spec.inputs) {
    PLEXUS_ASSIGN_OR_RETURN(const ValueId value, Resolve(reference, Where(spec)));
    values.push_back(value);
  }
  YamlMap options(spec.yaml, file_.name + ": " + Where(spec));
  options.Child("name");
  Result<Outputs> outputs = Outputs();
  if (spec.kind == "op") {
    for (const char* common : {"op", "input", "inputs"}) options.Child(common);
    GlueContext context{graph_, prefix_ + name, values, file_.folder, options};
    outputs = AddGlue(spec.what, context);
  } else if (spec.kind == "model") {
    for (const char* common : {"model", "input", "inputs", "map_rows"}) options.Child(common);
    PLEXUS_RETURN_IF_ERROR(options.Finish());
    outputs = AddModel(spec, values);
  } else if (spec.kind == "when") {
    outputs = AddWhen(spec, options);
  } else if (spec.kind == "foreach") {
    outputs = AddForeach(spec, options);
  } else {
    outputs = AddRepeat(spec, options);
  }
  PLEXUS_RETURN_IF_ERROR(outputs.status());
  made_[name] = std::move(*outputs);
  visits_[name] = Visit::kDone;
  return OkStatus();
}

Result<ValueId> StageScope::Resolve(const std::string& reference, const std::string& reader) {
  const std::string producer = StageOf(reference);
  if (visits_.count(producer) == 0) {
    if (outer_ == nullptr || !outer_->Defines(producer)) {
      return file_.Fail(reader + " reads '" + reference + "', which is no input or stage");
    }
    PLEXUS_ASSIGN_OR_RETURN(const ValueId outer, outer_->Resolve(reference, reader));
    return Capture(outer);
  }
  PLEXUS_RETURN_IF_ERROR(AddStage(producer));
  const Outputs& made = made_[producer];
  const size_t dot = reference.find('.');
  if (dot == std::string::npos) {
    if (made.size() == 1) return made[0].value;
    return file_.Fail(reader + " reads '" + reference +
                      "', which has several outputs: " + OutputNames(made));
  }
  const std::string wanted = reference.substr(dot + 1);
  for (const GlueOutput& output : made) {
    if (output.name == wanted) return output.value;
  }
  return file_.Fail(reader + " reads '" + reference + "'; there are: " + OutputNames(made));
}

// A value of the scope around, read in here.
Result<ValueId> StageScope::Capture(ValueId outer) {
  for (size_t i = 0; i < captured_.size(); ++i) {
    if (captured_[i] == outer) return graph_.captures()[i];
  }
  const Value& value = outer_->graph_.value(outer);
  if (value.IsConstant()) return graph_.AddValue(value);
  const ValueId inner = graph_.AddValue(value);
  graph_.captures().push_back(inner);
  captured_.push_back(outer);
  return inner;
}

Result<StageScope::Outputs> StageScope::AddModel(const Spec& spec,
                                                 const std::vector<ValueId>& values) {
  const std::string where = Where(spec);
  Result<GraphPtr> found = file_.models(spec.what);
  if (!found.ok()) return found.status().WithContext(file_.name + ": " + where);
  const GraphPtr model = *found;
  std::vector<std::string>& used = file_.used_models;
  if (std::count(used.begin(), used.end(), spec.what) == 0) used.push_back(spec.what);
  std::vector<ValueId> bound(model->inputs().size());
  for (size_t i = 0; i < spec.inputs.size(); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(const size_t at, ModelInput(*model, spec, spec.inputs[i].first, i));
    const Value& want = model->value(model->inputs()[at]);
    if (bound[at].valid()) return file_.Fail(where + ": input '" + want.name + "' is given twice");
    Value& got = graph_.value(values[i]);
    if (want.dtype != got.dtype) {
      return file_.Fail(where + ": input '" + want.name + "' of model '" + spec.what + "' is " +
                        std::string(DTypeProtocolName(want.dtype)) + ", '" + spec.inputs[i].second +
                        "' is " + std::string(DTypeProtocolName(got.dtype)));
    }
    if (std::count(learns_shape_.begin(), learns_shape_.end(), values[i]) > 0 &&
        !got.shape.has_rank) {
      got.shape = want.shape;
    }
    bound[at] = values[i];
  }
  for (size_t i = 0; i < bound.size(); ++i) {
    if (!bound[i].valid()) {
      return file_.Fail(where + ": input '" + model->value(model->inputs()[i]).name +
                        "' of model '" + spec.what + "' is not given");
    }
  }
  return spec.map_rows ? MapRows(spec, model, bound) : Inline(spec, *model, bound);
}

Result<size_t> StageScope::ModelInput(const Graph& model, const Spec& spec, const std::string& name,
                                      size_t position) const {
  if (name.empty() && position < model.inputs().size()) return position;
  for (size_t i = 0; i < model.inputs().size(); ++i) {
    if (model.value(model.inputs()[i]).name == name) return i;
  }
  std::string names;
  for (const ValueId input : model.inputs()) {
    names += (names.empty() ? "'" : ", '") + model.value(input).name + "'";
  }
  return file_.Fail(Where(spec) + ": model '" + spec.what + "' has no input '" + name +
                    "'; it has " + (names.empty() ? "none" : names));
}

StageScope::Outputs StageScope::MapRows(const Spec& spec, const GraphPtr& model,
                                        const std::vector<ValueId>& inputs) {
  Node node;
  node.domain = std::string(kPlexusDomain);
  node.op = "MapRows";
  node.version = 1;
  node.name = prefix_ + spec.name;
  node.inputs = inputs;
  node.attributes["body"] = model;
  Outputs outputs;
  for (ValueId id : model->outputs()) {
    const Value& value = model->value(id);
    outputs.push_back({value.name, NewOutput(spec, value.name, value.dtype, &node)});
  }
  graph_.AddNode(std::move(node));
  return outputs;
}

StageScope::Outputs StageScope::Inline(const Spec& spec, const Graph& model,
                                       const std::vector<ValueId>& inputs) {
  const std::string prefix = prefix_ + spec.name + "/";
  std::vector<ValueId> map(model.num_values());
  for (size_t i = 0; i < inputs.size(); ++i) map[model.inputs()[i].value()] = inputs[i];
  const auto wire = [&](ValueId id) {
    if (!id.valid()) return id;
    ValueId& mapped = map[id.value()];
    if (!mapped.valid()) {
      Value value = model.value(id);
      value.name = prefix + value.name;
      // A declared size may be an example's; what flows here is inferred anew per request.
      if (!value.IsConstant()) value.shape = SymbolicShape();
      mapped = graph_.AddValue(std::move(value));
    }
    return mapped;
  };
  for (Node node : model.nodes()) {
    node.name = prefix + node.name;
    for (ValueId& id : node.inputs) id = wire(id);
    for (ValueId& id : node.implicit_inputs) id = wire(id);
    for (ValueId& id : node.outputs) id = wire(id);
    graph_.AddNode(std::move(node));
  }
  Outputs outputs;
  for (ValueId id : model.outputs()) outputs.push_back({model.value(id).name, wire(id)});
  return outputs;
}

Status StageScope::Describe(std::vector<PipelineStage>* stages) const {
  for (const Spec& spec : specs_) {
    PipelineStage described;
    described.name = prefix_ + spec.name;
    (spec.kind == "model" ? described.model : described.op) =
        spec.what.empty() ? spec.kind : spec.what;
    described.map_rows = spec.map_rows;
    for (const auto& [to, reference] : spec.inputs) described.inputs.push_back(reference);
    if (spec.kind == "model") {
      PLEXUS_ASSIGN_OR_RETURN(const GraphPtr model, file_.models(spec.what));
      described.nodes = model->num_nodes();
      for (const Value& value : model->values()) {
        if (value.IsConstant()) described.constant_bytes += value.constant->size_bytes();
      }
    }
    stages->push_back(std::move(described));
    for (const auto& inner : spec.inner) PLEXUS_RETURN_IF_ERROR(inner->Describe(stages));
  }
  return OkStatus();
}

}  // namespace plexus
