// Optimised graphs compute what the written ones compute: on random graphs made of the patterns the
// passes look for, and on the sample models where they have been fetched.
#include "graph/passes/passes.h"

#include <cmath>
#include <filesystem>
#include <functional>
#include <random>

#include "graph/onnx/onnx_import.h"
#include "graph/passes/test_graph.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

Tensor RandomTensor(DType dtype, const Shape& shape, std::mt19937& rng) {
  Tensor t = Tensor::Allocate(dtype, shape).value();
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    switch (dtype) {
      case DType::kFloat32:
        t.mutable_data<float>()[i] = normal(rng);
        break;
      case DType::kInt64:
        t.mutable_data<int64_t>()[i] = static_cast<int64_t>(rng() % 2);
        break;
      case DType::kInt32:
        t.mutable_data<int32_t>()[i] = static_cast<int32_t>(rng() % 257);
        break;
      default:
        ADD_FAILURE() << "no random " << DTypeName(dtype);
    }
  }
  return t;
}

// Both finite and close relative to the tensor's largest magnitude, or both not finite alike.
void ExpectClose(const Tensor& want, const Tensor& got, const std::string& what) {
  ASSERT_EQ(want.shape(), got.shape()) << what;
  ASSERT_EQ(want.dtype(), got.dtype()) << what;
  if (want.dtype() != DType::kFloat32) {
    EXPECT_TRUE(TensorsEqual(want, got)) << what;
    return;
  }
  double largest = 1e-6;
  for (float f : want.data<float>()) {
    if (std::isfinite(f)) largest = std::max<double>(largest, std::fabs(f));
  }
  for (int64_t i = 0; i < want.num_elements(); ++i) {
    const float a = want.data<float>()[i];
    const float b = got.data<float>()[i];
    if (!std::isfinite(a) || !std::isfinite(b)) {
      ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << what << " at " << i;
      continue;
    }
    ASSERT_NEAR(a, b, 2e-4 * largest) << what << " at " << i;
  }
}

// Grows a graph by random operators and spelt-out patterns. Values stay finite and of moderate
// size.
class RandomGraph {
 public:
  explicit RandomGraph(uint32_t seed) : rng_(seed) {
    for (const Shape& shape : {Shape{2, 4, 6, 6}, Shape{2, 6, 8}, Shape{1, 4, 1, 8}}) {
      values_.push_back(t.Input("in" + std::to_string(values_.size()), shape));
    }
    for (int i = 0; i < 30; ++i) Step();
    // The last values, and a few on the way, which then must survive by name.
    for (size_t i = 0; i < values_.size(); ++i) {
      if (i + 2 >= values_.size() || (i > 3 && rng_() % 12 == 0)) t.Output(values_[i]);
    }
  }
  TestGraph t;

 private:
  std::string Name() { return "v" + std::to_string(next_++); }
  Shape ShapeOf(ValueId v) { return t.g.value(v).shape.ToConcrete(); }
  ValueId Pick() {  // mostly recent values: long chains
    const size_t n = values_.size();
    return values_[rng_() % 3 == 0 ? rng_() % n : n - 1 - rng_() % std::min<size_t>(n, 3)];
  }
  ValueId Op(const std::string& op, std::vector<ValueId> in,
             std::map<std::string, Attribute> attributes = {}) {
    return t.Op(Name(), op, std::move(in), std::move(attributes));
  }
  ValueId Weights(Shape shape, float scale = 0.3f) {
    Tensor w = RandomTensor(DType::kFloat32, shape, rng_);
    for (float& f : w.mutable_data<float>()) f *= scale;
    return t.Const(Name(), w);
  }
  ValueId Positive(Shape shape) {
    Tensor w = RandomTensor(DType::kFloat32, shape, rng_);
    for (float& f : w.mutable_data<float>()) f = 0.5f + std::fabs(f);
    return t.Const(Name(), w);
  }
  ValueId Mean(ValueId x, int64_t axis) { return Op("ReduceMean", {x, t.Ints({axis})}); }

  void Step() {
    static constexpr ValueId (RandomGraph::*kSteps[])(ValueId) = {
        &RandomGraph::Unary,     &RandomGraph::Unary,     &RandomGraph::Binary,
        &RandomGraph::Binary,    &RandomGraph::Scalar,    &RandomGraph::Transpose,
        &RandomGraph::Transpose, &RandomGraph::Reshape,   &RandomGraph::Conv,
        &RandomGraph::Conv,      &RandomGraph::BatchNorm, &RandomGraph::PerChannel,
        &RandomGraph::MatMul,    &RandomGraph::Gated,     &RandomGraph::LayerNorm,
        &RandomGraph::Gelu,      &RandomGraph::Softmax,   &RandomGraph::NoOp,
        &RandomGraph::Compare};
    const ValueId y = (this->*kSteps[rng_() % std::size(kSteps)])(Pick());
    if (y.valid()) values_.push_back(y);
  }

  ValueId Unary(ValueId x) {
    static const char* kOps[] = {"Relu", "Sigmoid", "Tanh", "Neg",   "Abs",         "LeakyRelu",
                                 "Erf",  "Elu",     "Sin",  "Floor", "HardSigmoid", "HardSwish"};
    // Floor and friends amplify rounding: they only see values spread apart by nothing.
    const char* op = kOps[rng_() % std::size(kOps)];
    if (std::string(op) == "Floor") return Op("Clip", {x, t.Scalar(-1), t.Scalar(1)});
    return Op(op, {x});
  }
  ValueId Binary(ValueId x) {
    static const char* kOps[] = {"Add", "Sub", "Max", "Min", "Mul"};
    const std::string op = kOps[rng_() % std::size(kOps)];
    ValueId y = Pick();
    const Shape a = ShapeOf(x);
    const Shape b = ShapeOf(y);
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      const int64_t p = a[a.size() - 1 - i], q = b[b.size() - 1 - i];
      if (p != q && p != 1 && q != 1) return Op("Tanh", {x});
    }
    if (op == "Mul") y = Op("Tanh", {y});
    if (rng_() % 2) std::swap(x, y);
    const ValueId z = Op(op, {x, y});
    return NumElementsUnchecked(ShapeOf(z)) > 4096 ? Mean(z, -1) : z;
  }
  ValueId Scalar(ValueId x) {
    static const char* kOps[] = {"Add", "Sub", "Mul", "Div"};
    const char* op = kOps[rng_() % std::size(kOps)];
    const float s = (rng_() % 2 ? 1.0f : -1.0f) * (0.5f + static_cast<float>(rng_() % 4) * 0.5f);
    const bool first = std::string(op) != "Div" && rng_() % 2;
    return first ? Op(op, {t.Scalar(s), x}) : Op(op, {x, t.Scalar(s)});
  }
  ValueId Transpose(ValueId x) {
    std::vector<int64_t> perm(ShapeOf(x).size());
    for (size_t i = 0; i < perm.size(); ++i) perm[i] = static_cast<int64_t>(i);
    std::shuffle(perm.begin(), perm.end(), rng_);
    return Op("Transpose", {x}, {{"perm", perm}});
  }
  ValueId Reshape(ValueId x) {
    Shape shape = ShapeOf(x);
    switch (rng_() % 4) {
      case 0:
        return Op("Unsqueeze", {x, t.Ints({static_cast<int64_t>(rng_() % (shape.size() + 1))})});
      case 1:
        return Op("Reshape", {x, t.Ints({-1, shape.empty() ? 1 : shape.back()})});
      case 2: {
        for (size_t i = 0; i < shape.size(); ++i) {
          if (shape[i] == 1) return Op("Squeeze", {x, t.Ints({static_cast<int64_t>(i)})});
        }
        return Op("Flatten", {x});
      }
      default:
        std::reverse(shape.begin(), shape.end());
        return Op("Reshape", {x, t.Ints(shape)});
    }
  }
  ValueId Conv(ValueId x) {
    const Shape shape = ShapeOf(x);
    if (shape.size() != 4 || shape[1] > 16) return ValueId();
    const int64_t m = rng_() % 2 ? shape[1] : 4;
    const bool pad = rng_() % 2;
    std::map<std::string, Attribute> attributes;
    if (pad) attributes["pads"] = std::vector<int64_t>{1, 1, 1, 1};
    std::vector<ValueId> in = {x, Weights({m, shape[1], pad ? 3 : 1, pad ? 3 : 1})};
    if (rng_() % 2) in.push_back(Weights({m}));
    const ValueId y = Op("Conv", in, attributes);
    if (rng_() % 3 || m != shape[1]) return rng_() % 2 ? BatchNorm(y) : y;
    return rng_() % 2 ? Op("Add", {y, x}) : Op("Relu", {Op("Add", {x, y})});
  }
  ValueId BatchNorm(ValueId x) {
    const Shape shape = ShapeOf(x);
    if (shape.size() < 2) return ValueId();
    const Shape c = {shape[1]};
    return Op("BatchNormalization", {x, Weights(c), Weights(c), Weights(c), Positive(c)});
  }
  ValueId PerChannel(ValueId x) {
    const Shape shape = ShapeOf(x);
    if (shape.empty()) return ValueId();
    Shape c(shape.size(), 1);
    const size_t axis = rng_() % shape.size();
    c[axis] = shape[axis];
    c.erase(c.begin(), c.begin() + static_cast<int64_t>(rng_() % (axis + 1)));
    const std::string op = rng_() % 2 ? "Add" : "Mul";
    const ValueId w = Weights(c);
    return rng_() % 2 ? Op(op, {w, x}) : Op(op, {x, w});
  }
  ValueId MatMul(ValueId x) {
    const Shape shape = ShapeOf(x);
    if (shape.size() < 2) return ValueId();
    const int64_t n = rng_() % 2 ? shape.back() : 6;
    ValueId y = Op("MatMul", {x, Weights({shape.back(), n})});
    if (rng_() % 2) y = Op("Add", {y, Weights({n})});
    if (rng_() % 2 && n == shape.back()) y = Op("Add", {x, y});
    return y;
  }
  ValueId Gated(ValueId x) {
    if (rng_() % 3 == 0) return Op("Mul", {x, Op("Sigmoid", {x})});
    ValueId g = Op("Clip", {Op("Add", {x, t.Scalar(3)}), t.Scalar(0), t.Scalar(6)});
    g = Op("Div", {Op("Mul", {x, g}), t.Scalar(6)});
    return rng_() % 2 ? g : Op("Mul", {t.Scalar(0.5f), g});
  }
  ValueId LayerNorm(ValueId x) {
    const Shape shape = ShapeOf(x);
    if (shape.size() < 2) return ValueId();
    const int64_t axis = static_cast<int64_t>(shape.size()) - 1 - (rng_() % 3 == 0);
    if (shape[axis] < 4) return ValueId();
    const ValueId d = Op("Sub", {x, Mean(x, axis)});
    ValueId v = Mean(rng_() % 2 ? Op("Mul", {d, d}) : Op("Pow", {d, t.Scalar(2)}), axis);
    v = Op("Sqrt", {Op("Add", {v, t.Scalar(0.1f)})});
    Shape c(shape.size(), 1);
    c[axis] = shape[axis];
    ValueId y = Op("Mul", {Op("Div", {d, v}), Weights(c, 1)});
    return rng_() % 2 ? Op("Add", {y, Weights(c)}) : y;
  }
  ValueId Gelu(ValueId x) {
    if (rng_() % 2) {
      const ValueId e =
          Op("Add", {Op("Erf", {Op("Div", {x, t.Scalar(1.41421356f)})}), t.Scalar(1)});
      return Op("Mul", {Op("Mul", {x, e}), t.Scalar(0.5f)});
    }
    const ValueId y = Op("Clip", {x, t.Scalar(-3), t.Scalar(3)});
    ValueId c = Op("Mul", {Op("Mul", {y, y}), y});
    c = Op("Add", {y, Op("Mul", {c, t.Scalar(0.044715f)})});
    c = Op("Tanh", {Op("Mul", {t.Scalar(0.7978845608f), c})});
    return Op("Mul", {y, Op("Mul", {t.Scalar(0.5f), Op("Add", {t.Scalar(1), c})})});
  }
  ValueId Softmax(ValueId x) {
    const int64_t rank = static_cast<int64_t>(ShapeOf(x).size());
    if (rank == 0) return ValueId();
    const int64_t axis = static_cast<int64_t>(rng_() % rank);
    const ValueId e = Op("Exp", {Op("Sub", {x, Op("ReduceMax", {x, t.Ints({axis})})})});
    return Op("Div", {e, Op("ReduceSum", {e, t.Ints({axis})})});
  }
  ValueId NoOp(ValueId x) {
    switch (rng_() % 3) {
      case 0:
        return Op("Identity", {x});
      case 1:
        return Op("Mul", {x, t.Scalar(1)});
      default:
        return Op("Reshape", {x, t.Ints(ShapeOf(x))});
    }
  }
  ValueId Compare(ValueId x) {  // both branches meet at the threshold: rounding cannot flip much
    const ValueId mask = t.Op(Name(), "Greater", {x, t.Scalar(0)}, {}, DType::kBool);
    return Op("Where", {mask, x, Op("Mul", {x, t.Scalar(0.25f)})});
  }

  std::mt19937 rng_;
  std::vector<ValueId> values_;
  int next_ = 0;
};

TEST(OptimizedGraphs, ComputeTheSameAsRandomGraphs) {
  size_t before = 0;
  size_t after = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    RandomGraph random(seed);
    const Graph& g = random.t.g;
    std::mt19937 rng(seed);
    std::vector<Tensor> inputs;
    for (ValueId v : g.inputs()) {
      inputs.push_back(RandomTensor(DType::kFloat32, g.value(v).shape.ToConcrete(), rng));
    }
    const auto want = RunGraph(g, inputs);
    ASSERT_TRUE(want.ok()) << "seed " << seed << ": " << want.status().ToString();
    Graph optimised = g;
    ASSERT_TRUE(OptimizeWeights(optimised).ok()) << "seed " << seed;
    const Status status = Optimize(optimised);
    ASSERT_TRUE(status.ok()) << "seed " << seed << ": " << status.ToString();
    ASSERT_TRUE(optimised.Validate().ok())
        << "seed " << seed << ": " << optimised.Validate().ToString();
    const auto got = RunGraph(optimised, inputs);
    ASSERT_TRUE(got.ok()) << "seed " << seed << ": " << got.status().ToString() << "\n"
                          << optimised.ToString();
    for (size_t i = 0; i < want->size(); ++i) {
      EXPECT_EQ(g.value(g.outputs()[i]).name, optimised.value(optimised.outputs()[i]).name);
      ExpectClose((*want)[i], (*got)[i],
                  "seed " + std::to_string(seed) + " output " + std::to_string(i));
    }
    if (HasFatalFailure()) {
      ADD_FAILURE() << g.ToString() << "\n" << optimised.ToString();
      return;
    }
    before += g.num_nodes();
    after += optimised.num_nodes();
  }
  EXPECT_LT(after * 3, before * 2) << "the passes hardly did anything";
}

TEST(OptimizedGraphs, OptimisingTwiceChangesNothing) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    Graph g = RandomGraph(seed).t.g;
    ASSERT_TRUE(OptimizeWeights(g).ok());
    const std::string weights = g.ToString();
    ASSERT_TRUE(OptimizeWeights(g).ok());
    EXPECT_EQ(g.ToString(), weights) << "seed " << seed;
  }
}

struct ModelCase {
  const char* name;
  const char* path;
  std::vector<Shape> inputs;
  size_t max_nodes;  // after Optimize: what a regression of a pattern would exceed
};
class OptimizedModels : public ::testing::TestWithParam<ModelCase> {};

TEST_P(OptimizedModels, ComputeTheSame) {
  const ModelCase& c = GetParam();
  if (!std::filesystem::exists(c.path)) GTEST_SKIP() << c.path << " has not been fetched";
  const auto imported = ImportOnnxFile(c.path);
  ASSERT_TRUE(imported.ok()) << imported.status().ToString();
  const ReferenceEvaluator& evaluator = ReferenceEvaluator::Get();
  Graph canonical = **imported;
  ASSERT_TRUE(Canonicalize(canonical, evaluator).ok());
  std::mt19937 rng(1);
  std::vector<Tensor> inputs;
  std::vector<KnownInput> known;
  for (size_t i = 0; i < canonical.inputs().size(); ++i) {
    inputs.push_back(RandomTensor(canonical.value(canonical.inputs()[i]).dtype, c.inputs[i], rng));
    known.push_back({inputs[i].dtype(), c.inputs[i], std::nullopt});
  }
  const auto want_graph = Specialize(canonical, known, evaluator);
  ASSERT_TRUE(want_graph.ok()) << want_graph.status().ToString();
  ASSERT_TRUE(OptimizeWeights(canonical).ok());
  auto optimised = Specialize(canonical, known, evaluator);
  ASSERT_TRUE(optimised.ok()) << optimised.status().ToString();
  ASSERT_TRUE(Optimize(*optimised).ok());
  ASSERT_TRUE(optimised->Validate().ok()) << optimised->Validate().ToString();
  EXPECT_LE(optimised->num_nodes(), c.max_nodes) << optimised->ToString();
  const auto want = RunGraph(*want_graph, inputs);
  const auto got = RunGraph(*optimised, inputs);
  ASSERT_TRUE(want.ok()) << want.status().ToString();
  ASSERT_TRUE(got.ok()) << got.status().ToString();
  for (size_t i = 0; i < want->size(); ++i) ExpectClose((*want)[i], (*got)[i], c.name);
}

INSTANTIATE_TEST_SUITE_P(
    Samples, OptimizedModels,
    ::testing::Values(
        ModelCase{"Mel", "build/deps/openwakeword/melspectrogram.onnx", {{1, 5120}}, 11},
        ModelCase{
            "Embedding", "build/deps/openwakeword/embedding_model.onnx", {{2, 76, 32, 1}}, 27},
        ModelCase{"Wakeword", "build/deps/openwakeword/timer_v0.1.onnx", {{1, 34, 96}}, 5},
        ModelCase{"Magika", "build/deps/magika/model.onnx", {{1, 2048}}, 16},
        ModelCase{"MobileNet", "build/samples/models/mobilenetv2.onnx", {{1, 3, 224, 224}}, 55}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace plexus
