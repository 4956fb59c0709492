#include "graph/graph.h"

#include <algorithm>
#include <bit>

namespace plexus {
namespace {

template <typename T>
const T* FindAttr(const Node& node, const std::string& name) {
  auto it = node.attributes.find(name);
  return it == node.attributes.end() ? nullptr : std::get_if<T>(&it->second);
}

template <typename Fn>
void ForEachRead(const Node& node, Fn fn) {
  for (ValueId id : node.inputs) {
    if (id.valid()) fn(id);
  }
  for (ValueId id : node.implicit_inputs) {
    if (id.valid()) fn(id);
  }
}

}  // namespace

int64_t Node::IntAttr(const std::string& n, int64_t fallback) const {
  const auto* v = FindAttr<int64_t>(*this, n);
  return v ? *v : fallback;
}
float Node::FloatAttr(const std::string& n, float fallback) const {
  const auto* v = FindAttr<float>(*this, n);
  return v ? *v : fallback;
}
std::string Node::StringAttr(const std::string& n, const std::string& fallback) const {
  const auto* v = FindAttr<std::string>(*this, n);
  return v ? *v : fallback;
}
std::vector<int64_t> Node::IntsAttr(const std::string& n) const {
  const auto* v = FindAttr<std::vector<int64_t>>(*this, n);
  return v ? *v : std::vector<int64_t>();
}
std::vector<float> Node::FloatsAttr(const std::string& n) const {
  const auto* v = FindAttr<std::vector<float>>(*this, n);
  return v ? *v : std::vector<float>();
}
const Tensor* Node::TensorAttr(const std::string& n) const { return FindAttr<Tensor>(*this, n); }
const Graph* Node::GraphAttr(const std::string& n) const {
  const auto* v = FindAttr<std::shared_ptr<const Graph>>(*this, n);
  return v ? v->get() : nullptr;
}

ValueId Graph::AddValue(Value value) {
  values_.push_back(std::move(value));
  return ValueId(static_cast<uint32_t>(values_.size() - 1));
}

ValueId Graph::AddInput(Value value) {
  const ValueId id = AddValue(std::move(value));
  inputs_.push_back(id);
  return id;
}

ValueId Graph::AddConstant(std::string constant_name, ConstantPtr constant) {
  Value value;
  value.name = std::move(constant_name);
  value.dtype = constant->dtype();
  value.shape = SymbolicShape::FromConcrete(constant->shape());
  value.constant = std::move(constant);
  return AddValue(std::move(value));
}

NodeId Graph::AddNode(Node node) {
  nodes_.push_back(std::move(node));
  return NodeId(static_cast<uint32_t>(nodes_.size() - 1));
}

std::optional<ValueId> Graph::FindValue(const std::string& value_name) const {
  for (size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].name == value_name) return ValueId(static_cast<uint32_t>(i));
  }
  return std::nullopt;
}

bool Graph::IsGraphOutput(ValueId id) const {
  return std::find(outputs_.begin(), outputs_.end(), id) != outputs_.end();
}

std::vector<NodeId> Graph::Producers() const {
  std::vector<NodeId> producers(values_.size());
  for (size_t n = 0; n < nodes_.size(); ++n) {
    for (ValueId out : nodes_[n].outputs) {
      if (out.valid()) producers[out.value()] = NodeId(static_cast<uint32_t>(n));
    }
  }
  return producers;
}

std::vector<std::vector<NodeId>> Graph::Consumers() const {
  std::vector<std::vector<NodeId>> consumers(values_.size());
  for (size_t n = 0; n < nodes_.size(); ++n) {
    const NodeId id(static_cast<uint32_t>(n));
    ForEachRead(nodes_[n], [&](ValueId v) {
      auto& list = consumers[v.value()];
      if (list.empty() || list.back() != id) list.push_back(id);
    });
  }
  return consumers;
}

Status Graph::SortTopologically() {
  const std::vector<NodeId> producers = Producers();
  std::vector<uint32_t> waiting_for(nodes_.size(), 0);
  std::vector<std::vector<uint32_t>> readers(nodes_.size());
  for (size_t n = 0; n < nodes_.size(); ++n) {
    ForEachRead(nodes_[n], [&](ValueId v) {
      const NodeId producer = producers[v.value()];
      if (!producer.valid()) return;
      readers[producer.value()].push_back(static_cast<uint32_t>(n));
      ++waiting_for[n];
    });
  }
  // A heap of ready indices keeps the file's order wherever it is already right.
  std::vector<uint32_t> heap;
  for (size_t n = 0; n < nodes_.size(); ++n) {
    if (waiting_for[n] == 0) heap.push_back(static_cast<uint32_t>(n));
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  std::vector<Node> sorted;
  sorted.reserve(nodes_.size());
  std::vector<bool> taken(nodes_.size(), false);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint32_t n = heap.back();
    heap.pop_back();
    taken[n] = true;
    for (uint32_t reader : readers[n]) {
      if (--waiting_for[reader] > 0) continue;
      heap.push_back(reader);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
    sorted.push_back(nodes_[n]);
  }
  if (sorted.size() != nodes_.size()) {
    const size_t n = std::find(taken.begin(), taken.end(), false) - taken.begin();
    return InvalidArgumentError("graph '" + name + "' has a cycle through or before node '" +
                                nodes_[n].name + "' (" + nodes_[n].op + ")");
  }
  nodes_ = std::move(sorted);
  return OkStatus();
}

Status Graph::Validate() const {
  const auto fail = [&](const Node& node, const std::string& what) {
    return InvalidArgumentError("graph '" + name + "', node '" + node.name + "' (" + node.op +
                                "): " + what);
  };
  std::vector<bool> defined(values_.size(), false);
  for (size_t v = 0; v < values_.size(); ++v) defined[v] = values_[v].IsConstant();
  for (const auto* list : {&inputs_, &captures_}) {
    for (ValueId id : *list) {
      if (!id.valid()) continue;
      if (id.value() >= values_.size()) return InvalidArgumentError("graph input out of range");
      defined[id.value()] = true;
    }
  }
  for (const Node& node : nodes_) {
    Status status;
    ForEachRead(node, [&](ValueId id) {
      if (!status.ok()) return;
      if (id.value() >= values_.size()) {
        status = fail(node, "input out of range");
      } else if (!defined[id.value()]) {
        status = fail(node, "reads '" + values_[id.value()].name + "' before it is made");
      }
    });
    PLEXUS_RETURN_IF_ERROR(status);
    for (ValueId id : node.outputs) {
      if (!id.valid()) continue;
      if (id.value() >= values_.size()) return fail(node, "output out of range");
      if (defined[id.value()]) {
        return fail(node, "makes '" + values_[id.value()].name + "' a second time");
      }
      defined[id.value()] = true;
    }
    for (const auto& [attr_name, attr] : node.attributes) {
      const auto* sub = std::get_if<GraphPtr>(&attr);
      if (sub == nullptr) continue;
      if ((*sub)->captures().size() != node.implicit_inputs.size()) {
        return fail(node, "subgraph '" + attr_name + "' does not match its captures");
      }
      PLEXUS_RETURN_IF_ERROR((*sub)->Validate());
    }
  }
  for (ValueId id : outputs_) {
    if (!id.valid() || id.value() >= values_.size() || !defined[id.value()]) {
      return InvalidArgumentError("graph '" + name + "' has an output that nothing makes");
    }
  }
  return OkStatus();
}

void Graph::RemoveDead() {
  std::vector<bool> live(values_.size(), false);
  for (ValueId id : outputs_) live[id.value()] = true;
  std::vector<Node> kept;
  for (size_t n = nodes_.size(); n-- > 0;) {
    Node& node = nodes_[n];
    const bool wanted = std::any_of(node.outputs.begin(), node.outputs.end(),
                                    [&](ValueId id) { return id.valid() && live[id.value()]; });
    if (!wanted) continue;
    ForEachRead(node, [&](ValueId id) { live[id.value()] = true; });
    kept.push_back(std::move(node));
  }
  std::reverse(kept.begin(), kept.end());
  nodes_ = std::move(kept);
  for (const auto* list : {&inputs_, &captures_}) {
    for (ValueId id : *list) {
      if (id.valid()) live[id.value()] = true;
    }
  }
  for (const Node& node : nodes_) {  // an unread output of a live node keeps its value
    for (ValueId id : node.outputs) {
      if (id.valid()) live[id.value()] = true;
    }
  }
  std::vector<ValueId> renumbered(values_.size());
  std::vector<Value> values;
  for (size_t v = 0; v < values_.size(); ++v) {
    if (!live[v]) continue;
    renumbered[v] = ValueId(static_cast<uint32_t>(values.size()));
    values.push_back(std::move(values_[v]));
  }
  values_ = std::move(values);
  const auto renumber = [&](std::vector<ValueId>& ids) {
    for (ValueId& id : ids) {
      if (id.valid()) id = renumbered[id.value()];
    }
  };
  renumber(inputs_);
  renumber(outputs_);
  renumber(captures_);
  for (Node& node : nodes_) {
    renumber(node.inputs);
    renumber(node.outputs);
    renumber(node.implicit_inputs);
  }
}

namespace {

// 0 and -0 differ, and a NaN is itself.
bool SameBits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

bool SameAttribute(const Attribute& a, const Attribute& b) {
  if (a.index() != b.index()) return false;
  if (const auto* tensor = std::get_if<Tensor>(&a)) {
    return TensorsEqual(*tensor, std::get<Tensor>(b));
  }
  if (const auto* body = std::get_if<GraphPtr>(&a)) {
    const GraphPtr& other = std::get<GraphPtr>(b);
    return *body == other || (*body && other && SameGraph(**body, *other));
  }
  if (const auto* number = std::get_if<float>(&a)) return SameBits(*number, std::get<float>(b));
  if (const auto* numbers = std::get_if<std::vector<float>>(&a)) {
    const auto& others = std::get<std::vector<float>>(b);
    return std::equal(numbers->begin(), numbers->end(), others.begin(), others.end(), SameBits);
  }
  return std::visit(
      [&](const auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, Tensor>) {
          return false;  // compared above; tensors have no ==
        } else {
          return value == std::get<T>(b);
        }
      },
      a);
}

bool SameNode(const Node& a, const Node& b) {
  return a.op == b.op && a.domain == b.domain && a.version == b.version && a.name == b.name &&
         a.inputs == b.inputs && a.outputs == b.outputs && a.implicit_inputs == b.implicit_inputs &&
         a.fusion_group == b.fusion_group &&
         std::equal(a.attributes.begin(), a.attributes.end(), b.attributes.begin(),
                    b.attributes.end(), [](const auto& x, const auto& y) {
                      return x.first == y.first && SameAttribute(x.second, y.second);
                    });
}

bool SameValue(const Value& a, const Value& b) {
  return a.name == b.name && a.dtype == b.dtype && a.constant == b.constant &&
         a.shape.has_rank == b.shape.has_rank && a.shape.dims == b.shape.dims;
}

}  // namespace

bool SameGraph(const Graph& a, const Graph& b) {
  return a.inputs() == b.inputs() && a.outputs() == b.outputs() && a.captures() == b.captures() &&
         std::equal(a.nodes().begin(), a.nodes().end(), b.nodes().begin(), b.nodes().end(),
                    SameNode) &&
         std::equal(a.values().begin(), a.values().end(), b.values().begin(), b.values().end(),
                    SameValue);
}

}  // namespace plexus
