// StageScope: one list of stages of a pipeline file, as nodes of one graph. Nested stages (a
// branch, the body of a fan-out or of a loop) are a scope of their own that reads from the one
// around it.
#pragma once

#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "pipeline/glue.h"
#include "pipeline/pipeline_file.h"
#include "yaml/yaml_reader.h"

namespace plexus {

// Limits on what a file may hold; all scopes of it together.
inline constexpr size_t kMaxStages = 1000;
inline constexpr int kMaxStageNesting = 8;

// What the scopes of one file share; outlives them.
struct StageFile {
  std::string name;
  std::filesystem::path folder;
  const ModelLookup& models;
  std::vector<std::string> used_models;
  size_t num_stages = 0;

  Status Fail(const std::string& what) const { return InvalidArgumentError(name + ": " + what); }
};

// Letters, digits, '-' and '_', at most 128.
bool IsStageName(const std::string& name);

// Every error names the file and the stage. Thread-compatible. An outer scope outlives the scopes
// inside it and does not move.
class StageScope {
 public:
  using Outputs = std::vector<GlueOutput>;  // what a stage gives, by name, in order

  // `prefix` goes before the names of its stages in messages, nodes and values: "lines/".
  StageScope(StageFile& file, StageScope* outer, std::string prefix, int depth = 0)
      : file_(file), outer_(outer), prefix_(std::move(prefix)), depth_(depth) {}
  StageScope(const StageScope&) = delete;
  StageScope& operator=(const StageScope&) = delete;

  Graph& graph() { return graph_; }

  // An input, an element or a state that the stages read by `name`; adds it to the graph's inputs.
  Status AddInput(Value value);
  // `value` is taken to be what a model that reads it declares, where its own shape is not known.
  void MayLearnShape(ValueId value) { learns_shape_.push_back(value); }

  // Takes the stages as written; they may stand in any order.
  Status Read(const YAML::Node& stages);
  // Adds every stage of Read().
  Status AddStages();
  // The value "stage" or "stage.output", of this scope or of one around it, in this scope's graph;
  // adds the stages that it needs. `reader` is for messages: "stage 'x'".
  Result<ValueId> Resolve(const std::string& reference, const std::string& reader);

  // Per graph().captures(): the value of the scope around that it stands for.
  const std::vector<ValueId>& captured() const { return captured_; }

  // The stages as written, inner ones after the one they belong to.
  Status Describe(std::vector<PipelineStage>* stages) const;

 private:
  enum class Visit { kNone, kOpen, kDone };

  // A stage as written, before any of it is looked up.
  struct Spec {
    std::string name;
    YAML::Node yaml;
    std::string kind;                                         // "model", "op", "when" ...
    std::string what;                                         // the model's or operator's name
    std::vector<std::pair<std::string, std::string>> inputs;  // (model input or "", reference)
    bool map_rows = false;
    std::vector<std::unique_ptr<StageScope>> inner;
  };

  // One entry of `outputs:` of nested stages.
  struct OutputSpec {
    std::string name, from;
    std::optional<std::string> pad;  // foreach
    std::string sizes;               // foreach; "" for none
  };

  // Nested stages and what they give.
  struct Body {
    StageScope* scope;
    std::vector<OutputSpec> outputs;
    std::vector<ValueId> values;  // of scope->graph(), one per output
  };

  // What a loop carries from turn to turn.
  struct State {
    std::string name, next;
  };

  bool Defines(const std::string& name) const;
  Status ReadStage(const YAML::Node& yaml);
  Status ReadInputs(const YAML::Node& yaml, YamlMap& map, Spec* spec);
  Status AddStage(const std::string& name);
  Result<ValueId> Capture(ValueId outer);
  std::string Where(const Spec& spec) const { return "stage '" + prefix_ + spec.name + "'"; }

  Result<Outputs> AddModel(const Spec& spec, const std::vector<ValueId>& values);
  Result<size_t> ModelInput(const Graph& model, const Spec& spec, const std::string& name,
                            size_t position) const;
  Outputs MapRows(const Spec& spec, const GraphPtr& model, const std::vector<ValueId>& inputs);
  Outputs Inline(const Spec& spec, const Graph& model, const std::vector<ValueId>& inputs);

  // In nested_stages.cc.
  Result<Outputs> AddWhen(Spec& spec, YamlMap& options);
  Result<Outputs> AddForeach(Spec& spec, YamlMap& options);
  Result<Outputs> AddRepeat(Spec& spec, YamlMap& options);
  Result<Outputs> AddIf(const Spec& spec, ValueId condition, Body& yes, Body& no);
  Result<Outputs> AddLoop(const Spec& spec, const std::string& condition,
                          const std::vector<State>& states, Node node, Body& body);
  Result<StageScope*> NewInner(Spec& spec, const std::string& path);
  Status ReadBody(YamlMap& map, const Spec& spec, bool gathers, Body* body);
  Result<OutputSpec> ReadOutput(const YAML::Node& yaml, const std::string& where, bool gathers);
  Result<std::vector<State>> ReadStates(const YAML::Node& list, Spec& spec, StageScope& scope,
                                        Node* node);
  ValueId NewOutput(const Spec& spec, const std::string& name, DType dtype, Node* node);
  GraphPtr TakeGraph(const std::vector<ValueId>& outputs, const std::vector<ValueId>& outer);

  StageFile& file_;
  StageScope* const outer_;
  const std::string prefix_;
  const int depth_;
  Graph graph_;
  std::deque<Spec> specs_;
  std::map<std::string, Visit> visits_;  // of inputs and stages
  std::map<std::string, Outputs> made_;
  std::vector<ValueId> captured_;
  std::vector<ValueId> learns_shape_;
};

}  // namespace plexus
