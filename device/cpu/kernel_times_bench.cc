// Time of every kernel of a model's program, on one thread without a dispatcher:
//   cpu_kernel_times MODEL.onnx [--workers N] [--iterations N] [--shape 1,128]...
// --workers: what the grids are cut for. Unknown dimensions are 1, or, for input i, what the i-th
// --shape says. One line per kernel: µs (best of the iterations), GFLOP/s, GB/s, grid, name; then
// the time of whole runs.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

#include "device/cpu/cpu_compiler.h"
#include "device/cpu/cpu_device.h"
#include "graph/onnx/onnx_import.h"
#include "graph/passes/passes.h"
#include "program/reference/reference.h"

namespace plexus::cpu {
namespace {

using SteadyClock = std::chrono::steady_clock;

double MicrosSince(SteadyClock::time_point from) {
  return std::chrono::duration<double, std::micro>(SteadyClock::now() - from).count();
}

struct Arguments {
  std::string path;
  uint32_t workers = 1;
  int iterations = 20;
  std::vector<Shape> shapes;
};

Shape ParseShape(const char* text) {
  Shape shape;
  for (const char* at = text; *at;) {
    char* end = nullptr;
    shape.push_back(std::strtoll(at, &end, 10));
    at = *end ? end + 1 : end;
  }
  return shape;
}

Result<Tensor> RandomInput(DType dtype, const Shape& shape, std::mt19937& random) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(dtype, shape));
  std::normal_distribution<float> normal;
  const int64_t count = NumElementsUnchecked(shape);
  for (int64_t i = 0; i < count; ++i) {
    if (dtype == DType::kFloat32) {
      reinterpret_cast<float*>(tensor.raw_mutable())[i] = normal(random);
    } else if (dtype == DType::kInt64) {
      reinterpret_cast<int64_t*>(tensor.raw_mutable())[i] = 1;
    } else if (dtype == DType::kInt32) {
      reinterpret_cast<int32_t*>(tensor.raw_mutable())[i] = 1;
    }
  }
  return tensor;
}

Status Measure(const Program& program, const std::vector<Tensor>& inputs, int iterations) {
  std::vector<Tensor> outputs;
  for (const ProgramValue& value : program.outputs) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor output, Tensor::Allocate(value.dtype, value.shape));
    outputs.push_back(std::move(output));
  }
  size_t scratch_bytes = 64;
  for (const Kernel& kernel : program.kernels) {
    scratch_bytes = std::max(scratch_bytes,
                             static_cast<const CpuKernelCode&>(*kernel.code).scratch_bytes() + 64);
  }
  PLEXUS_ASSIGN_OR_RETURN(auto arena, Buffer::Allocate(program.arena_bytes + 64));
  PLEXUS_ASSIGN_OR_RETURN(auto scratch, Buffer::Allocate(scratch_bytes));
  CpuBlockContext context;
  context.arena = arena->data();
  context.inputs = inputs.data();
  context.outputs = outputs.data();
  context.scratch = scratch->data();
  std::vector<double> best(program.kernels.size(), 1e30), runs;
  for (int i = 0; i < iterations; ++i) {
    const auto begin = SteadyClock::now();
    for (size_t k = 0; k < program.kernels.size(); ++k) {
      const Kernel& kernel = program.kernels[k];
      const auto start = SteadyClock::now();
      PLEXUS_RETURN_IF_ERROR(
          static_cast<const CpuKernelCode&>(*kernel.code).Run(0, kernel.grid, context));
      best[k] = std::min(best[k], MicrosSince(start));
    }
    runs.push_back(MicrosSince(begin));
  }
  double sum = 0;
  for (size_t k = 0; k < program.kernels.size(); ++k) {
    const Kernel& kernel = program.kernels[k];
    sum += best[k];
    std::printf("%9.1f µs %7.1f GFLOP/s %6.1f GB/s  grid %-4u est %7.1f  %s\n", best[k],
                kernel.flops / best[k] * 1e-3, kernel.bytes / best[k] * 1e-3, kernel.grid,
                static_cast<double>(kernel.estimated_block_time.count()) * 1e-3 * kernel.grid,
                kernel.name.c_str());
  }
  std::sort(runs.begin(), runs.end());
  std::printf(
      "sum of bests %.1f µs, best run %.1f, median %.1f; arena %.2f MB, constants %.2f MB\n", sum,
      runs.front(), runs[runs.size() / 2], static_cast<double>(program.arena_bytes) * 1e-6,
      static_cast<double>(program.constant_bytes) * 1e-6);
  return OkStatus();
}

Status Main(const Arguments& arguments) {
  const Evaluator& evaluator = ReferenceEvaluator::Get();
  PLEXUS_ASSIGN_OR_RETURN(const GraphPtr imported, ImportOnnxFile(arguments.path));
  Graph graph = *imported;
  PLEXUS_RETURN_IF_ERROR(Canonicalize(graph, evaluator));
  PLEXUS_RETURN_IF_ERROR(OptimizeWeights(graph));
  std::mt19937 random(1);
  std::vector<KnownInput> known;
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < graph.inputs().size(); ++i) {
    const Value& value = graph.value(graph.inputs()[i]);
    Shape shape;
    if (i < arguments.shapes.size()) {
      shape = arguments.shapes[i];
    } else if (value.shape.IsConcrete()) {
      shape = value.shape.ToConcrete();
    } else {
      return InvalidArgumentError("input '" + value.name + "' " + value.shape.ToString() +
                                  " needs a --shape");
    }
    KnownInput input;
    input.dtype = value.dtype;
    input.shape = shape;
    known.push_back(std::move(input));
    PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, RandomInput(value.dtype, shape, random));
    inputs.push_back(std::move(tensor));
  }
  CpuCompilerOptions options;
  options.workers = arguments.workers;
  const std::unique_ptr<Compiler> compiler = MakeCpuCompiler(options);
  ProgramPtr program;
  for (int i = 0; i < 2; ++i) {
    auto start = SteadyClock::now();
    PLEXUS_ASSIGN_OR_RETURN(Graph region, Specialize(graph, known, evaluator));
    PLEXUS_RETURN_IF_ERROR(FoldConstants(region, evaluator));
    const double specialize = MicrosSince(start);
    start = SteadyClock::now();
    PLEXUS_RETURN_IF_ERROR(Optimize(region));
    const double optimize = MicrosSince(start);
    start = SteadyClock::now();
    PLEXUS_ASSIGN_OR_RETURN(ProgramPtr made, compiler->Compile(region, {}));
    std::printf("%s: specialise %.0f µs, optimise %.0f, compile %.0f\n", i ? "again" : "first",
                specialize, optimize, MicrosSince(start));
    program = std::move(made);
  }
  return Measure(*program, inputs, arguments.iterations);
}

}  // namespace
}  // namespace plexus::cpu

int main(int argc, char** argv) {
  plexus::cpu::Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const bool more = i + 1 < argc;
    if (more && std::strcmp(argv[i], "--workers") == 0) {
      arguments.workers = static_cast<uint32_t>(std::atoi(argv[++i]));
    } else if (more && std::strcmp(argv[i], "--iterations") == 0) {
      arguments.iterations = std::atoi(argv[++i]);
    } else if (more && std::strcmp(argv[i], "--shape") == 0) {
      arguments.shapes.push_back(plexus::cpu::ParseShape(argv[++i]));
    } else {
      arguments.path = argv[i];
    }
  }
  const plexus::Status status = plexus::cpu::Main(arguments);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
