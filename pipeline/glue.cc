#include "pipeline/glue.h"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "graph/passes/fused_ops.h"
#include "pipeline/glue_rows.h"

namespace plexus {

bool Expect(GlueContext& c, bool condition, const std::string& what) {
  if (!condition) c.options.Fail(what);
  return condition;
}

bool ExpectType(GlueContext& c, DType dtype, size_t input) {
  return Expect(c, c.InputType(input) == dtype,
                "expects " + std::string(DTypeProtocolName(dtype)) + ", its input is " +
                    std::string(DTypeProtocolName(c.InputType(input))));
}

std::vector<std::string> ReadLabels(GlueContext& c) {
  constexpr size_t kMaxLabelBytes = 16 << 20;
  const std::string file = c.options.String("labels");
  const std::filesystem::path name(file);
  // A bare file name only: a side file never lies outside the pipeline's own folder.
  if (!Expect(c, !file.empty() && name.filename() == name && file != "..",
              "key 'labels': expected the name of a file beside the pipeline")) {
    return {};
  }
  std::error_code error;
  const std::filesystem::path path = c.folder / name;
  if (!Expect(c, std::filesystem::is_regular_file(std::filesystem::symlink_status(path, error)),
              "labels file '" + file + "' is not there or not a regular file")) {
    return {};
  }
  std::vector<std::string> labels;
  size_t total = 0;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    total += line.size();
    if (total > kMaxLabelBytes) break;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    labels.push_back(std::move(line));
  }
  Expect(c, !labels.empty() && total <= kMaxLabelBytes,
         "labels file '" + file + "' is empty, unreadable or larger than 16 MiB");
  return labels;
}

namespace {

constexpr int kGlueOpset = 18;

GlueOutputs Cast(GlueContext& c) {
  const std::string name = c.options.String("to", "");
  const std::optional<DType> to = DTypeFromProtocolName(name);
  if (!Expect(c, to && *to != DType::kString, "key 'to': expected a type such as FP32"))
    return One({});
  Expect(c, c.InputType() != DType::kString, "cannot cast BYTES; see the operator 'bytes'");
  return One(c.Add("", "Cast", c.inputs, *to, {{"to", static_cast<int64_t>(*to)}}));
}

GlueOutputs Scale(GlueContext& c) {
  ExpectType(c, DType::kFloat32);
  const auto number = [&](const char* key, double fallback) {
    const auto value = static_cast<float>(c.options.Double(key, fallback));
    Expect(c, std::isfinite(value), std::string("key '") + key + "': too large for FP32");
    return value;
  };
  const float scale = number("scale", 1.0), offset = number("offset", 0.0);
  const ValueId scaled = c.Add("", "Mul", {c.inputs[0], c.Constant(Tensor::Scalar(scale), "scale")},
                               DType::kFloat32, {}, "scaled");
  return One(
      c.Add("", "Add", {scaled, c.Constant(Tensor::Scalar(offset), "offset")}, DType::kFloat32));
}

GlueOutputs Window(GlueContext& c) {
  const int64_t axis = c.options.Int("axis", 0);
  const int64_t size = c.options.Int("size");
  const int64_t step = c.options.Int("step", 1);
  Expect(c, size > 0 && step > 0, "'size' and 'step' must be at least 1");
  return One(c.Add(kPlexusDomain, "Window", c.inputs, c.InputType(),
                   {{"axis", axis}, {"size", size}, {"step", step}}));
}

ValueId AddSlice(GlueContext& c, int64_t axis, int64_t start, int64_t end, int64_t step) {
  return c.Add("", "Slice",
               {c.inputs[0], c.Constant(Tensor::VectorInt64({start}), "start"),
                c.Constant(Tensor::VectorInt64({end}), "end"),
                c.Constant(Tensor::VectorInt64({axis}), "axis"),
                c.Constant(Tensor::VectorInt64({step}), "step")},
               c.InputType());
}

GlueOutputs Slice(GlueContext& c) {
  const int64_t axis = c.options.Int("axis", 0);
  const int64_t start = c.options.Int("start", 0);
  const int64_t end = c.options.Int("end", INT64_MAX);
  const int64_t step = c.options.Int("step", 1);
  Expect(c, step != 0, "'step' must not be 0");
  return One(AddSlice(c, axis, start, end, step));
}

// As many as the second input says, none for less than one.
GlueOutputs HeadOf(GlueContext& c) {
  ExpectType(c, DType::kInt64, 1);
  const ValueId none = c.Constant(Tensor::VectorInt64({0}), "none");
  const ValueId flat =
      c.Add("", "Reshape", {c.inputs[1], c.Constant(Tensor::VectorInt64({1}), "one")},
            DType::kInt64, {}, "size");
  const ValueId end = c.Add("", "Max", {flat, none}, DType::kInt64, {}, "end");
  return One(c.Add(
      "", "Slice",
      {c.inputs[0], none, end, c.Constant(Tensor::VectorInt64({c.options.Int("axis", 0)}), "axis")},
      c.InputType()));
}

GlueOutputs Head(GlueContext& c) {
  if (c.inputs.size() == 2) return HeadOf(c);
  const int64_t size = c.options.Int("size");
  Expect(c, size > 0, "'size' must be at least 1");
  return One(AddSlice(c, c.options.Int("axis", 0), 0, size, 1));
}

GlueOutputs Tail(GlueContext& c) {
  const int64_t size = c.options.Int("size");
  Expect(c, size > 0, "'size' must be at least 1");
  return One(AddSlice(c, c.options.Int("axis", 0), -size, INT64_MAX, 1));
}

GlueOutputs Pad(GlueContext& c) {
  const int64_t size = c.options.Int("size");
  const std::string side = c.options.String("side", "right");
  Expect(c, size > 0, "'size' must be at least 1");
  Expect(c, side == "left" || side == "right", "key 'side': expected left or right");
  return One(c.Add(kPlexusDomain, "PadTo", c.inputs, c.InputType(),
                   {{"size", size},
                    {"side", side},
                    {"value", static_cast<float>(c.options.Double("value", 0.0))}}));
}

GlueOutputs Reshape(GlueContext& c) {
  const std::vector<int64_t> shape = c.options.Ints("shape");
  Expect(c, std::count(shape.begin(), shape.end(), -1) <= 1, "'shape' may hold -1 once");
  Expect(c, std::all_of(shape.begin(), shape.end(), [](int64_t d) { return d >= -1; }),
         "'shape' holds sizes, or -1 once");
  // allowzero: a 0 here means an empty dimension, as it reads.
  return One(c.Add("", "Reshape", {c.inputs[0], c.Constant(Tensor::VectorInt64(shape), "shape")},
                   c.InputType(), {{"allowzero", int64_t{1}}}));
}

GlueOutputs Transpose(GlueContext& c) {
  return One(c.Add("", "Transpose", c.inputs, c.InputType(), {{"perm", c.options.Ints("perm")}}));
}

GlueOutputs Concat(GlueContext& c) {
  for (size_t i = 1; i < c.inputs.size(); ++i) {
    Expect(c, c.InputType(i) == c.InputType(), "its inputs differ in type");
  }
  return One(c.Add("", "Concat", c.inputs, c.InputType(), {{"axis", c.options.Int("axis", 0)}}));
}

std::vector<ValueId> WithAxes(GlueContext& c, ValueId x) {
  if (!c.options.Has("axes")) return {x};
  return {x, c.Constant(Tensor::VectorInt64(c.options.Ints("axes")), "axes")};
}

GlueOutputs ReduceBool(GlueContext& c, bool any) {
  ExpectType(c, DType::kBool);
  const int64_t keep = c.options.Bool("keepdims", false) ? 1 : 0;
  const ValueId numbers = c.Add("", "Cast", c.inputs, DType::kInt32,
                                {{"to", static_cast<int64_t>(DType::kInt32)}}, "numbers");
  const ValueId reduced = c.Add("", any ? "ReduceMax" : "ReduceMin", WithAxes(c, numbers),
                                DType::kInt32, {{"keepdims", keep}}, "reduced");
  return One(
      c.Add("", "Cast", {reduced}, DType::kBool, {{"to", static_cast<int64_t>(DType::kBool)}}));
}

GlueOutputs Reduce(GlueContext& c) {
  const std::string kind = c.options.String("kind");
  const std::map<std::string, std::string> ops = {
      {"sum", "ReduceSum"}, {"mean", "ReduceMean"}, {"max", "ReduceMax"}, {"min", "ReduceMin"}};
  if (kind == "any" || kind == "all") return ReduceBool(c, kind == "any");
  const auto op = ops.find(kind);
  if (!Expect(c, op != ops.end(), "key 'kind': expected sum, mean, max or min; any or all")) {
    return One({});
  }
  const std::vector<ValueId> in = WithAxes(c, c.inputs[0]);
  const int64_t keep = c.options.Bool("keepdims", false) ? 1 : 0;
  return One(c.Add("", op->second, in, c.InputType(), {{"keepdims", keep}}));
}

GlueOutputs TopK(GlueContext& c) {
  const int64_t k = c.options.Int("k");
  Expect(c, k > 0, "'k' must be at least 1");
  const int64_t axis = c.options.Int("axis", -1);
  const int64_t largest = c.options.Bool("largest", true) ? 1 : 0;
  const ValueId values =
      c.Add("", "TopK", {c.inputs[0], c.Constant(Tensor::VectorInt64({k}), "k")}, c.InputType(),
            {{"axis", axis}, {"largest", largest}, {"sorted", int64_t{1}}}, "values");
  return std::vector<GlueOutput>{{"values", values},
                                 {"indices", c.AddOutput(DType::kInt64, "indices")}};
}

GlueOutputs Softmax(GlueContext& c) {
  ExpectType(c, DType::kFloat32);
  return One(c.Add("", "Softmax", c.inputs, c.InputType(), {{"axis", c.options.Int("axis", -1)}}));
}

GlueOutputs Bytes(GlueContext& c) {
  ExpectType(c, DType::kString);
  return One(c.Add(kPlexusDomain, "Bytes", c.inputs, DType::kUint8));
}

GlueOutputs Strip(GlueContext& c) {
  ExpectType(c, DType::kUint8);
  const std::string side = c.options.String("side", "both");
  Expect(c, side == "left" || side == "right" || side == "both",
         "key 'side': expected left, right or both");
  Expect(c, c.options.String("bytes", "whitespace") == "whitespace",
         "key 'bytes': expected whitespace");
  return One(c.Add(kPlexusDomain, "Strip", c.inputs, DType::kUint8, {{"side", side}}));
}

GlueOutputs LabelLookup(GlueContext& c) {
  Expect(c, IsInteger(c.InputType()), "expects indices (an integer type)");
  return One(
      c.Add(kPlexusDomain, "LabelLookup", c.inputs, DType::kString, {{"labels", ReadLabels(c)}}));
}

// To add an operator: a function above and a line here (docs/pipelines.md lists the keys).
constexpr GlueRow kGlue[] = {
    {"bytes", Bytes},
    {"cast", Cast},
    {"concat", Concat, 1, kAnyNumber},
    {"head", Head, 1, 2},
    {"label_lookup", LabelLookup},
    {"pad", Pad},
    {"reduce", Reduce},
    {"reshape", Reshape},
    {"scale", Scale},
    {"slice", Slice},
    {"softmax", Softmax},
    {"strip", Strip},
    {"tail", Tail},
    {"top_k", TopK},
    {"transpose", Transpose},
    {"window", Window},
};

std::vector<GlueRow> AllRows() {
  std::vector<GlueRow> rows(std::begin(kGlue), std::end(kGlue));
  for (const std::span<const GlueRow> more : {ImageGlue(), ValueGlue()}) {
    rows.insert(rows.end(), more.begin(), more.end());
  }
  return rows;
}

std::string TakesText(const GlueRow& row) {
  if (row.max_inputs == kAnyNumber) return "'inputs', a list";
  if (row.max_inputs > row.inputs) return "one 'input' or two 'inputs'";
  if (row.inputs == 0) return "no input";
  return row.inputs == 1 ? "one 'input'" : "'inputs', a list of " + std::to_string(row.inputs);
}

}  // namespace

ValueId GlueContext::Add(std::string_view domain, std::string_view op, std::vector<ValueId> in,
                         DType dtype, std::map<std::string, Attribute> attributes,
                         std::string suffix) {
  Value value;
  value.name = suffix.empty() ? stage : stage + "/" + suffix;
  value.dtype = dtype;
  const ValueId out = graph.AddValue(std::move(value));
  Node node;
  node.domain = std::string(domain);
  node.op = std::string(op);
  node.version = domain.empty() ? kGlueOpset : 1;
  node.name = suffix.empty() ? stage : stage + "/" + suffix;
  node.inputs = std::move(in);
  node.outputs = {out};
  node.attributes = std::move(attributes);
  graph.AddNode(std::move(node));
  return out;
}

ValueId GlueContext::AddOutput(DType dtype, const std::string& suffix) {
  Value value;
  value.name = stage + "/" + suffix;
  value.dtype = dtype;
  const ValueId out = graph.AddValue(std::move(value));
  graph.nodes().back().outputs.push_back(out);
  return out;
}

ValueId GlueContext::Constant(Tensor tensor, const std::string& suffix) {
  return graph.AddConstant(stage + "/" + suffix, ConstantStore::Get().Intern(std::move(tensor)));
}

GlueOutputs AddGlue(const std::string& op, GlueContext& context) {
  for (const GlueRow& row : AllRows()) {
    if (row.name != op) continue;
    const size_t inputs = context.inputs.size();
    if (inputs < row.inputs || inputs > std::max(row.inputs, row.max_inputs)) {
      return InvalidArgumentError(context.options.where() + ": '" + op + "' takes " +
                                  TakesText(row));
    }
    GlueOutputs outputs = row.add(context);
    PLEXUS_RETURN_IF_ERROR(context.options.Finish());
    return outputs;
  }
  std::string known;
  for (const std::string& name : GlueNames()) known += (known.empty() ? "" : ", ") + name;
  return InvalidArgumentError(context.options.where() + ": unknown operator '" + op +
                              "'; there are: " + known);
}

std::vector<std::string> GlueNames() {
  std::vector<std::string> names;
  for (const GlueRow& row : AllRows()) names.emplace_back(row.name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace plexus
