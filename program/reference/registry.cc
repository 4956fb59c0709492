// The list of all operator tables, and lookup by domain, name and opset version.
#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "program/reference/reference.h"

namespace plexus {
namespace reference {

std::span<const OpEntry> AttentionOps();
std::span<const OpEntry> CastOps();
std::span<const OpEntry> ControlOps();
std::span<const OpEntry> ConvOps();
std::span<const OpEntry> CtcOps();
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
    reference::AttentionOps,   reference::CastOps,
    reference::ControlOps,     reference::ConvOps,
    reference::CtcOps,         reference::DetectionOps,
    reference::EinsumOps,      reference::ElementwiseBinaryOps,
    reference::ElementwiseOps, reference::FusedOps,
    reference::GlueOps,        reference::IndexOps,
    reference::LayoutOps,      reference::LinearOps,
    reference::LossOps,        reference::NormOps,
    reference::PoolOps,        reference::QuantOps,
    reference::RandomOps,      reference::ReduceOps,
    reference::ResizeOps,      reference::RnnOps,
    reference::SamplingOps,    reference::SequenceOps,
    reference::ShapeOps,       reference::SignalOps,
    reference::SortOps,        reference::StateOps,
    reference::StringOps,
};

std::string Key(std::string_view domain, std::string_view op) {
  std::string key(domain);
  key += ':';
  key += op;
  return key;
}

using Index = std::unordered_map<std::string, std::vector<OpEntry>>;

// Lookups read one index without a lock; a registration puts a larger one in its place.
class Registry {
 public:
  Registry() {
    for (Table table : kTables) tables_.push_back(table());
    Rebuild();
  }

  // acquire: sees all of the index that Rebuild() published.
  const Index& index() const { return *current_.load(std::memory_order_acquire); }

  void Add(std::span<const OpEntry> table) {
    std::lock_guard lock(mutex_);
    tables_.push_back(table);
    Rebuild();
  }

  std::vector<OpEntry> All() const {
    std::lock_guard lock(mutex_);
    std::vector<OpEntry> all;
    for (std::span<const OpEntry> table : tables_)
      all.insert(all.end(), table.begin(), table.end());
    return all;
  }

 private:
  void Rebuild() {
    auto made = std::make_unique<Index>();
    for (std::span<const OpEntry> table : tables_) {
      for (const OpEntry& entry : table) (*made)[Key(entry.domain, entry.op)].push_back(entry);
    }
    current_.store(made.get(), std::memory_order_release);
    indices_.push_back(std::move(made));
  }

  mutable std::mutex mutex_;  // guards tables_ and indices_
  std::vector<std::span<const OpEntry>> tables_;
  // All that ever were: entries that FindOp returned point into them.
  std::vector<std::unique_ptr<const Index>> indices_;
  std::atomic<const Index*> current_{nullptr};
};

Registry& GetRegistry() {
  static auto* registry = new Registry;  // never destroyed: workers may outlive static destructors
  return *registry;
}

}  // namespace

const OpEntry* FindOp(std::string_view domain, std::string_view op, int version) {
  if (domain == "ai.onnx") domain = "";
  const Index& index = GetRegistry().index();
  const auto it = index.find(Key(domain, op));
  if (it == index.end()) return nullptr;
  for (const OpEntry& entry : it->second) {
    if (entry.since <= version && version < entry.until) return &entry;
  }
  return nullptr;
}

void RegisterOps(std::span<const OpEntry> ops) { GetRegistry().Add(ops); }

std::vector<OpEntry> AllOps() { return GetRegistry().All(); }

}  // namespace plexus
