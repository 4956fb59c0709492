// Stages with stages inside: `when` becomes If, `foreach` plexus.MapRows, `repeat` Loop.
#include <algorithm>
#include <charconv>
#include <set>

#include "graph/passes/fused_ops.h"
#include "pipeline/stage_scope.h"

namespace plexus {
namespace {

constexpr int64_t kDefaultFanOut = 10'000;
constexpr int64_t kMaxFanOut = 10'000'000;
constexpr int64_t kDefaultConcurrency = 16;
constexpr int64_t kMaxConcurrency = 256;
constexpr int64_t kMaxTurns = 1'000'000;
constexpr int kOpset = 18;

std::string TypeName(DType dtype) { return std::string(DTypeProtocolName(dtype)); }

// A list of names, or one by itself.
std::vector<std::string> OneOrMore(YamlMap& map, const std::string& key) {
  if (map.Child(key).IsSequence()) return map.Strings(key);
  return {map.String(key)};
}

// One element of `dtype` as written.
std::optional<Tensor> ParseElement(DType dtype, const std::string& text) {
  if (dtype == DType::kString) return Tensor::FromStrings({}, {text});
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return ScalarOf(dtype, number);
}

}  // namespace

Result<StageScope*> StageScope::NewInner(Spec& spec, const std::string& path) {
  if (depth_ + 1 > kMaxStageNesting) {
    return file_.Fail(Where(spec) + ": stages nest deeper than " +
                      std::to_string(kMaxStageNesting) + " levels");
  }
  spec.inner.push_back(
      std::make_unique<StageScope>(file_, this, prefix_ + spec.name + "/" + path, depth_ + 1));
  return spec.inner.back().get();
}

Result<StageScope::OutputSpec> StageScope::ReadOutput(const YAML::Node& yaml,
                                                      const std::string& where, bool gathers) {
  OutputSpec output;
  if (yaml.IsScalar()) {
    output.name = output.from = yaml.Scalar();
    if (output.name.find('.') != std::string::npos) {
      return file_.Fail(where + ": output '" + output.name +
                        "' needs a name: {name: NAME, from: " + output.from + "}");
    }
  } else {
    YamlMap map(yaml, file_.name + ": " + where + ", output");
    output.name = map.String("name");
    output.from = map.String("from");
    if (gathers && map.Has("pad")) output.pad = map.String("pad");
    if (gathers) output.sizes = map.String("sizes", "");
    PLEXUS_RETURN_IF_ERROR(map.Finish());
  }
  if (!IsStageName(output.name)) {
    return file_.Fail(where + ": output '" + output.name + "': bad name");
  }
  return output;
}

// The keys `stages` and `outputs` of `map`, the last that it is asked for.
Status StageScope::ReadBody(YamlMap& map, const Spec& spec, bool gathers, Body* body) {
  const std::string where = Where(spec);
  const YAML::Node stages = map.Child("stages");
  const YAML::Node outputs = map.Child("outputs");
  if (!stages.IsNull() && !stages.IsSequence()) map.Fail("stages", "expected a list of stages");
  if (!outputs.IsSequence() || outputs.size() == 0) {
    map.Fail("key 'outputs': expected a list with at least one entry");
  }
  PLEXUS_RETURN_IF_ERROR(map.Finish());
  if (stages.IsSequence()) PLEXUS_RETURN_IF_ERROR(body->scope->Read(stages));
  PLEXUS_RETURN_IF_ERROR(body->scope->AddStages());
  std::set<std::string> names;
  const auto is_new = [&](const std::string& name) {
    if (names.insert(name).second) return OkStatus();
    return file_.Fail(where + ": two outputs are named '" + name + "'");
  };
  for (const YAML::Node& yaml : outputs) {
    PLEXUS_ASSIGN_OR_RETURN(OutputSpec output, ReadOutput(yaml, where, gathers));
    PLEXUS_RETURN_IF_ERROR(is_new(output.name));
    if (!output.sizes.empty()) {
      if (!IsStageName(output.sizes)) {
        return file_.Fail(where + ": output '" + output.name + "': key 'sizes': bad name");
      }
      PLEXUS_RETURN_IF_ERROR(is_new(output.sizes));
    }
    PLEXUS_ASSIGN_OR_RETURN(
        const ValueId value,
        body->scope->Resolve(output.from, where + ", output '" + output.name + "',"));
    body->outputs.push_back(std::move(output));
    body->values.push_back(value);
  }
  return OkStatus();
}

ValueId StageScope::NewOutput(const Spec& spec, const std::string& name, DType dtype, Node* node) {
  Value value;
  value.name = prefix_ + spec.name + "/" + name;
  value.dtype = dtype;
  const ValueId id = graph_.AddValue(std::move(value));
  node->outputs.push_back(id);
  return id;
}

// The scope's graph with these outputs; captures in the order of `outer`, values around it.
GraphPtr StageScope::TakeGraph(const std::vector<ValueId>& outputs,
                               const std::vector<ValueId>& outer) {
  std::vector<ValueId> captures(outer.size());
  for (size_t i = 0; i < captured_.size(); ++i) {
    const auto at = std::find(outer.begin(), outer.end(), captured_[i]);
    captures[at - outer.begin()] = graph_.captures()[i];
  }
  for (ValueId id : outputs) {
    const std::vector<ValueId>& so_far = graph_.outputs();
    // Every output is a value of its own, and none is a constant.
    if (graph_.value(id).IsConstant() || std::count(so_far.begin(), so_far.end(), id) > 0) {
      Node node;
      node.op = "Identity";
      node.version = kOpset;
      node.name = prefix_ + "output " + std::to_string(so_far.size());
      node.inputs = {id};
      Value value;
      value.name = node.name;
      value.dtype = graph_.value(id).dtype;
      id = graph_.AddValue(std::move(value));
      node.outputs = {id};
      graph_.AddNode(std::move(node));
    }
    graph_.outputs().push_back(id);
  }
  graph_.captures() = std::move(captures);
  graph_.name = prefix_;
  return std::make_shared<const Graph>(std::move(graph_));
}

Result<StageScope::Outputs> StageScope::AddWhen(Spec& spec, YamlMap& options) {
  const std::string where = Where(spec), predicate = options.String("when");
  const YAML::Node yaml[] = {options.Child("then"), options.Child("else")};
  if (!yaml[0].IsMap()) options.Fail("key 'then': expected {stages: [...], outputs: [...]}");
  if (!yaml[1].IsMap() && !yaml[1].IsNull()) {
    options.Fail("key 'else': expected {stages: [...], outputs: [...]}");
  }
  PLEXUS_RETURN_IF_ERROR(options.Finish());
  PLEXUS_ASSIGN_OR_RETURN(const ValueId condition, Resolve(predicate, where));
  spec.inputs = {{"", predicate}};
  const DType type = graph_.value(condition).dtype;
  if (type != DType::kBool) {
    return file_.Fail(where + ": 'when' takes a BOOL value, '" + predicate + "' is " +
                      TypeName(type));
  }
  const char* const names[] = {"then", "else"};
  Body branches[2];
  for (int b = 0; b < 2; ++b) {
    Body& branch = branches[b];
    PLEXUS_ASSIGN_OR_RETURN(branch.scope, NewInner(spec, std::string(names[b]) + "/"));
    if (yaml[b].IsMap()) {
      YamlMap map(yaml[b], file_.name + ": " + where + ", '" + names[b] + "'");
      PLEXUS_RETURN_IF_ERROR(ReadBody(map, spec, false, &branch));
      continue;
    }
    for (const OutputSpec& output : branches[0].outputs) {  // passed through
      if (!Defines(output.name)) {
        return file_.Fail(where + ": without 'else', output '" + output.name +
                          "' passes the value of that name through, and there is none");
      }
      PLEXUS_ASSIGN_OR_RETURN(const ValueId value, branch.scope->Resolve(output.name, where));
      branch.outputs.push_back({output.name, output.name, {}, {}});
      branch.values.push_back(value);
    }
  }
  return AddIf(spec, condition, branches[0], branches[1]);
}

Result<StageScope::Outputs> StageScope::AddIf(const Spec& spec, ValueId condition, Body& yes,
                                              Body& no) {
  const std::string where = Where(spec);
  if (yes.outputs.size() != no.outputs.size()) {
    return file_.Fail(where + ": 'then' and 'else' must give the same outputs");
  }
  Node node;
  node.op = "If";
  node.version = kOpset;
  node.name = prefix_ + spec.name;
  node.inputs = {condition};
  node.attributes["stage"] = int64_t{1};
  Outputs outputs;
  std::vector<ValueId> no_values;
  for (size_t i = 0; i < yes.outputs.size(); ++i) {
    const std::string& name = yes.outputs[i].name;
    const auto other = std::find_if(no.outputs.begin(), no.outputs.end(),
                                    [&](const OutputSpec& o) { return o.name == name; });
    if (other == no.outputs.end()) {
      return file_.Fail(where + ": 'then' gives output '" + name + "', 'else' does not");
    }
    no_values.push_back(no.values[other - no.outputs.begin()]);
    const DType type = yes.scope->graph().value(yes.values[i]).dtype;
    const DType other_type = no.scope->graph().value(no_values.back()).dtype;
    if (type != other_type) {
      return file_.Fail(where + ": output '" + name + "' is " + TypeName(type) +
                        " from 'then' and " + TypeName(other_type) + " from 'else'");
    }
    outputs.push_back({name, NewOutput(spec, name, type, &node)});
  }
  node.implicit_inputs = yes.scope->captured();
  for (ValueId id : no.scope->captured()) {
    std::vector<ValueId>& outer = node.implicit_inputs;
    if (std::count(outer.begin(), outer.end(), id) == 0) outer.push_back(id);
  }
  node.attributes["then_branch"] = yes.scope->TakeGraph(yes.values, node.implicit_inputs);
  node.attributes["else_branch"] = no.scope->TakeGraph(no_values, node.implicit_inputs);
  graph_.AddNode(std::move(node));
  return outputs;
}

Result<StageScope::Outputs> StageScope::AddForeach(Spec& spec, YamlMap& options) {
  const std::string where = Where(spec);
  const std::vector<std::string> over = OneOrMore(options, "foreach");
  const std::vector<std::string> elements = OneOrMore(options, "as");
  const int64_t limit = options.Int("limit", kDefaultFanOut);
  const int64_t concurrency = options.Int("concurrency", kDefaultConcurrency);
  if (limit < 1 || limit > kMaxFanOut) {
    options.Fail("limit", "expected 1 to " + std::to_string(kMaxFanOut));
  }
  if (concurrency < 1 || concurrency > kMaxConcurrency) {
    options.Fail("concurrency", "expected 1 to " + std::to_string(kMaxConcurrency));
  }
  if (over.empty() || over.size() != elements.size()) {
    options.Fail("'foreach' and 'as' must name as many values as each other");
  }
  Node node;
  node.domain = std::string(kPlexusDomain);
  node.op = "MapRows";
  node.version = 1;
  node.name = prefix_ + spec.name;
  node.attributes["stage"] = int64_t{1};
  node.attributes["limit"] = limit;
  node.attributes["concurrency"] = concurrency;
  Body body;
  PLEXUS_ASSIGN_OR_RETURN(body.scope, NewInner(spec, ""));
  for (size_t i = 0; i < std::min(over.size(), elements.size()); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(const ValueId outer, Resolve(over[i], where));
    spec.inputs.emplace_back("", over[i]);
    node.inputs.push_back(outer);
    Value element;
    element.name = elements[i];
    element.dtype = graph_.value(outer).dtype;
    element.shape = graph_.value(outer).shape;
    if (element.shape.has_rank) {
      if (element.shape.dims.empty()) {
        return file_.Fail(where + ": '" + over[i] + "' is a scalar: it has no axis to walk");
      }
      element.shape.dims[0] = {1, ""};
    }
    if (!IsStageName(elements[i])) {
      options.Fail("as", "expected letters, digits, '-' and '_'");
      return options.Finish();
    }
    PLEXUS_RETURN_IF_ERROR(body.scope->AddInput(std::move(element)));
    body.scope->MayLearnShape(body.scope->graph().inputs().back());
  }
  PLEXUS_RETURN_IF_ERROR(ReadBody(options, spec, true, &body));

  Outputs outputs;
  std::vector<int64_t> sized;
  for (size_t i = 0; i < body.outputs.size(); ++i) {
    const OutputSpec& output = body.outputs[i];
    const DType type = body.scope->graph().value(body.values[i]).dtype;
    outputs.push_back({output.name, NewOutput(spec, output.name, type, &node)});
    if (!output.sizes.empty()) sized.push_back(static_cast<int64_t>(i));
    if (!output.pad) continue;
    std::optional<Tensor> pad = ParseElement(type, *output.pad);
    if (!pad) {
      return file_.Fail(where + ": output '" + output.name + "': key 'pad': '" + *output.pad +
                        "' is no value of type " + TypeName(type));
    }
    node.attributes["pad_" + std::to_string(i)] = std::move(*pad);
  }
  for (int64_t i : sized) {
    const std::string& name = body.outputs[i].sizes;
    outputs.push_back({name, NewOutput(spec, name, DType::kInt64, &node)});
  }
  if (!sized.empty()) node.attributes["sizes"] = sized;
  node.implicit_inputs = body.scope->captured();
  node.attributes["body"] = body.scope->TakeGraph(body.values, node.implicit_inputs);
  graph_.AddNode(std::move(node));
  return outputs;
}

Result<StageScope::Outputs> StageScope::AddRepeat(Spec& spec, YamlMap& options) {
  const std::string where = Where(spec);
  YamlMap bounds(options.Child("repeat"), file_.name + ": " + where + ", 'repeat'");
  const int64_t limit = bounds.Int("limit");
  const std::string condition = bounds.String("while", "");
  const std::string at_limit = bounds.String("at_limit", condition.empty() ? "stop" : "error");
  const std::string turn = bounds.String("turn", "");
  if (limit < 1 || limit > kMaxTurns) {
    bounds.Fail("limit", "expected 1 to " + std::to_string(kMaxTurns));
  }
  if (at_limit != "stop" && at_limit != "error") {
    bounds.Fail("at_limit", "expected error or stop");
  } else if (condition.empty() && at_limit == "error") {
    bounds.Fail("at_limit", "without 'while' the limit is where it ends");
  }
  PLEXUS_RETURN_IF_ERROR(bounds.Finish());
  Body body;
  PLEXUS_ASSIGN_OR_RETURN(body.scope, NewInner(spec, ""));
  Node node;
  node.op = "Loop";
  node.version = kOpset;
  node.name = prefix_ + spec.name;
  node.attributes["stage"] = int64_t{1};
  if (at_limit == "error") node.attributes["at_limit"] = at_limit;
  const std::string constant = node.name + "/limit";
  node.inputs = {
      graph_.AddConstant(constant, ConstantStore::Get().Intern(Tensor::ScalarInt64(limit))),
      ValueId()};
  const SymbolicShape scalar{true, {}};
  if (!turn.empty() && !IsStageName(turn)) return file_.Fail(where + ": 'turn': bad name");
  // Names in brackets are nobody's: no reference can hold them.
  PLEXUS_RETURN_IF_ERROR(
      body.scope->AddInput({turn.empty() ? "(turn)" : turn, DType::kInt64, scalar, nullptr}));
  PLEXUS_RETURN_IF_ERROR(body.scope->AddInput({"(going)", DType::kBool, scalar, nullptr}));

  const YAML::Node list = options.Child("state");
  if (!list.IsNull() && !list.IsSequence()) {
    options.Fail("state", "expected a list of {name: NAME, from: VALUE, next: VALUE}");
    return options.Finish();
  }
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<State> states,
                          ReadStates(list, spec, *body.scope, &node));
  PLEXUS_RETURN_IF_ERROR(ReadBody(options, spec, false, &body));
  return AddLoop(spec, condition, states, std::move(node), body);
}

Result<std::vector<StageScope::State>> StageScope::ReadStates(const YAML::Node& list, Spec& spec,
                                                              StageScope& scope, Node* node) {
  const std::string where = Where(spec);
  std::vector<State> states;
  for (const YAML::Node& yaml : list) {
    YamlMap map(yaml, file_.name + ": " + where + ", 'state'");
    states.push_back({map.String("name"), map.String("next")});
    const std::string from = map.String("from");
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    const std::string& name = states.back().name;
    if (!IsStageName(name)) return file_.Fail(where + ": state '" + name + "': bad name");
    PLEXUS_ASSIGN_OR_RETURN(const ValueId first, Resolve(from, where));
    spec.inputs.emplace_back("", from);
    node->inputs.push_back(first);
    PLEXUS_RETURN_IF_ERROR(scope.AddInput({name, graph_.value(first).dtype, {}, nullptr}));
  }
  return states;
}

Result<StageScope::Outputs> StageScope::AddLoop(const Spec& spec, const std::string& condition,
                                                const std::vector<State>& states, Node node,
                                                Body& body) {
  const std::string where = Where(spec);
  const auto type_of = [&](ValueId id) { return body.scope->graph().value(id).dtype; };
  ValueId going = body.scope->graph().inputs()[1];
  if (!condition.empty()) {
    PLEXUS_ASSIGN_OR_RETURN(going, body.scope->Resolve(condition, where + ", 'while',"));
    if (type_of(going) != DType::kBool) {
      return file_.Fail(where + ": 'while' takes a BOOL value, '" + condition + "' is " +
                        TypeName(type_of(going)));
    }
  }
  std::vector<ValueId> results = {going};
  std::vector<ValueId> finals;  // of the node, per state
  for (size_t i = 0; i < states.size(); ++i) {
    const auto& [name, from] = states[i];
    const DType type = type_of(body.scope->graph().inputs()[2 + i]);
    PLEXUS_ASSIGN_OR_RETURN(const ValueId next,
                            body.scope->Resolve(from, where + ", state '" + name + "',"));
    if (type_of(next) != type) {
      return file_.Fail(where + ": state '" + name + "' is " + TypeName(type) +
                        ", its next value '" + from + "' is " + TypeName(type_of(next)));
    }
    results.push_back(next);
    finals.push_back(NewOutput(spec, name, type, &node));
  }
  Outputs outputs;
  for (size_t i = 0; i < body.outputs.size(); ++i) {
    const OutputSpec& output = body.outputs[i];
    const std::vector<ValueId>& inputs = body.scope->graph().inputs();
    const auto at = std::find(inputs.begin(), inputs.end(), body.values[i]) - inputs.begin();
    if (at >= 2 && at < static_cast<std::ptrdiff_t>(2 + states.size())) {
      outputs.push_back({output.name, finals[at - 2]});  // the state after the last turn
      continue;
    }
    // Carried along only to be there at the end; the first turn replaces what it starts from.
    const DType type = type_of(body.values[i]);
    Tensor nothing;
    if (type == DType::kString) {
      nothing = Tensor::FromStrings({0}, {});
    } else {
      PLEXUS_ASSIGN_OR_RETURN(nothing, Tensor::Allocate(type, {0}));
    }
    node.inputs.push_back(graph_.AddConstant(node.name + "/nothing" + std::to_string(i),
                                             ConstantStore::Get().Intern(std::move(nothing))));
    body.scope->graph().AddInput({node.name + "/(" + output.name + ")", type, {}, nullptr});
    results.push_back(body.values[i]);
    outputs.push_back({output.name, NewOutput(spec, output.name + " at the end", type, &node)});
  }
  node.implicit_inputs = body.scope->captured();
  node.attributes["body"] = body.scope->TakeGraph(results, node.implicit_inputs);
  graph_.AddNode(std::move(node));
  return outputs;
}

}  // namespace plexus
