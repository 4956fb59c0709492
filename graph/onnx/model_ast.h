// An ONNX file as read, before names are resolved: what wire parsing hands to the graph builder.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace plexus::onnx {

struct GraphAst;

struct AttributeAst {
  std::string name;
  std::string ref_name;  // in a function body: takes the value of the call's attribute
  Attribute value;       // unused for graphs and references
  std::shared_ptr<const GraphAst> graph;
  size_t cost_bytes = 0;  // what a copy of `value` takes
};

struct NodeAst {
  std::string name;
  std::string op;
  std::string domain;    // "ai.onnx" already turned into ""
  std::string overload;  // of the function called
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<AttributeAst> attributes;
};

struct ValueInfoAst {
  std::string name;
  DType dtype = DType::kUndefined;  // sequences, optionals and maps too
  SymbolicShape shape;
};

struct InitializerAst {
  std::string name;
  ConstantPtr constant;
};

struct GraphAst {
  std::string name;
  std::vector<NodeAst> nodes;
  std::vector<InitializerAst> initializers;
  std::vector<ValueInfoAst> inputs;
  std::vector<ValueInfoAst> outputs;
  std::vector<ValueInfoAst> value_infos;
};

using OpsetMap = std::map<std::string, int64_t>;  // domain to version

struct FunctionAst {
  std::string name;
  std::string domain;
  std::string overload;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::vector<AttributeAst> defaults;
  std::vector<NodeAst> nodes;
  std::vector<ValueInfoAst> value_infos;
  OpsetMap opsets;
};

struct ModelAst {
  int64_t ir_version = 0;
  OpsetMap opsets;
  bool has_graph = false;
  GraphAst graph;
  std::vector<FunctionAst> functions;
};

}  // namespace plexus::onnx
