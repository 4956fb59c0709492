#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "device/cpu/cpu_compiler.h"
#include "device/cpu/program_runner.h"

namespace plexus::cpu {
namespace {

constexpr int64_t kImages = 2, kSide = 6, kPixels = kSide * kSide;

Tensor RandomTensor(Shape shape, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Tensor t = Tensor::Allocate(DType::kFloat32, std::move(shape)).value();
  for (float& v : t.mutable_data<float>()) v = uniform(random);
  return t;
}

// A value with its expected contents, [image][channel][pixel].
struct Wire {
  ValueId id;
  int64_t channels;
  std::vector<double> expected;
};

class NetBuilder {
 public:
  Graph graph;
  std::vector<Tensor> inputs;

  Wire Input(int64_t channels) {
    Wire w{graph.AddInput(MakeValue(channels)), channels, {}};
    inputs.push_back(RandomTensor({kImages, channels, kSide, kSide}, 7));
    for (float v : inputs.back().data<float>()) w.expected.push_back(v);
    return w;
  }
  Wire Conv1x1(const Wire& x, int64_t channels) {
    const Tensor weights = RandomTensor({channels, x.channels, 1, 1}, ++seed_);
    const ValueId w = graph.AddConstant(Name(), ConstantStore::Get().Intern(weights));
    Wire y = Node("Conv", {&x}, channels, {{"kernel_shape", std::vector<int64_t>{1, 1}}}, w);
    for (int64_t n = 0; n < kImages; ++n) {
      for (int64_t o = 0; o < channels; ++o) {
        for (int64_t p = 0; p < kPixels; ++p) {
          double sum = 0;
          for (int64_t c = 0; c < x.channels; ++c) {
            sum += double{weights.data<float>()[o * x.channels + c]} *
                   x.expected[(n * x.channels + c) * kPixels + p];
          }
          y.expected.push_back(sum);
        }
      }
    }
    return y;
  }
  // A maximum over horizontal pairs.
  Wire Pool(const Wire& x) {
    Wire y = Node(
        "MaxPool", {&x}, x.channels,
        {{"kernel_shape", std::vector<int64_t>{1, 2}}, {"pads", std::vector<int64_t>{0, 0, 0, 1}}});
    for (size_t i = 0; i < x.expected.size(); ++i) {
      const bool last = i % kSide == kSide - 1;
      y.expected.push_back(last ? x.expected[i] : std::max(x.expected[i], x.expected[i + 1]));
    }
    return y;
  }
  Wire Relu(const Wire& x) {
    Wire y = Node("Relu", {&x}, x.channels, {});
    for (double v : x.expected) y.expected.push_back(std::max(v, 0.0));
    return y;
  }
  Wire Concat(std::vector<const Wire*> parts) {
    int64_t channels = 0;
    for (const Wire* part : parts) channels += part->channels;
    Wire y = Node("Concat", parts, channels, {{"axis", int64_t{1}}});
    for (int64_t n = 0; n < kImages; ++n) {
      for (const Wire* part : parts) {
        const auto from = part->expected.begin() + n * part->channels * kPixels;
        y.expected.insert(y.expected.end(), from, from + part->channels * kPixels);
      }
    }
    return y;
  }

  // In order, and in random orders in an arena of NaN.
  void Check(const std::vector<const Wire*>& outputs) {
    for (const Wire* output : outputs) graph.outputs().push_back(output->id);
    CpuCompilerOptions options;
    options.workers = 2;
    options.target_block_time = std::chrono::microseconds(1);
    auto program = MakeCpuCompiler(options)->Compile(graph, {});
    ASSERT_TRUE(program.ok()) << program.status().ToString();
    for (const Kernel& kernel : (*program)->kernels) names += kernel.name + "\n";
    for (uint64_t seed = 0; seed < 4; ++seed) {
      RunOptions run;
      run.shuffle_seed = seed;
      auto got = RunProgram(**program, inputs, run);
      ASSERT_TRUE(got.ok()) << got.status().ToString();
      for (size_t o = 0; o < outputs.size(); ++o) {
        const auto values = (*got)[o].data<float>();
        ASSERT_EQ(values.size(), outputs[o]->expected.size());
        for (size_t i = 0; i < values.size(); ++i) {
          ASSERT_NEAR(values[i], outputs[o]->expected[i], 1e-4) << "output " << o << " at " << i;
        }
      }
    }
  }
  std::string names;  // of the program's kernels

 private:
  std::string Name() { return "v" + std::to_string(next_++); }
  Value MakeValue(int64_t channels) {
    Value value;
    value.name = Name();
    value.dtype = DType::kFloat32;
    value.shape = SymbolicShape::FromConcrete({kImages, channels, kSide, kSide});
    return value;
  }
  Wire Node(const std::string& op, const std::vector<const Wire*>& from, int64_t channels,
            std::map<std::string, Attribute> attributes, ValueId weights = ValueId()) {
    plexus::Node node;
    node.op = op;
    node.name = Name();
    node.version = 17;
    for (const Wire* w : from) node.inputs.push_back(w->id);
    if (weights.valid()) node.inputs.push_back(weights);
    node.attributes = std::move(attributes);
    const ValueId out = graph.AddValue(MakeValue(channels));
    node.outputs = {out};
    graph.AddNode(std::move(node));
    return {out, channels, {}};
  }
  int next_ = 0;
  uint32_t seed_ = 10;
};

TEST(ConcatInPlaceTest, ConvolutionsAndPoolsWriteIntoTheResult) {
  NetBuilder net;
  const Wire x = net.Input(8);
  const Wire a = net.Conv1x1(x, 5), b = net.Conv1x1(x, 19);
  const Wire p = net.Pool(b);
  const Wire c = net.Concat({&a, &p, &b});
  const Wire y = net.Conv1x1(c, 3);
  net.Check({&y});
  EXPECT_EQ(net.names.find("copy"), std::string::npos) << net.names;
  EXPECT_EQ(net.names.find("concat"), std::string::npos) << net.names;
}

TEST(ConcatInPlaceTest, ConcatsOfConcatsAreOneBuffer) {
  NetBuilder net;
  const Wire x = net.Input(8);
  const Wire a = net.Conv1x1(x, 5), b = net.Conv1x1(x, 7);
  const Wire c1 = net.Concat({&a, &b});
  const Wire d = net.Conv1x1(c1, 4);
  const Wire c2 = net.Concat({&c1, &d});
  const Wire e = net.Pool(c2);
  const Wire y = net.Conv1x1(c2, 3);
  net.Check({&y, &e});
  EXPECT_EQ(net.names.find("copy"), std::string::npos) << net.names;
}

TEST(ConcatInPlaceTest, OtherProducersRepeatsAndOutputsAreCopied) {
  NetBuilder net;
  const Wire x = net.Input(8);
  const Wire a = net.Conv1x1(x, 5);
  const Wire r = net.Relu(a);
  const Wire c1 = net.Concat({&a, &r, &x, &a});
  const Wire b = net.Conv1x1(c1, 4);
  const Wire c2 = net.Concat({&a, &b});
  const Wire s = net.Relu(c2);
  const Wire y = net.Conv1x1(s, 3);
  net.Check({&y, &b, &c1});
}

}  // namespace
}  // namespace plexus::cpu
