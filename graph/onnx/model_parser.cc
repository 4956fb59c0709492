#include "graph/onnx/model_parser.h"

#include <optional>

namespace plexus::onnx {
namespace {

// AttributeProto.AttributeType.
enum AttributeType : int64_t {
  kUndefined = 0,
  kFloat = 1,
  kInt = 2,
  kString = 3,
  kTensor = 4,
  kGraph = 5,
  kFloats = 6,
  kInts = 7,
  kStrings = 8,
  kSparseTensor = 11,
  kTypeProto = 13,
};

// What a TypeProto says. `text` is for attributes ("seq(tensor(float32))").
struct TypeFields {
  DType dtype = DType::kUndefined;
  SymbolicShape shape;
  std::string text;
};

std::string NormalDomain(std::string domain) {
  return domain == "ai.onnx" ? std::string() : domain;
}

class Parser {
 public:
  Parser(WireReader& reader, ExternalData* external, const ImportOptions& options)
      : r_(reader), options_(options), limits_{options.max_tensor_bytes, external} {}

  ModelAst Model();

 private:
  GraphAst ParseGraph();
  NodeAst ParseNode();
  void ParseNodeFields(NodeAst* node);
  AttributeAst ParseAttribute();
  void ParseAttributeFields(AttributeAst* attribute);
  FunctionAst ParseFunction();
  ValueInfoAst ParseValueInfo();
  TypeFields ParseType();
  TypeFields ParseTensorType(bool sparse);
  SymbolicShape ParseShape();
  SymbolicDim ParseDim();
  void ParseOpset(OpsetMap* opsets);

  template <typename T, typename Parse>
  void Append(std::vector<T>* out, const Parse& parse) {
    r_.Message([&] { out->push_back((this->*parse)()); });
  }
  void AppendNode(std::vector<NodeAst>* out) {
    if (++nodes_ > options_.max_nodes) {
      r_.Fail(ResourceExhaustedError("the model has over " + std::to_string(options_.max_nodes) +
                                     " nodes"));
    }
    Append(out, &Parser::ParseNode);
  }
  void AppendInitializer(std::vector<InitializerAst>* out, bool sparse) {
    r_.Message([&] {
      NamedTensor t = sparse ? ParseSparseTensor(r_, limits_) : ParseTensor(r_, limits_);
      if (!r_.ok()) return;
      out->push_back({std::move(t.name), ConstantStore::Get().Intern(std::move(t.tensor))});
    });
  }

  WireReader& r_;
  const ImportOptions& options_;
  TensorLimits limits_;
  int graph_depth_ = 0;
  int64_t nodes_ = 0;
};

SymbolicDim Parser::ParseDim() {
  SymbolicDim dim;
  while (r_.Next()) {
    if (r_.field() == 1) {
      const int64_t value = r_.Int64();
      // Exporters write -1 for a size they do not know.
      if (value >= 0) dim.value = value;
    } else if (r_.field() == 2) {
      dim.symbol = r_.Name();
      // Written by exporters for every size they do not know: no name, so nothing that must agree.
      if (dim.symbol == "?") dim.symbol.clear();
    } else {
      r_.Skip();
    }
  }
  return dim;
}

SymbolicShape Parser::ParseShape() {
  SymbolicShape shape;
  shape.has_rank = true;
  while (r_.Next()) {
    if (r_.field() == 1) {
      Append(&shape.dims, &Parser::ParseDim);
    } else {
      r_.Skip();
    }
  }
  return shape;
}

TypeFields Parser::ParseTensorType(bool sparse) {
  TypeFields type;
  if (sparse) r_.Fail(UnimplementedError("values of a sparse tensor type are not supported"));
  while (r_.Next()) {
    if (r_.field() == 1) {
      const int64_t data_type = r_.Int64();
      if (data_type == 0 || !r_.ok()) continue;
      auto dtype = DTypeFromOnnx(data_type);
      if (dtype.ok()) {
        type.dtype = *dtype;
      } else {
        r_.Fail(dtype.status());
      }
    } else if (r_.field() == 2) {
      r_.Message([&] { type.shape = ParseShape(); });
    } else {
      r_.Skip();
    }
  }
  type.text = "tensor(" + std::string(DTypeName(type.dtype)) + ")";
  return type;
}

TypeFields Parser::ParseType() {
  TypeFields type;
  // Sequences, optionals and maps are values of no element type; what they hold is text only.
  const auto container = [&](const char* kind, uint32_t element_field) {
    type = {};
    r_.Message([&] {
      std::string element;
      while (r_.Next()) {
        if (r_.field() == element_field) {
          r_.Message([&] { element = ParseType().text; });
        } else {
          r_.Skip();
        }
      }
      type.text = std::string(kind) + "(" + element + ")";
    });
  };
  while (r_.Next()) {
    switch (r_.field()) {
      case 1:
        r_.Message([&] { type = ParseTensorType(false); });
        break;
      case 4:
        container("seq", 1);
        break;
      case 5:
        container("map", 2);
        break;
      case 8:
        r_.Message([&] { type = ParseTensorType(true); });
        break;
      case 9:
        container("optional", 1);
        break;
      default:
        r_.Skip();
    }
  }
  return type;
}

ValueInfoAst Parser::ParseValueInfo() {
  ValueInfoAst info;
  while (r_.Next()) {
    if (r_.field() == 1) {
      info.name = r_.Name();
    } else if (r_.field() == 2) {
      TypeFields type;
      r_.Message([&] { type = ParseType(); });
      info.dtype = type.dtype;
      info.shape = std::move(type.shape);
    } else {
      r_.Skip();
    }
  }
  if (!r_.ok()) r_.AddContext("value " + Quoted(info.name));
  return info;
}

void Parser::ParseAttributeFields(AttributeAst* a) {
  std::optional<int64_t> type;
  std::optional<float> f;
  std::optional<int64_t> i;
  std::optional<std::string> s, type_text;
  std::optional<Tensor> tensor;
  bool sparse = false;
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string> strings;
  while (r_.Next()) {
    switch (r_.field()) {
      case 1:
        a->name = r_.Name();
        break;
      case 2:
        f = r_.Float();
        break;
      case 3:
        i = r_.Int64();
        break;
      case 4:
        s = r_.Bytes();
        break;
      case 5:
        r_.Message([&] { tensor = ParseTensor(r_, limits_).tensor; });
        break;
      case 6:
        r_.Message([&] { a->graph = std::make_shared<const GraphAst>(ParseGraph()); });
        break;
      case 7:
        r_.AppendFloats(&floats);
        break;
      case 8:
        r_.AppendVarints(&ints);
        break;
      case 9:
        strings.push_back(r_.Bytes());
        break;
      case 14:
        r_.Message([&] { type_text = ParseType().text; });
        break;
      case 20:
        type = r_.Int64();
        break;
      case 21:
        a->ref_name = r_.Name();
        break;
      case 22:
        sparse = true;
        r_.Message([&] { tensor = ParseSparseTensor(r_, limits_).tensor; });
        break;
      default:
        r_.Skip();
    }
  }
  if (!r_.ok() || !a->ref_name.empty()) return;
  if (!type || *type == kUndefined) {  // old files leave the type out
    type = f                  ? kFloat
           : i                ? kInt
           : s                ? kString
           : sparse           ? kSparseTensor
           : tensor           ? kTensor
           : a->graph         ? kGraph
           : !floats.empty()  ? kFloats
           : !strings.empty() ? kStrings
           : type_text        ? kTypeProto
                              : kInts;
  }
  if (*type != kGraph) a->graph = nullptr;
  switch (*type) {
    case kFloat:
      a->value = f.value_or(0.0f);
      break;
    case kInt:
      a->value = i.value_or(0);
      break;
    case kString:
      a->value = s.value_or("");
      break;
    case kTypeProto:
      a->value = type_text.value_or("");
      break;
    case kTensor:
    case kSparseTensor:
      if (!tensor) return r_.Fail(InvalidArgumentError("has no tensor"));
      a->value = std::move(*tensor);
      break;
    case kGraph:
      if (!a->graph) return r_.Fail(InvalidArgumentError("has no graph"));
      break;
    case kFloats:
      a->cost_bytes = floats.size() * sizeof(float);
      a->value = std::move(floats);
      break;
    case kInts:
      a->cost_bytes = ints.size() * sizeof(int64_t);
      a->value = std::move(ints);
      break;
    case kStrings:
      for (const std::string& text : strings) a->cost_bytes += sizeof(text) + text.size();
      a->value = std::move(strings);
      break;
    default:
      return r_.Fail(
          UnimplementedError("attribute type " + std::to_string(*type) + " is not supported"));
  }
  if (const auto* text = std::get_if<std::string>(&a->value)) a->cost_bytes = text->size();
}

AttributeAst Parser::ParseAttribute() {
  AttributeAst attribute;
  ParseAttributeFields(&attribute);
  if (!r_.ok()) r_.AddContext("attribute " + Quoted(attribute.name));
  return attribute;
}

void Parser::ParseNodeFields(NodeAst* node) {
  while (r_.Next()) {
    switch (r_.field()) {
      case 1:
        node->inputs.push_back(r_.Name());
        break;
      case 2:
        node->outputs.push_back(r_.Name());
        break;
      case 3:
        node->name = r_.Name();
        break;
      case 4:
        node->op = r_.Name();
        break;
      case 5:
        Append(&node->attributes, &Parser::ParseAttribute);
        break;
      case 7:
        node->domain = NormalDomain(r_.Name());
        break;
      case 8:
        node->overload = r_.Name();
        break;
      default:
        r_.Skip();
    }
  }
  if (node->op.empty()) r_.Fail(InvalidArgumentError("has no operator"));
}

NodeAst Parser::ParseNode() {
  NodeAst node;
  ParseNodeFields(&node);
  if (!r_.ok()) r_.AddContext("node " + Quoted(node.name) + " (" + Quoted(node.op) + ")");
  return node;
}

GraphAst Parser::ParseGraph() {
  GraphAst graph;
  if (++graph_depth_ > options_.max_graph_depth) {
    r_.Fail(InvalidArgumentError("subgraphs are nested more than " +
                                 std::to_string(options_.max_graph_depth) + " deep"));
  }
  while (r_.Next()) {
    switch (r_.field()) {
      case 1:
        AppendNode(&graph.nodes);
        break;
      case 2:
        graph.name = r_.Name();
        break;
      case 5:
        AppendInitializer(&graph.initializers, false);
        break;
      case 11:
        Append(&graph.inputs, &Parser::ParseValueInfo);
        break;
      case 12:
        Append(&graph.outputs, &Parser::ParseValueInfo);
        break;
      case 13:
        Append(&graph.value_infos, &Parser::ParseValueInfo);
        break;
      case 15:
        AppendInitializer(&graph.initializers, true);
        break;
      default:
        r_.Skip();
    }
  }
  --graph_depth_;
  return graph;
}

void Parser::ParseOpset(OpsetMap* opsets) {
  std::string domain;
  int64_t version = 0;
  while (r_.Next()) {
    if (r_.field() == 1) {
      domain = NormalDomain(r_.Name());
    } else if (r_.field() == 2) {
      version = r_.Int64();
    } else {
      r_.Skip();
    }
  }
  const auto [it, added] = opsets->emplace(domain, version);
  if (!added && it->second != version) {
    r_.Fail(InvalidArgumentError("two versions of the operator set of domain " + Quoted(domain)));
  }
}

FunctionAst Parser::ParseFunction() {
  FunctionAst function;
  while (r_.Next()) {
    switch (r_.field()) {
      case 1:
        function.name = r_.Name();
        break;
      case 4:
        function.inputs.push_back(r_.Name());
        break;
      case 5:
        function.outputs.push_back(r_.Name());
        break;
      case 7:
        AppendNode(&function.nodes);
        break;
      case 9:
        r_.Message([&] { ParseOpset(&function.opsets); });
        break;
      case 10:
        function.domain = NormalDomain(r_.Name());
        break;
      case 11:
        Append(&function.defaults, &Parser::ParseAttribute);
        break;
      case 12:
        Append(&function.value_infos, &Parser::ParseValueInfo);
        break;
      case 13:
        function.overload = r_.Name();
        break;
      default:
        r_.Skip();
    }
  }
  if (!r_.ok()) r_.AddContext("function " + Quoted(function.name));
  return function;
}

ModelAst Parser::Model() {
  ModelAst model;
  while (r_.Next()) {
    switch (r_.field()) {
      case 1:
        model.ir_version = r_.Int64();
        break;
      case 7:
        if (model.has_graph) r_.Fail(InvalidArgumentError("the model has two graphs"));
        model.has_graph = true;
        r_.Message([&] { model.graph = ParseGraph(); });
        break;
      case 8:
        r_.Message([&] { ParseOpset(&model.opsets); });
        break;
      case 25:
        Append(&model.functions, &Parser::ParseFunction);
        break;
      default:
        r_.Skip();
    }
  }
  return model;
}

}  // namespace

int MaxMessageDepth(const ImportOptions& options) {
  // Graph, node and attribute for each level; types and tensors at the bottom.
  return 3 * options.max_graph_depth + 32;
}

Result<ModelAst> ParseModel(WireReader& reader, ExternalData* external,
                            const ImportOptions& options) {
  ModelAst model = Parser(reader, external, options).Model();
  if (!reader.ok()) return reader.status();
  return model;
}

}  // namespace plexus::onnx
