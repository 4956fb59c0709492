// Requests that share work, under stress.
#include <gtest/gtest.h>

#include <cstring>

#include "pipeline/graph_maker.h"
#include "pipeline/test_stress.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 16;

Tensor Layer(float seed) {
  std::vector<float> values(kWidth * kWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 0.01f * static_cast<float>(i % 7) + seed;
  return Floats({kWidth, kWidth}, values);
}

// A shared beginning with a loop in it; then a layer of its own, over all rows or row by row.
GraphPtr MakeGraph(float own, bool by_rows) {
  GraphMaker body;
  body.In("i", {}, DType::kInt64);
  const ValueId going = body.In("going", {}, DType::kBool);
  const ValueId state = body.In("v", {-1, kWidth});
  body.Out(body.Op("Identity", {going}, DType::kBool));
  body.Out(body.Op("MatMul", {state, body.Const(Layer(0.002f))}));
  GraphMaker g;
  ValueId v = g.Op("MatMul", {g.In("x", {-1, kWidth}), g.Const(Layer(0.001f))});
  v = g.Op("Loop", {g.Const(Tensor::ScalarInt64(4)), ValueId(), v}, DType::kFloat32,
           {{"body", body.Done()}});
  if (by_rows) {
    GraphMaker row;
    const ValueId r = row.In("r", {1, kWidth});
    // What is not zero: a shape that the data tells, so rows stay apart.
    const ValueId where = row.Op("NonZero", {r}, DType::kInt64);
    const ValueId count = row.Op("Shape", {where}, DType::kInt64);
    const ValueId sum =
        row.Op("ReduceSum", {row.Op("Cast", {count}, DType::kFloat32, {{"to", int64_t{1}}})});
    row.Out(row.Op("Add", {row.Op("MatMul", {r, row.Const(Layer(own))}), sum}));
    g.Out(g.Op("MapRows", {v}, DType::kFloat32, {{"body", row.Done()}}, "plexus"));
  } else {
    g.Out(g.Op("MatMul", {v, g.Const(Layer(own))}));
  }
  return g.Done();
}

Tensor Rows(int n) {
  std::vector<float> values(3 * kWidth);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * (n + 1)) % 5);
  return Floats({3, kWidth}, values);
}

StressLoad Load() {
  StressLoad load;
  load.requests_each = 150;
  return load;
}

class ShareStressTest : public StressTest {
 protected:
  ShareStressTest() : StressTest(Load()) {}

  ExecutablePtr LoadOne(const std::string& name, float own, bool by_rows) {
    return runtime_->Load(name, MakeGraph(own, by_rows), {}).value();
  }
  ExecutablePtr LoadGuest() override { return LoadOne("guest", 0.005f, false); }
  Tensor Input(int number) const override { return Rows(number); }
  void ExpectEqual(const Tensor& got, const Tensor& want, const std::string& which) override {
    ASSERT_EQ(got.shape(), want.shape()) << which;
    EXPECT_EQ(std::memcmp(got.raw(), want.raw(), want.size_bytes()), 0) << which;
  }
};

TEST_F(ShareStressTest, EveryRequestIsAnsweredOnceWithItsOwnResult) {
  RuntimeOptions options;
  options.threads = 2;
  Use(Runtime::Create(options).value(), [this] {
    return std::vector<ExecutablePtr>{LoadOne("all", 0.003f, false), LoadOne("rows", 0.003f, true),
                                      LoadOne("other", 0.004f, false)};
  });
  Stress();
}

}  // namespace
}  // namespace plexus
