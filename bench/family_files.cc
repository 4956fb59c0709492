// Writes a generated family (paths/family.h) as a model repository that `plexus serve` loads: ONNX
// models and a pipeline for each.
//
//   plexus_family_files FOLDER NAME KIND MEMBERS BLOCKS WIDTH CHANGED SEED
//
// Pipelines NAME-0, NAME-1, ... on x: FP32[rows,WIDTH] → y: FP32[rows,WIDTH]. A block is two
// products with WIDTH × WIDTH weights: 4 · WIDTH² FLOPs a row. Several families may go into one
// folder; those of one SEED share blocks, whatever their names.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "graph/onnx/wire_writer.h"
#include "paths/family.h"

namespace plexus {
namespace {

using onnx::BytesField;
using onnx::IntField;

constexpr int kFloat = 1, kOpset = 17, kBlockNodes = 7, kAdapterNodes = 4;

std::string ValueInfo(const Value& value, const std::string& name) {
  std::string dims;
  for (const SymbolicDim& dim : value.shape.dims) {
    dims += BytesField(
        1, dim.value ? IntField(1, static_cast<uint64_t>(*dim.value)) : BytesField(2, dim.symbol));
  }
  return BytesField(1, name) +
         BytesField(2, BytesField(1, IntField(1, kFloat) + BytesField(2, dims)));
}

// Of a family's member: f32 throughout, no attributes.
Result<std::string> OnnxBytes(const Graph& graph) {
  std::string out;
  for (const Value& value : graph.values()) {
    if (!value.IsConstant()) continue;
    PLEXUS_ASSIGN_OR_RETURN(const Tensor tensor, value.constant->Plain());
    const std::string_view raw(reinterpret_cast<const char*>(tensor.raw()), tensor.size_bytes());
    out +=
        BytesField(5, onnx::TensorBytes({value.name, tensor.shape(), kFloat, BytesField(9, raw)}));
  }
  for (const Node& node : graph.nodes()) {
    if (!node.attributes.empty()) return UnimplementedError(node.name + " has attributes");
    std::string fields;
    for (ValueId id : node.inputs) fields += BytesField(1, graph.value(id).name);
    for (ValueId id : node.outputs) fields += BytesField(2, graph.value(id).name);
    out += BytesField(1, fields + BytesField(3, node.name) + BytesField(4, node.op));
  }
  out += BytesField(2, graph.name);
  const Value& x = graph.value(graph.inputs()[0]);
  out += BytesField(11, ValueInfo(x, x.name));
  out += BytesField(12, ValueInfo(x, graph.value(graph.outputs()[0]).name));  // of x's shape
  return onnx::ModelBytes(out, "", kOpset);
}

Status WriteFile(const std::filesystem::path& file, std::string_view bytes) {
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  std::ofstream out(file, std::ios::binary);
  out << bytes;
  out.close();
  return out ? OkStatus() : InternalError("cannot write " + file.string());
}

std::string PipelineText(const std::string& name, const std::string& model, int width) {
  return "name: " + name + "\ninputs:\n  - {name: x, dtype: FP32, shape: [-1, " +
         std::to_string(width) + "]}\nstages:\n  - {name: model, model: " + model +
         ", inputs: {x: x}}\noutputs:\n  - {name: y, from: model}\n";
}

Status Write(const std::filesystem::path& folder, const std::string& name, const Family& family,
             int members) {
  for (int m = 0; m < members; ++m) {
    const std::string pipeline = name + "-" + std::to_string(m), model = "model-" + pipeline;
    PLEXUS_ASSIGN_OR_RETURN(const Graph graph, FamilyMember(family, m));
    PLEXUS_ASSIGN_OR_RETURN(const std::string bytes, OnnxBytes(graph));
    PLEXUS_RETURN_IF_ERROR(WriteFile(folder / model / "1" / "model.onnx", bytes));
    PLEXUS_RETURN_IF_ERROR(WriteFile(folder / "pipelines" / (pipeline + ".yaml"),
                                     PipelineText(pipeline, model, family.width)));
  }
  return OkStatus();
}

// -1 where the text is no number.
int Number(const char* text) {
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  return parsed.ec == std::errc() && parsed.ptr == end ? value : -1;
}

Status Main(char** argv) {
  Family family;
  PLEXUS_ASSIGN_OR_RETURN(family.kind, ParseFamilyKind(argv[3]));
  const int members = Number(argv[4]), blocks = Number(argv[5]), seed = Number(argv[8]);
  family.width = Number(argv[6]);
  family.changed = Number(argv[7]);
  if (members < 1 || blocks < 1 || blocks > 10'000 || family.changed < 0 || seed < 0) {
    return InvalidArgumentError("a number is missing or out of range");
  }
  family.seed = static_cast<uint64_t>(seed);
  family.nodes = blocks * kBlockNodes;
  if (family.kind == FamilyKind::kAdapters) family.nodes += family.changed * kAdapterNodes;
  return Write(argv[1], argv[2], family, members);
}

}  // namespace
}  // namespace plexus

int main(int argc, char** argv) {
  if (argc != 9) {
    std::fprintf(stderr,
                 "usage: plexus_family_files FOLDER NAME KIND MEMBERS BLOCKS WIDTH CHANGED SEED\n");
    return 2;
  }
  const plexus::Status status = plexus::Main(argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "plexus_family_files: %s\n", status.ToString().c_str());
  return 1;
}
