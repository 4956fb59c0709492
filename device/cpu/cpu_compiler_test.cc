#include "device/cpu/cpu_compiler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "device/cpu/program_runner.h"

namespace plexus::cpu {
namespace {

Tensor RandomTensor(Shape shape, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  Tensor t = Tensor::Allocate(DType::kFloat32, std::move(shape)).value();
  for (float& v : t.mutable_data<float>()) v = uniform(random);
  return t;
}

// Builds one-op or small graphs by hand.
class GraphBuilder {
 public:
  ValueId Input(Shape shape) {
    inputs_.push_back(RandomTensor(shape, static_cast<uint32_t>(100 + inputs_.size())));
    return graph_.AddInput(MakeValue(shape));
  }
  ValueId Constant(Tensor t) {
    return graph_.AddConstant(Name("c"), ConstantStore::Get().Intern(std::move(t)));
  }
  ValueId Op(const std::string& domain, const std::string& op, std::vector<ValueId> inputs,
             Shape shape, std::map<std::string, Attribute> attributes = {}) {
    const ValueId out = graph_.AddValue(MakeValue(shape));
    Node node;
    node.op = op;
    node.domain = domain;
    node.version = domain.empty() ? 17 : 1;
    node.name = Name(op);
    node.inputs = std::move(inputs);
    node.outputs = {out};
    node.attributes = std::move(attributes);
    graph_.AddNode(std::move(node));
    return out;
  }
  void Output(ValueId v) { graph_.outputs().push_back(v); }

  // Compiles with small blocks, runs in order, in random order and with two threads; all agree.
  std::vector<Tensor> Run(uint32_t workers = 2, Duration block = std::chrono::microseconds(1),
                          Precision precision = Precision::kFloat32) {
    CpuCompilerOptions options;
    options.workers = workers;
    options.target_block_time = block;
    CompileOptions compile;
    compile.name = "test";
    compile.precision = precision;
    auto program = MakeCpuCompiler(options)->Compile(graph_, compile);
    EXPECT_TRUE(program.ok()) << program.status().ToString();
    if (!program.ok()) return {};
    program_ = *program;
    auto plain = RunProgram(**program, inputs_);
    EXPECT_TRUE(plain.ok()) << plain.status().ToString();
    if (!plain.ok()) return {};
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      RunOptions run;
      run.shuffle_seed = seed;
      run.threads = seed == 3 ? 2 : 1;
      auto other = RunProgram(**program, inputs_, run);
      EXPECT_TRUE(other.ok()) << other.status().ToString();
      if (!other.ok()) return {};
      for (size_t i = 0; i < plain->size(); ++i) {
        EXPECT_TRUE(TensorsEqual((*plain)[i], (*other)[i])) << "order seed " << seed;
      }
    }
    return *plain;
  }
  const std::vector<Tensor>& inputs() const { return inputs_; }
  const Program& program() const { return *program_; }

 private:
  std::string Name(const std::string& prefix) { return prefix + std::to_string(next_++); }
  Value MakeValue(const Shape& shape) {
    Value value;
    value.name = Name("v");
    value.dtype = DType::kFloat32;
    value.shape = SymbolicShape::FromConcrete(shape);
    return value;
  }

  Graph graph_;
  std::vector<Tensor> inputs_;
  ProgramPtr program_;
  int next_ = 0;
};

void ExpectNear(const Tensor& actual, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(static_cast<size_t>(actual.num_elements()), expected.size());
  double largest = 1;
  for (double e : expected) largest = std::max(largest, std::abs(e));
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(actual.data<float>()[i], expected[i], tolerance * largest) << "element " << i;
  }
}

struct ConvCase {
  std::string name;
  int64_t images, in_channels, height, width, out_channels, kernel, stride, pad, dilation, groups;
};

std::vector<double> PlainConv(const ConvCase& c, const Tensor& x, const Tensor& w, const Tensor& b,
                              int64_t oh, int64_t ow) {
  std::vector<double> y(c.images * c.out_channels * oh * ow);
  const int64_t in_per_group = c.in_channels / c.groups, out_per_group = c.out_channels / c.groups;
  size_t at = 0;
  for (int64_t n = 0; n < c.images; ++n) {
    for (int64_t o = 0; o < c.out_channels; ++o) {
      for (int64_t oy = 0; oy < oh; ++oy) {
        for (int64_t ox = 0; ox < ow; ++ox) {
          double sum = b.data<float>()[o];
          for (int64_t i = 0; i < in_per_group; ++i) {
            const int64_t channel = o / out_per_group * in_per_group + i;
            for (int64_t ky = 0; ky < c.kernel; ++ky) {
              for (int64_t kx = 0; kx < c.kernel; ++kx) {
                const int64_t iy = oy * c.stride - c.pad + ky * c.dilation;
                const int64_t ix = ox * c.stride - c.pad + kx * c.dilation;
                if (iy < 0 || ix < 0 || iy >= c.height || ix >= c.width) continue;
                sum +=
                    double{
                        x.data<float>()[((n * c.in_channels + channel) * c.height + iy) * c.width +
                                        ix]} *
                    w.data<float>()[((o * in_per_group + i) * c.kernel + ky) * c.kernel + kx];
              }
            }
          }
          y[at++] = sum;
        }
      }
    }
  }
  return y;
}

class ConvTest : public testing::TestWithParam<ConvCase> {};

TEST_P(ConvTest, MatchesPlainLoopsWithResidualAndActivation) {
  const ConvCase c = GetParam();
  const int64_t reach = (c.kernel - 1) * c.dilation + 1;
  const int64_t oh = (c.height + 2 * c.pad - reach) / c.stride + 1;
  const int64_t ow = (c.width + 2 * c.pad - reach) / c.stride + 1;
  const Tensor w = RandomTensor({c.out_channels, c.in_channels / c.groups, c.kernel, c.kernel}, 1);
  const Tensor b = RandomTensor({c.out_channels}, 2);
  GraphBuilder g;
  const ValueId x = g.Input({c.images, c.in_channels, c.height, c.width});
  const ValueId residual = g.Input({c.images, c.out_channels, oh, ow});
  std::map<std::string, Attribute> attributes = {
      {"strides", std::vector<int64_t>{c.stride, c.stride}},
      {"pads", std::vector<int64_t>{c.pad, c.pad, c.pad, c.pad}},
      {"dilations", std::vector<int64_t>{c.dilation, c.dilation}},
      {"group", c.groups}};
  const Shape out = {c.images, c.out_channels, oh, ow};
  const ValueId plain = g.Op("", "Conv", {x, g.Constant(w), g.Constant(b)}, out, attributes);
  attributes["activation"] = std::string("Relu");
  const ValueId fused =
      g.Op("plexus", "Conv", {x, g.Constant(w), g.Constant(b), residual}, out, attributes);
  g.Output(plain);
  g.Output(fused);
  const std::vector<Tensor> y = g.Run();
  ASSERT_EQ(y.size(), 2u);
  std::vector<double> expected = PlainConv(c, g.inputs()[0], w, b, oh, ow);
  ExpectNear(y[0], expected, 1e-5);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] = std::max(0.0, expected[i] + g.inputs()[1].data<float>()[i]);
  }
  ExpectNear(y[1], expected, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, ConvTest,
                         testing::Values(ConvCase{"k3", 1, 16, 28, 28, 32, 3, 1, 1, 1, 1},
                                         ConvCase{"stem", 1, 3, 61, 57, 24, 7, 2, 3, 1, 1},
                                         ConvCase{"pointwise", 1, 24, 30, 30, 40, 1, 1, 0, 1, 1},
                                         ConvCase{"pointwise_stride", 2, 24, 31, 31, 40, 1, 2, 0, 1,
                                                  1},
                                         ConvCase{"depthwise", 1, 40, 33, 33, 40, 3, 2, 1, 1, 40},
                                         ConvCase{"grouped", 1, 32, 30, 30, 64, 3, 1, 1, 1, 4},
                                         ConvCase{"dilated", 1, 8, 40, 40, 16, 3, 1, 2, 2, 1},
                                         ConvCase{"batch", 9, 8, 9, 9, 16, 3, 1, 1, 1, 1},
                                         ConvCase{"one_pixel", 1, 16, 1, 1, 16, 1, 1, 0, 1, 1}),
                         [](const auto& info) { return info.param.name; });

TEST(CpuCompilerTest, OneDimensionalConvolutionMatchesPlainLoops) {
  const int64_t channels = 8, length = 4000, out_channels = 12, kernel = 5;
  const Tensor w = RandomTensor({out_channels, channels, kernel}, 1);
  GraphBuilder g;
  const ValueId x = g.Input({1, channels, length});
  g.Output(g.Op("", "Conv", {x, g.Constant(w)}, {1, out_channels, length},
                {{"pads", std::vector<int64_t>{2, 2}}}));
  const std::vector<Tensor> y = g.Run();
  ASSERT_EQ(y.size(), 1u);
  std::vector<double> expected;
  for (int64_t o = 0; o < out_channels; ++o) {
    for (int64_t at = 0; at < length; ++at) {
      double sum = 0;
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t k = 0; k < kernel; ++k) {
          const int64_t i = at - 2 + k;
          if (i < 0 || i >= length) continue;
          sum += double{g.inputs()[0].data<float>()[c * length + i]} *
                 w.data<float>()[(o * channels + c) * kernel + k];
        }
      }
      expected.push_back(sum);
    }
  }
  ExpectNear(y[0], expected, 1e-5);
}

TEST(CpuCompilerTest, PackedWeightsGiveUpThePlainOnesAndRestoreThemExactly) {
  const Tensor w = RandomTensor({64, 64, 3, 3}, 77);
  ConstantPtr constant = ConstantStore::Get().Intern(w.Clone().value());
  GraphBuilder g;
  const ValueId x = g.Input({1, 64, 14, 14});
  g.Output(g.Op("", "Conv", {x, g.Constant(w.Clone().value())}, {1, 64, 14, 14},
                {{"pads", std::vector<int64_t>{1, 1, 1, 1}}}));
  ASSERT_EQ(g.Run().size(), 1u);
  EXPECT_FALSE(constant->PlainIfResident().defined());
  auto plain = constant->Plain();
  ASSERT_TRUE(plain.ok()) << plain.status().ToString();
  EXPECT_TRUE(TensorsEqual(*plain, w));
}

TEST(CpuCompilerTest, PoolsMatchPlainLoops) {
  GraphBuilder g;
  const int64_t c = 20, h = 15, w = 13;
  const ValueId x = g.Input({2, c, h, w});
  const std::vector<int64_t> k = {3, 3}, s = {2, 2}, p = {1, 1, 1, 1};
  const Shape out = {2, c, 8, 7};
  g.Output(g.Op("", "MaxPool", {x}, out, {{"kernel_shape", k}, {"strides", s}, {"pads", p}}));
  g.Output(g.Op("", "AveragePool", {x}, out, {{"kernel_shape", k}, {"strides", s}, {"pads", p}}));
  g.Output(
      g.Op("", "AveragePool", {x}, out,
           {{"kernel_shape", k}, {"strides", s}, {"pads", p}, {"count_include_pad", int64_t{1}}}));
  g.Output(g.Op("", "GlobalAveragePool", {x}, {2, c, 1, 1}));
  const std::vector<Tensor> y = g.Run();
  ASSERT_EQ(y.size(), 4u);
  std::vector<double> largest, mean, padded_mean, global;
  for (int64_t nc = 0; nc < 2 * c; ++nc) {
    const float* plane = g.inputs()[0].data<float>().data() + nc * h * w;
    double all = 0;
    for (int64_t i = 0; i < h * w; ++i) all += plane[i];
    global.push_back(all / (h * w));
    for (int64_t oy = 0; oy < 8; ++oy) {
      for (int64_t ox = 0; ox < 7; ++ox) {
        double best = -1e30, sum = 0;
        int count = 0;
        for (int64_t iy = oy * 2 - 1; iy < oy * 2 + 2; ++iy) {
          for (int64_t ix = ox * 2 - 1; ix < ox * 2 + 2; ++ix) {
            if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue;
            best = std::max<double>(best, plane[iy * w + ix]);
            sum += plane[iy * w + ix];
            ++count;
          }
        }
        largest.push_back(best);
        mean.push_back(sum / count);
        padded_mean.push_back(sum / 9);
      }
    }
  }
  ExpectNear(y[0], largest, 1e-6);
  ExpectNear(y[1], mean, 1e-6);
  ExpectNear(y[2], padded_mean, 1e-6);
  ExpectNear(y[3], global, 1e-6);
}

std::vector<double> PlainMatMul(const float* a, const float* b, int64_t m, int64_t k, int64_t n,
                                bool trans_b) {
  std::vector<double> c;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t d = 0; d < k; ++d) {
        sum += double{a[i * k + d]} * (trans_b ? b[j * k + d] : b[d * n + j]);
      }
      c.push_back(sum);
    }
  }
  return c;
}

TEST(CpuCompilerTest, GemmWithTransposedWeightsMatchesPlainLoops) {
  for (int64_t rows : {1, 16, 150}) {
    const int64_t depth = 200, columns = 330;
    const Tensor w = RandomTensor({columns, depth}, 5), b = RandomTensor({columns}, 6);
    GraphBuilder g;
    const ValueId x = g.Input({rows, depth});
    g.Output(g.Op("", "Gemm", {x, g.Constant(w), g.Constant(b)}, {rows, columns},
                  {{"transB", int64_t{1}}}));
    const std::vector<Tensor> y = g.Run();
    ASSERT_EQ(y.size(), 1u);
    auto expected = PlainMatMul(g.inputs()[0].data<float>().data(), w.data<float>().data(), rows,
                                depth, columns, true);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += b.data<float>()[i % columns];
    ExpectNear(y[0], expected, 1e-5);
  }
}

TEST(CpuCompilerTest, BatchedMatMulOfTwoActivationsBroadcasts) {
  const int64_t heads = 3, m = 40, k = 24, n = 70;
  GraphBuilder g;
  const ValueId a = g.Input({2, heads, m, k});
  const ValueId b = g.Input({heads, k, n});
  g.Output(g.Op("plexus", "MatMul", {a, b}, {2, heads, m, n}, {{"alpha", 0.5f}}));
  const std::vector<Tensor> y = g.Run();
  ASSERT_EQ(y.size(), 1u);
  std::vector<double> expected;
  for (int64_t i = 0; i < 2 * heads; ++i) {
    for (double v :
         PlainMatMul(g.inputs()[0].data<float>().data() + i * m * k,
                     g.inputs()[1].data<float>().data() + i % heads * k * n, m, k, n, false)) {
      expected.push_back(0.5 * v);
    }
  }
  ExpectNear(y[0], expected, 1e-5);
}

TEST(CpuCompilerTest, ResidualNetworkReusesMemoryAndEndsInItsOutput) {
  GraphBuilder g;
  const ValueId x = g.Input({1, 3, 32, 32});
  std::map<std::string, Attribute> same = {{"pads", std::vector<int64_t>{1, 1, 1, 1}},
                                           {"activation", std::string("Relu")}};
  const Shape shape = {1, 32, 32, 32};
  ValueId v = g.Op("plexus", "Conv", {x, g.Constant(RandomTensor({32, 3, 3, 3}, 1))}, shape, same);
  for (uint32_t i = 0; i < 4; ++i) {
    const ValueId inner =
        g.Op("plexus", "Conv", {v, g.Constant(RandomTensor({32, 32, 3, 3}, 10 + i))}, shape, same);
    v = g.Op("plexus", "Conv",
             {inner, g.Constant(RandomTensor({32, 32, 3, 3}, 20 + i)), ValueId(), v}, shape, same);
  }
  v = g.Op("", "GlobalAveragePool", {v}, {1, 32, 1, 1});
  v = g.Op("", "Flatten", {v}, {1, 32});
  g.Output(v);
  const std::vector<Tensor> y = g.Run();
  ASSERT_EQ(y.size(), 1u);
  EXPECT_EQ(y[0].shape(), (Shape{1, 32}));
  // Two activations of 128 KiB at a time, the small input copy, and nothing for the output.
  EXPECT_LE(g.program().arena_bytes, size_t{2} * 32 * 32 * 32 * 4 + 3 * 32 * 32 * 4 + 256);
}

TEST(CpuCompilerTest, BFloat16ConvolutionsStayWithinItsPrecision) {
  GraphBuilder g;
  const ValueId x = g.Input({1, 16, 20, 20});
  std::map<std::string, Attribute> same = {{"pads", std::vector<int64_t>{1, 1, 1, 1}}};
  const Shape shape = {1, 16, 20, 20};
  ValueId v = x;
  for (uint32_t i = 0; i < 2; ++i) {
    v = g.Op("plexus", "Conv", {v, g.Constant(RandomTensor({16, 16, 3, 3}, i)), ValueId(), x},
             shape, same);
  }
  g.Output(v);
  const std::vector<Tensor> exact = g.Run();
  const std::vector<Tensor> rounded = g.Run(2, std::chrono::microseconds(1), Precision::kBFloat16);
  ASSERT_EQ(exact.size(), 1u);
  ASSERT_EQ(rounded.size(), 1u);
  double largest = 0, worst = 0;
  for (int64_t i = 0; i < exact[0].num_elements(); ++i) {
    ASSERT_TRUE(std::isfinite(rounded[0].data<float>()[i])) << i;
    largest = std::max<double>(largest, std::abs(exact[0].data<float>()[i]));
    worst =
        std::max<double>(worst, std::abs(exact[0].data<float>()[i] - rounded[0].data<float>()[i]));
  }
  EXPECT_LE(worst, 0.02 * largest);
}

TEST(CpuCompilerTest, AnUnknownOperatorIsNamed) {
  Graph graph;
  CompileOptions options;
  Value in;
  in.name = "x";
  in.dtype = DType::kFloat32;
  in.shape = SymbolicShape::FromConcrete({1, 4});
  const ValueId input = graph.AddInput(in);
  in.name = "y";
  const ValueId output = graph.AddValue(in);
  Node node;
  node.op = "NoSuchOperator";
  node.name = "mystery";
  node.inputs = {input};
  node.outputs = {output};
  graph.AddNode(node);
  graph.outputs().push_back(output);
  auto program = MakeCpuCompiler({})->Compile(graph, options);
  ASSERT_FALSE(program.ok());
  EXPECT_EQ(program.status().code(), StatusCode::kUnimplemented);
  EXPECT_NE(program.status().message().find("mystery"), std::string::npos);
  EXPECT_NE(program.status().message().find("NoSuchOperator"), std::string::npos);
}

}  // namespace
}  // namespace plexus::cpu
