#include "simulate/lower_onnx.h"

#include <vector>

#include "device/sim/sim_compiler.h"
#include "graph/onnx/onnx_import.h"
#include "graph/passes/passes.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

// Concrete inputs: what is given, else 1 for every open dimension.
Result<std::vector<KnownInput>> Inputs(const Graph& graph, std::map<std::string, Shape> shapes) {
  std::vector<KnownInput> inputs;
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    KnownInput input;
    input.dtype = value.dtype;
    if (const auto given = shapes.find(value.name); given != shapes.end()) {
      input.shape = given->second;
      shapes.erase(given);
    } else if (value.shape.has_rank) {
      Shape& shape = input.shape.emplace();
      for (const SymbolicDim& dim : value.shape.dims) shape.push_back(dim.value.value_or(1));
    } else {
      return InvalidArgumentError("input '" + value.name + "': the model does not say its shape");
    }
    inputs.push_back(std::move(input));
  }
  if (!shapes.empty()) {
    return InvalidArgumentError("the model has no input '" + shapes.begin()->first + "'");
  }
  return inputs;
}

Result<std::vector<ProgramPtr>> Lower(const std::filesystem::path& file,
                                      const std::map<std::string, Shape>& shapes,
                                      const SimGpuOptions& device, uint32_t max_rows) {
  const ReferenceEvaluator& evaluator = ReferenceEvaluator::Get();
  PLEXUS_ASSIGN_OR_RETURN(const GraphPtr imported, ImportOnnxFile(file));
  Graph graph = *imported;
  PLEXUS_RETURN_IF_ERROR(Canonicalize(graph, evaluator));
  PLEXUS_RETURN_IF_ERROR(OptimizeWeights(graph));
  PLEXUS_RETURN_IF_ERROR(MarkFusionGroups(graph));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<KnownInput> inputs, Inputs(graph, shapes));
  SimCompilerOptions options;
  options.gpu = device;
  PLEXUS_ASSIGN_OR_RETURN(const std::unique_ptr<Compiler> compiler, MakeSimCompiler(options));
  std::vector<ProgramPtr> programs;
  for (uint32_t rows = 1; rows <= max_rows; rows *= 2) {
    Result<Graph> special = rows == 1 ? Specialize(graph, inputs, evaluator)
                                      : SpecializeRows(graph, inputs, rows, evaluator);
    if (rows > 1 && special.status().code() == StatusCode::kFailedPrecondition) break;
    PLEXUS_ASSIGN_OR_RETURN(Graph region, std::move(special));
    PLEXUS_RETURN_IF_ERROR(FoldConstants(region, evaluator));
    PLEXUS_RETURN_IF_ERROR(Optimize(region));
    PLEXUS_ASSIGN_OR_RETURN(ProgramPtr program,
                            compiler->Compile(region, {Precision::kFloat32, file.stem().string()}));
    programs.push_back(std::move(program));
  }
  return programs;
}

}  // namespace

Result<ProgramPtr> LowerOnnx(const std::filesystem::path& file,
                             const std::map<std::string, Shape>& shapes,
                             const SimGpuOptions& device) {
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<ProgramPtr> programs,
                          LowerOnnxRows(file, shapes, device, 1));
  return programs[0];
}

Result<std::vector<ProgramPtr>> LowerOnnxRows(const std::filesystem::path& file,
                                              const std::map<std::string, Shape>& shapes,
                                              const SimGpuOptions& device, uint32_t max_rows) {
  Result<std::vector<ProgramPtr>> programs = Lower(file, shapes, device, max_rows);
  if (!programs.ok()) return programs.status().WithContext(file.string());
  return programs;
}

}  // namespace plexus
