#include "paths/family.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

namespace plexus {
namespace {

constexpr int kBlockNodes = 7, kAdapterNodes = 4, kOpset = 17;
constexpr int kMaxNodes = 100'000;

// Builds one member. Blocks are known by number: equal numbers have equal weights.
class MemberBuilder {
 public:
  MemberBuilder(const Family& family, std::string name) : family_(family) {
    graph_.name = std::move(name);
    Value x;
    x.name = "x";
    x.dtype = DType::kFloat32;
    x.shape.has_rank = true;
    x.shape.dims = {{std::nullopt, "rows"}, {family.width, ""}};
    value_ = graph_.AddInput(std::move(x));
  }

  void Block(uint64_t number) {
    const int64_t w = family_.width;
    const std::string name = "block" + std::to_string(place_++) + "/";
    const ValueId before = value_;
    std::vector<float> near_one = Numbers(number, 3, w, 0.1);
    for (float& value : near_one) value += 1;
    const ValueId scale = Constant(name + "scale", {w}, near_one);
    const ValueId bias = Constant(name + "bias", {w}, Numbers(number, 4, w, 0.1));
    Add(name + "norm", "LayerNormalization", {before, scale, bias});
    Linear(name + "up", number, 0, w, w);
    Add(name + "relu", "Relu", {value_});
    Linear(name + "down", number, 1, w, w);
    Add(name + "residual", "Add", {value_, before});
  }

  // A bottleneck beside the trunk.
  void Adapter(uint64_t number) {
    const int64_t w = family_.width, narrow = std::max<int64_t>(4, w / 8);
    const std::string name = "adapter" + std::to_string(place_++) + "/";
    const ValueId before = value_;
    Add(name + "down", "MatMul", {before, Weights(name + "down_w", number, 0, w, narrow)});
    Add(name + "relu", "Relu", {value_});
    Add(name + "up", "MatMul", {value_, Weights(name + "up_w", number, 1, narrow, w)});
    Add(name + "residual", "Add", {value_, before});
  }

  void Head(uint64_t number) { Linear("head/", number, 2, family_.width, family_.width); }

  Graph Take() {
    graph_.value(value_).name = "y";
    graph_.outputs().push_back(value_);
    return std::move(graph_);
  }

 private:
  static size_t Size(int64_t n) { return static_cast<size_t>(n); }

  void Linear(const std::string& name, uint64_t number, uint64_t which, int64_t rows,
              int64_t columns) {
    Add(name + "matmul", "MatMul", {value_, Weights(name + "w", number, which, rows, columns)});
    const ValueId bias = Constant(name + "b", {columns}, Numbers(number, which + 8, columns, 0.1));
    Add(name + "add", "Add", {value_, bias});
  }

  void Add(const std::string& name, const std::string& op, std::vector<ValueId> inputs) {
    Value value;
    value.name = name;
    value.dtype = DType::kFloat32;
    Node node;
    node.op = op;
    node.name = name;
    node.version = kOpset;
    node.inputs = std::move(inputs);
    value_ = graph_.AddValue(std::move(value));
    node.outputs = {value_};
    graph_.AddNode(std::move(node));
  }

  ValueId Weights(const std::string& name, uint64_t number, uint64_t which, int64_t rows,
                  int64_t columns) {
    const double scale = std::sqrt(3.0 / static_cast<double>(rows));  // variance 1 / rows
    return Constant(name, {rows, columns}, Numbers(number, which, rows * columns, scale));
  }

  // Even in (−scale, scale), from the generator's own bits: the distributions of the standard
  // library are not the same everywhere.
  std::vector<float> Numbers(uint64_t number, uint64_t which, int64_t count, double scale) const {
    std::seed_seq seed = {family_.seed, number, number >> 32, which};
    std::mt19937 random(seed);
    std::vector<float> values(Size(count));
    for (float& value : values) {
      value = static_cast<float>(scale * (static_cast<double>(random()) / 2147483648.0 - 1.0));
    }
    return values;
  }

  ValueId Constant(const std::string& name, Shape shape, const std::vector<float>& values) {
    return graph_.AddConstant(name, ConstantStore::Get().Intern(Tensor::Of<float>(
                                        DType::kFloat32, std::move(shape), values)));
  }

  const Family& family_;
  Graph graph_;
  ValueId value_;
  int place_ = 0;
};

struct Kind {
  FamilyKind kind;
  const char* name;
};
constexpr Kind kKinds[] = {{FamilyKind::kHeads, "heads"},
                           {FamilyKind::kLastLayers, "last-layers"},
                           {FamilyKind::kDecoders, "decoders"},
                           {FamilyKind::kAdapters, "adapters"}};

int Blocks(const Family& family) {
  int nodes = family.nodes;
  if (family.kind == FamilyKind::kAdapters) nodes -= family.changed * kAdapterNodes;
  return nodes / kBlockNodes;
}

}  // namespace

std::vector<std::string> FamilyKindNames() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.push_back(kind.name);
  return names;
}

Result<FamilyKind> ParseFamilyKind(const std::string& name) {
  for (const Kind& kind : kKinds) {
    if (name == kind.name) return kind.kind;
  }
  return InvalidArgumentError("no kind of family '" + name +
                              "'; there are heads, last-layers, decoders, adapters");
}

Result<Graph> FamilyMember(const Family& family, int member) {
  if (member < 0 || family.changed < 0 || family.width < 8 || family.width > 4096 ||
      family.nodes > kMaxNodes || family.changed > family.nodes) {
    return InvalidArgumentError(
        "a family's member, size or number of changed blocks is out of "
        "range");
  }
  const int blocks = Blocks(family);
  if (blocks < std::max(1, family.changed)) {
    return InvalidArgumentError("a family of " + std::to_string(family.nodes) +
                                " nodes has too few blocks for " + std::to_string(family.changed) +
                                " changed ones");
  }
  // Members' own blocks have numbers that no other has.
  const uint64_t own = (static_cast<uint64_t>(member) + 1) << 32;
  MemberBuilder builder(family, "member" + std::to_string(member));
  for (int b = 0; b < blocks; ++b) {
    const auto number = static_cast<uint64_t>(b);
    const bool changed = (family.kind == FamilyKind::kLastLayers && b >= blocks - family.changed) ||
                         (family.kind == FamilyKind::kDecoders && b < family.changed);
    builder.Block(changed ? own + number : number);
    // Adapters stand evenly between the blocks.
    if (family.kind == FamilyKind::kAdapters &&
        (b + 1) * family.changed / blocks > b * family.changed / blocks) {
      builder.Adapter(own + number);
    }
  }
  if (family.kind == FamilyKind::kHeads) builder.Head(own);
  return builder.Take();
}

}  // namespace plexus
