// ModelProto from the wire to ModelAst.
#pragma once

#include "graph/onnx/model_ast.h"
#include "graph/onnx/onnx_import.h"
#include "graph/onnx/tensor_proto.h"
#include "graph/onnx/wire.h"

namespace plexus::onnx {

// Deepest nesting of messages that a model within `options` needs.
int MaxMessageDepth(const ImportOptions& options);

// Reads the whole stream. Constants are interned as they come, so that of equal ones only one is
// ever held. Errors as in ImportOnnxFile.
Result<ModelAst> ParseModel(WireReader& reader, ExternalData* external,
                            const ImportOptions& options);

}  // namespace plexus::onnx
