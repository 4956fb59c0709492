// The table of lowering rules: one line per family.
#include <string>
#include <unordered_map>

#include "device/cpu/lowering.h"

namespace plexus::cpu {

namespace {

using Table = std::unordered_map<std::string, LoweringRule>;

std::string Key(std::string_view domain, std::string_view op) {
  return std::string(domain) + "." + std::string(op);
}

Table MakeTable() {
  Table table;
  for (auto family :
       {ViewRules(), ConvRules(), MatMulRules(), PoolRules(), QuantizedRules(), KernelRules()}) {
    for (const LoweringEntry& entry : family) table[Key(entry.domain, entry.op)] = entry.rule;
  }
  return table;
}

}  // namespace

LoweringRule FindLoweringRule(const Node& node) {
  static const Table& table = *new Table(MakeTable());
  auto it = table.find(Key(node.domain == "ai.onnx" ? "" : node.domain, node.op));
  return it == table.end() ? nullptr : it->second;
}

}  // namespace plexus::cpu
