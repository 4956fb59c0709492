#include "paths/summary.h"

#include "base/test_json.h"
#include "graph/passes/tiny_evaluator.h"
#include "paths/flops.h"
#include "paths/test_pipelines.h"

namespace plexus {
namespace {

constexpr double kLayer = 2 * 16 * 16 + 16;  // MatMul and Relu on one row

PathSummary Summary(std::map<std::string, GraphPtr> pipelines, const PathInputs& inputs = {}) {
  static const TinyEvaluator evaluator;
  return Summarize(Find(std::move(pipelines)), inputs, evaluator);
}

TEST(PathSummary, CountsWhatSharingSaves) {
  const PathSummary summary = Summary({{"a", Builder().Layer(1).Layer(2).Layer(3).Done()},
                                       {"b", Builder().Layer(1).Layer(2).Layer(4).Done()},
                                       {"c", Builder().Layer(1).Layer(2).Layer(5).Done()}});
  ASSERT_EQ(summary.segments.size(), 4u);
  const SegmentSummary& shared = summary.segments[0];
  EXPECT_EQ(shared.pipelines.size(), 3u);
  EXPECT_EQ(shared.calls, 3u);
  EXPECT_EQ(shared.distinct_calls, 1u);
  EXPECT_EQ(shared.nodes, 4u);
  EXPECT_EQ(shared.constant_bytes, 2u * 1024);
  EXPECT_EQ(shared.flops, 2 * kLayer);
  EXPECT_EQ(summary.constant_bytes, 5u * 1024);
  EXPECT_EQ(summary.constant_bytes_saved, 4u * 1024);
  EXPECT_EQ(summary.flops, 9 * kLayer);
  EXPECT_EQ(summary.flops_saved, 4 * kLayer);
  EXPECT_TRUE(summary.flops_complete);
}

TEST(PathSummary, InputsOfOtherNamesAreOtherData) {
  const PathSummary summary = Summary(
      {{"a", Builder("x").Layer(1).Layer(2).Done()}, {"b", Builder("y").Layer(1).Layer(3).Done()}});
  EXPECT_EQ(summary.constant_bytes_saved, 1024u);
  EXPECT_EQ(summary.flops_saved, 0);
  EXPECT_EQ(summary.segments[0].distinct_calls, 2u);
}

TEST(PathSummary, WorkBehindRandomWorkIsNotSaved) {
  const auto noisy = [](int last) {
    Builder b;
    b.From(b.graph().Op("noise", "RandomNormalLike", {b.value()}));
    return b.Layer(1).Layer(last).Done();
  };
  const PathSummary summary = Summary({{"a", noisy(2)}, {"b", noisy(3)}});
  EXPECT_EQ(summary.constant_bytes_saved, 1024u);
  EXPECT_EQ(summary.flops_saved, 0);
}

TEST(PathSummary, AConstantInTwoSegmentsIsHeldOnce) {
  // The shared layer stands in the pair's other segment too, fused with an Add there.
  Builder pair;
  pair.Layer(1);
  const ValueId trunk = pair.value();
  pair.AddLayerOf(trunk, 1);
  const PathSummary summary = Summary({{"one", Builder().Layer(1).Done()}, {"pair", pair.Done()}});
  EXPECT_EQ(summary.constant_bytes, 1024u);
  EXPECT_EQ(summary.constant_bytes_saved, 1024u);
}

TEST(PathSummary, NamesAreUniqueAndSaySpanAndOwner) {
  const PathSummary summary = Summary(
      {{"a", Builder().Layer(1).Layer(2).Done()}, {"b", Builder().Layer(3).Layer(2).Done()}});
  std::set<std::string> names;
  for (const SegmentSummary& segment : summary.segments) {
    EXPECT_TRUE(names.insert(segment.name).second) << segment.name;
    if (segment.pipelines.size() == 1) {
      EXPECT_EQ(segment.name.substr(0, 2), segment.pipelines[0] + "/");
    }
  }
  EXPECT_NE(names.begin()->find(".."), std::string::npos) << *names.begin();
}

TEST(PathSummary, UnknownSizesLeaveWorkOut) {
  const auto open = [](int last) {
    Builder b;
    b.Layer(1).Layer(last);
    b.graph().g.value(b.graph().g.inputs()[0]).shape.dims[0].value.reset();
    return b.Done();
  };
  const std::map<std::string, GraphPtr> pipelines = {{"a", open(2)}, {"b", open(3)}};
  const PathSummary unknown = Summary(pipelines);
  EXPECT_FALSE(unknown.flops_complete);
  EXPECT_EQ(unknown.flops, 0);
  EXPECT_FALSE(unknown.segments[0].flops.has_value());
  const KnownValue rows = {DType::kFloat32, Shape{8, 16}, std::nullopt};
  const PathSummary known = Summary(pipelines, {{"a", {rows}}, {"b", {rows}}});
  EXPECT_TRUE(known.flops_complete);
  EXPECT_EQ(known.flops_saved, 8 * kLayer);
}

TEST(PathSummary, JsonHoldsTheSameFacts) {
  const PathSummary summary = Summary(
      {{"a", Builder().Layer(1).Layer(2).Done()}, {"b", Builder().Layer(1).Layer(3).Done()}});
  std::string text;
  JsonWriter json(&text);
  WriteSummary(summary, json);
  const std::optional<TestJson> read = TestJson::Parse(text);
  ASSERT_TRUE(read.has_value()) << text;
  EXPECT_EQ((*read)["flops_saved"].number, summary.flops_saved);
  ASSERT_EQ((*read)["segments"].items.size(), 3u);
  EXPECT_EQ((*read)["segments"].items[0]["pipelines"].items.size(), 2u);
  const TestJson& calls = (*read)["pipelines"]["b"]["calls"];
  ASSERT_EQ(calls.items.size(), 2u);
  EXPECT_EQ(calls.items[1]["inputs"].items[0]["call"].number, 0);
  EXPECT_EQ((*read)["pipelines"]["b"]["outputs"].items[0]["call"].number, 1);
}

TEST(CountFlops, AnIfCountsItsLargerBranchAndALoopIsLeftOut) {
  const auto body = [](int layers) {
    TestGraph t;
    ValueId value = t.Input("v", {1, 16});
    t.g.captures() = t.g.inputs();
    t.g.inputs().clear();
    for (int i = 0; i < layers; ++i) {
      value = t.Op("m" + std::to_string(i), "MatMul", {value, t.Ramp("w", {16, 16})});
    }
    t.Output(value);
    return std::make_shared<const Graph>(t.g);
  };
  TestGraph t;
  const ValueId x = t.Input("x", {1, 16});
  const ValueId condition = t.Input("c", {}, DType::kBool);
  t.infer = false;
  const ValueId y =
      t.Op("if", "If", {condition}, {{"then_branch", body(1)}, {"else_branch", body(3)}});
  t.g.nodes().back().implicit_inputs = {x};
  t.Output(y);
  const Flops flops = CountFlops(t.g);
  EXPECT_EQ(flops.count, 3 * 2 * 16 * 16);
  EXPECT_TRUE(flops.complete);
  t.g.nodes().back().op = "Loop";
  EXPECT_EQ(CountFlops(t.g).count, 0);
  EXPECT_FALSE(CountFlops(t.g).complete);
}

TEST(CountFlops, ARowMapCountsItsBodyPerRow) {
  TestGraph body;
  const ValueId row = body.Input("row", {1, 16});
  body.Output(body.Op("m", "MatMul", {row, body.Ramp("w", {16, 16})}));
  TestGraph t;
  const ValueId x = t.Input("x", {5, 16});
  t.infer = false;
  t.Output(t.Op("map", "MapRows", {x}, {{"body", std::make_shared<const Graph>(body.g)}}));
  t.g.nodes().back().domain = "plexus";
  EXPECT_EQ(CountFlops(t.g).count, 5 * 2 * 16 * 16);
}

}  // namespace
}  // namespace plexus
