#include "graph/onnx/graph_builder.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "graph/onnx/wire.h"

namespace plexus::onnx {
namespace {

constexpr int64_t kMinOpset = 7;
constexpr int64_t kMaxOpset = 27;
constexpr int64_t kMinIrVersion = 3;
constexpr int64_t kMaxIrVersion = 13;
constexpr int64_t kMaxCopiedBytes = int64_t{256} << 20;

std::string Describe(const NodeAst& node) {
  return "node " + Quoted(node.name) + " (" + Quoted(node.op) + ")";
}

int64_t BytesOf(const SymbolicShape& shape) {
  size_t bytes = 0;
  for (const SymbolicDim& dim : shape.dims) bytes += sizeof(dim) + dim.symbol.size();
  return static_cast<int64_t>(bytes);
}

// A Graph under construction, and the values of enclosing graphs that it reads.
struct Frame {
  Frame(Frame* parent_frame, int nesting) : parent(parent_frame), depth(nesting) {}

  struct Capture {
    ValueId outer;  // in parent->graph
    ValueId inner;
  };
  Graph graph;
  Frame* parent;
  int depth;
  std::unordered_set<std::string> value_names;
  std::unordered_set<std::string> node_names;
  std::vector<Capture> captures;
  std::map<std::pair<const Frame*, ValueId>, ValueId> imported;  // by owner
};

struct Scope;

// An attribute as written at a function's call (or as its default), with the scope its graph, if
// it is one, reads names from.
struct BoundAttribute {
  const AttributeAst* attribute;
  const Scope* scope;
};
using BoundAttributes = std::map<std::string, BoundAttribute>;

// Where names mean something: a graph, a subgraph (which sees its parent's), or one call of a
// function (which sees nothing but its inputs and puts its values into the caller's frame).
struct Scope {
  const Scope* parent;
  Frame* frame;
  const OpsetMap* opsets;
  const BoundAttributes* call;                          // null outside functions
  std::string prefix;                                   // of the names given to values and nodes
  std::unordered_map<std::string, ValueId> names = {};  // invalid: an optional input left out
};

using TypeMap = std::unordered_map<std::string_view, const ValueInfoAst*>;

class Builder {
 public:
  Builder(const ModelAst& model, const ImportOptions& options) : model_(model), options_(options) {}
  Result<GraphPtr> Build();

 private:
  using FunctionKey = std::tuple<std::string, std::string, std::string>;
  struct Reference {
    const Frame* owner;
    ValueId id;
  };

  Status IndexFunctions();
  Status CheckVersions() const;
  // Fills `scope.frame` from `ast`.
  Status BuildInto(const GraphAst& ast, Scope& scope);
  Status AddInputsAndConstants(const GraphAst& ast, Scope& scope);
  Status AddOutputs(const GraphAst& ast, Scope& scope);
  // Gives every output of `nodes` a value; where `preset` has one for the name, that one, and takes
  // it out of `preset`.
  Status DeclareOutputs(const std::vector<NodeAst>& nodes, const TypeMap& types, Scope& scope,
                        std::unordered_map<std::string, ValueId>* preset);
  Status BuildNode(const NodeAst& ast, Scope& scope);
  Status AddPlainNode(const NodeAst& ast, Scope& scope, std::vector<ValueId> inputs,
                      std::vector<ValueId> outputs);
  Status AddAttributes(const NodeAst& ast, const Scope& scope, Node* node);
  Status AddSubgraphs(const std::vector<std::pair<std::string, BoundAttribute>>& graphs,
                      Frame* frame, Node* node);
  Status CallFunction(const FunctionAst& function, const NodeAst& ast, const Scope& scope,
                      const std::vector<ValueId>& inputs, const std::vector<ValueId>& outputs);
  Status AddFunctionBody(const FunctionAst& function, Scope& scope,
                         const std::vector<ValueId>& outputs);
  Status AddIdentity(Scope& scope, const std::string& from, ValueId to);

  Result<ValueId> Find(const Scope& scope, const std::string& name);
  Result<ValueId> Import(Frame* frame, Reference from);
  Result<int> OpsetOf(const NodeAst& ast, const Scope& scope) const;
  Result<ValueId> NewValue(Scope& scope, const std::string& name, const ValueInfoAst* type);
  std::string Unique(std::unordered_set<std::string>* taken, std::string name);
  // Function calls and captures copy; without a limit a small file could ask for any amount.
  Status Charge(int64_t bytes);
  Status ChargeInFunction(int64_t bytes);

  const ModelAst& model_;
  const ImportOptions& options_;
  std::map<FunctionKey, const FunctionAst*> functions_;
  std::vector<const FunctionAst*> active_;  // calls being expanded, outermost first
  int64_t nodes_ = 0;                       // and calls
  int64_t copied_bytes_ = 0;                // by function calls and captures
  uint64_t next_suffix_ = 2;
};

Status Builder::IndexFunctions() {
  for (const FunctionAst& f : model_.functions) {
    if (!functions_.emplace(FunctionKey(f.domain, f.name, f.overload), &f).second) {
      return InvalidArgumentError("two functions are named " + Quoted(f.name));
    }
  }
  return OkStatus();
}

Status Builder::CheckVersions() const {
  if (!model_.has_graph) return InvalidArgumentError("the file holds no graph");
  if (model_.ir_version < kMinIrVersion || model_.ir_version > kMaxIrVersion) {
    return UnimplementedError("IR version " + std::to_string(model_.ir_version) +
                              ": supported are " + std::to_string(kMinIrVersion) + " to " +
                              std::to_string(kMaxIrVersion));
  }
  const auto opset = model_.opsets.find("");
  if (opset != model_.opsets.end() && (opset->second < kMinOpset || opset->second > kMaxOpset)) {
    return UnimplementedError("opset " + std::to_string(opset->second) + ": supported are " +
                              std::to_string(kMinOpset) + " to " + std::to_string(kMaxOpset));
  }
  return OkStatus();
}

Result<int> Builder::OpsetOf(const NodeAst& ast, const Scope& scope) const {
  static const std::set<std::string> kKnownDomains = {
      "",
      "ai.onnx.ml",
      "ai.onnx.training",
      "ai.onnx.preview",
      "ai.onnx.preview.training",
      "com.microsoft",
  };
  if (kKnownDomains.count(ast.domain) == 0) {
    return UnimplementedError("operator domain " + Quoted(ast.domain) + " is not supported");
  }
  auto it = scope.opsets->find(ast.domain);
  if (it == scope.opsets->end()) {
    it = model_.opsets.find(ast.domain);
    if (it == model_.opsets.end()) {
      return InvalidArgumentError("the file names no version for operator domain " +
                                  Quoted(ast.domain));
    }
  }
  const int64_t version = it->second;
  const bool is_default = ast.domain.empty();
  if (version < (is_default ? kMinOpset : 1) || version > (is_default ? kMaxOpset : 1000)) {
    return UnimplementedError("opset " + std::to_string(version) + " of domain " +
                              Quoted(ast.domain) + " is not supported");
  }
  return static_cast<int>(version);
}

Status Builder::Charge(int64_t bytes) {
  copied_bytes_ += bytes;
  if (copied_bytes_ <= kMaxCopiedBytes) return OkStatus();
  return ResourceExhaustedError("the model's functions and subgraphs expand to over " +
                                std::to_string(kMaxCopiedBytes) + " bytes");
}

Status Builder::ChargeInFunction(int64_t bytes) {
  return active_.empty() ? OkStatus() : Charge(bytes);
}

std::string Builder::Unique(std::unordered_set<std::string>* taken, std::string name) {
  if (taken->insert(name).second) return name;
  // Suffixes are never used twice, so that many equal names cost one try each.
  std::string unique;
  do {
    unique = name + "_" + std::to_string(next_suffix_++);
  } while (!taken->insert(unique).second);
  return unique;
}

Result<ValueId> Builder::NewValue(Scope& scope, const std::string& name, const ValueInfoAst* type) {
  PLEXUS_RETURN_IF_ERROR(ChargeInFunction(
      static_cast<int64_t>(sizeof(Value) + 2 * (scope.prefix.size() + name.size())) +
      (type != nullptr ? BytesOf(type->shape) : 0)));
  Value value;
  value.name = Unique(&scope.frame->value_names, scope.prefix + name);
  if (type != nullptr) {
    value.dtype = type->dtype;
    value.shape = type->shape;
  }
  return scope.frame->graph.AddValue(std::move(value));
}

Result<ValueId> Builder::Find(const Scope& scope, const std::string& name) {
  for (const Scope* s = &scope; s != nullptr; s = s->parent) {
    const auto it = s->names.find(name);
    if (it == s->names.end()) continue;
    if (!it->second.valid()) return ValueId();
    return Import(scope.frame, {s->frame, it->second});
  }
  return InvalidArgumentError("nothing makes " + Quoted(name));
}

// The id in `frame` of a value of `frame` or of a frame around it: a constant is shared, anything
// else is captured through every frame between.
Result<ValueId> Builder::Import(Frame* frame, Reference from) {
  if (from.owner == frame) return from.id;
  const auto known = frame->imported.find({from.owner, from.id});
  if (known != frame->imported.end()) return known->second;
  const Value& origin = from.owner->graph.value(from.id);
  PLEXUS_RETURN_IF_ERROR(
      Charge(static_cast<int64_t>(sizeof(Value) + 2 * origin.name.size()) + BytesOf(origin.shape)));
  Value value = origin;
  value.name = Unique(&frame->value_names, origin.name);
  ValueId id;
  if (origin.IsConstant()) {
    id = frame->graph.AddValue(std::move(value));
  } else {
    PLEXUS_ASSIGN_OR_RETURN(const ValueId outer, Import(frame->parent, from));
    id = frame->graph.AddValue(std::move(value));
    frame->captures.push_back({outer, id});
  }
  frame->imported[{from.owner, from.id}] = id;
  return id;
}

Status Builder::AddInputsAndConstants(const GraphAst& ast, Scope& scope) {
  std::unordered_set<std::string_view> constant_names;
  for (const InitializerAst& init : ast.initializers) {
    if (init.name.empty()) return InvalidArgumentError("an initializer has no name");
    if (!constant_names.insert(init.name).second) {
      return InvalidArgumentError("two initializers are named " + Quoted(init.name));
    }
  }
  for (const ValueInfoAst& input : ast.inputs) {
    // Up to IR version 3 every initializer is listed as an input too.
    if (constant_names.count(input.name) > 0) continue;
    if (input.name.empty()) return InvalidArgumentError("a graph input has no name");
    if (scope.names.count(input.name) > 0) {
      return InvalidArgumentError("two graph inputs are named " + Quoted(input.name));
    }
    PLEXUS_ASSIGN_OR_RETURN(const ValueId id, NewValue(scope, input.name, &input));
    scope.frame->graph.inputs().push_back(id);
    scope.names[input.name] = id;
  }
  for (const InitializerAst& init : ast.initializers) {
    PLEXUS_ASSIGN_OR_RETURN(const ValueId id, NewValue(scope, init.name, nullptr));
    Value& value = scope.frame->graph.value(id);
    value.constant = init.constant;
    value.dtype = init.constant->dtype();
    value.shape = SymbolicShape::FromConcrete(init.constant->shape());
    scope.names[init.name] = id;
  }
  return OkStatus();
}

Status Builder::DeclareOutputs(const std::vector<NodeAst>& nodes, const TypeMap& types,
                               Scope& scope, std::unordered_map<std::string, ValueId>* preset) {
  for (const NodeAst& node : nodes) {
    for (const std::string& output : node.outputs) {
      if (output.empty()) continue;
      if (scope.names.count(output) > 0) {
        return InvalidArgumentError("makes " + Quoted(output) + ", which is there already")
            .WithContext(Describe(node));
      }
      if (preset != nullptr) {
        const auto given = preset->find(output);
        if (given != preset->end()) {
          scope.names[output] = given->second;
          preset->erase(given);
          continue;
        }
      }
      const auto type = types.find(output);
      PLEXUS_ASSIGN_OR_RETURN(
          scope.names[output],
          NewValue(scope, output, type == types.end() ? nullptr : type->second));
    }
  }
  return OkStatus();
}

Status Builder::AddOutputs(const GraphAst& ast, Scope& scope) {
  std::unordered_set<std::string_view> seen;
  for (const ValueInfoAst& output : ast.outputs) {
    // A loop's body may hand out one value twice; a model's outputs are asked for by name.
    if (!seen.insert(output.name).second && scope.parent == nullptr) {
      return InvalidArgumentError("two graph outputs are named " + Quoted(output.name));
    }
    auto id = Find(scope, output.name);
    if (!id.ok()) return id.status().WithContext("graph output " + Quoted(output.name));
    if (!id->valid()) {
      return InvalidArgumentError("graph output " + Quoted(output.name) +
                                  " is an optional input that the call leaves out");
    }
    scope.frame->graph.outputs().push_back(*id);
  }
  return OkStatus();
}

bool IsSorted(const Graph& graph) {
  const std::vector<NodeId> producers = graph.Producers();
  for (size_t n = 0; n < graph.num_nodes(); ++n) {
    const Node& node = graph.nodes()[n];
    for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
      for (ValueId id : *list) {
        if (!id.valid()) continue;
        const NodeId producer = producers[id.value()];
        if (producer.valid() && producer.value() >= n) return false;
      }
    }
  }
  return true;
}

Status Builder::BuildInto(const GraphAst& ast, Scope& scope) {
  Graph& graph = scope.frame->graph;
  PLEXUS_RETURN_IF_ERROR(ChargeInFunction(static_cast<int64_t>(sizeof(Frame) + ast.name.size())));
  graph.name = ast.name;
  TypeMap types;
  for (const auto* list : {&ast.value_infos, &ast.outputs}) {
    for (const ValueInfoAst& info : *list) types[info.name] = &info;
  }
  PLEXUS_RETURN_IF_ERROR(AddInputsAndConstants(ast, scope));
  PLEXUS_RETURN_IF_ERROR(DeclareOutputs(ast.nodes, types, scope, nullptr));
  for (const NodeAst& node : ast.nodes) {
    Status status = BuildNode(node, scope);
    if (!status.ok()) return status.WithContext(Describe(node));
  }
  PLEXUS_RETURN_IF_ERROR(AddOutputs(ast, scope));
  return IsSorted(graph) ? OkStatus() : graph.SortTopologically();
}

Status Builder::BuildNode(const NodeAst& ast, Scope& scope) {
  if (++nodes_ > options_.max_nodes) {
    return ResourceExhaustedError("the model has over " + std::to_string(options_.max_nodes) +
                                  " nodes");
  }
  PLEXUS_RETURN_IF_ERROR(ChargeInFunction(static_cast<int64_t>(
      sizeof(Node) + 2 * (scope.prefix.size() + ast.name.size()) + ast.op.size() +
      64 * ast.attributes.size() + sizeof(ValueId) * (ast.inputs.size() + ast.outputs.size()))));
  std::vector<ValueId> inputs, outputs;
  for (const std::string& input : ast.inputs) {
    ValueId id;
    if (!input.empty()) {
      PLEXUS_ASSIGN_OR_RETURN(id, Find(scope, input));
    }
    inputs.push_back(id);
  }
  for (const std::string& output : ast.outputs) {
    outputs.push_back(output.empty() ? ValueId() : scope.names.at(output));
  }
  const auto function = functions_.find({ast.domain, ast.op, ast.overload});
  if (function != functions_.end()) {
    return CallFunction(*function->second, ast, scope, inputs, outputs);
  }
  return AddPlainNode(ast, scope, std::move(inputs), std::move(outputs));
}

Status Builder::AddPlainNode(const NodeAst& ast, Scope& scope, std::vector<ValueId> inputs,
                             std::vector<ValueId> outputs) {
  Node node;
  PLEXUS_ASSIGN_OR_RETURN(node.version, OpsetOf(ast, scope));
  node.op = ast.op;
  node.domain = ast.domain;
  node.name =
      Unique(&scope.frame->node_names, scope.prefix + (ast.name.empty() ? ast.op : ast.name));
  node.inputs = std::move(inputs);
  node.outputs = std::move(outputs);
  PLEXUS_RETURN_IF_ERROR(AddAttributes(ast, scope, &node));
  scope.frame->graph.AddNode(std::move(node));
  return OkStatus();
}

// Follows a reference to the attribute of the enclosing call; no attribute when the call has none.
Result<BoundAttribute> Resolve(const AttributeAst& attribute, const Scope& scope) {
  if (attribute.ref_name.empty()) return BoundAttribute{&attribute, &scope};
  if (scope.call == nullptr) {
    return InvalidArgumentError("attribute " + Quoted(attribute.name) +
                                " refers to one of a function, outside of any");
  }
  const auto it = scope.call->find(attribute.ref_name);
  return it == scope.call->end() ? BoundAttribute{nullptr, nullptr} : it->second;
}

Status Builder::AddAttributes(const NodeAst& ast, const Scope& scope, Node* node) {
  std::vector<std::pair<std::string, BoundAttribute>> graphs;
  std::unordered_set<std::string_view> seen;
  for (const AttributeAst& attribute : ast.attributes) {
    if (!seen.insert(attribute.name).second) {
      return InvalidArgumentError("has attribute " + Quoted(attribute.name) + " twice");
    }
    PLEXUS_ASSIGN_OR_RETURN(const BoundAttribute bound, Resolve(attribute, scope));
    if (bound.attribute == nullptr) continue;
    if (bound.attribute->graph) {
      graphs.emplace_back(attribute.name, bound);
      continue;
    }
    PLEXUS_RETURN_IF_ERROR(ChargeInFunction(
        static_cast<int64_t>(attribute.name.size() + bound.attribute->cost_bytes)));
    node->attributes.emplace(attribute.name, bound.attribute->value);
  }
  return AddSubgraphs(graphs, scope.frame, node);
}

Status Builder::AddSubgraphs(const std::vector<std::pair<std::string, BoundAttribute>>& graphs,
                             Frame* frame, Node* node) {
  std::vector<std::unique_ptr<Frame>> inner;
  for (const auto& [name, bound] : graphs) {
    if (frame->depth >= options_.max_graph_depth) {
      return InvalidArgumentError("subgraphs are nested more than " +
                                  std::to_string(options_.max_graph_depth) + " deep");
    }
    inner.push_back(std::make_unique<Frame>(frame, frame->depth + 1));
    Scope scope{bound.scope, inner.back().get(), bound.scope->opsets, bound.scope->call, ""};
    Status status = BuildInto(*bound.attribute->graph, scope);
    if (!status.ok()) return status.WithContext("subgraph " + Quoted(name));
  }
  // Every subgraph's captures line up with the union of them all.
  std::map<ValueId, size_t> position;
  for (const auto& sub : inner) {
    for (const Frame::Capture& capture : sub->captures) {
      if (position.emplace(capture.outer, node->implicit_inputs.size()).second) {
        node->implicit_inputs.push_back(capture.outer);
      }
    }
  }
  for (size_t i = 0; i < graphs.size(); ++i) {
    Frame& sub = *inner[i];
    sub.graph.captures().assign(node->implicit_inputs.size(), ValueId());
    for (const Frame::Capture& capture : sub.captures) {
      sub.graph.captures()[position[capture.outer]] = capture.inner;
    }
    node->attributes.emplace(graphs[i].first, std::make_shared<const Graph>(std::move(sub.graph)));
  }
  return OkStatus();
}

Status Builder::CallFunction(const FunctionAst& function, const NodeAst& ast, const Scope& scope,
                             const std::vector<ValueId>& inputs,
                             const std::vector<ValueId>& outputs) {
  if (std::find(active_.begin(), active_.end(), &function) != active_.end()) {
    return InvalidArgumentError("function " + Quoted(function.name) + " calls itself");
  }
  if (static_cast<int>(active_.size()) >= options_.max_graph_depth) {
    return InvalidArgumentError("function calls are nested more than " +
                                std::to_string(options_.max_graph_depth) + " deep");
  }
  if (inputs.size() > function.inputs.size() || outputs.size() > function.outputs.size()) {
    return InvalidArgumentError("has more inputs or outputs than function " +
                                Quoted(function.name));
  }
  BoundAttributes attributes;
  for (const AttributeAst& attribute : ast.attributes) {
    PLEXUS_ASSIGN_OR_RETURN(const BoundAttribute bound, Resolve(attribute, scope));
    if (bound.attribute != nullptr) attributes.emplace(attribute.name, bound);
  }
  Scope body{nullptr, scope.frame, &function.opsets, &attributes,
             scope.prefix + (ast.name.empty() ? ast.op : ast.name) + "/"};
  for (const AttributeAst& attribute : function.defaults) {
    if (attribute.ref_name.empty()) {
      attributes.emplace(attribute.name, BoundAttribute{&attribute, &body});
    }
  }
  for (size_t i = 0; i < function.inputs.size(); ++i) {
    const ValueId id = i < inputs.size() ? inputs[i] : ValueId();
    if (!body.names.emplace(function.inputs[i], id).second) {
      return InvalidArgumentError("two inputs of function " + Quoted(function.name) +
                                  " have one name");
    }
  }
  active_.push_back(&function);
  Status status = AddFunctionBody(function, body, outputs);
  active_.pop_back();
  return status.ok() ? status : status.WithContext("function " + Quoted(function.name));
}

Status Builder::AddFunctionBody(const FunctionAst& function, Scope& scope,
                                const std::vector<ValueId>& outputs) {
  PLEXUS_RETURN_IF_ERROR(ChargeInFunction(
      static_cast<int64_t>(256 + scope.prefix.size() +
                           64 * (function.inputs.size() + function.outputs.size() +
                                 function.defaults.size() + function.value_infos.size()))));
  std::unordered_map<std::string, ValueId> preset;
  std::vector<std::pair<std::string, ValueId>> copies;  // of inputs, or of an output named twice
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].valid()) continue;
    const std::string& name = function.outputs[i];
    if (scope.names.count(name) > 0 || !preset.emplace(name, outputs[i]).second) {
      copies.emplace_back(name, outputs[i]);
    }
  }
  TypeMap types;
  for (const ValueInfoAst& info : function.value_infos) types[info.name] = &info;
  PLEXUS_RETURN_IF_ERROR(DeclareOutputs(function.nodes, types, scope, &preset));
  if (!preset.empty()) {
    return InvalidArgumentError("nothing makes output " + Quoted(preset.begin()->first));
  }
  for (const NodeAst& node : function.nodes) {
    Status status = BuildNode(node, scope);
    if (!status.ok()) return status.WithContext(Describe(node));
  }
  for (const auto& [from, to] : copies) PLEXUS_RETURN_IF_ERROR(AddIdentity(scope, from, to));
  return OkStatus();
}

Status Builder::AddIdentity(Scope& scope, const std::string& from, ValueId to) {
  NodeAst identity;
  identity.op = "Identity";
  PLEXUS_ASSIGN_OR_RETURN(const ValueId id, Find(scope, from));
  if (!id.valid()) {
    return InvalidArgumentError("hands out input " + Quoted(from) + ", which the call leaves out");
  }
  return AddPlainNode(identity, scope, {id}, {to});
}

Result<GraphPtr> Builder::Build() {
  PLEXUS_RETURN_IF_ERROR(CheckVersions());
  PLEXUS_RETURN_IF_ERROR(IndexFunctions());
  Frame frame(nullptr, 1);
  Scope scope{nullptr, &frame, &model_.opsets, nullptr, ""};
  PLEXUS_RETURN_IF_ERROR(BuildInto(model_.graph, scope));
  PLEXUS_RETURN_IF_ERROR(frame.graph.Validate());
  return std::make_shared<const Graph>(std::move(frame.graph));
}

}  // namespace

Result<GraphPtr> BuildGraph(const ModelAst& model, const ImportOptions& options) {
  return Builder(model, options).Build();
}

}  // namespace plexus::onnx
