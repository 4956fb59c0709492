#include "pipeline/held_bytes.h"

#include <variant>

namespace plexus {
namespace {

constexpr size_t kNodeBytes = 256;

}  // namespace

void HeldBytes::Note(const Graph& graph) {
  for (const Value& value : graph.values()) {
    if (value.IsConstant()) known_.insert(value.constant.get());
  }
  for (const Node& node : graph.nodes()) {
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<GraphPtr>(&attribute);
      if (body != nullptr && known_.insert(body->get()).second) Note(**body);
    }
  }
}

size_t HeldBytes::Add(const Graph& graph) {
  size_t bytes = kNodeBytes * graph.num_nodes();
  for (const Value& value : graph.values()) {
    if (!value.IsConstant()) continue;
    if (known_.insert(value.constant.get()).second) bytes += value.constant->size_bytes();
  }
  for (const Node& node : graph.nodes()) {
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<GraphPtr>(&attribute);
      if (body != nullptr && known_.insert(body->get()).second) bytes += Add(**body);
    }
  }
  return bytes;
}

}  // namespace plexus
