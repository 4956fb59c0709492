// Brings nodes of any opset to one form. Internal to Canonicalize.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/passes/pass_util.h"

namespace plexus {

// The opset whose form canonical nodes have.
inline constexpr int kCanonicalOpset = 26;

// Thread-compatible. Rewrites one node in place: attributes that later became inputs turn into
// constants of `graph`, renamed operators and modes get their new names, attributes at their
// default go, and `version` becomes kCanonicalOpset. A node whose old meaning the new form cannot
// express keeps its version and form.
class Leveler {
 public:
  Leveler(Graph& graph, NameTable& names) : graph_(graph), names_(names) {}
  void Level(Node& node);

 private:
  bool LevelMeaning(Node& node);  // false: keep as it is
  void MoveInts(Node& node, const std::string& attribute, size_t input);
  void MoveFloat(Node& node, const std::string& attribute, size_t input);
  void PutInput(Node& node, size_t input, Tensor value, const std::string& what);
  bool LevelSoftmax(Node& node);
  bool LevelResize(Node& node);
  void LevelUpsample(Node& node);
  bool IsEmptyConstant(ValueId id) const;
  void DropDefaults(Node& node);

  Graph& graph_;
  NameTable& names_;
};

}  // namespace plexus
