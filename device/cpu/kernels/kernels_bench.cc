// Speed of single kernels on one thread, compiled and run as in a program:
//   cpu_kernels_bench [--benchmark_filter=...]
// "GB/s" counts what a kernel reads and writes once, "GFLOP/s" its arithmetic.
#include <benchmark/benchmark.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "device/cpu/cpu_compiler.h"
#include "device/cpu/cpu_device.h"

namespace plexus::cpu {
namespace {

using Attributes = std::map<std::string, Attribute>;
using Ints = std::vector<int64_t>;
using Strings = std::vector<std::string>;

class OpBench {
 public:
  ValueId Input(const Shape& shape) {
    inputs_.push_back(Random(shape));
    return graph_.AddInput(NewValue(shape));
  }
  ValueId Constant(const Shape& shape) { return Constant(Random(shape)); }
  ValueId Constant(Tensor tensor) {
    return graph_.AddConstant("c" + std::to_string(next_++),
                              ConstantStore::Get().Intern(std::move(tensor)));
  }
  ValueId Op(const std::string& domain, const std::string& op, std::vector<ValueId> inputs,
             const Shape& shape, Attributes attributes = {}) {
    Node node;
    node.domain = domain;
    node.op = op;
    node.version = domain.empty() ? 18 : 1;
    node.name = op;
    node.inputs = std::move(inputs);
    node.attributes = std::move(attributes);
    const ValueId y = graph_.AddValue(NewValue(shape));
    node.outputs = {y};
    graph_.AddNode(std::move(node));
    return y;
  }
  ValueId Pointwise(const std::string& op, std::vector<ValueId> inputs, const Shape& shape) {
    Ints args = {0, inputs.size() > 1 ? 1 : -1, -1};
    return Op("plexus", "Elementwise", std::move(inputs), shape,
              {{"ops", Strings{op}}, {"args", args}, {"params", std::vector<float>{0, 0}}});
  }
  // Measures the kernels whose names hold `name`.
  void Run(benchmark::State& state, ValueId output, const std::string& name) {
    graph_.outputs() = {output};
    CompileOptions compile;
    compile.name = "bench";
    auto compiled = MakeCpuCompiler(CpuCompilerOptions())->Compile(graph_, compile);
    if (!compiled.ok()) return state.SkipWithError(compiled.status().ToString().c_str());
    const Program& program = **compiled;
    std::vector<Tensor> outputs;
    for (const ProgramValue& value : program.outputs) {
      outputs.push_back(Tensor::Allocate(value.dtype, value.shape).value());
    }
    auto arena = Buffer::Allocate(program.arena_bytes + 64).value();
    size_t scratch_bytes = 64;
    for (const Kernel& kernel : program.kernels) {
      const auto& code = static_cast<const CpuKernelCode&>(*kernel.code);
      scratch_bytes = std::max(scratch_bytes, code.scratch_bytes());
    }
    auto scratch = Buffer::Allocate(scratch_bytes).value();
    CpuBlockContext context;
    context.arena = arena->data();
    context.inputs = inputs_.data();
    context.outputs = outputs.data();
    context.scratch = scratch->data();
    double flops = 0, bytes = 0;
    std::vector<const Kernel*> measured;
    for (const Kernel& kernel : program.kernels) {
      const auto& code = static_cast<const CpuKernelCode&>(*kernel.code);
      if (!code.Run(0, kernel.grid, context).ok()) return state.SkipWithError("a kernel failed");
      if (kernel.name.find(name) == std::string::npos) continue;
      measured.push_back(&kernel);
      flops += kernel.flops;
      bytes += kernel.bytes;
    }
    if (measured.empty()) return state.SkipWithError(program.kernels.back().name.c_str());
    for (auto _ : state) {
      for (const Kernel* kernel : measured) {
        const auto& code = static_cast<const CpuKernelCode&>(*kernel->code);
        benchmark::DoNotOptimize(code.Run(0, kernel->grid, context).ok());
      }
    }
    const double runs = static_cast<double>(state.iterations());
    state.counters["GB/s"] = benchmark::Counter(runs * bytes * 1e-9, benchmark::Counter::kIsRate);
    state.counters["GFLOP/s"] =
        benchmark::Counter(runs * flops * 1e-9, benchmark::Counter::kIsRate);
  }

 private:
  static Tensor Random(const Shape& shape) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    Tensor t = Tensor::Allocate(DType::kFloat32, shape).value();
    for (float& v : t.mutable_data<float>()) v = uniform(random);
    return t;
  }
  Value NewValue(const Shape& shape) {
    Value value;
    value.name = "v" + std::to_string(next_++);
    value.dtype = DType::kFloat32;
    value.shape = SymbolicShape::FromConcrete(shape);
    return value;
  }

  Graph graph_;
  std::vector<Tensor> inputs_;
  int next_ = 0;
};

void Pointwise(benchmark::State& state, const char* op, Shape shape, Shape other) {
  OpBench b;
  std::vector<ValueId> in = {b.Input(shape)};
  if (!other.empty()) in.push_back(b.Input(other));
  b.Run(state, b.Pointwise(op, in, shape), "elementwise");
}
BENCHMARK_CAPTURE(Pointwise, relu_1x64x56x56, "Relu", {1, 64, 56, 56}, {});
BENCHMARK_CAPTURE(Pointwise, add_1x64x56x56, "Add", {1, 64, 56, 56}, {1, 64, 56, 56});
BENCHMARK_CAPTURE(Pointwise, mul_channel_1x64x56x56, "Mul", {1, 64, 56, 56}, {64, 1, 1});
BENCHMARK_CAPTURE(Pointwise, mul_last_128x768, "Mul", {128, 768}, {768});
BENCHMARK_CAPTURE(Pointwise, gelu_128x3072, "Gelu", {128, 3072}, {});
BENCHMARK_CAPTURE(Pointwise, exp_1024x1024, "Exp", {1024, 1024}, {});
BENCHMARK_CAPTURE(Pointwise, tanh_1024x1024, "Tanh", {1024, 1024}, {});
BENCHMARK_CAPTURE(Pointwise, log_1024x1024, "Log", {1024, 1024}, {});
BENCHMARK_CAPTURE(Pointwise, relu_16, "Relu", {16}, {});

void ScaleShiftRelu(benchmark::State& state) {
  OpBench b;
  const Shape shape = {1, 64, 56, 56};
  const ValueId y = b.Op("plexus", "Elementwise",
                         {b.Input(shape), b.Constant({64, 1, 1}), b.Constant({64, 1, 1})}, shape,
                         {{"ops", Strings{"Mul", "Add", "Relu"}},
                          {"args", Ints{0, 1, -1, 3, 2, -1, 4, -1, -1}},
                          {"params", std::vector<float>(6, 0)}});
  b.Run(state, y, "elementwise");
}
BENCHMARK(ScaleShiftRelu);

void Softmax(benchmark::State& state) {
  OpBench b;
  b.Run(state, b.Op("", "Softmax", {b.Input({12, 128, 128})}, {12, 128, 128}), "softmax");
}
BENCHMARK(Softmax);

void LayerNorm(benchmark::State& state) {
  OpBench b;
  b.Run(state,
        b.Op("", "LayerNormalization", {b.Input({128, 768}), b.Constant({768}), b.Constant({768})},
             {128, 768}),
        "layer norm");
}
BENCHMARK(LayerNorm);

void Transpose(benchmark::State& state, Shape shape, Ints perm) {
  OpBench b;
  Shape out;
  for (int64_t axis : perm) out.push_back(shape[axis]);
  b.Run(state, b.Op("", "Transpose", {b.Input(shape)}, out, {{"perm", perm}}), "transpose");
}
BENCHMARK_CAPTURE(Transpose, heads, {1, 128, 12, 64}, {0, 2, 1, 3});
BENCHMARK_CAPTURE(Transpose, matrix, {768, 768}, {1, 0});

void Concat(benchmark::State& state, bool channels_last) {
  OpBench b;
  const Shape first = {1, 128, 28, 28}, second = {1, 32, 28, 28};
  ValueId x = b.Input(first), z = b.Input(second);
  if (channels_last) {
    x = b.Op("", "MaxPool", {x}, first, {{"kernel_shape", Ints{1, 1}}});
    z = b.Op("", "MaxPool", {z}, second, {{"kernel_shape", Ints{1, 1}}});
  }
  b.Run(state, b.Op("", "Concat", {x, z}, {1, 160, 28, 28}, {{"axis", int64_t{1}}}), "concat");
}
BENCHMARK_CAPTURE(Concat, row_major, false);
BENCHMARK_CAPTURE(Concat, channels_last, true);

void Attention(benchmark::State& state) {
  OpBench b;
  const Shape shape = {1, 12, state.range(0), 64};
  b.Run(state,
        b.Op("plexus", "Attention", {b.Input(shape), b.Input(shape), b.Input(shape)}, shape,
             {{"scale", 0.125f}}),
        "attention");
}
BENCHMARK(Attention)->Arg(16)->Arg(128)->Arg(512);

// Arguments: channels, height and width, stride, kernel.
void Depthwise(benchmark::State& state) {
  OpBench b;
  const int64_t c = state.range(0), s = state.range(1), stride = state.range(2);
  const int64_t kernel = state.range(3), pad = kernel / 2;
  ValueId x = b.Input({1, c, s, s});
  x = b.Op("", "MaxPool", {x}, {1, c, s, s}, {{"kernel_shape", Ints{1, 1}}});
  b.Run(state,
        b.Op("plexus", "Conv", {x, b.Constant({c, 1, kernel, kernel}), b.Constant({c})},
             {1, c, s / stride, s / stride},
             {{"group", c},
              {"strides", Ints{stride, stride}},
              {"pads", Ints{pad, pad, pad, pad}},
              {"activation", std::string("Clip")},
              {"activation_params", std::vector<float>{0, 6}}}),
        "conv");
}
BENCHMARK(Depthwise)
    ->Args({32, 112, 1, 3})
    ->Args({96, 112, 2, 3})
    ->Args({144, 56, 1, 3})
    ->Args({384, 14, 1, 3})
    ->Args({960, 14, 1, 3})
    ->Args({240, 28, 1, 5});

// 512 filters of 512 taps every 160 samples, as one- and as two-dimensional data.
void SignalConv(benchmark::State& state, bool two_dimensional) {
  OpBench b;
  const int64_t samples = 17280, frames = (samples - 512) / 160 + 1;
  Shape x = {1, 1, samples}, w = {512, 1, 512}, y = {1, 512, frames};
  Ints strides = {160};
  if (two_dimensional) {
    for (Shape* shape : {&x, &w, &y}) shape->insert(shape->begin() + 2, 1);
    strides = {1, 160};
  }
  b.Run(state, b.Op("", "Conv", {b.Input(x), b.Constant(w)}, y, {{"strides", strides}}), "conv");
}
BENCHMARK_CAPTURE(SignalConv, one_dimensional, false);
BENCHMARK_CAPTURE(SignalConv, two_dimensional, true);

void Lstm(benchmark::State& state) {
  OpBench b;
  const int64_t n = state.range(0);
  b.Run(state,
        b.Op("", "LSTM",
             {b.Input({1, 1, n}), b.Constant({1, 4 * n, n}), b.Constant({1, 4 * n, n}),
              b.Constant({1, 8 * n})},
             {1, 1, 1, n}, {{"hidden_size", n}}),
        "LSTM");
}
BENCHMARK(Lstm)->Arg(64)->Arg(128);

void Resize(benchmark::State& state) {
  OpBench b;
  const Shape in = {1, 24, 40, 40}, out = {1, 24, 80, 80};
  ValueId x = b.Op("", "MaxPool", {b.Input(in)}, in, {{"kernel_shape", Ints{1, 1}}});
  const ValueId scales = b.Constant(Tensor::Of<float>(DType::kFloat32, {4}, {1, 1, 2, 2}));
  b.Run(state,
        b.Op("", "Resize", {x, ValueId(), scales}, out,
             {{"mode", std::string("nearest")},
              {"coordinate_transformation_mode", std::string("asymmetric")},
              {"nearest_mode", std::string("floor")}}),
        "resize");
}
BENCHMARK(Resize);

void ReduceMean(benchmark::State& state) {
  OpBench b;
  b.Run(state,
        b.Op("", "ReduceMean", {b.Input({1, 512, 28, 28})}, {1, 512, 1, 1}, {{"axes", Ints{2, 3}}}),
        "Reduce");
}
BENCHMARK(ReduceMean);

}  // namespace
}  // namespace plexus::cpu

BENCHMARK_MAIN();
