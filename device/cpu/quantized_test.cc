#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "device/cpu/cpu_compiler.h"
#include "device/cpu/program_runner.h"

namespace plexus::cpu {
namespace {

template <typename T>
Tensor RandomIntegers(DType dtype, Shape shape, int low, int high, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> uniform(low, high);
  Tensor t = Tensor::Allocate(dtype, std::move(shape)).value();
  for (T& v : t.mutable_data<T>()) v = static_cast<T>(uniform(random));
  return t;
}

struct Builder {
  Graph graph;
  std::vector<Tensor> inputs;
  int next = 0;

  Value MakeValue(DType dtype, const Shape& shape) {
    Value value;
    value.name = "v" + std::to_string(next++);
    value.dtype = dtype;
    value.shape = SymbolicShape::FromConcrete(shape);
    return value;
  }
  ValueId Input(Tensor t) {
    inputs.push_back(t);
    return graph.AddInput(MakeValue(t.dtype(), t.shape()));
  }
  ValueId Constant(Tensor t) {
    return graph.AddConstant("c" + std::to_string(next++), ConstantStore::Get().Intern(t));
  }
  ValueId Op(const std::string& domain, const std::string& op, std::vector<ValueId> in, DType dtype,
             Shape shape, std::map<std::string, Attribute> attributes = {}) {
    const ValueId out = graph.AddValue(MakeValue(dtype, shape));
    Node node;
    node.op = op;
    node.domain = domain;
    node.version = domain.empty() ? 17 : 1;
    node.name = op + std::to_string(next++);
    node.inputs = std::move(in);
    node.outputs = {out};
    node.attributes = std::move(attributes);
    graph.AddNode(std::move(node));
    return out;
  }
  std::vector<Tensor> Run() {
    CpuCompilerOptions options;
    options.workers = 2;
    options.target_block_time = std::chrono::microseconds(2);
    auto program = MakeCpuCompiler(options)->Compile(graph, {});
    EXPECT_TRUE(program.ok()) << program.status().ToString();
    if (!program.ok()) return {};
    RunOptions run;
    run.shuffle_seed = 5;
    run.threads = 2;
    auto y = RunProgram(**program, inputs, run);
    EXPECT_TRUE(y.ok()) << y.status().ToString();
    return y.ok() ? *y : std::vector<Tensor>();
  }
};

double QuantizeTo(double real, double scale, int zero, int low, int high) {
  return std::min<double>(high, std::max<double>(low, std::nearbyint(real / scale) + zero));
}

// oneDNN and plain doubles may round a half to different sides.
template <typename T>
void ExpectWithinOne(const Tensor& actual, const std::vector<double>& expected) {
  ASSERT_EQ(static_cast<size_t>(actual.num_elements()), expected.size());
  int64_t off = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(actual.data<T>()[i] - expected[i]);
    ASSERT_LE(difference, 1) << "element " << i;
    off += difference > 0;
  }
  EXPECT_LE(off * 100, static_cast<int64_t>(expected.size())) << "more than rare halves differ";
}

TEST(QuantizedTest, ConvolutionWithResidualAndReluMatchesPlainIntegers) {
  const int64_t channels = 16, size = 30, outputs = 24;
  const int xz = 7, yz = 12, rz = 100;
  const float xs = 0.02f, ys = 0.05f, rs = 0.03f;
  const Tensor x = RandomIntegers<uint8_t>(DType::kUint8, {1, channels, size, size}, 0, 255, 1);
  const Tensor r = RandomIntegers<uint8_t>(DType::kUint8, {1, outputs, size, size}, 0, 255, 2);
  const Tensor w = RandomIntegers<int8_t>(DType::kInt8, {outputs, channels, 3, 3}, -127, 127, 3);
  const Tensor bias = RandomIntegers<int32_t>(DType::kInt32, {outputs}, -9000, 9000, 4);
  std::vector<float> ws;
  for (int64_t o = 0; o < outputs; ++o) ws.push_back(0.001f + 0.0001f * static_cast<float>(o));
  auto zero = [](int z) {
    return Tensor::Of<uint8_t>(DType::kUint8, {}, {static_cast<uint8_t>(z)});
  };
  for (bool with_residual : {false, true}) {
    Builder g;
    const ValueId xv = g.Input(x);
    std::vector<ValueId> in = {xv,
                               g.Constant(Tensor::Scalar(xs)),
                               g.Constant(zero(xz)),
                               g.Constant(w),
                               g.Constant(Tensor::Of<float>(DType::kFloat32, {outputs}, ws)),
                               ValueId(),
                               g.Constant(Tensor::Scalar(ys)),
                               g.Constant(zero(yz)),
                               g.Constant(bias)};
    if (with_residual) {
      in.push_back(g.Input(r));
      in.push_back(g.Constant(Tensor::Scalar(rs)));
      in.push_back(g.Constant(zero(rz)));
    }
    g.graph.outputs().push_back(
        g.Op("plexus", "QConv", in, DType::kUint8, {1, outputs, size, size},
             {{"pads", std::vector<int64_t>{1, 1, 1, 1}}, {"activation", std::string("Relu")}}));
    const auto y = g.Run();
    ASSERT_EQ(y.size(), 1u);
    std::vector<double> expected;
    for (int64_t o = 0; o < outputs; ++o) {
      for (int64_t oy = 0; oy < size; ++oy) {
        for (int64_t ox = 0; ox < size; ++ox) {
          int64_t acc = bias.data<int32_t>()[o];
          for (int64_t c = 0; c < channels; ++c) {
            for (int64_t k = 0; k < 9; ++k) {
              const int64_t iy = oy + k / 3 - 1, ix = ox + k % 3 - 1;
              if (iy < 0 || ix < 0 || iy >= size || ix >= size) continue;
              acc += (x.data<uint8_t>()[(c * size + iy) * size + ix] - xz) *
                     w.data<int8_t>()[(o * channels + c) * 9 + k];
            }
          }
          double real = double{xs} * ws[o] * static_cast<double>(acc);
          if (with_residual) real += rs * (r.data<uint8_t>()[expected.size()] - rz);
          expected.push_back(QuantizeTo(std::max(0.0, real), ys, yz, 0, 255));
        }
      }
    }
    ExpectWithinOne<uint8_t>(y[0], expected);
  }
}

TEST(QuantizedTest, MatMulToRealNumbersMatchesPlainIntegers) {
  const int64_t rows = 33, depth = 50, columns = 70;
  const Tensor a = RandomIntegers<int8_t>(DType::kInt8, {3, rows / 3, depth}, -128, 127, 1);
  const Tensor b = RandomIntegers<int8_t>(DType::kInt8, {depth, columns}, -127, 127, 2);
  Builder g;
  const ValueId av = g.Input(a);
  g.graph.outputs().push_back(g.Op(
      "plexus", "QMatMul",
      {av, g.Constant(Tensor::Scalar(0.1f)), g.Constant(Tensor::Of<int8_t>(DType::kInt8, {}, {-5})),
       g.Constant(b), g.Constant(Tensor::Scalar(0.2f))},
      DType::kFloat32, {3, rows / 3, columns}));
  const auto y = g.Run();
  ASSERT_EQ(y.size(), 1u);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < columns; ++n) {
      int64_t acc = 0;
      for (int64_t k = 0; k < depth; ++k) {
        acc += (a.data<int8_t>()[m * depth + k] + 5) * b.data<int8_t>()[k * columns + n];
      }
      ASSERT_NEAR(y[0].data<float>()[m * columns + n], 0.02 * static_cast<double>(acc),
                  1e-5 * std::max<double>(1, std::abs(0.02 * static_cast<double>(acc))));
    }
  }
}

TEST(QuantizedTest, AddQuantizeDequantizeAndMaxPoolMatchTheirDefinitions) {
  const Tensor a = RandomIntegers<uint8_t>(DType::kUint8, {1, 5, 12, 12}, 0, 255, 1);
  const Tensor b = RandomIntegers<int8_t>(DType::kInt8, {1, 5, 12, 12}, -128, 127, 2);
  Builder g;
  const ValueId av = g.Input(a), bv = g.Input(b);
  const ValueId s1 = g.Constant(Tensor::Scalar(0.5f)), s2 = g.Constant(Tensor::Scalar(0.25f));
  const ValueId zu = g.Constant(Tensor::Of<uint8_t>(DType::kUint8, {}, {10}));
  const ValueId zs = g.Constant(Tensor::Of<int8_t>(DType::kInt8, {}, {-3}));
  const Shape shape = {1, 5, 12, 12};
  const ValueId sum =
      g.Op("plexus", "QAdd", {av, s1, zu, bv, s2, zs, s1, zu}, DType::kUint8, shape);
  const ValueId real = g.Op("", "DequantizeLinear", {bv, s2, zs}, DType::kFloat32, shape);
  const ValueId again = g.Op("", "QuantizeLinear", {real, s1, zs}, DType::kInt8, shape);
  const ValueId pool = g.Op("", "MaxPool", {av}, DType::kUint8, {1, 5, 6, 6},
                            {{"kernel_shape", std::vector<int64_t>{3, 3}},
                             {"strides", std::vector<int64_t>{2, 2}},
                             {"pads", std::vector<int64_t>{0, 0, 1, 1}}});
  g.graph.outputs() = {sum, real, again, pool};
  const auto y = g.Run();
  ASSERT_EQ(y.size(), 4u);
  std::vector<double> sums, quantized, pooled;
  for (size_t i = 0; i < 720; ++i) {
    const double ra = 0.5 * (a.data<uint8_t>()[i] - 10), rb = 0.25 * (b.data<int8_t>()[i] + 3);
    sums.push_back(QuantizeTo(ra + rb, 0.5, 10, 0, 255));
    EXPECT_EQ(y[1].data<float>()[i], static_cast<float>(rb));
    quantized.push_back(QuantizeTo(rb, 0.5, -3, -128, 127));
  }
  for (int64_t c = 0; c < 5; ++c) {
    for (int64_t oy = 0; oy < 6; ++oy) {
      for (int64_t ox = 0; ox < 6; ++ox) {
        int best = 0;
        for (int64_t k = 0; k < 9; ++k) {
          const int64_t iy = oy * 2 + k / 3, ix = ox * 2 + k % 3;
          if (iy < 12 && ix < 12) {
            best = std::max<int>(best, a.data<uint8_t>()[(c * 12 + iy) * 12 + ix]);
          }
        }
        pooled.push_back(best);
      }
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    EXPECT_EQ(y[0].data<uint8_t>()[i], sums[i]);
    EXPECT_EQ(y[2].data<int8_t>()[i], quantized[i]);
  }
  for (size_t i = 0; i < pooled.size(); ++i) EXPECT_EQ(y[3].data<uint8_t>()[i], pooled[i]);
}

}  // namespace
}  // namespace plexus::cpu
