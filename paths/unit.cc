#include "paths/unit.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace plexus {
namespace {

// A constant this large is weights: two layers that hold the same one are the same layer.
constexpr size_t kAnchorBytes = 256;

bool IsRandom(const Node& node) {
  static const std::set<std::string> ops = {"RandomNormal",  "RandomNormalLike",
                                            "RandomUniform", "RandomUniformLike",
                                            "Multinomial",   "Bernoulli"};
  if (!node.domain.empty()) return false;
  return ops.count(node.op) > 0 ||
         (node.op == "Dropout" && node.inputs.size() > 2 && node.inputs[2].valid());
}

bool HoldsRandom(const Graph& graph) {
  for (const Node& node : graph.nodes()) {
    if (IsRandom(node)) return true;
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<GraphPtr>(&attribute);
      if (body != nullptr && HoldsRandom(**body)) return true;
    }
  }
  return false;
}

bool IsGlue(const Node& node) {
  static const std::set<std::string> ops = {
      "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice",    "Gather",
      "Concat",  "Cast",    "Shape",   "Split",     "Window",   "Transpose"};
  return ops.count(node.op) > 0;
}

// Appends texts that cannot be confused: every piece says its kind and its length.
class TextWriter {
 public:
  explicit TextWriter(bool by_content) : by_content_(by_content) {}

  void String(std::string_view s) { text_.append(std::to_string(s.size()) + ":").append(s); }
  void Int(int64_t i) { text_.append(std::to_string(i)).push_back(';'); }
  void Tag(char tag) { text_.push_back(tag); }

  void Constant(const ConstantPtr& constant) {
    if (!by_content_) return Int(static_cast<int64_t>(reinterpret_cast<intptr_t>(constant.get())));
    String(constant->hash().ToHex());
    Int(static_cast<int64_t>(constant->dtype()));
  }
  void Type(const Value& value) {
    Int(static_cast<int64_t>(value.dtype));
    if (!value.shape.has_rank) return Tag('*');
    for (const SymbolicDim& dim : value.shape.dims) {
      if (dim.value) {
        Int(*dim.value);
      } else {
        Tag('?');
      }
    }
    Tag('|');
  }
  void TensorContents(const Tensor& tensor) {
    Int(static_cast<int64_t>(tensor.dtype()));
    for (int64_t d : tensor.shape()) Int(d);
    Tag('|');
    if (tensor.dtype() == DType::kString) {
      for (const std::string& s : tensor.strings()) String(s);
    } else {
      String({reinterpret_cast<const char*>(tensor.raw()), tensor.size_bytes()});
    }
  }
  void Head(const Node& node) {
    Tag('N');
    String(node.op);
    String(node.domain);
    Int(node.version);
    for (const auto& [name, attribute] : node.attributes) {
      String(name);
      Attr(attribute);
    }
    Tag('(');
  }
  // A body: its values numbered as they come.
  void Body(const Graph& graph) {
    std::unordered_map<uint32_t, int64_t> numbers;
    const auto number = [&](ValueId id) {
      if (!id.valid()) return Tag('-');
      if (graph.value(id).IsConstant()) return Constant(graph.value(id).constant);
      Int(numbers.emplace(id.value(), static_cast<int64_t>(numbers.size())).first->second);
    };
    Tag('{');
    for (ValueId id : graph.inputs()) {
      number(id);
      Type(graph.value(id));
    }
    Tag('/');
    for (ValueId id : graph.captures()) {
      number(id);
      // As an input's: the body runs with no other sizes.
      if (id.valid()) Type(graph.value(id));
    }
    for (const Node& node : graph.nodes()) {
      Head(node);
      for (ValueId id : node.inputs) number(id);
      Tag('/');
      for (ValueId id : node.implicit_inputs) number(id);
      Tag('/');
      for (ValueId id : node.outputs) number(id);
    }
    Tag('/');
    for (ValueId id : graph.outputs()) number(id);
    Tag('}');
  }
  std::string Take() { return std::move(text_); }

 private:
  void Attr(const Attribute& attribute) {
    Tag(static_cast<char>('a' + attribute.index()));
    if (const auto* i = std::get_if<int64_t>(&attribute)) return Int(*i);
    if (const auto* f = std::get_if<float>(&attribute)) return Float(*f);
    if (const auto* s = std::get_if<std::string>(&attribute)) return String(*s);
    if (const auto* t = std::get_if<Tensor>(&attribute)) return TensorContents(*t);
    if (const auto* g = std::get_if<GraphPtr>(&attribute)) return Body(**g);
    if (const auto* v = std::get_if<std::vector<int64_t>>(&attribute)) {
      for (int64_t i : *v) Int(i);
    } else if (const auto* w = std::get_if<std::vector<float>>(&attribute)) {
      for (float f : *w) Float(f);
    } else if (const auto* x = std::get_if<std::vector<std::string>>(&attribute)) {
      for (const std::string& s : *x) String(s);
    }
    Tag(']');
  }
  void Float(float f) {
    int32_t bits;
    __builtin_memcpy(&bits, &f, sizeof(bits));
    Int(bits);
  }

  const bool by_content_;
  std::string text_;
};

ContentHash HashOf(std::string_view text) {
  ContentHasher hasher;
  hasher.UpdateString(text);
  return hasher.Finish();
}

// Builds one UnitGraph; a class only to share the tables between its steps.
class UnitBuilder {
 public:
  UnitBuilder(std::string pipeline, const Graph& graph)
      : copy_(std::make_shared<Graph>(graph)), graph_(*copy_), producers_(graph.Producers()) {
    result_.pipeline = std::move(pipeline);
  }

  UnitGraph Build() {
    Group();
    FindReaders();
    result_.made_by.assign(graph_.num_values(), UnitInput{});
    for (uint32_t i = 0; i < graph_.inputs().size(); ++i) {
      result_.made_by[graph_.inputs()[i].value()] = {kNoUnit, i};
    }
    for (std::vector<uint32_t>& nodes : groups_) AddUnit(std::move(nodes));
    for (ValueId& id : graph_.outputs()) id = Representative(id);
    result_.graph = std::move(copy_);
    return std::move(result_);
  }

 private:
  // Fusion groups in an order in which each comes after what it reads. A group that does not allow
  // one (something between two of its nodes lies outside) falls apart into its nodes.
  void Group() {
    std::map<uint32_t, std::vector<uint32_t>> marked;
    for (uint32_t n = 0; n < graph_.num_nodes(); ++n) {
      const uint32_t group = graph_.nodes()[n].fusion_group;
      if (group != 0) marked[group].push_back(n);
    }
    std::set<uint32_t> broken;
    while (!Order(marked, &broken)) {
    }
  }

  // One attempt; false when a group had to be given up (it is in `broken` then).
  bool Order(const std::map<uint32_t, std::vector<uint32_t>>& marked, std::set<uint32_t>* broken) {
    std::vector<std::vector<uint32_t>> groups;
    std::vector<uint32_t> group_of(graph_.num_nodes());
    std::map<uint32_t, uint32_t> index;
    for (uint32_t n = 0; n < graph_.num_nodes(); ++n) {
      const uint32_t mark = graph_.nodes()[n].fusion_group;
      const bool joined = mark != 0 && broken->count(mark) == 0;
      if (joined && index.count(mark) > 0) {
        group_of[n] = index[mark];
        continue;
      }
      group_of[n] = static_cast<uint32_t>(groups.size());
      if (joined) index[mark] = group_of[n];
      groups.push_back(joined ? marked.at(mark) : std::vector<uint32_t>{n});
    }
    std::vector<std::set<uint32_t>> successors(groups.size());
    std::vector<uint32_t> waits(groups.size());
    ForEachEdge([&](uint32_t from, uint32_t to) {
      const uint32_t a = group_of[from], b = group_of[to];
      if (a != b && successors[a].insert(b).second) ++waits[b];
    });
    std::set<uint32_t> ready;  // smallest first: the order of the file where it is free
    for (uint32_t g = 0; g < groups.size(); ++g) {
      if (waits[g] == 0) ready.insert(g);
    }
    std::vector<std::vector<uint32_t>> ordered;
    while (!ready.empty()) {
      const uint32_t g = *ready.begin();
      ready.erase(ready.begin());
      ordered.push_back(groups[g]);
      for (uint32_t next : successors[g]) {
        if (--waits[next] == 0) ready.insert(next);
      }
    }
    if (ordered.size() == groups.size()) {
      groups_ = std::move(ordered);
      return true;
    }
    for (uint32_t g = 0; g < groups.size(); ++g) {
      if (waits[g] > 0 && groups[g].size() > 1) {
        broken->insert(graph_.nodes()[groups[g][0]].fusion_group);
        return false;
      }
    }
    groups_ = std::move(ordered);  // a cycle of nodes: Validate has refused such a graph
    return true;
  }

  template <typename Visit>
  void ForEachEdge(Visit visit) const {
    for (uint32_t n = 0; n < graph_.num_nodes(); ++n) {
      const Node& node = graph_.nodes()[n];
      for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
        for (ValueId id : *list) {
          if (id.valid() && producers_[id.value()].valid()) {
            visit(producers_[id.value()].value(), n);
          }
        }
      }
    }
  }

  void FindReaders() {
    std::vector<uint32_t> group_of(graph_.num_nodes());
    for (uint32_t g = 0; g < groups_.size(); ++g) {
      for (uint32_t n : groups_[g]) group_of[n] = g;
    }
    read_outside_.assign(graph_.num_values(), false);
    for (ValueId id : graph_.outputs()) read_outside_[id.value()] = true;
    for (uint32_t n = 0; n < graph_.num_nodes(); ++n) {
      const Node& node = graph_.nodes()[n];
      for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
        for (ValueId id : *list) {
          if (!id.valid() || !producers_[id.value()].valid()) continue;
          if (group_of[producers_[id.value()].value()] != group_of[n]) {
            read_outside_[id.value()] = true;
          }
        }
      }
    }
  }

  // The one value that stands for all equal ones.
  ValueId Representative(ValueId id) const {
    if (!id.valid() || !producers_[id.value()].valid()) return id;
    const UnitInput& made = result_.made_by[id.value()];
    return made.unit == kNoUnit ? id : result_.units[made.unit].outputs[made.index];
  }

  void AddUnit(std::vector<uint32_t> nodes) {
    for (uint32_t n : nodes) {
      for (ValueId& id : graph_.nodes()[n].inputs) id = Representative(id);
      for (ValueId& id : graph_.nodes()[n].implicit_inputs) id = Representative(id);
    }
    Unit unit;
    ConstantSet constants;
    unit.glue = true;
    for (uint32_t n : nodes) {
      const Node& node = graph_.nodes()[n];
      unit.glue &= IsGlue(node);
      unit.random |= IsRandom(node);
      for (const auto& [name, attribute] : node.attributes) {
        const auto* body = std::get_if<GraphPtr>(&attribute);
        if (body != nullptr) unit.random |= HoldsRandom(**body);
      }
      CollectConstants(graph_, node, &constants);
      for (ValueId id : node.outputs) {
        if (id.valid() && read_outside_[id.value()]) unit.outputs.push_back(id);
      }
    }
    for (const Constant* constant : constants) {
      unit.constant_bytes += constant->size_bytes();
      unit.anchor |= constant->size_bytes() >= kAnchorBytes;
    }
    std::vector<ValueId> inputs;
    std::vector<uint32_t> order;
    unit.function =
        HashOf(FunctionText(graph_, nodes, unit.outputs, /*by_content=*/true, &inputs, &order));
    unit.nodes = std::move(nodes);
    for (ValueId id : inputs) unit.inputs.push_back(result_.made_by[id.value()]);
    unit.kind = unit.function;
    if (!unit.anchor) unit.kind = HashOf(KindText(unit, inputs));

    // The same function of the same values: what is there already serves. Random work never is.
    uint32_t index = static_cast<uint32_t>(result_.units.size());
    if (!unit.random) {
      std::string key = unit.function.ToHex();
      for (const UnitInput& in : unit.inputs) {
        key += std::to_string(in.unit) + "." + std::to_string(in.index) + " ";
      }
      const auto [it, is_new] = seen_.emplace(std::move(key), index);
      index = it->second;
    }
    for (uint32_t o = 0; o < unit.outputs.size(); ++o) {
      result_.made_by[unit.outputs[o].value()] = {index, o};
    }
    if (index == result_.units.size()) result_.units.push_back(std::move(unit));
  }

  std::string KindText(const Unit& unit, const std::vector<ValueId>& inputs) const {
    std::string text = unit.function.ToHex();
    for (size_t i = 0; i < inputs.size(); ++i) {
      const UnitInput& in = unit.inputs[i];
      if (in.unit == kNoUnit) {
        text += " input " + InputText(graph_, inputs[i]);
      } else {
        text += " " + result_.units[in.unit].kind.ToHex() + "." + std::to_string(in.index);
      }
    }
    return text;
  }

  std::shared_ptr<Graph> copy_;  // equal values become one on the way
  Graph& graph_;
  const std::vector<NodeId> producers_;
  std::vector<std::vector<uint32_t>> groups_;
  std::vector<bool> read_outside_;
  std::unordered_map<std::string, uint32_t> seen_;
  UnitGraph result_;
};

}  // namespace

void CollectConstants(const Graph& graph, const Node& node, ConstantSet* out) {
  for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
    for (ValueId id : *list) {
      if (id.valid() && graph.value(id).IsConstant()) out->insert(graph.value(id).constant.get());
    }
  }
  for (const auto& [name, attribute] : node.attributes) {
    const auto* body = std::get_if<GraphPtr>(&attribute);
    if (body == nullptr) continue;
    for (const Node& inner : (*body)->nodes()) CollectConstants(**body, inner, out);
  }
}

bool IsDeterministic(const Graph& graph) { return !HoldsRandom(graph); }

UnitGraph MakeUnits(std::string pipeline, const GraphPtr& graph) {
  return UnitBuilder(std::move(pipeline), *graph).Build();
}

std::string InputText(const Graph& graph, ValueId input) {
  TextWriter writer(/*by_content=*/true);
  writer.Type(graph.value(input));
  return writer.Take();
}

std::string FunctionText(const Graph& graph, const std::vector<uint32_t>& nodes,
                         const std::vector<ValueId>& outputs, bool by_content,
                         std::vector<ValueId>* inputs, std::vector<uint32_t>* order) {
  std::unordered_map<uint32_t, uint32_t> maker;  // value → node, of the nodes given
  for (uint32_t n : nodes) {
    for (ValueId id : graph.nodes()[n].outputs) {
      if (id.valid()) maker.emplace(id.value(), n);
    }
  }
  // From the outputs back, inputs in their order: the same walk whatever the order of the file.
  std::unordered_map<uint32_t, size_t> place;  // node → position in `order`
  std::unordered_map<uint32_t, size_t> hole;   // outer value → number
  TextWriter writer(by_content);
  const auto refer = [&](ValueId id) {
    if (!id.valid()) return writer.Tag('-');
    const auto made = maker.find(id.value());
    if (made != maker.end()) {
      const std::vector<ValueId>& outs = graph.nodes()[made->second].outputs;
      writer.Tag('n');
      writer.Int(static_cast<int64_t>(place.at(made->second)));
      writer.Int(std::find(outs.begin(), outs.end(), id) - outs.begin());
    } else if (graph.value(id).IsConstant()) {
      writer.Tag('c');
      writer.Constant(graph.value(id).constant);
    } else {
      const auto [it, is_new] = hole.emplace(id.value(), inputs->size());
      if (is_new) inputs->push_back(id);
      writer.Tag('i');
      writer.Int(static_cast<int64_t>(it->second));
      if (is_new) writer.Int(static_cast<int64_t>(graph.value(id).dtype));
    }
  };
  struct Frame {
    uint32_t node;
    size_t next = 0;
  };
  std::unordered_set<uint32_t> entered;
  const auto walk = [&](uint32_t root) {
    if (!entered.insert(root).second) return;
    std::vector<Frame> stack = {{root}};
    while (!stack.empty()) {
      Frame& frame = stack.back();
      const Node& node = graph.nodes()[frame.node];
      const size_t count = node.inputs.size() + node.implicit_inputs.size();
      if (frame.next < count) {
        const size_t i = frame.next++;
        const ValueId id =
            i < node.inputs.size() ? node.inputs[i] : node.implicit_inputs[i - node.inputs.size()];
        const auto made = id.valid() ? maker.find(id.value()) : maker.end();
        if (made != maker.end() && entered.insert(made->second).second) {
          stack.push_back({made->second});
        }
        continue;
      }
      writer.Head(node);
      for (ValueId id : node.inputs) refer(id);
      writer.Tag('/');
      for (ValueId id : node.implicit_inputs) refer(id);
      writer.Tag('/');
      writer.Int(static_cast<int64_t>(node.outputs.size()));
      writer.Tag(')');
      place.emplace(frame.node, order->size());
      order->push_back(frame.node);
      stack.pop_back();
    }
  };
  for (ValueId id : outputs) {
    const auto made = maker.find(id.value());
    if (made != maker.end()) walk(made->second);
  }
  for (uint32_t n : nodes) walk(n);  // whatever nobody reads
  writer.Tag('>');
  for (ValueId id : outputs) refer(id);
  return writer.Take();
}

}  // namespace plexus
