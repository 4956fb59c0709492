#include "device/sim/sim_compiler.h"

#include <gtest/gtest.h>

#include "graph/passes/test_graph.h"

namespace plexus {
namespace {

SimCompilerOptions Options(const char* preset = "t4") {
  SimCompilerOptions o;
  o.gpu = SimGpuPreset(preset).value();
  return o;
}

ProgramPtr Compile(const Graph& graph, const SimCompilerOptions& options = Options()) {
  const Result<ProgramPtr> program =
      MakeSimCompiler(options).value()->Compile(graph, {Precision::kFloat32, "test"});
  EXPECT_TRUE(program.ok()) << program.status().ToString();
  return program.ok() ? *program : std::make_shared<const Program>();
}

TEST(SimCompilerTest, AConvolutionIsTiledOverPixelsAndChannels) {
  TestGraph t;
  const ValueId x = t.Input("x", {1, 64, 56, 56});
  const ValueId w = t.Ramp("w", {64, 64, 3, 3});
  t.Output(t.Op("y", "Conv", {x, w}, {{"pads", std::vector<int64_t>{1, 1, 1, 1}}}));
  const ProgramPtr p = Compile(t.g);
  ASSERT_EQ(p->kernels.size(), 1u);
  const Kernel& k = p->kernels[0];
  EXPECT_EQ(k.grid, 49u);  // 3136 pixels / 64, 64 channels / 64: large tiles would fill 25 SMs
  EXPECT_EQ(k.resources.threads, 128);
  EXPECT_DOUBLE_EQ(k.flops, 2.0 * 3136 * 64 * 576);
  EXPECT_DOUBLE_EQ(k.bytes, 4.0 * (2 * 64 * 3136 + 64 * 576));
  // Two of the 49 blocks may share an SM, 8.1 TFLOP/s * 0.7 / 40 SMs; and the overhead.
  const double us = k.flops / 49 / (8.1e12 * 0.7 / 40 / 4) * 1e6 + 1;
  EXPECT_NEAR(static_cast<double>(k.estimated_block_time.count()) / 1e3, us, 0.01);
}

TEST(SimCompilerTest, ASmallProductWithALongSumIsSplitAndALargeOneTakesLargeTiles) {
  TestGraph t;
  const ValueId x = t.Input("x", {1, 2048});
  t.Output(t.Op("y", "MatMul", {x, t.Ramp("w", {2048, 1000})}));
  EXPECT_EQ(Compile(t.g)->kernels[0].grid, 16u * 3);  // 16 tiles, 3 parts for 40 SMs

  TestGraph large;
  const ValueId a = large.Input("a", {1024, 64});
  large.Output(large.Op("y", "MatMul", {a, large.Ramp("w", {64, 1024})}));
  const Kernel k = Compile(large.g)->kernels[0];
  EXPECT_EQ(k.grid, 64u);
  EXPECT_EQ(k.resources.threads, 256);
}

TEST(SimCompilerTest, WhatIsNoProductIsBoundByBytes) {
  TestGraph t;
  const ValueId x = t.Input("x", {64, 10000});
  t.Output(t.Op("y", "Relu", {x}));
  const Kernel k = Compile(t.g)->kernels[0];
  EXPECT_EQ(k.grid, 625u);
  EXPECT_DOUBLE_EQ(k.bytes, 2.0 * 4 * 640000);
  // 40 SMs hold four blocks of 256 threads each: 160 at a time share the bandwidth.
  EXPECT_NEAR(static_cast<double>(k.estimated_block_time.count()),
              k.bytes / 625 / (320e9 * 0.8 / 160) * 1e9 + 1000, 2);
}

TEST(SimCompilerTest, ViewsMakeNoKernelAndDependenciesGoThroughThem) {
  TestGraph t;
  const ValueId x = t.Input("x", {4, 6});
  const ValueId a = t.Op("a", "Relu", {x});
  const ValueId b = t.Op("b", "Reshape", {a, t.Ints({6, 4})});
  const ValueId c = t.Op("c", "Sigmoid", {b});
  const ValueId d = t.Op("d", "Tanh", {a});
  t.Output(c);
  t.Output(d);
  const ProgramPtr p = Compile(t.g);
  ASSERT_EQ(p->kernels.size(), 3u);
  EXPECT_EQ(p->kernels[0].successors, (std::vector<KernelId>{KernelId(1), KernelId(2)}));
  EXPECT_EQ(p->kernels[1].dependencies, 1u);
  EXPECT_EQ(p->arena_bytes, 96u);  // a; the outputs lie elsewhere
}

TEST(SimCompilerTest, AFusionGroupIsOneKernelAndWhatStaysInsideCostsNoBytes) {
  TestGraph t;
  const ValueId x = t.Input("x", {1, 8, 32, 32});
  const ValueId y = t.Op("y", "Conv", {x, t.Ramp("w", {8, 8, 1, 1})});
  t.Output(t.Op("z", "Relu", {y}));
  EXPECT_EQ(Compile(t.g)->kernels.size(), 2u);
  for (Node& node : t.g.nodes()) node.fusion_group = 7;
  const ProgramPtr p = Compile(t.g);
  ASSERT_EQ(p->kernels.size(), 1u);
  EXPECT_EQ(p->kernels[0].name, "Conv (y)");
  EXPECT_DOUBLE_EQ(p->kernels[0].bytes, 4.0 * (2 * 8 * 1024 + 64));
}

TEST(SimCompilerTest, AGroupThatWouldCloseACycleIsLeftApart) {
  TestGraph t;
  const ValueId x = t.Input("x", {4});
  const ValueId a = t.Op("a", "Relu", {x});
  const ValueId b = t.Op("b", "Tanh", {a});
  t.Output(t.Op("c", "Add", {a, b}));
  t.g.node(NodeId(0)).fusion_group = 1;
  t.g.node(NodeId(2)).fusion_group = 1;
  EXPECT_EQ(Compile(t.g)->kernels.size(), 3u);
}

TEST(SimCompilerTest, AFasterDeviceIsFasterAndEqualWorkHasEqualSignatures) {
  TestGraph t;
  const ValueId x = t.Input("x", {256, 512});
  t.Output(t.Op("y", "MatMul", {x, t.Ramp("w", {512, 512})}));
  EXPECT_GT(Compile(t.g)->EstimatedTime(), Duration{0});
  EXPECT_EQ(Compile(t.g)->signature, Compile(t.g)->signature);
  EXPECT_NE(Compile(t.g)->signature, Compile(t.g, Options("h100"))->signature);
  EXPECT_LT(Compile(t.g, Options("h100"))->kernels[0].estimated_block_time,
            Compile(t.g)->kernels[0].estimated_block_time);
}

TEST(SimCompilerTest, OpenShapesAndDevicesWithoutRatesAreRefused) {
  TestGraph t;
  t.infer = false;
  const ValueId x = t.Input("x", {4});
  t.Output(t.Op("open", "Relu", {x}));
  const Status status =
      MakeSimCompiler(Options()).value()->Compile(t.g, {Precision::kFloat32, "m"}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("compile 'm': node 'open' (Relu)"), std::string::npos)
      << status.message();
  EXPECT_EQ(MakeSimCompiler({}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
