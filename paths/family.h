// Families of models that share parts of themselves, generated: for tests and experiments on
// sharing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"

namespace plexus {

enum class FamilyKind : uint8_t {
  kHeads,       // one backbone, a head for each member
  kLastLayers,  // the same, with the last `changed` blocks changed for each member (fine-tuned)
  kDecoders,    // one decoder behind an encoder of `changed` blocks for each member
  kAdapters,    // one backbone, `changed` small adapters for each member between its blocks
};
std::vector<std::string> FamilyKindNames();  // "heads" …
Result<FamilyKind> ParseFamilyKind(const std::string& name);

// Members are transformers' feed-forward halves: blocks of 7 nodes (LayerNormalization, MatMul,
// Add, Relu, MatMul, Add and the residual Add) on x: f32[rows,width] → y: f32[rows,width].
struct Family {
  FamilyKind kind = FamilyKind::kHeads;
  int nodes = 300;    // of a member, about
  int width = 16;     // of a row
  int changed = 2;    // see FamilyKind
  uint64_t seed = 1;  // families of other seeds share nothing
};

// Member `member` (≥ 0), as a model file would be imported: opset 17, not canonical. The same on
// every machine. Weights are scaled so that outputs vary with inputs. kInvalidArgument for sizes
// that make no model: fewer nodes than one block or than `changed` blocks need, width outside
// 8…4096.
Result<Graph> FamilyMember(const Family& family, int member);

}  // namespace plexus
