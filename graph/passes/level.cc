#include "graph/passes/level.h"

#include <algorithm>

#include "graph/passes/default_attributes.h"

namespace plexus {
namespace {

// A scalar of a floating-point type; float32 where the type is unknown.
Tensor ScalarOf(DType dtype, float value) {
  switch (dtype) {
    case DType::kFloat64:
      return Tensor::Of<double>(dtype, {}, {value});
    case DType::kFloat16:
      return Tensor::Of<uint16_t>(dtype, {}, {FloatToHalf(value)});
    case DType::kBFloat16:
      return Tensor::Of<uint16_t>(dtype, {}, {FloatToBFloat16(value)});
    default:
      return Tensor::Scalar(value);
  }
}

bool AllAre(const Node& node, const std::string& attribute, int64_t wanted) {
  const std::vector<int64_t> values = node.IntsAttr(attribute);
  return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == wanted; });
}

bool IsWindowed(const std::string& op) {
  return op == "Conv" || op == "ConvInteger" || op == "QLinearConv" || op == "ConvTranspose" ||
         op == "DeformConv" || op == "MaxPool" || op == "AveragePool" || op == "LpPool";
}

void Rename(Node& node, const std::string& attribute, const char* from, const char* to) {
  if (node.StringAttr(attribute, "") == from) node.attributes[attribute] = std::string(to);
}

}  // namespace

void Leveler::PutInput(Node& node, size_t input, Tensor value, const std::string& what) {
  if (node.inputs.size() <= input) node.inputs.resize(input + 1);
  node.inputs[input] = graph_.AddConstant(names_.Fresh(node.name + "/" + what),
                                          ConstantStore::Get().Intern(std::move(value)));
}

void Leveler::MoveInts(Node& node, const std::string& attribute, size_t input) {
  if (!node.HasAttr(attribute)) return;
  PutInput(node, input, Tensor::VectorInt64(node.IntsAttr(attribute)), attribute);
  node.attributes.erase(attribute);
}

void Leveler::MoveFloat(Node& node, const std::string& attribute, size_t input) {
  if (!node.HasAttr(attribute)) return;
  const DType dtype = graph_.value(node.inputs[0]).dtype;
  PutInput(node, input, ScalarOf(dtype, node.FloatAttr(attribute, 0)), attribute);
  node.attributes.erase(attribute);
}

bool Leveler::IsEmptyConstant(ValueId id) const {
  return id.valid() && graph_.value(id).IsConstant() &&
         graph_.value(id).constant->num_elements() == 0;
}

// Before opset 13, softmax ran over all dimensions from the axis on. That is today's meaning when
// the axis is the last one; otherwise only concrete shapes can tell (Specialize).
bool Leveler::LevelSoftmax(Node& node) {
  if (node.version >= 13) return true;
  const int64_t axis = node.IntAttr("axis", 1);
  const SymbolicShape& shape = graph_.value(node.inputs[0]).shape;
  const bool last =
      axis == -1 || (shape.has_rank && axis + 1 == static_cast<int64_t>(shape.dims.size()));
  if (last) node.attributes["axis"] = int64_t{-1};
  return last;
}

bool Leveler::LevelResize(Node& node) {
  if (node.version == 10) {
    LevelUpsample(node);
    return true;
  }
  // This mode went with opset 13.
  if (node.StringAttr("coordinate_transformation_mode", "") == "tf_half_pixel_for_nn") return false;
  const bool crops = node.StringAttr("coordinate_transformation_mode", "") == "tf_crop_and_resize";
  if (node.inputs.size() > 1 && !crops) node.inputs[1] = ValueId();
  for (size_t i = 2; i < node.inputs.size(); ++i) {
    if (IsEmptyConstant(node.inputs[i])) node.inputs[i] = ValueId();
  }
  return true;
}

// Upsample and the first Resize: (x, scales), asymmetric, rounding down.
void Leveler::LevelUpsample(Node& node) {
  if (node.HasAttr("scales")) {
    const std::vector<float> scales = node.FloatsAttr("scales");
    PutInput(node, 1,
             Tensor::Of<float>(DType::kFloat32, {static_cast<int64_t>(scales.size())}, scales),
             "scales");
    node.attributes.erase("scales");
  }
  node.inputs.resize(2);
  node.inputs.insert(node.inputs.begin() + 1, ValueId());
  node.op = "Resize";
  node.attributes["coordinate_transformation_mode"] = std::string("asymmetric");
  node.attributes["nearest_mode"] = std::string("floor");
}

bool Leveler::LevelMeaning(Node& node) {
  const std::string& op = node.op;
  const int version = node.version;
  if (op == "Softmax" || op == "LogSoftmax" || op == "Hardmax") return LevelSoftmax(node);
  if (op == "Resize") return LevelResize(node);
  if (op == "Upsample") {
    LevelUpsample(node);
  } else if (op == "Squeeze" || op == "Unsqueeze" || op.rfind("Reduce", 0) == 0) {
    MoveInts(node, "axes", 1);
  } else if (op == "Slice") {
    MoveInts(node, "starts", 1);
    MoveInts(node, "ends", 2);
    MoveInts(node, "axes", 3);
  } else if (op == "Pad") {
    MoveInts(node, "pads", 1);
    MoveFloat(node, "value", 2);
  } else if (op == "Clip") {
    MoveFloat(node, "min", 1);
    MoveFloat(node, "max", 2);
  } else if (op == "Split") {
    MoveInts(node, "split", 1);
    const bool even = node.inputs.size() < 2 || !node.inputs[1].valid();
    if (even) node.attributes["num_outputs"] = static_cast<int64_t>(node.outputs.size());
  } else if (op == "TopK" && node.HasAttr("k")) {
    PutInput(node, 1, Tensor::VectorInt64({node.IntAttr("k", 0)}), "k");
    node.attributes.erase("k");
  } else if (op == "DFT" && version < 20) {
    PutInput(node, 2, Tensor::ScalarInt64(node.IntAttr("axis", 1)), "axis");
    node.attributes.erase("axis");
  } else if (op == "Scatter") {
    node.op = "ScatterElements";
  } else if (op == "GridSample") {
    Rename(node, "mode", "bilinear", "linear");
    Rename(node, "mode", "bicubic", "cubic");
  } else if (op == "RoiAlign" && version < 16) {
    node.attributes["coordinate_transformation_mode"] = std::string("output_half_pixel");
  } else if (op == "BatchNormalization") {
    if (version < 9 && node.IntAttr("spatial", 1) == 0) return false;
    if (version < 14 && node.outputs.size() > 1) return false;  // training
    node.attributes.erase("spatial");
  } else if (op == "GroupNormalization") {
    return version >= 21;  // scale and bias per group before
  } else if (op == "Scan") {
    return version >= 9;  // a batch dimension before
  }
  return true;
}

void Leveler::DropDefaults(Node& node) {
  const auto defaults = DefaultAttributes();
  auto it =
      std::lower_bound(defaults.begin(), defaults.end(), node.op,
                       [](const DefaultAttribute& d, const std::string& op) { return d.op < op; });
  for (; it != defaults.end() && it->op == node.op; ++it) {
    const auto found = node.attributes.find(std::string(it->name));
    if (found == node.attributes.end()) continue;
    const auto* i = std::get_if<int64_t>(&found->second);
    const auto* f = std::get_if<float>(&found->second);
    const auto* s = std::get_if<std::string>(&found->second);
    const bool same = it->int_value      ? i && *i == *it->int_value
                      : it->string_value ? s && *s == it->string_value
                                         : f && *f == it->float_value;
    if (same) node.attributes.erase(found);
  }
  if (!IsWindowed(node.op)) return;
  if (node.StringAttr("auto_pad", "") == "VALID") {
    node.attributes.erase("auto_pad");
    node.attributes.erase("pads");
  }
  for (const char* name : {"strides", "dilations"}) {
    if (AllAre(node, name, 1)) node.attributes.erase(name);
  }
  for (const char* name : {"pads", "output_padding"}) {
    if (AllAre(node, name, 0)) node.attributes.erase(name);
  }
}

void Leveler::Level(Node& node) {
  if (!node.domain.empty() || node.version > kCanonicalOpset) return;
  if (LevelMeaning(node)) {
    node.version = kCanonicalOpset;
    DropDefaults(node);
  }
  while (!node.inputs.empty() && !node.inputs.back().valid()) node.inputs.pop_back();
}

}  // namespace plexus
