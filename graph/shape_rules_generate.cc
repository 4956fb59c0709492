// Shapes of shapes, ranges, constants and random numbers.
#include <algorithm>
#include <cmath>

#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

DType DTypeAttr(const Node& node, DType fallback) {
  const auto dtype = static_cast<DType>(node.IntAttr("dtype", 0));
  return dtype == DType::kUndefined ? fallback : dtype;
}

Status ShapeOf(RuleContext& c) {
  c.Type(0, DType::kInt64);
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  const int64_t rank = static_cast<int64_t>(x->size());
  int64_t start = c.node().IntAttr("start", 0), end = c.node().IntAttr("end", rank);
  if (start < 0) start += rank;
  if (end < 0) end += rank;
  start = std::clamp<int64_t>(start, 0, rank);
  end = std::clamp<int64_t>(end, 0, rank);
  c.SetShape(0, {std::max<int64_t>(0, end - start)});
  return OkStatus();
}

Status Scalar64(RuleContext& c) {
  const Shape scalar;
  c.Set(0, DType::kInt64, &scalar);
  return OkStatus();
}

Status Constant(RuleContext& c) {
  const Node& node = c.node();
  if (const Tensor* value = node.TensorAttr("value")) {
    c.Set(0, value->dtype(), &value->shape());
    return OkStatus();
  }
  const auto list = [&](DType dtype, size_t count) {
    const Shape shape = {static_cast<int64_t>(count)};
    c.Set(0, dtype, &shape);
  };
  const Shape scalar;
  if (node.HasAttr("value_float")) c.Set(0, DType::kFloat32, &scalar);
  if (node.HasAttr("value_int")) c.Set(0, DType::kInt64, &scalar);
  if (node.HasAttr("value_string")) c.Set(0, DType::kString, &scalar);
  if (node.HasAttr("value_floats")) list(DType::kFloat32, node.FloatsAttr("value_floats").size());
  if (node.HasAttr("value_ints")) list(DType::kInt64, node.IntsAttr("value_ints").size());
  return OkStatus();
}

Status ConstantOfShape(RuleContext& c) {
  const Tensor* value = c.node().TensorAttr("value");
  c.Type(0, value ? value->dtype() : DType::kFloat32);
  PLEXUS_ASSIGN_OR_RETURN(auto shape, c.Ints(0));
  if (shape) c.SetShape(0, std::move(*shape));
  return OkStatus();
}

Status Range(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  if (IsInteger(c.TypeOf(0))) {
    PLEXUS_ASSIGN_OR_RETURN(const auto start, c.Ints(0));
    PLEXUS_ASSIGN_OR_RETURN(const auto limit, c.Ints(1));
    PLEXUS_ASSIGN_OR_RETURN(const auto delta, c.Ints(2));
    if (!start || !limit || !delta) return OkStatus();
    if (start->size() != 1 || limit->size() != 1 || delta->size() != 1) {
      return c.Error("start, limit and delta must be single numbers");
    }
    if ((*delta)[0] == 0) return c.Error("delta is 0");
    const __int128 span = __int128{(*limit)[0]} - (*start)[0];
    const __int128 step = (*delta)[0];
    __int128 count = span / step;
    if (span % step != 0 && (span < 0) == (step < 0)) ++count;
    if (count > kMaxExtent) return ResourceExhaustedError("the range is too long");
    c.SetShape(0, {static_cast<int64_t>(std::max<__int128>(0, count))});
    return OkStatus();
  }
  PLEXUS_ASSIGN_OR_RETURN(const auto start, c.Doubles(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto limit, c.Doubles(1));
  PLEXUS_ASSIGN_OR_RETURN(const auto delta, c.Doubles(2));
  if (!start || !limit || !delta) return OkStatus();
  if (start->size() != 1 || limit->size() != 1 || delta->size() != 1) {
    return c.Error("start, limit and delta must be single numbers");
  }
  const double count = std::ceil(((*limit)[0] - (*start)[0]) / (*delta)[0]);
  if (!(count <= static_cast<double>(kMaxExtent))) return c.Error("the range is too long");
  c.SetShape(0, {count > 0 ? static_cast<int64_t>(count) : 0});
  return OkStatus();
}

Status EyeLike(RuleContext& c) {
  c.Set(0, DTypeAttr(c.node(), c.TypeOf(0)), c.ShapeOf(0));
  return c.WantRank(0, 2, 2);
}

Status Random(RuleContext& c) {
  const Shape shape = c.node().IntsAttr("shape");
  c.Set(0, DTypeAttr(c.node(), DType::kFloat32), &shape);
  return OkStatus();
}

Status RandomLike(RuleContext& c) {
  c.Set(0, DTypeAttr(c.node(), c.TypeOf(0)), c.ShapeOf(0));
  return OkStatus();
}

Status Multinomial(RuleContext& c) {
  c.Type(0, DTypeAttr(c.node(), DType::kInt32));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 2, 2));
  c.SetShape(0, {(*x)[0], c.node().IntAttr("sample_size", 1)});
  return OkStatus();
}

Status TfIdfVectorizer(RuleContext& c) {
  c.Type(0, DType::kFloat32);
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 1, 2));
  const std::vector<int64_t> indexes = c.node().IntsAttr("ngram_indexes");
  int64_t most = -1;
  for (int64_t i : indexes) most = std::max(most, i);
  if (most < 0 || most >= kMaxExtent) return c.Error("ngram_indexes is empty or out of range");
  Shape out(x->begin(), x->end() - 1);
  out.push_back(most + 1);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

// Sizes that depend on the text or image itself.
Status StringNormalizer(RuleContext& c) {
  c.Type(0, DType::kString);
  if (!c.node().HasAttr("stopwords")) c.Set(0, DType::kString, c.ShapeOf(0));
  return OkStatus();
}
Status StringSplit(RuleContext& c) {
  c.Type(0, DType::kString);
  c.Set(1, DType::kInt64, c.ShapeOf(0));
  return OkStatus();
}
Status ImageDecoder(RuleContext& c) {
  c.Type(0, DType::kUint8);
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"Shape", ShapeOf},
    {"Size", Scalar64},
    {"Constant", Constant},
    {"ConstantOfShape", ConstantOfShape},
    {"Range", Range},
    {"EyeLike", EyeLike},
    {"RandomNormal", Random},
    {"RandomUniform", Random},
    {"RandomNormalLike", RandomLike},
    {"RandomUniformLike", RandomLike},
    {"Multinomial", Multinomial},
    {"TfIdfVectorizer", TfIdfVectorizer},
    {"StringNormalizer", StringNormalizer},
    {"StringSplit", StringSplit},
    {"ImageDecoder", ImageDecoder},
};

}  // namespace

std::span<const RuleEntry> GenerateRules() { return kRules; }

}  // namespace plexus::shape_rules
