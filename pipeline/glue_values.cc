// Glue that computes with plain values: what predicates and loops are made of.
#include <cmath>
#include <map>
#include <numeric>

#include "pipeline/glue_rows.h"

namespace plexus {
namespace {

constexpr int64_t kMaxConstantElements = 1 << 20;

template <typename T>
std::optional<Tensor> Exactly(DType dtype, double number) {
  const auto value = static_cast<T>(number);
  if (static_cast<double>(value) != number) return std::nullopt;
  return Tensor::Of<T>(dtype, {}, {value});
}

// Whole numbers beyond 2^53 are not told apart in the file.
template <typename T>
std::optional<Tensor> Whole(DType dtype, double number) {
  constexpr double kMax = 9007199254740992.0;
  if (std::trunc(number) != number || std::abs(number) > kMax) return std::nullopt;
  if (number < static_cast<double>(std::numeric_limits<T>::min()) ||
      number > static_cast<double>(std::numeric_limits<T>::max())) {
    return std::nullopt;
  }
  return Exactly<T>(dtype, number);
}

// The second operand: another input, or the number under `key`, of the first one's type.
Result<ValueId> Operand(GlueContext& c, const char* key) {
  if (c.inputs.size() == 2) {
    if (c.InputType(0) != c.InputType(1)) c.options.Fail("its inputs differ in type");
    return c.inputs[1];
  }
  const double number = c.options.Double(key);
  std::optional<Tensor> scalar = ScalarOf(c.InputType(), number);
  if (!scalar) {
    c.options.Fail(key, "no value of type " + std::string(DTypeProtocolName(c.InputType())));
    return c.options.Finish();
  }
  return c.Constant(std::move(*scalar), key);
}

GlueOutputs Arithmetic(GlueContext& c, const char* op, const char* key) {
  if (c.InputType() == DType::kString || c.InputType() == DType::kBool) {
    c.options.Fail("expects numbers");
    return c.options.Finish();
  }
  PLEXUS_ASSIGN_OR_RETURN(const ValueId other, Operand(c, key));
  return One(c.Add("", op, {c.inputs[0], other}, c.InputType()));
}

GlueOutputs Constant(GlueContext& c) {
  const std::optional<DType> dtype = DTypeFromProtocolName(c.options.String("dtype"));
  const std::vector<int64_t> shape =
      c.options.Has("shape") ? c.options.Ints("shape") : std::vector<int64_t>();
  const std::string value = c.options.String("value", dtype == DType::kString ? "" : "0");
  if (!dtype) c.options.Fail("key 'dtype': expected a type such as FP32");
  for (int64_t d : shape) {
    if (d < 0) c.options.Fail("shape", "holds sizes");
  }
  PLEXUS_RETURN_IF_ERROR(c.options.Finish());
  Result<Tensor> tensor = FilledTensor(*dtype, shape, value);
  if (!tensor.ok()) {
    c.options.Fail("value", tensor.status().message());
    return c.options.Finish();
  }
  return One(c.Constant(std::move(*tensor), "value"));
}

GlueOutputs Add(GlueContext& c) { return Arithmetic(c, "Add", "by"); }
GlueOutputs Subtract(GlueContext& c) { return Arithmetic(c, "Sub", "by"); }
GlueOutputs Multiply(GlueContext& c) { return Arithmetic(c, "Mul", "by"); }
GlueOutputs Divide(GlueContext& c) { return Arithmetic(c, "Div", "by"); }

GlueOutputs Compare(GlueContext& c) {
  const std::map<std::string, const char*> ops = {
      {"greater", "Greater"}, {"greater_equal", "GreaterOrEqual"},
      {"less", "Less"},       {"less_equal", "LessOrEqual"},
      {"equal", "Equal"},     {"not_equal", "Equal"}};
  const std::string kind = c.options.String("is");
  const auto op = ops.find(kind);
  if (op == ops.end()) {
    c.options.Fail(
        "key 'is': expected greater, greater_equal, less, less_equal, equal or not_equal");
    return c.options.Finish();
  }
  if (c.InputType() == DType::kString) {
    c.options.Fail("expects numbers");
    return c.options.Finish();
  }
  PLEXUS_ASSIGN_OR_RETURN(const ValueId other, Operand(c, "to"));
  const bool negated = kind == "not_equal";
  const ValueId result =
      c.Add("", op->second, {c.inputs[0], other}, DType::kBool, {}, negated ? "equal" : "");
  return One(negated ? c.Add("", "Not", {result}, DType::kBool) : result);
}

GlueOutputs Logic(GlueContext& c) {
  const std::string kind = c.options.String("kind");
  const std::map<std::string, const char*> ops = {{"and", "And"}, {"or", "Or"}, {"not", "Not"}};
  const auto op = ops.find(kind);
  if (op == ops.end()) c.options.Fail("key 'kind': expected and, or, not");
  if (op != ops.end() && c.inputs.size() != (kind == "not" ? 1u : 2u)) {
    c.options.Fail(kind == "not" ? "'not' takes one input" : "takes two inputs");
  }
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    if (c.InputType(i) != DType::kBool) c.options.Fail("expects BOOL");
  }
  PLEXUS_RETURN_IF_ERROR(c.options.Finish());
  return One(c.Add("", op->second, c.inputs, DType::kBool));
}

GlueOutputs Size(GlueContext& c) {
  const int64_t axis = c.options.Int("axis", 0);
  std::map<std::string, Attribute> range = {{"start", axis}};
  if (axis != -1) range["end"] = axis + 1;
  const ValueId size = c.Add("", "Shape", c.inputs, DType::kInt64, std::move(range), "size");
  return One(
      c.Add("", "Reshape", {size, c.Constant(Tensor::VectorInt64({}), "scalar")}, DType::kInt64));
}

GlueOutputs Filter(GlueContext& c) {
  if (c.inputs.size() != 2 || c.InputType(1) != DType::kBool) {
    c.options.Fail("takes two inputs: values, and which of them stay as BOOL");
  }
  PLEXUS_RETURN_IF_ERROR(c.options.Finish());
  return One(c.Add("", "Compress", c.inputs, c.InputType(), {{"axis", int64_t{0}}}));
}

GlueOutputs Gather(GlueContext& c) {
  const int64_t axis = c.options.Int("axis", 0);
  if (c.inputs.size() != 2 ||
      (c.InputType(1) != DType::kInt64 && c.InputType(1) != DType::kInt32)) {
    c.options.Fail("takes two inputs: values, and indices as INT32 or INT64");
  }
  PLEXUS_RETURN_IF_ERROR(c.options.Finish());
  return One(c.Add("", "Gather", c.inputs, c.InputType(), {{"axis", axis}}));
}

constexpr GlueRow kValueGlue[] = {
    {"add", Add, 1, 2},           {"compare", Compare, 1, 2},   {"constant", Constant, 0},
    {"divide", Divide, 1, 2},     {"filter", Filter, 2},        {"gather", Gather, 2},
    {"logic", Logic, 1, 2},       {"multiply", Multiply, 1, 2}, {"size", Size},
    {"subtract", Subtract, 1, 2},
};

}  // namespace

std::optional<Tensor> ScalarOf(DType dtype, double number) {
  switch (dtype) {
    case DType::kFloat32:
      return Tensor::Scalar(static_cast<float>(number));
    case DType::kFloat64:
      return Tensor::Of<double>(dtype, {}, {number});
    case DType::kBool:
      if (number != 0 && number != 1) return std::nullopt;
      return Tensor::Of<uint8_t>(dtype, {}, {static_cast<uint8_t>(number)});
    case DType::kInt8:
      return Whole<int8_t>(dtype, number);
    case DType::kInt16:
      return Whole<int16_t>(dtype, number);
    case DType::kInt32:
      return Whole<int32_t>(dtype, number);
    case DType::kInt64:
      return Whole<int64_t>(dtype, number);
    case DType::kUint8:
      return Whole<uint8_t>(dtype, number);
    case DType::kUint16:
      return Whole<uint16_t>(dtype, number);
    case DType::kUint32:
      return Whole<uint32_t>(dtype, number);
    case DType::kUint64:
      return Whole<uint64_t>(dtype, number);
    default:
      return std::nullopt;
  }
}

Result<Tensor> FilledTensor(DType dtype, const Shape& shape, const std::string& value) {
  const Result<int64_t> elements = NumElements(shape);
  if (!elements.ok() || *elements > kMaxConstantElements) {
    return InvalidArgumentError("more than 1048576 elements");
  }
  if (dtype == DType::kString) {
    return Tensor::FromStrings(shape, std::vector<std::string>(*elements, value));
  }
  const std::map<std::string, double> words = {{"true", 1}, {"false", 0}};
  double number = 0;
  const auto word = words.find(value);
  if (word != words.end() && dtype == DType::kBool) {
    number = word->second;
  } else {
    char* end = nullptr;
    number = std::strtod(value.c_str(), &end);
    if (value.empty() || *end != 0 || !std::isfinite(number)) {
      return InvalidArgumentError("'" + value + "' is no number");
    }
  }
  const std::optional<Tensor> scalar = ScalarOf(dtype, number);
  if (!scalar) {
    return InvalidArgumentError("'" + value + "' is no value of type " +
                                std::string(DTypeProtocolName(dtype)));
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor filled, Tensor::Allocate(dtype, shape));
  const size_t size = scalar->size_bytes();
  for (int64_t i = 0; i < *elements; ++i) {
    __builtin_memcpy(filled.raw_mutable() + static_cast<size_t>(i) * size, scalar->raw(), size);
  }
  return filled;
}

std::span<const GlueRow> ValueGlue() { return kValueGlue; }

}  // namespace plexus
