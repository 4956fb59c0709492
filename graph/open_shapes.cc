#include "graph/open_shapes.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "graph/shape_rules.h"

namespace plexus {
namespace {

using shape_rules::RuleContext;

// Takes the place of an open size in rules for whole shapes: large, so that no window or count is
// larger, and no two alike, so that it is found again in the output.
constexpr int64_t kStandIn = int64_t{1} << 36;

enum class Kind : uint8_t {
  kInPlace,    // output dimension d depends on dimension d of the first input only
  kMoves,      // the output's dimensions are the inputs' and fixed ones, in some order
  kBroadcast,  // of all inputs
  kConcat,
  kConv,
  kExpand,
  kFlatten,
  kGemm,
  kLayerNorm,
  kMatMul,
  kPerChannel,
  kReshape,
  kSplit,
  kSqueeze,
};

// Operators of the standard domain. For kInPlace and kMoves: where the rule fails with stand-ins it
// fails with any sizes, since it compares no size with another and a larger one never fails where
// a smaller one does not.
constexpr std::string_view kInPlaceOps =
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp "
    "Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Mish Neg Not Reciprocal Relu "
    "Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh "
    "ThresholdedRelu IsInf IsNaN Cast CastLike BitCast QuantizeLinear Dropout "
    "DequantizeLinear Softmax DynamicQuantizeLinear LogSoftmax Hardmax CumSum "
    "LpNormalization LRN MeanVarianceNormalization Trilu ReverseSequence Slice Pad MaxPool "
    "AveragePool LpPool GlobalAveragePool GlobalMaxPool";
constexpr std::string_view kMovesOps =
    "Transpose Unsqueeze ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean "
    "ReduceMin ReduceProd ReduceSum ReduceSumSquare ArgMax ArgMin TopK Gather OneHot";
constexpr std::string_view kBroadcastOps =
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Max Mean Equal Greater "
    "GreaterOrEqual Less LessOrEqual Min Mod Mul Or Pow Sub Sum Xor Where";

using Table = std::unordered_map<std::string_view, Kind>;

const Table& Kinds() {
  static const Table* const table = [] {
    auto* kinds = new Table{
        {"Concat", Kind::kConcat},
        {"Conv", Kind::kConv},
        {"Expand", Kind::kExpand},
        {"Flatten", Kind::kFlatten},
        {"Gemm", Kind::kGemm},
        {"LayerNormalization", Kind::kLayerNorm},
        {"RMSNormalization", Kind::kLayerNorm},
        {"MatMul", Kind::kMatMul},
        {"BatchNormalization", Kind::kPerChannel},
        {"InstanceNormalization", Kind::kPerChannel},
        {"Reshape", Kind::kReshape},
        {"Split", Kind::kSplit},
        {"Squeeze", Kind::kSqueeze},
    };
    const auto add = [&](std::string_view ops, Kind kind) {
      for (size_t at = 0; at < ops.size();) {
        const size_t end = std::min(ops.find(' ', at), ops.size());
        kinds->emplace(ops.substr(at, end - at), kind);
        at = end + 1;
      }
    };
    add(kInPlaceOps, Kind::kInPlace);
    add(kMovesOps, Kind::kMoves);
    add(kBroadcastOps, Kind::kBroadcast);
    return kinds;
  }();
  return *table;
}

int64_t RankOf(const Shape& shape) { return static_cast<int64_t>(shape.size()); }

// An open size may be 1, or the other one.
Result<Shape> BroadcastOpen(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape out = longer;
  const size_t offset = longer.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    int64_t& size = out[offset + i];
    const int64_t other = shorter[i];
    if (size == other || other == 1) continue;
    if (size == 1 || (size == kOpenSize && other != kOpenSize)) {
      size = other;
    } else if (other != kOpenSize) {
      return InvalidArgumentError("cannot broadcast " + ShapeToString(a) + " with " +
                                  ShapeToString(b));
    }
  }
  return out;
}

class OpenInference {
 public:
  OpenInference(const Graph& graph, const Node& node, std::span<const KnownValue> inputs,
                std::span<const OpenShape> sizes)
      : graph_(graph), node_(node), inputs_(inputs.begin(), inputs.end()), sizes_(sizes) {
    inputs_.resize(std::max(inputs_.size(), node.inputs.size()));
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const bool left_out = i < node.inputs.size() && !node.inputs[i].valid();
      pointers_.push_back(left_out ? nullptr : &inputs_[i]);
    }
    out_.resize(node.outputs.size());
  }

  Result<std::vector<OpenShape>> Run(Kind kind) {
    const Status status = RunKind(kind);
    if (status.ok()) return std::move(out_);
    for (size_t i = 0; i < inputs_.size(); ++i) inputs_[i].shape = Sizes(i);
    return status.WithContext(shape_rules::Describe(node_, pointers_));
  }

 private:
  OpenShape Sizes(size_t i) const { return i < sizes_.size() ? sizes_[i] : std::nullopt; }
  static Status Error(std::string message) { return InvalidArgumentError(std::move(message)); }
  void Set(size_t i, Shape shape) {
    if (i < out_.size()) out_[i] = std::move(shape);
  }
  RuleContext Context() { return RuleContext(graph_, node_, pointers_, results_); }

  // The rule for whole shapes, with what stands in `inputs_`.
  Status RunRule() {
    results_.assign(node_.outputs.size(), KnownValue());
    RuleContext context = Context();
    return shape_rules::FindRule(node_)(context);
  }

  void StandIn(size_t i) {
    OpenShape shape = Sizes(i);
    if (!shape) return;
    for (int64_t& size : *shape) {
      if (size == kOpenSize) size = kStandIn + num_stand_ins_++;
    }
    inputs_[i].shape = std::move(shape);
  }

  Status RunKind(Kind kind) {
    if (kind == Kind::kBroadcast) return Broadcast();
    if (kind == Kind::kConcat) return Concat();
    if (kind == Kind::kMoves) return Moves();
    if (!Sizes(0)) return OkStatus();
    const Shape x = *Sizes(0);
    switch (kind) {
      case Kind::kInPlace:
        return InPlace(x);
      case Kind::kConv:
        return Conv(x);
      case Kind::kExpand:
        return Expand(x);
      case Kind::kFlatten:
        return Flatten(x);
      case Kind::kGemm:
        return Gemm(x);
      case Kind::kLayerNorm:
        return LayerNorm(x);
      case Kind::kMatMul:
        return MatMul(x);
      case Kind::kPerChannel:
        return PerChannel(x);
      case Kind::kReshape:
        return Reshape(x);
      case Kind::kSplit:
        return Split(x);
      case Kind::kSqueeze:
        return Squeeze(x);
      default:
        return OkStatus();
    }
  }

  Status InPlace(const Shape& x) {
    if (!inputs_[0].shape) StandIn(0);
    PLEXUS_RETURN_IF_ERROR(RunRule());
    for (size_t i = 0; i < results_.size(); ++i) {
      OpenShape shape = std::move(results_[i].shape);
      if (!shape || shape->size() != x.size()) continue;
      for (size_t d = 0; d < x.size(); ++d) {
        // Reduced to one entry, whatever it was.
        const bool global = node_.op.starts_with("Global") && d >= 2;
        if (x[d] == kOpenSize && !global) (*shape)[d] = kOpenSize;
      }
      out_[i] = std::move(shape);
    }
    return OkStatus();
  }

  Status Moves() {
    for (size_t i = 0; i < inputs_.size(); ++i) StandIn(i);
    PLEXUS_RETURN_IF_ERROR(RunRule());
    for (size_t i = 0; i < results_.size(); ++i) {
      if (!results_[i].shape) continue;
      for (int64_t& size : *results_[i].shape) {
        if (size >= kStandIn) size = kOpenSize;
      }
      out_[i] = std::move(results_[i].shape);
    }
    return OkStatus();
  }

  Status Broadcast() {
    Shape out;
    bool all_known = true;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (pointers_[i] == nullptr) continue;
      if (const OpenShape shape = Sizes(i)) {
        PLEXUS_ASSIGN_OR_RETURN(out, BroadcastOpen(out, *shape));
      } else {
        all_known = false;
      }
    }
    if (all_known) Set(0, std::move(out));
    return OkStatus();
  }

  Status Concat() {
    OpenShape out;
    bool all_known = true;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      const OpenShape x = Sizes(i);
      if (!x) {
        all_known = false;
        continue;
      }
      PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                              shape_rules::NormalizeAxis(node_.IntAttr("axis", 1), RankOf(*x)));
      if (!out) {
        out = x;
        continue;
      }
      if (x->size() != out->size()) return Error("inputs of different ranks");
      for (int64_t d = 0; d < RankOf(*x); ++d) {
        int64_t& size = (*out)[d];
        const bool open = size == kOpenSize || (*x)[d] == kOpenSize;
        if (d == axis) {
          size = open ? kOpenSize : size + (*x)[d];
        } else if (open) {
          size = std::max(size, (*x)[d]);
        } else if (size != (*x)[d]) {
          return Error("inputs differ in dimension " + std::to_string(d));
        }
      }
    }
    if (all_known && out) Set(0, std::move(*out));
    return OkStatus();
  }

  Status Conv(const Shape& x) {
    const OpenShape w = Sizes(1);
    if (!w || w->size() < 2 || std::count(w->begin(), w->end(), kOpenSize) > 0) return OkStatus();
    const int64_t groups = node_.IntAttr("group", 1);
    StandIn(0);
    Shape& filled = *inputs_[0].shape;
    int64_t channels = 0;
    if (x.size() > 1 && x[1] == kOpenSize && groups >= 1 &&
        !__builtin_mul_overflow((*w)[1], groups, &channels)) {
      filled[1] = channels;
    }
    PLEXUS_RETURN_IF_ERROR(RunRule());
    if (!results_[0].shape) return OkStatus();
    Shape out = *results_[0].shape;
    for (size_t d = 0; d < out.size(); ++d) {
      if (d != 1 && x[d] == kOpenSize) out[d] = kOpenSize;
    }
    Set(0, std::move(out));
    return OkStatus();
  }

  Status Expand(const Shape& x) {
    PLEXUS_ASSIGN_OR_RETURN(const auto target, Context().Ints(1));
    if (!target) return OkStatus();
    if (std::any_of(target->begin(), target->end(), [](int64_t t) { return t < 0; })) {
      return OkStatus();
    }
    PLEXUS_ASSIGN_OR_RETURN(Shape out, BroadcastOpen(x, *target));
    Set(0, std::move(out));
    return OkStatus();
  }

  Status Flatten(const Shape& x) {
    int64_t axis = node_.IntAttr("axis", 1);
    if (axis < -RankOf(x) || axis > RankOf(x)) return Error("axis is out of range");
    if (axis < 0) axis += RankOf(x);
    const auto product = [](std::span<const int64_t> sizes) {
      int64_t count = 1;
      for (const int64_t size : sizes) {
        if (size == kOpenSize || __builtin_mul_overflow(count, size, &count)) return kOpenSize;
      }
      return count;
    };
    const std::span<const int64_t> all(x);
    Set(0, {product(all.first(axis)), product(all.subspan(axis))});
    return OkStatus();
  }

  Status Gemm(const Shape& a) {
    if (a.size() != 2) return Error("input 0 has rank " + std::to_string(a.size()) + ", wanted 2");
    const OpenShape b = Sizes(1);
    if (!b) return OkStatus();
    if (b->size() != 2)
      return Error("input 1 has rank " + std::to_string(b->size()) + ", wanted 2");
    const bool ta = node_.IntAttr("transA", 0) != 0, tb = node_.IntAttr("transB", 0) != 0;
    if (Differ(a[ta ? 0 : 1], (*b)[tb ? 1 : 0])) return Error("the inner dimensions differ");
    Shape out = {a[ta ? 1 : 0], (*b)[tb ? 0 : 1]};
    if (const OpenShape bias = Sizes(2)) {
      PLEXUS_RETURN_IF_ERROR(BroadcastOpen(out, *bias).status());
    }
    Set(0, std::move(out));
    return OkStatus();
  }

  Status LayerNorm(const Shape& x) {
    PLEXUS_RETURN_IF_ERROR(
        shape_rules::NormalizeAxis(node_.IntAttr("axis", -1), RankOf(x)).status());
    for (size_t i = 1; i < 3; ++i) {
      const OpenShape s = Sizes(i);
      if (!s) continue;
      PLEXUS_RETURN_IF_ERROR(BroadcastOpen(x, *s).status());
      if (s->size() > x.size()) {
        return Error("input " + std::to_string(i) + " does not broadcast to x");
      }
    }
    Set(0, x);
    return OkStatus();
  }

  Status MatMul(Shape a) {
    if (!Sizes(1)) return OkStatus();
    Shape b = *Sizes(1);
    if (a.empty() || b.empty()) return Error("a scalar cannot be multiplied");
    const bool vector_a = a.size() == 1, vector_b = b.size() == 1;
    if (vector_a) a.insert(a.begin(), 1);
    if (vector_b) b.push_back(1);
    if (Differ(a.back(), b[b.size() - 2])) {
      return Error("the inner dimensions differ: " + ShapeToString(a) + " times " +
                   ShapeToString(b));
    }
    PLEXUS_ASSIGN_OR_RETURN(
        Shape out, BroadcastOpen(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2)));
    if (!vector_a) out.push_back(a[a.size() - 2]);
    if (!vector_b) out.push_back(b.back());
    Set(0, std::move(out));
    return OkStatus();
  }

  Status PerChannel(const Shape& x) {
    if (node_.version < 9 && node_.IntAttr("spatial", 1) == 0) return OkStatus();
    Shape out = x;
    int64_t channels = x.size() > 1 ? x[1] : 1;
    const size_t last = node_.op == "BatchNormalization" ? 5 : 3;
    for (size_t i = 1; i < last; ++i) {
      const OpenShape s = Sizes(i);
      if (!s) continue;
      if (s->size() != 1 || Differ((*s)[0], channels)) {
        return Error("x has " + std::to_string(channels) + " channels, input " + std::to_string(i) +
                     " is " + ShapeToString(*s));
      }
      channels = std::max(channels, (*s)[0]);
    }
    if (x.size() > 1) out[1] = channels;
    Set(0, std::move(out));
    return OkStatus();
  }

  // A -1 in the target stays open: it is 0 where a copied size is.
  Status Reshape(const Shape& x) {
    PLEXUS_ASSIGN_OR_RETURN(const auto target, Context().Ints(1));
    if (!target) return OkStatus();
    const bool allow_zero = node_.IntAttr("allowzero", 0) != 0;
    Shape out = *target;
    bool fixed = true;
    int64_t wanted = 1, there = 1;
    for (size_t i = 0; i < out.size(); ++i) {
      if (out[i] == 0 && !allow_zero) {
        if (i >= x.size()) return Error("the target copies a dimension that x does not have");
        out[i] = x[i];
      }
      if (out[i] < 0) {
        out[i] = kOpenSize;
        fixed = false;
      } else if (__builtin_mul_overflow(wanted, out[i], &wanted)) {
        fixed = false;
      }
    }
    for (const int64_t size : x) {
      if (size != kOpenSize && __builtin_mul_overflow(there, size, &there)) fixed = false;
    }
    if (fixed && there > 0 && wanted % there != 0) {
      return Error("cannot reshape to " + ShapeToString(*target));
    }
    Set(0, std::move(out));
    return OkStatus();
  }

  Status Split(Shape x) {
    PLEXUS_ASSIGN_OR_RETURN(const auto list, Context().AttrOrInput("split", 1));
    PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                            shape_rules::NormalizeAxis(node_.IntAttr("axis", 0), RankOf(x)));
    if (!list.known) return OkStatus();
    StandIn(0);
    if (x[axis] == kOpenSize && !list.values.empty()) {
      int64_t sum = 0;
      for (const int64_t part : list.values) {
        if (part < 0 || __builtin_add_overflow(sum, part, &sum)) return OkStatus();
      }
      (*inputs_[0].shape)[axis] = x[axis] = sum;
    }
    return InPlace(x);
  }

  Status Squeeze(const Shape& x) {
    PLEXUS_ASSIGN_OR_RETURN(const auto list, Context().AttrOrInput("axes", 1));
    if (!list.present || !list.known) return OkStatus();  // the rank depends on the sizes
    StandIn(0);
    for (const int64_t value : list.values) {
      PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, shape_rules::NormalizeAxis(value, RankOf(x)));
      if (x[axis] == kOpenSize) (*inputs_[0].shape)[axis] = 1;
    }
    PLEXUS_RETURN_IF_ERROR(RunRule());
    if (!results_[0].shape) return OkStatus();
    Shape out = *results_[0].shape;
    for (int64_t& size : out) {
      if (size >= kStandIn) size = kOpenSize;
    }
    Set(0, std::move(out));
    return OkStatus();
  }

  static bool Differ(int64_t a, int64_t b) { return a != kOpenSize && b != kOpenSize && a != b; }

  const Graph& graph_;
  const Node& node_;
  std::vector<KnownValue> inputs_;
  const std::span<const OpenShape> sizes_;
  std::vector<const KnownValue*> pointers_;
  std::vector<KnownValue> results_;
  std::vector<OpenShape> out_;
  int64_t num_stand_ins_ = 0;
};

}  // namespace

OpenShape ToOpenShape(const SymbolicShape& shape) {
  if (!shape.has_rank) return std::nullopt;
  Shape sizes;
  for (const SymbolicDim& dim : shape.dims) sizes.push_back(dim.value.value_or(kOpenSize));
  return sizes;
}

OpenShape CommonSizes(const OpenShape& a, const OpenShape& b) {
  if (!a || !b || a->size() != b->size()) return std::nullopt;
  Shape sizes = *a;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != (*b)[d]) sizes[d] = kOpenSize;
  }
  return sizes;
}

Result<std::vector<OpenShape>> InferOpenShapes(const Graph& graph, const Node& node,
                                               std::span<const KnownValue> inputs,
                                               std::span<const OpenShape> sizes) {
  const auto kind = Kinds().find(node.op);
  if (!node.domain.empty() || kind == Kinds().end() || node.inputs.empty() ||
      node.outputs.empty() || shape_rules::FindRule(node) == nullptr) {
    return std::vector<OpenShape>(node.outputs.size());
  }
  return OpenInference(graph, node, inputs, sizes).Run(kind->second);
}

}  // namespace plexus
