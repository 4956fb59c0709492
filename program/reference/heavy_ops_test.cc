// Convolutions, pools, recurrences, resampling, products: what the ONNX standard's own cases leave
// out. Expected values come from ONNX Runtime 1.32 and numpy.
#include <gtest/gtest.h>

#include <cmath>

#include "program/reference/kernels_util.h"

namespace plexus {
namespace {

// Deterministic small values: ((i·a + b) mod m - m/2) / 4.
std::vector<float> RampValues(int64_t n, int64_t a, int64_t b, int64_t m) {
  std::vector<float> values;
  for (int64_t i = 0; i < n; ++i) {
    values.push_back(static_cast<float>((i * a + b) % m - m / 2) / 4);
  }
  return values;
}
Tensor Ramp(Shape shape, int64_t a, int64_t b, int64_t m) {
  const int64_t n = NumElementsUnchecked(shape);
  return Tensor::Of(DType::kFloat32, std::move(shape), RampValues(n, a, b, m));
}
Tensor X(Shape shape) { return Ramp(std::move(shape), 7, 3, 11); }
Tensor W(Shape shape) { return Ramp(std::move(shape), 5, 1, 13); }
Tensor Floats(Shape shape, const std::vector<float>& values) {
  return Tensor::Of(DType::kFloat32, std::move(shape), values);
}
Tensor Empty(Shape shape) { return Tensor::Allocate(DType::kFloat32, std::move(shape)).value(); }

using Ints = std::vector<int64_t>;

// One node on its own: Op("Conv").Set("group", 2).Run({x, w}).
class Op {
 public:
  explicit Op(std::string op, int version = 17, size_t outputs = 1) {
    node_.op = std::move(op);
    node_.version = version;
    node_.name = "under_test";
    for (size_t i = 0; i < outputs; ++i) node_.outputs.push_back(ValueId(100 + i));
  }
  Op& Set(const std::string& name, Attribute value) {
    node_.attributes[name] = std::move(value);
    return *this;
  }
  Op& Set(const std::string& name, int value) { return Set(name, Attribute(int64_t{value})); }
  Op& Set(const std::string& name, float value) { return Set(name, Attribute(value)); }
  Op& Set(const std::string& name, const char* v) { return Set(name, Attribute(std::string(v))); }
  Result<std::vector<Tensor>> Run(const std::vector<Tensor>& inputs) {
    node_.inputs.clear();
    for (size_t i = 0; i < inputs.size(); ++i) {
      node_.inputs.push_back(inputs[i].defined() ? ValueId(static_cast<uint32_t>(i)) : ValueId());
    }
    return ReferenceEvaluator::Get().Evaluate(Graph(), node_, inputs, {});
  }
  StatusCode CodeOf(const std::vector<Tensor>& inputs) { return Run(inputs).status().code(); }

 private:
  Node node_;
};

void ExpectNear(const Tensor& actual, const Shape& shape, const std::vector<double>& expected,
                double tolerance = 1e-5) {
  EXPECT_EQ(actual.shape(), shape);
  const std::vector<double> values = ToDoubleVector(actual).value();
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(values[i], expected[i], tolerance) << "element " << i;
  }
}

constexpr StatusCode kBad = StatusCode::kInvalidArgument;

// --- Convolution ---------------------------------------------------------------------------------

TEST(ConvTest, GroupsDilationsStridesAndPadsAgreeWithOnnxRuntime) {
  Op conv("Conv");
  conv.Set("group", 2).Set("dilations", Ints{2, 1}).Set("strides", Ints{1, 2});
  conv.Set("pads", Ints{1, 0, 2, 1});
  const Tensor y = conv.Run({X({1, 4, 6, 5}), W({4, 2, 3, 2}), Ramp({4}, 3, 0, 7)}).value()[0];
  ExpectNear(
      y, {1, 4, 5, 3},
      {1.8125,  -3.875,  -1.4375, -4.375,  -0.8125, -1.875,  -4.75,   -0.5,    2.625,   -2.5625,
       -3.125,  0.125,   -2.9375, 2,       -0.5,    -0.3125, 3.125,   -0.8125, 1.1875,  -1.875,
       -1.6875, 4.875,   -3,      0.25,    -1.1875, 4.9375,  0.6875,  -1.6875, -1.0625, 0.8125,
       -1.0625, -1.625,  1.625,   -0.9375, 3.4375,  1.125,   3.8125,  -1.4375, 3.25,    2.8125,
       -0.875,  -0.3125, -0.5625, 2.625,   -0.375,  -1.4375, 4.6875,  0.4375,  -2,      -0.8125,
       -0.5625, -0.75,   1.8125,  -2.8125, -0.9375, 0,       -1.5625, 0.375,   -2.125,  2.5625});
}

TEST(ConvTest, ThreeDimensionsAgreeWithOnnxRuntime) {
  const Tensor y = Op("Conv").Run({X({1, 2, 3, 3, 3}), W({1, 2, 2, 2, 2})}).value()[0];
  ExpectNear(y, {1, 1, 2, 2, 2}, {-3.375, -0.625, -3.375, 3.5, 2.8125, 3.5, -0.625, -0.625});
}

TEST(ConvTest, DepthwiseOneDimensionSameLowerAgreesWithOnnxRuntime) {
  Op conv("Conv");
  conv.Set("group", 2).Set("auto_pad", "SAME_LOWER").Set("strides", Ints{2});
  const Tensor y = conv.Run({X({2, 2, 7}), W({2, 1, 3})}).value()[0];
  ExpectNear(y, {2, 2, 4},
             {1.5625, -2.5, 0.9375, 0, 0.75, -1.1875, -2.5, -0.8125, 1.25, -2.5, 0.9375, 0.3125, 1,
              0.625, -2.0625, -0.75});
}

TEST(ConvTest, AnEmptyBatchGivesAnEmptyResult) {
  EXPECT_EQ(Op("Conv").Run({Empty({0, 2, 5, 5}), W({3, 2, 3, 3})}).value()[0].shape(),
            (Shape{0, 3, 3, 3}));
}

TEST(ConvTest, ContradictionsAreRejected) {
  const Tensor x = X({1, 4, 5, 5});
  EXPECT_EQ(Op("Conv").CodeOf({x, W({4, 3, 3, 3})}), kBad);  // channels
  EXPECT_EQ(Op("Conv").CodeOf({x, W({4, 4, 3})}), kBad);     // ranks
  EXPECT_EQ(Op("Conv").CodeOf({x, W({4, 4, 6, 6})}), kBad);  // larger than the input
  EXPECT_EQ(Op("Conv").CodeOf({x}), kBad);                   // no weight
  EXPECT_EQ(Op("Conv").CodeOf({x, W({4, 4, 3, 3}), W({3})}), kBad);
  EXPECT_EQ(Op("Conv").Set("group", 3).CodeOf({x, W({3, 1, 3, 3})}), kBad);
  EXPECT_EQ(Op("Conv").Set("group", 0).CodeOf({x, W({4, 4, 3, 3})}), kBad);
  EXPECT_EQ(Op("Conv").Set("strides", Ints{0, 1}).CodeOf({x, W({4, 4, 3, 3})}), kBad);
  EXPECT_EQ(Op("Conv").Set("pads", Ints{1, 1}).CodeOf({x, W({4, 4, 3, 3})}), kBad);
  EXPECT_EQ(Op("Conv").Set("pads", Ints{-1, 0, 0, 0}).CodeOf({x, W({4, 4, 3, 3})}), kBad);
  EXPECT_EQ(Op("Conv").Set("dilations", Ints{1, INT64_MAX}).CodeOf({x, W({4, 4, 3, 3})}), kBad);
  EXPECT_EQ(Op("Conv").Set("kernel_shape", Ints{2, 2}).CodeOf({x, W({4, 4, 3, 3})}), kBad);
  EXPECT_EQ(Op("Conv").Set("auto_pad", "MIDDLE").CodeOf({x, W({4, 4, 3, 3})}), kBad);
}

TEST(ConvTest, AnAbsurdlyPaddedResultIsRefusedBeforeAllocation) {
  const Ints pads(4, int64_t{1} << 31);
  const Status status =
      Op("Conv").Set("pads", pads).Run({X({1, 1, 5, 5}), W({1, 1, 3, 3})}).status();
  EXPECT_FALSE(status.ok());
}

TEST(ConvTransposeTest, GroupsAndOutputPaddingAgreeWithOnnxRuntime) {
  Op op("ConvTranspose");
  op.Set("group", 2).Set("strides", Ints{2, 3}).Set("output_padding", Ints{1, 0});
  op.Set("pads", Ints{1, 0, 0, 1});
  const Tensor y = op.Run({X({1, 4, 2, 3}), W({4, 1, 3, 2})}).value()[0];
  ExpectNear(
      y, {1, 2, 5, 7},
      {0.375,  0.125, 0, 0.8125, -0.75,  0, 0.5625, -0.5,  0,      0, 0.375, -1.75,  0, -0.125,
       0.3125, 0.25,  0, 0.75,   -0.625, 0, 0.5,    -2.25, 1.75,   0, 1.25,  -1.75,  0, -0.75,
       0,      0,     0, 0,      0,      0, 0,      0.75,  0.8125, 0, -0.25, 0.5625, 0, -1.25,
       -0.75,  0.375, 0, 0.5,    -0.125, 0, -2.375, 0.5,   0.75,   0, -0.5,  0.5,    0, 1.25,
       -0.625, 1.25,  0, -0.125, -0.75,  0, 1.0625, 0,     0,      0, 0,     0,      0, 0});
}

TEST(ConvTransposeTest, ContradictionsAreRejected) {
  const Tensor x = X({1, 4, 2, 3});
  EXPECT_EQ(Op("ConvTranspose").CodeOf({x, W({3, 1, 3, 2})}), kBad);
  EXPECT_EQ(Op("ConvTranspose").Set("group", 3).CodeOf({x, W({4, 1, 3, 2})}), kBad);
  EXPECT_EQ(Op("ConvTranspose").Set("pads", Ints{9, 9, 9, 9}).CodeOf({x, W({4, 1, 3, 2})}), kBad);
  EXPECT_EQ(Op("ConvTranspose").Set("output_shape", Ints{1}).CodeOf({x, W({4, 1, 3, 2})}), kBad);
}

// --- Pools ---------------------------------------------------------------------------------------

TEST(PoolTest, MaxPoolWithCeilDilationsAndIndicesAgreesWithOnnxRuntime) {
  Op pool("MaxPool", 12, 2);
  pool.Set("kernel_shape", Ints{2, 3}).Set("strides", Ints{2, 2}).Set("dilations", Ints{2, 1});
  pool.Set("ceil_mode", 1).Set("pads", Ints{0, 1, 1, 1});
  const std::vector<Tensor> y = pool.Run({Ramp({1, 1, 6, 7}, 7, 3, 17)}).value();
  ExpectNear(y[0], {1, 1, 3, 4}, {2, 1.25, 1.5, 0.75, 2, 2, 2, 1.25, 1, 2, 2, 1.25});
  ExpectNear(y[1], {1, 1, 3, 4}, {14, 16, 4, 6, 14, 31, 31, 33, 28, 31, 31, 33});
}

TEST(PoolTest, AveragePoolCountsItsPaddingOnRequest) {
  Op pool("AveragePool");
  pool.Set("kernel_shape", Ints{3, 3}).Set("strides", Ints{2, 2}).Set("pads", Ints{1, 1, 1, 1});
  pool.Set("count_include_pad", 1);
  ExpectNear(pool.Run({Ramp({1, 1, 6, 7}, 7, 3, 17)}).value()[0], {1, 1, 3, 4},
             {-0.2777778, -0.08333334, -0.1111111, -0.1666667, 0.02777778, -0.1666667, -0.4444444,
              -0.2777778, -0.1666667, -0.2222222, 0.4444444, 0});
}

TEST(PoolTest, BadWindowsAreRejected) {
  EXPECT_EQ(Op("MaxPool").CodeOf({X({1, 1, 4, 4})}), kBad);  // no kernel_shape
  EXPECT_EQ(Op("MaxPool").Set("kernel_shape", Ints{5, 5}).CodeOf({X({1, 1, 4, 4})}), kBad);
  EXPECT_EQ(Op("MaxPool").Set("kernel_shape", Ints{2, 0}).CodeOf({X({1, 1, 4, 4})}), kBad);
  EXPECT_EQ(Op("AveragePool").Set("kernel_shape", Ints{2}).CodeOf({X({1, 1, 4, 4})}), kBad);
  EXPECT_EQ(Op("GlobalMaxPool").CodeOf({Empty({1, 2, 0, 3})}), kBad);
}

TEST(PoolTest, MaxUnpoolRejectsIndicesOutsideTheOutput) {
  const Tensor index = Tensor::Of<int64_t>(DType::kInt64, {1, 1, 1, 2}, {0, 8});
  Op op("MaxUnpool");
  op.Set("kernel_shape", Ints{2, 2}).Set("strides", Ints{2, 2});
  EXPECT_EQ(op.CodeOf({X({1, 1, 1, 2}), index}), kBad);
}

// --- Recurrences ---------------------------------------------------------------------------------

Tensor Lengths() { return Tensor::Of<int32_t>(DType::kInt32, {2}, {3, 2}); }

TEST(RecurrenceTest, BidirectionalLstmWithPeepholesClipAndLengthsAgreesWithOnnxRuntime) {
  Op lstm("LSTM", 14, 3);
  lstm.Set("hidden_size", 2).Set("direction", "bidirectional").Set("clip", 0.9f);
  const std::vector<Tensor> y =
      lstm.Run({X({3, 2, 2}), W({2, 8, 2}), Ramp({2, 8, 2}, 3, 2, 9), Ramp({2, 16}, 4, 1, 7),
                Lengths(), Ramp({2, 2, 2}, 5, 2, 7), Ramp({2, 2, 2}, 4, 3, 9),
                Ramp({2, 6}, 2, 1, 5)})
          .value();
  ExpectNear(y[0], {3, 2, 2, 2},
             {-0.1543003, 0.2844904,  0.05185303,   -0.004865892, -0.06700606, -0.1695656,
              -0.1071409, 0.09009315, -0.005129819, 0.06314585,   -0.1264044,  0.1428618,
              0.2103807,  0.1920048,  -0.2422775,   -0.2268073,   0.2792085,   -0.1707984,
              0,          0,          0.05245801,   0.155981,     0,           0});
  ExpectNear(y[1], {2, 2, 2},
             {0.2792085, -0.1707984, -0.1264044, 0.1428618, -0.06700606, -0.1695656, -0.1071409,
              0.09009315});
  ExpectNear(
      y[2], {2, 2, 2},
      {0.4150194, -0.460542, -0.4632873, 0.2037172, -0.236106, -0.2431892, -0.2048788, 0.3224123});
}

TEST(RecurrenceTest, ReverseGruWithLengthsAgreesWithOnnxRuntime) {
  Op gru("GRU", 14, 2);
  gru.Set("hidden_size", 2).Set("direction", "reverse");
  const std::vector<Tensor> y = gru.Run({X({3, 2, 2}), W({1, 6, 2}), Ramp({1, 6, 2}, 3, 2, 9),
                                         Ramp({1, 12}, 4, 1, 7), Lengths()})
                                    .value();
  ExpectNear(y[0], {3, 1, 2, 2},
             {0.3970815, -0.8040457, 0.4721551, -0.744976, 0.03010801, -0.03309121, 0.258005,
              -0.8506886, 0.2888715, -0.1611149, 0, 0});
  ExpectNear(y[1], {1, 2, 2}, {0.3970815, -0.8040457, 0.4721551, -0.744976});
}

TEST(RecurrenceTest, RnnReadsItsActivationAndAlpha) {
  Op rnn("RNN", 14);
  rnn.Set("hidden_size", 2).Set("activations", std::vector<std::string>{"LeakyRelu"});
  rnn.Set("activation_alpha", std::vector<float>{0.3f});
  ExpectNear(rnn.Run({X({3, 2, 2}), W({1, 2, 2}), Ramp({1, 2, 2}, 3, 2, 9)}).value()[0],
             {3, 1, 2, 2},
             {0.625, -0.46875, -0.09375, 0.875, -0.5039062, 2.109375, 1.515625, -0.703125, 1.091797,
              -0.2800781, -0.4675781, 2.867188});
}

TEST(RecurrenceTest, ContradictionsAreRejected) {
  const Tensor x = X({3, 2, 2}), w = W({1, 8, 2}), r = W({1, 8, 2});
  EXPECT_EQ(Op("LSTM").CodeOf({x, w, W({1, 8, 3})}), kBad);
  EXPECT_EQ(Op("LSTM").CodeOf({x, W({1, 8, 3}), r}), kBad);
  EXPECT_EQ(Op("LSTM").Set("hidden_size", 3).CodeOf({x, w, r}), kBad);
  EXPECT_EQ(Op("LSTM").Set("direction", "sideways").CodeOf({x, w, r}), kBad);
  EXPECT_EQ(Op("LSTM")
                .Set("activations", std::vector<std::string>{"Sigmoid", "Tanh", "Swoosh"})
                .CodeOf({x, w, r}),
            kBad);
  const Tensor lengths = Tensor::Of<int32_t>(DType::kInt32, {2}, {3, 4});
  EXPECT_EQ(Op("LSTM").CodeOf({x, w, r, Tensor(), lengths}), kBad);
}

// --- Resampling ----------------------------------------------------------------------------------

TEST(ResizeTest, CubicAlignedCornersAgreesWithOnnxRuntime) {
  Op resize("Resize", 13);
  resize.Set("mode", "cubic").Set("coordinate_transformation_mode", "align_corners");
  const Tensor sizes = Tensor::VectorInt64({1, 1, 5, 6});
  ExpectNear(resize.Run({X({1, 1, 3, 4}), Tensor(), Tensor(), sizes}).value()[0], {1, 1, 5, 6},
             {-0.5,      0.6790002,  1.266,      0.5639999,  -0.2460005,  -0.75,
              0.3671875, 0.7325312,  0.541625,   -0.3459997, -0.4059376,  0.1171875,
              1,         0.4959998,  -0.3139998, -1.016,     -0.4289998,  0.75,
              0.515625,  -0.2946564, -0.8121249, -0.5241249, -0.08115597, 0.265625,
              -0.25,     -1.051,     -1.014,     0.2639998,  0.3010002,   -0.5});
}

TEST(ResizeTest, LinearPytorchHalfPixelAgreesWithOnnxRuntime) {
  Op resize("Resize", 13);
  resize.Set("mode", "linear").Set("coordinate_transformation_mode", "pytorch_half_pixel");
  const Tensor scales = Floats({4}, {1, 1, 2, 1.5f});
  ExpectNear(
      resize.Run({X({1, 1, 3, 4}), Tensor(), scales}).value()[0], {1, 1, 6, 6},
      {-0.5,       0.375,     1.083333,   0.4166667,  -0.25,      -0.75,      -0.125,    0.40625,
       0.7708334,  0.1041667, -0.21875,   -0.375,     0.625,      0.46875,    0.1458334, -0.5208333,
       -0.15625,   0.375,     0.6875,     0.1875,     -0.3645833, -0.5729166, -0.09375,  0.4375,
       0.0625,     -0.4375,   -0.7604166, -0.0520834, -0.03125,   -0.1875,    -0.25,     -0.75,
       -0.9583335, 0.2083332, 0,          -0.5});
}

TEST(ResizeTest, BadScalesAndSizesAreRejected) {
  const Tensor x = X({1, 1, 3, 4});
  const Tensor scales = Floats({4}, {1, 1, 2, 2});
  const Tensor sizes = Tensor::VectorInt64({1, 1, 5, 6});
  EXPECT_EQ(Op("Resize", 13).CodeOf({x, Tensor(), scales, sizes}), kBad);  // both
  EXPECT_EQ(Op("Resize", 13).CodeOf({x}), kBad);                           // neither
  EXPECT_EQ(Op("Resize", 13).CodeOf({x, Tensor(), Floats({2}, {2, 2})}), kBad);
  EXPECT_EQ(Op("Resize", 13).CodeOf({x, Tensor(), Floats({4}, {1, 1, -2, 2})}), kBad);
  EXPECT_EQ(Op("Resize", 13).CodeOf({x, Tensor(), Floats({4}, {1, 1, NAN, 2})}), kBad);
  EXPECT_EQ(Op("Resize", 13).Set("mode", "magic").CodeOf({x, Tensor(), scales}), kBad);
  EXPECT_EQ(Op("Resize", 18).Set("axes", Ints{2, 7}).CodeOf({x, Tensor(), Floats({2}, {2, 2})}),
            kBad);
  EXPECT_FALSE(Op("Resize", 13).Run({x, Tensor(), Floats({4}, {1, 1e9f, 1e9f, 1e9f})}).ok());
}

TEST(GridSampleTest, VolumeWithReflectionAgreesWithOnnxRuntime) {
  std::vector<float> grid = RampValues(12, 7, 3, 11);
  for (float& v : grid) v *= 0.8f;
  Op sample("GridSample", 20);
  sample.Set("mode", "linear").Set("padding_mode", "reflection").Set("align_corners", 1);
  ExpectNear(sample.Run({X({1, 2, 3, 3, 3}), Floats({1, 2, 2, 1, 3}, grid)}).value()[0],
             {1, 2, 2, 2, 1}, {0.2499999, 0.65, 0.61, 0.35, -0.13, -0.5, -0.6940001, -0.8});
}

TEST(GridSampleTest, CoordinatesThatAreNotFiniteReadNothing) {
  const Tensor grid = Floats({1, 1, 2, 2}, {NAN, 0, INFINITY, 0});
  for (const char* padding : {"zeros", "border", "reflection"}) {
    EXPECT_TRUE(
        Op("GridSample", 20).Set("padding_mode", padding).Run({X({1, 1, 3, 3}), grid}).ok());
  }
  ExpectNear(Op("GridSample", 20).Run({X({1, 1, 3, 3}), grid}).value()[0], {1, 1, 1, 2}, {0, 0});
}

TEST(DetectionTest, NonMaxSuppressionPerClassAgreesWithOnnxRuntime) {
  const Tensor boxes = Floats({1, 6, 4}, {0, 0,  1, 1,  0, 0.1f,  1, 1.1f,  0, -0.1f, 1, 0.9f,
                                          0, 10, 1, 11, 0, 10.1f, 1, 11.1f, 0, 100,   1, 101});
  const Tensor scores = Floats({1, 2, 6}, {0.9f, 0.75f, 0.6f, 0.95f, 0.5f, 0.3f,  //
                                           0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f});
  const Tensor y =
      Op("NonMaxSuppression", 11)
          .Run({boxes, scores, Tensor::VectorInt64({2}), Floats({1}, {0.5f}), Floats({1}, {0.25f})})
          .value()[0];
  ExpectNear(y, {4, 3}, {0, 0, 3, 0, 0, 0, 0, 1, 5, 0, 1, 4});
}

TEST(DetectionTest, RoiAlignRejectsABatchIndexOutsideTheInput) {
  const Tensor roi = Floats({1, 4}, {0, 0, 2, 2});
  EXPECT_EQ(Op("RoiAlign", 16).CodeOf({X({1, 1, 4, 4}), roi, Tensor::VectorInt64({1})}), kBad);
  const Tensor endless = Floats({1, 4}, {0, 0, INFINITY, 2});
  EXPECT_EQ(Op("RoiAlign", 16).CodeOf({X({1, 1, 4, 4}), endless, Tensor::VectorInt64({0})}), kBad);
}

// --- Products and transforms ---------------------------------------------------------------------

TEST(LinearTest, GemmScalesTransposesAndBroadcastsLikeOnnxRuntime) {
  Op gemm("Gemm");
  gemm.Set("transA", 1).Set("transB", 1).Set("alpha", 0.5f).Set("beta", 2.0f);
  ExpectNear(gemm.Run({X({3, 2}), W({4, 3}), Ramp({4}, 3, 0, 7)}).value()[0], {2, 4},
             {-0.5625, -0.5, 1.1875, -0.625, -2.28125, -0.65625, 0.96875, -0.90625});
}

TEST(LinearTest, IntegerProductsWrapLikeNumpy) {
  const Tensor a = Tensor::Of<int32_t>(DType::kInt32, {1, 2}, {65536, 3});
  const Tensor b = Tensor::Of<int32_t>(DType::kInt32, {2, 1}, {65536, 5});
  ExpectNear(Op("MatMul").Run({a, b}).value()[0], {1, 1}, {15});
}

TEST(LinearTest, LargeProductsAgreeWithPlainSums) {
  // Sizes that are no multiple of any block: 67 · 300 · 45.
  const Tensor a = X({67, 300}), b = W({300, 45});
  const Tensor y = Op("MatMul").Run({a, b}).value()[0];
  std::vector<double> expected;
  for (int64_t i = 0; i < 67; ++i) {
    for (int64_t j = 0; j < 45; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < 300; ++k) {
        sum += double{a.data<float>()[i * 300 + k]} * b.data<float>()[k * 45 + j];
      }
      expected.push_back(sum);
    }
  }
  ExpectNear(y, {67, 45}, expected, 1e-3);
}

TEST(LinearTest, AnEmptyInnerDimensionGivesZeros) {
  ExpectNear(Op("MatMul").Run({Empty({2, 0}), Empty({0, 2})}).value()[0], {2, 2}, {0, 0, 0, 0});
}

TEST(LinearTest, ShapesThatDoNotMultiplyAreRejected) {
  EXPECT_EQ(Op("MatMul").CodeOf({X({2, 3}), W({2, 3})}), kBad);
  EXPECT_EQ(Op("MatMul").CodeOf({X({2, 2, 3}), W({3, 3, 2})}), kBad);
  EXPECT_EQ(Op("MatMul").CodeOf({X({}), W({2})}), kBad);
  EXPECT_EQ(Op("Gemm").CodeOf({X({2, 3}), W({3, 2}), W({3})}), kBad);
  EXPECT_EQ(Op("Det").CodeOf({X({2, 3})}), kBad);
}

TEST(EinsumTest, EquationsAgreeWithNumpy) {
  const Tensor a = X({2, 3, 4});
  auto einsum = [](const char* equation) { return Op("Einsum").Set("equation", equation); };
  ExpectNear(einsum("bij,bjk->kb").Run({a, W({2, 4, 3})}).value()[0], {3, 2},
             {-0.375, -1.5625, -1, 0.8125, 0.8125, 2.375});
  ExpectNear(einsum(" ...ij -> ...j ").Run({a}).value()[0], {2, 4},
             {0.25, 0, -0.25, -0.5, 0, -0.25, -0.5, 2});
  ExpectNear(einsum("ii->i").Run({X({3, 3})}).value()[0], {3}, {-0.5, 1, -0.25});
  ExpectNear(einsum("bij,bkj->bik").Run({a, W({2, 2, 4})}).value()[0], {2, 3, 2},
             {1.5, -2.9375, -3.0625, 1.5, 1.3125, 1.125, -2.8125, 1.875, 1, 0.9375, 0, 0});
}

TEST(EinsumTest, BadEquationsAreRejected) {
  const Tensor a = X({2, 3});
  for (const char* equation :
       {"", "ij,jk->ik", "ijk->i", "ij->iz", "ij->ii", "i1->i", "i..j->i", "ij->i->j"}) {
    EXPECT_EQ(Op("Einsum").Set("equation", equation).CodeOf({a}), kBad) << equation;
  }
  EXPECT_EQ(Op("Einsum").Set("equation", "ij,ij->i").CodeOf({a, X({3, 2})}), kBad);
}

TEST(SignalTest, ALengthThatIsNoPowerOfTwoAgreesWithNumpy) {
  const Tensor y = Op("DFT", 20).Run({X({1, 7, 1})}).value()[0];
  ExpectNear(y, {1, 7, 2},
             {0.25, 0, -0.625, -1.243556, -0.625, -3.453322, -0.625, 0.9253433, -0.625, -0.9253433,
              -0.625, 3.453322, -0.625, 1.243556});
}

TEST(SignalTest, AnInverseOneSidedTransformIsReal) {
  const Tensor x = X({1, 6, 1});
  const Tensor spectrum = Op("DFT", 20).Set("onesided", 1).Run({x}).value()[0];
  EXPECT_EQ(spectrum.shape(), (Shape{1, 4, 2}));
  const Tensor y = Op("DFT", 20).Set("inverse", 1).Set("onesided", 1).Run({spectrum}).value()[0];
  ExpectNear(y, {1, 6, 1}, {-0.5, 1.25, 0.2500001, -0.75, 1, 0});
}

TEST(SignalTest, BadLengthsAreRejected) {
  EXPECT_EQ(Op("DFT", 20).CodeOf({X({1, 7, 3})}), kBad);
  EXPECT_EQ(Op("DFT", 20).CodeOf({X({1, 7, 1}), Tensor::ScalarInt64(0)}), kBad);
  EXPECT_EQ(Op("DFT", 20).CodeOf({X({1, 7, 1}), Tensor::ScalarInt64(int64_t{1} << 60)}), kBad);
  EXPECT_EQ(Op("STFT").CodeOf({X({1, 7, 1}), Tensor::ScalarInt64(0)}), kBad);
  EXPECT_EQ(Op("HannWindow").CodeOf({Tensor::ScalarInt64(-4)}), kBad);
}

// --- Quantisation and normalisation --------------------------------------------------------------

TEST(QuantTest, BlockedScalesAgreeWithNumpy) {
  const Tensor scale = Floats({2, 2}, {0.5f, 0.25f, 0.1f, 2.0f});
  const Tensor zero = Tensor::Of<uint8_t>(DType::kUint8, {2, 2}, {1, 2, 3, 4});
  Op quantize("QuantizeLinear", 21);
  quantize.Set("axis", 1).Set("block_size", 3);
  ExpectNear(quantize.Run({Ramp({2, 5}, 7, 3, 23), scale, zero}).value()[0], {2, 5},
             {0, 1, 4, 0, 0, 13, 31, 0, 4, 5});
}

TEST(QuantTest, ScalesThatDoNotFitAreRejected) {
  const Tensor x = X({2, 5});
  EXPECT_EQ(Op("QuantizeLinear", 13).CodeOf({x, Floats({3}, {1, 1, 1})}), kBad);
  EXPECT_EQ(Op("QuantizeLinear", 13).Set("axis", 2).CodeOf({x, Floats({5}, {1, 1, 1, 1, 1})}),
            kBad);
  EXPECT_EQ(Op("QuantizeLinear", 21).Set("block_size", -1).CodeOf({x, Floats({}, {1})}), kBad);
  EXPECT_EQ(Op("QuantizeLinear", 21).Set("output_dtype", 1).CodeOf({x, Floats({}, {1})}), kBad);
}

TEST(QuantTest, NotANumberBecomesTheZeroPoint) {
  const Tensor zero = Tensor::Of<uint8_t>(DType::kUint8, {}, {7});
  const Tensor x = Floats({3}, {NAN, INFINITY, -INFINITY});
  ExpectNear(Op("QuantizeLinear", 13).Run({x, Floats({}, {1}), zero}).value()[0], {3}, {7, 255, 0});
}

TEST(NormTest, LayerNormalizationAgreesWithOnnxRuntime) {
  const Tensor y = Op("LayerNormalization")
                       .Run({X({2, 3, 4}), Ramp({4}, 3, 0, 7), Ramp({4}, 2, 1, 5)})
                       .value()[0];
  ExpectNear(y, {2, 3, 4},
             {0.2921686,  0.25, -0.3192772, 0.2610441,  -1.033132, 0.25, -1.644578,  -0.1807228,
              -0.3999981, 0.25, 0.5499865,  0.04999936, -1.033132, 0.25, -1.644578,  -0.1807228,
              -0.3999981, 0.25, 0.5499865,  0.04999936, 0.7347928, 0.25, -0.8939171, -0.3282643},
             1e-4);
}

TEST(NormTest, ContradictionsAreRejected) {
  const Tensor x = X({2, 3, 4}), c = W({3});
  EXPECT_EQ(Op("BatchNormalization").CodeOf({x, c, c, c, W({2})}), kBad);
  EXPECT_EQ(Op("InstanceNormalization").CodeOf({x, W({4}), c}), kBad);
  EXPECT_EQ(Op("LayerNormalization").CodeOf({x, W({3})}), kBad);
  EXPECT_EQ(Op("LayerNormalization").Set("axis", 3).CodeOf({x, W({4})}), kBad);
  EXPECT_EQ(Op("GroupNormalization", 21).Set("num_groups", 2).CodeOf({x, c, c}), kBad);
  EXPECT_EQ(Op("LRN").Set("size", 0).CodeOf({x}), kBad);
  EXPECT_EQ(Op("LpNormalization").Set("p", 3).CodeOf({x}), kBad);
}

TEST(LossTest, ATargetOutsideTheClassesIsRejected) {
  const Tensor target = Tensor::VectorInt64({0, 5});
  EXPECT_EQ(Op("NegativeLogLikelihoodLoss").CodeOf({X({2, 3}), target}), kBad);
  EXPECT_TRUE(Op("NegativeLogLikelihoodLoss").Set("ignore_index", 5).Run({X({2, 3}), target}).ok());
}

TEST(AttentionTest, ContradictionsAreRejected) {
  const Tensor q = X({1, 2, 3, 4});
  EXPECT_EQ(Op("Attention", 23).CodeOf({q, X({1, 2, 3, 5}), q}), kBad);
  EXPECT_EQ(Op("Attention", 23).CodeOf({q, X({1, 3, 3, 4}), X({1, 3, 3, 4})}), kBad);
  EXPECT_EQ(Op("Attention", 23).CodeOf({q, q, q, X({3, 9})}), kBad);
  EXPECT_EQ(Op("Attention", 23).CodeOf({X({1, 3, 8}), X({1, 3, 8}), X({1, 3, 8})}), kBad);
  const Tensor id = Tensor::Of<int64_t>(DType::kInt64, {1, 3}, {0, 1, 5});
  EXPECT_EQ(Op("RotaryEmbedding", 23).CodeOf({q, X({5, 2}), X({5, 2}), id}), kBad);
}

TEST(AttentionTest, ARowMaskedThroughoutGivesZeros) {
  const Tensor mask = Tensor::Of<uint8_t>(DType::kBool, {1, 2}, {0, 0});
  const Tensor y =
      Op("Attention", 23).Run({X({1, 1, 1, 2}), X({1, 1, 2, 2}), X({1, 1, 2, 2}), mask}).value()[0];
  ExpectNear(y, {1, 1, 1, 2}, {0, 0});
}

TEST(RandomTest, ASeedFixesTheValuesAndRunsWithoutOneDiffer) {
  Op seeded("RandomNormal", 1), free("RandomNormal", 1);
  seeded.Set("shape", Ints{64}).Set("seed", 3.0f);
  free.Set("shape", Ints{64});
  EXPECT_TRUE(TensorsEqual(seeded.Run({}).value()[0], seeded.Run({}).value()[0]));
  EXPECT_FALSE(TensorsEqual(free.Run({}).value()[0], free.Run({}).value()[0]));
}

TEST(RandomTest, UniformValuesStayInTheirRange) {
  Op uniform("RandomUniform", 1);
  uniform.Set("shape", Ints{1000}).Set("low", -2.0f).Set("high", 3.0f).Set("seed", 1.0f);
  const Tensor y = uniform.Run({}).value()[0];
  double sum = 0;
  for (float v : y.data<float>()) {
    EXPECT_GE(v, -2);
    EXPECT_LE(v, 3);
    sum += v;
  }
  EXPECT_NEAR(sum / 1000, 0.5, 0.2);
}

TEST(StringTest, BadNgramPoolsAreRejected) {
  Op op("TfIdfVectorizer", 9);
  op.Set("ngram_counts", Ints{0, 9}).Set("ngram_indexes", Ints{0});
  op.Set("pool_int64s", Ints{1, 2, 3});
  EXPECT_EQ(op.CodeOf({Tensor::VectorInt64({1, 2})}), kBad);
  EXPECT_EQ(Op("StringConcat", 20).CodeOf({X({1}), X({1})}), kBad);
}

}  // namespace
}  // namespace plexus
