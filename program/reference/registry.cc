// The list of all operator tables, and lookup by domain, name and opset version.
#include <unordered_map>

#include "program/reference/reference.h"

namespace plexus {
namespace reference {

std::span<const OpEntry> AttentionOps();
std::span<const OpEntry> CastOps();
std::span<const OpEntry> ControlOps();
std::span<const OpEntry> ConvOps();
std::span<const OpEntry> DetectionOps();
std::span<const OpEntry> EinsumOps();
std::span<const OpEntry> ElementwiseBinaryOps();
std::span<const OpEntry> ElementwiseOps();
std::span<const OpEntry> FusedOps();
std::span<const OpEntry> GlueOps();
std::span<const OpEntry> IndexOps();
std::span<const OpEntry> LayoutOps();
std::span<const OpEntry> LinearOps();
std::span<const OpEntry> LossOps();
std::span<const OpEntry> NormOps();
std::span<const OpEntry> PoolOps();
std::span<const OpEntry> QuantOps();
std::span<const OpEntry> RandomOps();
std::span<const OpEntry> ReduceOps();
std::span<const OpEntry> ResizeOps();
std::span<const OpEntry> RnnOps();
std::span<const OpEntry> SamplingOps();
std::span<const OpEntry> SequenceOps();
std::span<const OpEntry> ShapeOps();
std::span<const OpEntry> SignalOps();
std::span<const OpEntry> SortOps();
std::span<const OpEntry> StateOps();
std::span<const OpEntry> StringOps();

}  // namespace reference

namespace {

using Table = std::span<const OpEntry> (*)();
constexpr Table kTables[] = {
    reference::AttentionOps,
    reference::CastOps,
    reference::ControlOps,
    reference::ConvOps,
    reference::DetectionOps,
    reference::EinsumOps,
    reference::ElementwiseBinaryOps,
    reference::ElementwiseOps,
    reference::FusedOps,
    reference::GlueOps,
    reference::IndexOps,
    reference::LayoutOps,
    reference::LinearOps,
    reference::LossOps,
    reference::NormOps,
    reference::PoolOps,
    reference::QuantOps,
    reference::RandomOps,
    reference::ReduceOps,
    reference::ResizeOps,
    reference::RnnOps,
    reference::SamplingOps,
    reference::SequenceOps,
    reference::ShapeOps,
    reference::SignalOps,
    reference::SortOps,
    reference::StateOps,
    reference::StringOps,
};

std::string Key(std::string_view domain, std::string_view op) {
  std::string key(domain);
  key += ':';
  key += op;
  return key;
}

using Index = std::unordered_map<std::string, std::vector<OpEntry>>;

const Index& GetIndex() {
  static const Index* index = [] {
    auto* made = new Index;  // never destroyed: workers may outlive static destructors
    for (Table table : kTables) {
      for (const OpEntry& entry : table()) (*made)[Key(entry.domain, entry.op)].push_back(entry);
    }
    return made;
  }();
  return *index;
}

}  // namespace

const OpEntry* FindOp(std::string_view domain, std::string_view op, int version) {
  if (domain == "ai.onnx") domain = "";
  auto it = GetIndex().find(Key(domain, op));
  if (it == GetIndex().end()) return nullptr;
  for (const OpEntry& entry : it->second) {
    if (entry.since <= version && version < entry.until) return &entry;
  }
  return nullptr;
}

std::vector<OpEntry> AllOps() {
  std::vector<OpEntry> all;
  for (Table table : kTables) {
    for (const OpEntry& entry : table()) all.push_back(entry);
  }
  return all;
}

}  // namespace plexus
