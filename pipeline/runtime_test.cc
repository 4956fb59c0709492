#include "pipeline/runtime.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <future>
#include <thread>

#include "graph/passes/fused_ops.h"
#include "pipeline/graph_maker.h"

namespace plexus {
namespace {

std::vector<float> Values(const Tensor& t) {
  return {t.data<float>().begin(), t.data<float>().end()};
}

class RuntimeTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    RuntimeOptions options;
    options.threads = GetParam();
    runtime_ = Runtime::Create(options).value();
  }
  ExecutablePtr Load(GraphMaker& maker, const std::string& name = "m") {
    Result<ExecutablePtr> loaded = runtime_->Load(name, maker.Done(), {});
    EXPECT_TRUE(loaded.ok()) << loaded.status().ToString();
    return loaded.ok() ? *loaded : nullptr;
  }
  std::unique_ptr<Runtime> runtime_;
};

INSTANTIATE_TEST_SUITE_P(Threads, RuntimeTest, ::testing::Values(1, 2));

TEST_P(RuntimeTest, RunsAStaticGraphForEveryShapeItIsGiven) {
  GraphMaker g;
  g.Out(g.Op("Relu", {g.In("x", {-1, 3})}));
  const ExecutablePtr m = Load(g);
  for (int64_t rows : {1, 2, 5, 2}) {
    std::vector<float> in(rows * 3), want(rows * 3);
    for (size_t i = 0; i < in.size(); ++i) {
      in[i] = static_cast<float>(i) - 2;
      want[i] = std::max(in[i], 0.0f);
    }
    RunResult r = runtime_->Run(m, {Floats({rows, 3}, in)});
    ASSERT_TRUE(r.status.ok()) << r.status.ToString();
    EXPECT_EQ(Values(r.outputs[0]), want);
  }
  EXPECT_EQ(runtime_->cache_stats().misses, 3u);
  EXPECT_EQ(runtime_->cache_stats().hits, 1u);
}

// Each length has its own numbers to add, which the program for it holds.
TEST_P(RuntimeTest, WhatIsFoldedForOneShapeCountsTowardsTheBudgetOfPrograms) {
  RuntimeOptions options;
  options.threads = GetParam();
  options.program_cache_bytes = size_t{4} << 20;
  runtime_ = Runtime::Create(options).value();
  GraphMaker g;
  const ValueId x = g.In("x", {-1});
  const ValueId size = g.Op("Squeeze", {g.Op("Shape", {x}, DType::kInt64)}, DType::kInt64);
  const auto to_float = static_cast<int64_t>(DType::kFloat32);
  const ValueId end = g.Op("Cast", {size}, DType::kFloat32, {{"to", to_float}});
  const ValueId zero = g.Const(Tensor::Scalar(0.0f)), one = g.Const(Tensor::Scalar(1.0f));
  g.Out(g.Op("Add", {x, g.Op("Range", {zero, end, one})}));
  const ExecutablePtr m = Load(g);
  constexpr int64_t kLeast = 100'000;  // 400 KB
  for (int64_t n = kLeast; n < kLeast + 20; ++n) {
    RunResult r = runtime_->Run(m, {Floats({n}, std::vector<float>(n, 0.5f))});
    ASSERT_TRUE(r.status.ok()) << r.status.ToString();
    EXPECT_EQ(Values(r.outputs[0])[n - 1], static_cast<float>(n) - 0.5f);
  }
  EXPECT_LE(runtime_->cache_stats().programs, options.program_cache_bytes / (4 * kLeast));
  EXPECT_LE(runtime_->cache_stats().bytes, options.program_cache_bytes);
}

// uint8[h,w,1], all 100.
Tensor Grey(int64_t h, int64_t w) {
  return Tensor::Of<uint8_t>(DType::kUint8, {h, w, 1}, std::vector<uint8_t>(h * w, 100));
}

ValueId Shrunk(GraphMaker& g, ValueId image) {
  return g.Op("ResizeImage", {image}, DType::kUint8, {{"size", std::vector<int64_t>{2, 2}}},
              "plexus");
}

// An image goes to host steps alone until it has a fixed size: what follows is compiled once.
TEST_P(RuntimeTest, ImagesOfAllSizesShareOnePlan) {
  GraphMaker g;
  const ValueId image = g.In("image", {-1, -1, 1}, DType::kUint8);
  const ValueId turned = g.Op("Rotate180", {Shrunk(g, image)}, DType::kUint8, {}, "plexus");
  const auto to_float = static_cast<int64_t>(DType::kFloat32);
  const ValueId floats = g.Op("Cast", {turned}, DType::kFloat32, {{"to", to_float}});
  g.Out(g.Op("Mul", {floats, g.Const(Tensor::Scalar(0.5f))}));
  const ExecutablePtr m = Load(g);
  for (int64_t side : {4, 6, 8}) {
    RunResult r = runtime_->Run(m, {Grey(side, side)});
    ASSERT_TRUE(r.status.ok()) << r.status.ToString();
    EXPECT_EQ(Values(r.outputs[0]), std::vector<float>(4, 50.0f));
  }
  EXPECT_EQ(runtime_->cache_stats().misses, 2u);  // the whole, and what follows the host steps
  EXPECT_EQ(runtime_->cache_stats().hits, 4u);
}

std::vector<int64_t> Ints(const Tensor& t) { return ToInt64Vector(t).value(); }

TEST_P(RuntimeTest, ImagesWhoseSizeIsReadDoNotShareAPlan) {
  GraphMaker g;
  const ValueId image = g.In("image", {-1, -1, 1}, DType::kUint8);
  g.Out(Shrunk(g, image));
  g.Out(g.Op("Shape", {g.Op("Identity", {image}, DType::kUint8)}, DType::kInt64));
  const ExecutablePtr m = Load(g);
  for (int64_t side : {4, 6, 8}) {
    RunResult r = runtime_->Run(m, {Grey(side, 3)});
    ASSERT_TRUE(r.status.ok()) << r.status.ToString();
    EXPECT_EQ(Ints(r.outputs[1]), (std::vector<int64_t>{side, 3, 1}));
  }
}

// The branch reads the image's size when the data chooses it, which is not before the run.
TEST_P(RuntimeTest, ABranchThatReadsTheSizeOfAnImageSeesEachOne) {
  const auto branch = [](bool small) {
    GraphMaker b;
    Value captured;
    captured.name = "captured";
    captured.dtype = DType::kUint8;
    ValueId image = b.graph.AddValue(captured);
    b.graph.captures() = {image};
    if (small) image = Shrunk(b, image);
    b.Out(b.Op("Shape", {image}, DType::kInt64));
    return b.Done();
  };
  GraphMaker g;
  const ValueId image = g.In("image", {-1, -1, 1}, DType::kUint8);
  const ValueId small = g.In("small", {}, DType::kBool);
  const ValueId size = g.Op("If", {small}, DType::kInt64,
                            {{"then_branch", branch(true)}, {"else_branch", branch(false)}});
  g.graph.nodes().back().implicit_inputs = {image};
  g.Out(size);
  const ExecutablePtr m = Load(g);
  for (int64_t side : {4, 6, 8}) {
    for (uint8_t shrink : {0, 1}) {
      RunResult r =
          runtime_->Run(m, {Grey(side, 3), Tensor::Of<uint8_t>(DType::kBool, {}, {shrink})});
      ASSERT_TRUE(r.status.ok()) << r.status.ToString();
      EXPECT_EQ(Ints(r.outputs[0]),
                shrink ? (std::vector<int64_t>{2, 2, 1}) : (std::vector<int64_t>{side, 3, 1}));
    }
  }
}

// What is left after a host step is one graph for several shapes, unless a shape went into it.
TEST_P(RuntimeTest, RestsThatHoldAShapeOfTheirOwnStayApart) {
  GraphMaker g;
  const ValueId x = g.In("x", {-1});
  const ValueId where = g.Op("NonZero", {x}, DType::kInt64);
  g.Out(g.Op("Add", {where, g.Op("Shape", {x}, DType::kInt64)}, DType::kInt64));
  const ExecutablePtr m = Load(g);
  for (int64_t size : {3, 5, 3, 4}) {
    std::vector<float> values(size, 0.0f);
    values[2] = 1;
    RunResult r = runtime_->Run(m, {Floats({size}, values)});
    ASSERT_TRUE(r.status.ok()) << r.status.ToString();
    EXPECT_EQ(Ints(r.outputs[0]), (std::vector<int64_t>{2 + size}));
  }
}

// A stage's rows: their number and their size may change with every request.
TEST_P(RuntimeTest, RowsOfAllSizesAreMappedByTheirOwnPlans) {
  GraphMaker body;
  Value row;
  row.name = "row";
  row.dtype = DType::kFloat32;
  const ValueId in = body.graph.AddInput(row);
  body.Out(body.Op("Shape", {body.Op("NonZero", {in}, DType::kInt64)}, DType::kInt64));
  body.Out(body.Op("Shape", {in}, DType::kInt64));
  GraphMaker g;
  const ValueId x = g.In("x", {-1, -1});
  const ValueId found =
      g.Op("MapRows", {x}, DType::kInt64, {{"stage", int64_t{1}}, {"body", body.Done()}}, "plexus");
  Value sizes;
  sizes.name = "sizes";
  sizes.dtype = DType::kInt64;
  g.graph.nodes().back().outputs.push_back(g.graph.AddValue(sizes));
  g.Out(found);
  g.Out(g.graph.nodes().back().outputs[1]);
  const ExecutablePtr m = Load(g);
  for (const auto& [rows, columns] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 3}, {2, 3}, {1, 4}}) {
    RunResult r =
        runtime_->Run(m, {Floats({rows, columns}, std::vector<float>(rows * columns, 1))});
    ASSERT_TRUE(r.status.ok()) << r.status.ToString();
    std::vector<int64_t> counts, shapes;
    for (int64_t i = 0; i < rows; ++i) {
      counts.insert(counts.end(), {2, columns});
      shapes.insert(shapes.end(), {1, columns});
    }
    EXPECT_EQ(Ints(r.outputs[0]), counts);
    EXPECT_EQ(Ints(r.outputs[1]), shapes);
  }
}

TEST_P(RuntimeTest, RejectsInputsThatDoNotFit) {
  GraphMaker g;
  g.Out(g.Op("Relu", {g.In("x", {-1, 3})}));
  const ExecutablePtr m = Load(g);
  EXPECT_NE(runtime_->Run(m, {}).status.message().find("expected 1 inputs, got 0"),
            std::string::npos);
  EXPECT_NE(runtime_->Run(m, {Floats({1, 4}, {1, 2, 3, 4})}).status.message().find("input 'x'"),
            std::string::npos);
  EXPECT_NE(runtime_->Run(m, {Tensor::ScalarInt64(1)}).status.message().find("float32"),
            std::string::npos);
}

TEST_P(RuntimeTest, RefusesAnUnknownOperatorByName) {
  GraphMaker g;
  g.Out(g.Op("Frobnicate", {g.In("x", {1})}));
  const Status s = runtime_->Load("m", g.Done(), {}).status();
  EXPECT_EQ(s.code(), StatusCode::kUnimplemented);
  EXPECT_NE(s.message().find("Frobnicate"), std::string::npos) << s.message();
}

TEST_P(RuntimeTest, ContinuesAfterADataDependentShape) {
  // y = relu(x); sum of 2 * (index of each non-zero of y)
  GraphMaker g;
  const ValueId y = g.Op("Relu", {g.In("x", {-1})});
  const ValueId nz = g.Op("NonZero", {y}, DType::kInt64);
  const ValueId f =
      g.Op("Cast", {nz}, DType::kFloat32, {{"to", static_cast<int64_t>(DType::kFloat32)}});
  const ValueId twice = g.Op("Mul", {f, g.Const(Tensor::Scalar(2))});
  g.Out(twice);
  const ExecutablePtr m = Load(g);
  RunResult r = runtime_->Run(m, {Floats({5}, {-1, 1, 0, 2, 3})});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(r.outputs[0].shape(), (Shape{1, 3}));
  EXPECT_EQ(Values(r.outputs[0]), (std::vector<float>{2, 6, 8}));
  r = runtime_->Run(m, {Floats({5}, {-1, -1, 0, 0, -3})});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(r.outputs[0].shape(), (Shape{1, 0})) << "nothing is non-zero: an empty result";
}

GraphPtr Branch(const std::string& op) {
  GraphMaker g;
  Value captured;
  captured.name = "captured";
  captured.dtype = DType::kFloat32;
  const ValueId c = g.graph.AddValue(captured);
  g.graph.captures() = {c};
  g.Out(g.Op(op, {c}));
  return g.Done();
}

TEST_P(RuntimeTest, TakesTheBranchThatTheDataChooses) {
  GraphMaker g;
  const ValueId x = g.In("x", {-1});
  const ValueId sum = g.Op("ReduceSum", {x}, DType::kFloat32, {{"keepdims", int64_t{0}}});
  const ValueId positive = g.Op("Greater", {sum, g.Const(Tensor::Scalar(0))}, DType::kBool);
  const ValueId y = g.Op("If", {positive}, DType::kFloat32,
                         {{"then_branch", Branch("Neg")}, {"else_branch", Branch("Abs")}});
  g.graph.nodes().back().implicit_inputs = {x};
  g.Out(g.Op("Add", {y, g.Const(Tensor::Scalar(10))}));
  const ExecutablePtr m = Load(g);
  RunResult r = runtime_->Run(m, {Floats({2}, {3, -1})});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(Values(r.outputs[0]), (std::vector<float>{7, 11}));
  r = runtime_->Run(m, {Floats({2}, {-3, 1})});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(Values(r.outputs[0]), (std::vector<float>{13, 11}));
}

// body(i, cond, v) → (cond2, v * 2, v): doubles, and scans the value before.
GraphPtr DoublingBody() {
  GraphMaker g;
  g.In("i", {}, DType::kInt64);
  const ValueId cond = g.In("cond", {}, DType::kBool);
  const ValueId v = g.In("v", {1});
  g.Out(g.Op("Identity", {cond}, DType::kBool));
  g.Out(g.Op("Mul", {v, g.Const(Tensor::Scalar(2))}));
  g.Out(g.Op("Identity", {v}));
  return g.Done();
}

TEST_P(RuntimeTest, LoopsAsOftenAsTheDataSays) {
  GraphMaker g;
  const ValueId trips = g.In("trips", {}, DType::kInt64);
  const ValueId v = g.In("v", {1});
  const ValueId last =
      g.Op("Loop", {trips, ValueId(), v}, DType::kFloat32, {{"body", DoublingBody()}});
  Value scan;
  scan.name = "scan";
  scan.dtype = DType::kFloat32;
  const ValueId scans = g.graph.AddValue(scan);
  g.graph.nodes().back().outputs.push_back(scans);
  g.Out(last);
  g.Out(scans);
  const ExecutablePtr m = Load(g);
  RunResult r = runtime_->Run(m, {Tensor::ScalarInt64(3), Floats({1}, {5})});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(Values(r.outputs[0]), (std::vector<float>{40}));
  EXPECT_EQ(r.outputs[1].shape(), (Shape{3, 1}));
  EXPECT_EQ(Values(r.outputs[1]), (std::vector<float>{5, 10, 20}));
  r = runtime_->Run(m, {Tensor::ScalarInt64(0), Floats({1}, {5})});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(Values(r.outputs[0]), (std::vector<float>{5}));
  EXPECT_EQ(r.outputs[1].shape()[0], 0);
}

// The mean over *all* of x, subtracted: rows are not independent, so each is run by itself.
GraphPtr RowDependentBody() {
  GraphMaker g;
  const ValueId x = g.In("x", {1, 3});
  const ValueId mean = g.Op("ReduceMean", {x}, DType::kFloat32, {{"keepdims", int64_t{1}}});
  g.Out(g.Op("Sub", {x, mean}));
  return g.Done();
}

TEST_P(RuntimeTest, MapsABodyOverRowsOneByOneWhereRowsAreNotIndependent) {
  GraphMaker g;
  const ValueId x = g.In("x", {-1, 3});
  g.Out(g.Op("MapRows", {x}, DType::kFloat32, {{"body", RowDependentBody()}},
             std::string(kPlexusDomain)));
  const ExecutablePtr m = Load(g);
  RunResult r = runtime_->Run(m, {Floats({2, 3}, {1, 2, 3, 10, 20, 30})});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(Values(r.outputs[0]), (std::vector<float>{-1, 0, 1, -10, 0, 10}));
  r = runtime_->Run(m, {Floats({0, 3}, {})});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(r.outputs[0].shape()[0], 0);
}

// A layer of all members, then one of its own, or what only a host step can do.
ExecutablePtr Member(Runtime& runtime, const std::string& name, float own, bool host,
                     Precision precision = Precision::kFloat32) {
  GraphMaker g;
  const auto weights = [&g](float scale) {
    std::vector<float> values(32 * 32);
    for (size_t i = 0; i < values.size(); ++i) values[i] = scale * std::sin(static_cast<float>(i));
    return g.Const(Floats({32, 32}, values));
  };
  ValueId v = g.Op("Relu", {g.Op("MatMul", {g.In("x", {-1, 32}), weights(1)})});
  if (host)
    v = g.Op("Cast", {g.Op("NonZero", {v}, DType::kInt64)}, DType::kFloat32, {{"to", int64_t{1}}});
  else
    v = g.Op("MatMul", {v, weights(own)});
  g.Out(v);
  CompileOptions options;
  options.precision = precision;
  return runtime.Load(name, g.Done(), options).value();
}

TEST_P(RuntimeTest, AGroupGivesWhatItsMembersGiveAlone) {
  const std::vector<ExecutablePtr> members = {Member(*runtime_, "a", 2, false),
                                              Member(*runtime_, "b", 3, false),
                                              Member(*runtime_, "c", 0, true)};
  const ExecutablePtr group = runtime_->LoadGroup("a,b,c", members).value();
  EXPECT_EQ(group->graph().inputs().size(), 1u);
  for (const int64_t rows : {1, 7}) {
    std::vector<float> in(static_cast<size_t>(rows * 32));
    for (size_t i = 0; i < in.size(); ++i) in[i] = std::cos(static_cast<float>(i));
    const Tensor x = Floats({rows, 32}, in);
    const RunResult together = runtime_->Run(group, {x});
    ASSERT_TRUE(together.status.ok()) << together.status.ToString();
    ASSERT_EQ(together.outputs.size(), 3u);
    for (size_t m = 0; m < members.size(); ++m) {
      const RunResult alone = runtime_->Run(members[m], {x});
      ASSERT_TRUE(alone.status.ok()) << alone.status.ToString();
      EXPECT_TRUE(TensorsEqual(together.outputs[m], alone.outputs[0])) << m;
    }
  }
}

TEST_P(RuntimeTest, AGroupRunsInOnePrecision) {
  const std::vector<ExecutablePtr> members = {
      Member(*runtime_, "a", 2, false), Member(*runtime_, "b", 3, false, Precision::kBFloat16)};
  const Status status = runtime_->LoadGroup("a,b", members).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("'a' and 'b'"), std::string::npos) << status.message();
}

TEST_P(RuntimeTest, ManyRequestsFromManyThreadsAllGetTheirOwnAnswer) {
  GraphMaker g;
  const ValueId x = g.In("x", {-1, 64});
  const ValueId w = g.Const([] {
    std::vector<float> identity(64 * 64, 0.0f);
    for (int i = 0; i < 64; ++i) identity[i * 65] = 2;
    return Floats({64, 64}, identity);
  }());
  g.Out(g.Op("Relu", {g.Op("MatMul", {x, w})}));
  const ExecutablePtr m = Load(g);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const int64_t rows = 1 + i % 3;
        const auto value = static_cast<float>(t * 100 + i);
        RunResult r = runtime_->Run(
            m, {Floats({rows, 64}, std::vector<float>(static_cast<size_t>(rows) * 64, value))});
        if (r.status.ok() &&
            Values(r.outputs[0]) == std::vector<float>(static_cast<size_t>(rows) * 64, 2 * value)) {
          ++right;
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(right, 200);
}

TEST_P(RuntimeTest, ACancelledRequestEndsWithItsReason) {
  GraphMaker g;
  const ValueId trips = g.In("trips", {}, DType::kInt64);
  const ValueId v = g.In("v", {1});
  g.Out(g.Op("Loop", {trips, ValueId(), v}, DType::kFloat32,
             {{"body", [] {
                 GraphMaker body;
                 body.In("i", {}, DType::kInt64);
                 const ValueId cond = body.In("cond", {}, DType::kBool);
                 const ValueId x = body.In("v", {1});
                 body.Out(body.Op("Identity", {cond}, DType::kBool));
                 body.Out(body.Op("Abs", {x}));
                 return body.Done();
               }()}}));
  const ExecutablePtr m = Load(g);
  std::promise<Status> ended;
  // So many trips that it cannot end by itself before the loop's own limit.
  auto token = runtime_->Start(m, {Tensor::ScalarInt64(900'000), Floats({1}, {1})}, {},
                               [&](RunResult r) { ended.set_value(r.status); });
  token->Cancel(CancelledError("the client went away"));
  const Status s = ended.get_future().get();
  EXPECT_EQ(s.code(), StatusCode::kCancelled);
  EXPECT_EQ(s.message().find("the client went away") != std::string::npos, true) << s.ToString();
}

TEST_P(RuntimeTest, ATimeoutInThePastIsRefused) {
  GraphMaker g;
  g.Out(g.Op("Relu", {g.In("x", {-1})}));
  const ExecutablePtr m = Load(g);
  RequestAttributes attributes;
  attributes.timeout_at = runtime_->clock().Now() - std::chrono::seconds(1);
  EXPECT_EQ(runtime_->Run(m, {Floats({1}, {1})}, attributes).status.code(),
            StatusCode::kDeadlineExceeded);
}

TEST_P(RuntimeTest, UnloadingForgetsThePlans) {
  GraphMaker g;
  g.Out(g.Op("Relu", {g.In("x", {-1})}));
  ExecutablePtr m = Load(g);
  ASSERT_TRUE(runtime_->Run(m, {Floats({1}, {1})}).status.ok());
  EXPECT_EQ(runtime_->cache_stats().programs, 1u);
  m.reset();
  EXPECT_EQ(runtime_->cache_stats().programs, 0u);
}

}  // namespace
}  // namespace plexus
