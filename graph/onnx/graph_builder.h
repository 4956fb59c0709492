// ModelAst to Graph: resolves names, captures and function calls.
#pragma once

#include "base/status.h"
#include "graph/graph.h"
#include "graph/onnx/model_ast.h"
#include "graph/onnx/onnx_import.h"

namespace plexus::onnx {

// Errors name node and reason: kInvalidArgument (undefined or duplicate names, cycles, recursion),
// kUnimplemented (versions and domains), kResourceExhausted (functions and subgraphs that
// expand beyond options.max_nodes, or copy over 256 MiB of names, lists and attributes).
Result<GraphPtr> BuildGraph(const ModelAst& model, const ImportOptions& options);

}  // namespace plexus::onnx
