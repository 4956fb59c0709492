// Graph::ToString: the listing that tests compare and people read.
#include <cstdio>

#include "graph/graph.h"

namespace plexus {
namespace {

std::string FloatText(float v) {
  char text[32];
  snprintf(text, sizeof(text), "%g", v);
  return text;
}

std::string ValueText(const Graph& graph, ValueId id) {
  if (!id.valid()) return "_";
  const Value& value = graph.value(id);
  if (!value.IsConstant()) return "%" + value.name;
  // Scalars are shown by value: most patterns hinge on them.
  const Tensor plain = value.constant->PlainIfResident();
  if (plain.defined() && plain.num_elements() == 1 && plain.dtype() != DType::kString) {
    const Result<std::vector<double>> number = ToDoubleVector(plain);
    if (number.ok()) return FloatText(static_cast<float>((*number)[0]));
  }
  return "@" + value.name;
}

std::string AttributeText(const Attribute& attribute) {
  struct Printer {
    std::string operator()(int64_t v) const { return std::to_string(v); }
    std::string operator()(float v) const { return FloatText(v); }
    std::string operator()(const std::string& v) const { return "\"" + v + "\""; }
    std::string operator()(const Tensor& v) const { return TensorToString(v, 4); }
    std::string operator()(const GraphPtr& v) const {
      return "{" + std::to_string(v->num_nodes()) + " nodes}";
    }
    std::string operator()(const std::vector<int64_t>& v) const { return ShapeToString(v); }
    std::string operator()(const std::vector<float>& v) const {
      std::string out = "[";
      for (size_t i = 0; i < v.size(); ++i) out += (i ? "," : "") + FloatText(v[i]);
      return out + "]";
    }
    std::string operator()(const std::vector<std::string>& v) const {
      std::string out = "[";
      for (size_t i = 0; i < v.size(); ++i) out += (i ? "," : "") + v[i];
      return out + "]";
    }
  };
  return std::visit(Printer{}, attribute);
}

std::string TypeText(const Value& value) {
  return std::string(DTypeName(value.dtype)) + value.shape.ToString();
}

}  // namespace

std::string Graph::ToString() const {
  std::string out = "graph " + name + "(";
  for (size_t i = 0; i < inputs_.size(); ++i) {
    out += (i ? ", %" : "%") + value(inputs_[i]).name + ": " + TypeText(value(inputs_[i]));
  }
  out += ")\n";
  for (const Node& node : nodes_) {
    out += "  ";
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      out += (i ? ", " : "") + ValueText(*this, node.outputs[i]);
    }
    out += " = " + (node.domain.empty() ? "" : node.domain + ".") + node.op + "(";
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      out += (i ? ", " : "") + ValueText(*this, node.inputs[i]);
    }
    for (size_t i = 0; i < node.implicit_inputs.size(); ++i) {
      out += (i ? ", " : "; captures ") + ValueText(*this, node.implicit_inputs[i]);
    }
    out += ")";
    for (const auto& [attr_name, attr] : node.attributes) {
      out += " " + attr_name + "=" + AttributeText(attr);
    }
    if (!node.outputs.empty() && node.outputs[0].valid()) {
      out += " : " + TypeText(value(node.outputs[0]));
    }
    out += "\n";
  }
  out += "  return ";
  for (size_t i = 0; i < outputs_.size(); ++i) {
    out += (i ? ", " : "") + ValueText(*this, outputs_[i]);
  }
  return out + "\n";
}

}  // namespace plexus
