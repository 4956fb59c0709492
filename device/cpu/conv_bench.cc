// Whole convolutional networks (topology of the originals, random weights) on one thread, without a
// dispatcher: time per network, and with a third argument per kernel.
//   cpu_conv_bench [resnet18|resnet50|mobilenetv2] [workers to cut for] [kernels]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "device/cpu/cpu_compiler.h"
#include "device/cpu/cpu_device.h"

namespace plexus::cpu {
namespace {

class Network {
 public:
  Graph graph;

  ValueId Input(Shape shape) {
    shapes_.resize(1);
    const ValueId v = graph.AddInput(MakeValue(shape));
    SetShape(v, shape);
    return v;
  }
  ValueId Conv(ValueId x, int64_t out, int64_t kernel, int64_t stride, const std::string& act,
               ValueId residual = ValueId(), int64_t groups = 1) {
    const Shape in = shapes_[x.value()];
    const int64_t pad = kernel / 2;
    auto size = [&](int64_t s) { return (s + 2 * pad - kernel) / stride + 1; };
    return Op(
        "plexus", "Conv",
        {x, Weights({out, in[1] / groups, kernel, kernel}), Weights({out}), residual},
        {in[0], out, size(in[2]), size(in[3])},
        {{"strides", std::vector<int64_t>{stride, stride}},
         {"pads", std::vector<int64_t>{pad, pad, pad, pad}},
         {"group", groups},
         {"activation", act},
         {"activation_params", act == "Clip" ? std::vector<float>{0, 6} : std::vector<float>{}}});
  }
  ValueId MaxPool(ValueId x) {
    const Shape in = shapes_[x.value()];
    return Op("", "MaxPool", {x}, {in[0], in[1], (in[2] + 1) / 2, (in[3] + 1) / 2},
              {{"kernel_shape", std::vector<int64_t>{3, 3}},
               {"strides", std::vector<int64_t>{2, 2}},
               {"pads", std::vector<int64_t>{1, 1, 1, 1}}});
  }
  void Head(ValueId x, int64_t classes) {
    const Shape in = shapes_[x.value()];
    x = Op("", "GlobalAveragePool", {x}, {in[0], in[1], 1, 1});
    x = Op("", "Flatten", {x}, {in[0], in[1]});
    graph.outputs().push_back(Op("", "Gemm", {x, Weights({classes, in[1]}), Weights({classes})},
                                 {in[0], classes}, {{"transB", int64_t{1}}}));
  }

 private:
  Value MakeValue(const Shape& shape) {
    Value value;
    value.name = "v" + std::to_string(next_++);
    value.dtype = DType::kFloat32;
    value.shape = SymbolicShape::FromConcrete(shape);
    return value;
  }
  void SetShape(ValueId v, Shape shape) {
    if (shapes_.size() <= v.value()) shapes_.resize(v.value() + 1);
    shapes_[v.value()] = std::move(shape);
  }
  ValueId Weights(Shape shape) {
    Tensor t = Tensor::Allocate(DType::kFloat32, shape).value();
    const float range = 1.0f / std::max<float>(1, static_cast<float>(t.num_elements() / shape[0]));
    std::uniform_real_distribution<float> uniform(-range, range);
    for (float& v : t.mutable_data<float>()) v = uniform(random_);
    return graph.AddConstant("c" + std::to_string(next_++), ConstantStore::Get().Intern(t));
  }
  ValueId Op(const std::string& domain, const std::string& op, std::vector<ValueId> in, Shape shape,
             std::map<std::string, Attribute> attributes = {}) {
    const ValueId out = graph.AddValue(MakeValue(shape));
    SetShape(out, shape);
    Node node;
    node.op = op;
    node.domain = domain;
    node.version = domain.empty() ? 17 : 1;
    node.name = op + std::to_string(next_++);
    node.inputs = std::move(in);
    node.outputs = {out};
    node.attributes = std::move(attributes);
    graph.AddNode(std::move(node));
    return out;
  }

  std::vector<Shape> shapes_;
  std::mt19937 random_{1};
  int next_ = 0;
};

void ResNet(Network& net, bool bottleneck, const std::vector<int>& depths) {
  ValueId x = net.MaxPool(net.Conv(net.Input({1, 3, 224, 224}), 64, 7, 2, "Relu"));
  int64_t in = 64;
  for (size_t stage = 0; stage < depths.size(); ++stage) {
    const int64_t width = int64_t{64} << stage, out = bottleneck ? width * 4 : width;
    for (int block = 0; block < depths[stage]; ++block) {
      const int64_t stride = block == 0 && stage > 0 ? 2 : 1;
      ValueId skip = x;
      if (stride != 1 || in != out) skip = net.Conv(x, out, 1, stride, "");
      if (bottleneck) {
        ValueId y = net.Conv(x, width, 1, 1, "Relu");
        y = net.Conv(y, width, 3, stride, "Relu");
        x = net.Conv(y, out, 1, 1, "Relu", skip);
      } else {
        x = net.Conv(net.Conv(x, width, 3, stride, "Relu"), out, 3, 1, "Relu", skip);
      }
      in = out;
    }
  }
  net.Head(x, 1000);
}

void MobileNetV2(Network& net) {
  ValueId x = net.Conv(net.Input({1, 3, 224, 224}), 32, 3, 2, "Clip");
  const int64_t table[][4] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                              {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
  int64_t in = 32;
  for (const auto& [expand, out, repeats, first_stride] : table) {
    for (int64_t i = 0; i < repeats; ++i) {
      const int64_t stride = i == 0 ? first_stride : 1, width = in * expand;
      ValueId y = expand == 1 ? x : net.Conv(x, width, 1, 1, "Clip");
      y = net.Conv(y, width, 3, stride, "Clip", ValueId(), width);
      x = net.Conv(y, out, 1, 1, "", stride == 1 && in == out ? x : ValueId());
      in = out;
    }
  }
  net.Head(net.Conv(x, 1280, 1, 1, "Clip"), 1000);
}

double Microseconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

int Main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "resnet18";
  Network net;
  if (name == "resnet18") {
    ResNet(net, false, {2, 2, 2, 2});
  } else if (name == "resnet50") {
    ResNet(net, true, {3, 4, 6, 3});
  } else if (name == "mobilenetv2") {
    MobileNetV2(net);
  } else {
    std::fprintf(stderr, "unknown network '%s'\n", name.c_str());
    return 2;
  }
  CpuCompilerOptions options;
  options.workers = argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : 1;
  const auto start = std::chrono::steady_clock::now();
  auto program = MakeCpuCompiler(options)->Compile(net.graph, {});
  if (!program.ok()) {
    std::fprintf(stderr, "%s\n", program.status().ToString().c_str());
    return 1;
  }
  const double compile = Microseconds(std::chrono::steady_clock::now() - start);
  const Program& p = **program;
  Tensor input = Tensor::Allocate(DType::kFloat32, {1, 3, 224, 224}).value();
  for (float& v : input.mutable_data<float>()) v = 0.5f;
  Tensor output = Tensor::Allocate(DType::kFloat32, p.outputs[0].shape).value();
  auto arena = Buffer::Allocate(p.arena_bytes).value();
  size_t scratch_bytes = 64;
  for (const Kernel& k : p.kernels) {
    scratch_bytes =
        std::max(scratch_bytes, static_cast<const CpuKernelCode&>(*k.code).scratch_bytes());
  }
  auto scratch = Buffer::Allocate(scratch_bytes).value();
  CpuBlockContext context{arena->data(), &input, &output, scratch->data(), 0};
  std::vector<double> totals;
  std::vector<std::vector<double>> times(p.kernels.size());
  for (int round = 0; round < 30; ++round) {
    double total = 0;
    for (size_t k = 0; k < p.kernels.size(); ++k) {
      const auto& code = static_cast<const CpuKernelCode&>(*p.kernels[k].code);
      const auto begin = std::chrono::steady_clock::now();
      for (uint32_t b = 0; b < p.kernels[k].grid; ++b) {
        if (Status s = code.Run(b, 1, context); !s.ok()) {
          std::fprintf(stderr, "%s\n", s.ToString().c_str());
          return 1;
        }
      }
      const double us = Microseconds(std::chrono::steady_clock::now() - begin);
      times[k].push_back(us);
      total += us;
    }
    totals.push_back(total);
  }
  if (argc > 3) {
    for (size_t k = 0; k < p.kernels.size(); ++k) {
      const double us = Median(times[k]);
      std::printf("%8.1f us  %6.1f GF/s  %4u blocks of %6.1f us  %s\n", us,
                  p.kernels[k].flops / us / 1e3, p.kernels[k].grid, us / p.kernels[k].grid,
                  p.kernels[k].name.c_str());
    }
  }
  std::printf(
      "%s, cut for %u: %.2f ms (%.1f GF/s), %zu kernels, compiled in %.0f ms, arena %.1f "
      "MB\n",
      name.c_str(), options.workers, Median(totals) / 1e3, p.flops / Median(totals) / 1e3,
      p.kernels.size(), compile / 1e3, static_cast<double>(p.arena_bytes) / 1e6);
  return 0;
}

}  // namespace
}  // namespace plexus::cpu

int main(int argc, char** argv) { return plexus::cpu::Main(argc, argv); }
