#include "graph/graph_hash.h"

namespace plexus {
namespace {

template <typename T>
void HashVector(const std::vector<T>& values, ContentHasher& hasher) {
  hasher.UpdateInt(static_cast<int64_t>(values.size()));
  if (!values.empty()) hasher.Update(values.data(), values.size() * sizeof(T));
}

struct AttributeHasher {
  ContentHasher& hasher;

  void operator()(int64_t v) const { hasher.UpdateInt(v); }
  void operator()(float v) const { hasher.Update(&v, sizeof(v)); }
  void operator()(const std::string& v) const { hasher.UpdateString(v); }
  void operator()(const Tensor& v) const {
    hasher.UpdateInt(static_cast<int64_t>(v.dtype()));
    HashVector(v.shape(), hasher);
    if (v.raw()) hasher.Update(v.raw(), v.size_bytes());
  }
  void operator()(const std::shared_ptr<const Graph>& v) const {
    if (v) HashGraph(*v, hasher);
  }
  void operator()(const std::vector<int64_t>& v) const { HashVector(v, hasher); }
  void operator()(const std::vector<float>& v) const { HashVector(v, hasher); }
  void operator()(const std::vector<std::string>& v) const {
    hasher.UpdateInt(static_cast<int64_t>(v.size()));
    for (const std::string& s : v) hasher.UpdateString(s);
  }
};

void HashIds(const std::vector<ValueId>& ids, ContentHasher& hasher) {
  hasher.UpdateInt(static_cast<int64_t>(ids.size()));
  for (ValueId id : ids) hasher.UpdateInt(id.valid() ? int64_t{id.value()} : -1);
}

}  // namespace

void HashGraph(const Graph& graph, ContentHasher& hasher) {
  HashIds(graph.inputs(), hasher);
  HashIds(graph.outputs(), hasher);
  for (const Value& value : graph.values()) {
    hasher.UpdateInt(static_cast<int64_t>(value.dtype));
    hasher.UpdateString(value.shape.ToString());
    if (value.constant) hasher.Update(value.constant->hash().bytes.data(), 32);
  }
  for (const Node& node : graph.nodes()) {
    hasher.UpdateString(node.domain);
    hasher.UpdateString(node.op);
    hasher.UpdateInt(node.version);
    HashIds(node.inputs, hasher);
    HashIds(node.outputs, hasher);
    HashIds(node.implicit_inputs, hasher);
    for (const auto& [name, attribute] : node.attributes) {
      hasher.UpdateString(name);
      hasher.UpdateInt(static_cast<int64_t>(attribute.index()));
      std::visit(AttributeHasher{hasher}, attribute);
    }
  }
}

}  // namespace plexus
