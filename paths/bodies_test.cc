#include "paths/bodies.h"

#include "base/test_json.h"
#include "graph/passes/tiny_evaluator.h"
#include "paths/drawing.h"
#include "paths/summary.h"
#include "paths/test_pipelines.h"

namespace plexus {
namespace {

constexpr double kProduct = 2 * 16 * 16;  // of one row
constexpr int64_t kRows = 5;

// Products with weights of these numbers behind `value`; their names stand inside `stage`.
ValueId Products(TestGraph& t, ValueId value, const std::string& stage,
                 const std::vector<int>& weights) {
  for (const int number : weights) {
    const std::string name = stage + "/m" + std::to_string(number);
    value = t.Op(name, "MatMul", {value, t.Ramp(name + "w", {16, 16}, static_cast<float>(number))});
  }
  return value;
}

GraphPtr Finish(TestGraph& t) {
  EXPECT_TRUE(MarkFusionGroups(t.g).ok());
  EXPECT_TRUE(t.g.Validate().ok());
  return std::make_shared<const Graph>(t.g);
}

// One stage `lines` over the rows of `input`, with these products in it.
GraphPtr Foreach(const std::vector<int>& weights, const std::string& input = "x") {
  TestGraph body;
  body.Output(Products(body, body.Input("row", {1, 16}), "lines", weights));
  TestGraph t;
  const ValueId x = t.Input(input, {kRows, 16});
  t.infer = false;
  t.Output(t.Op("lines", "MapRows", {x}, {{"body", Finish(body)}, {"stage", int64_t{1}}}));
  t.g.nodes().back().domain = "plexus";
  return Finish(t);
}

// Three turns of these products.
GraphPtr Repeat(const std::vector<int>& weights) {
  TestGraph body;
  body.Input("i", {}, DType::kInt64);
  const ValueId going = body.Input("going", {}, DType::kBool);
  const ValueId state = body.Input("v", {1, 16});
  body.Output(body.Op("turns/on", "Identity", {going}));
  body.Output(Products(body, state, "turns", weights));
  TestGraph t;
  const ValueId x = t.Input("x", {1, 16});
  const ValueId limit = t.Const("limit", Tensor::ScalarInt64(3));
  t.infer = false;
  t.Output(t.Op("turns", "Loop", {limit, ValueId(), x},
                {{"body", Finish(body)}, {"stage", int64_t{1}}}));
  return Finish(t);
}

// Stages that read `c` and choose between these products and none.
GraphPtr When(const std::vector<int>& weights) {
  const auto branch = [](const std::string& name, const std::vector<int>& layers) {
    TestGraph t;
    const ValueId value = t.Input("v", {1, 16});
    t.g.captures() = t.g.inputs();
    t.g.inputs().clear();
    t.Output(layers.empty() ? t.Op(name + "/same", "Identity", {value})
                            : Products(t, value, name, layers));
    return std::make_shared<const Graph>(t.g);
  };
  TestGraph t;
  const ValueId x = t.Input("x", {1, 16}), c = t.Input("c", {}, DType::kBool);
  t.infer = false;
  t.Output(t.Op("turn", "If", {c},
                {{"then_branch", branch("turn/then", weights)},
                 {"else_branch", branch("turn/else", {})},
                 {"stage", int64_t{1}}}));
  t.g.nodes().back().implicit_inputs = {x};
  return Finish(t);
}

PathSummary Summary(const std::map<std::string, GraphPtr>& pipelines) {
  static const TinyEvaluator evaluator;
  PathFinder finder;
  BodyPaths bodies;
  std::vector<PathFinder::Load> loads;
  for (const auto& [name, graph] : pipelines) loads.push_back({name, graph});
  finder.Update(std::move(loads));
  return Summarize(bodies.Follow(finder), {}, evaluator);
}

// "name: users, calls, distinct" per segment.
using List = std::vector<std::string>;
List Lines(const PathSummary& summary) {
  List lines;
  for (const SegmentSummary& s : summary.segments) {
    lines.push_back(s.name + ": " + std::to_string(s.pipelines.size()) + ", " +
                    std::to_string(s.calls) + ", " + std::to_string(s.distinct_calls));
  }
  return lines;
}

TEST(BodyPaths, WhatStagesHaveInCommonInsideIsASegmentNamedByItsStage) {
  const PathSummary summary = Summary({{"a", Foreach({1, 2, 3})}, {"b", Foreach({1, 2, 4})}});
  EXPECT_EQ(Lines(summary), (List{"a/lines: 1, 1, 1",  //
                                  "stage lines (foreach): m1..m2: 2, 2, 1",
                                  "a/stage lines (foreach): m3: 1, 1, 1",  //
                                  "b/lines: 1, 1, 1", "b/stage lines (foreach): m4: 1, 1, 1"}));
  EXPECT_EQ(summary.pipelines, 2u);
  EXPECT_EQ(summary.segments[1].flops, 2 * kProduct);
  EXPECT_EQ(summary.constant_bytes, 4u * 1024);
  EXPECT_EQ(summary.constant_bytes_saved, 2u * 1024);
  EXPECT_EQ(summary.flops, kRows * 6 * kProduct);
  EXPECT_EQ(summary.flops_saved, kRows * 2 * kProduct);
  EXPECT_EQ(summary.body_flops, 6 * kProduct);
  EXPECT_EQ(summary.body_flops_saved, 2 * kProduct);
  EXPECT_TRUE(summary.flops_complete && summary.body_flops_complete);
}

TEST(BodyPaths, RowsOfOtherInputsAreOtherRows) {
  const PathSummary summary =
      Summary({{"a", Foreach({1, 2, 3})}, {"b", Foreach({1, 2, 4}, "other")}});
  EXPECT_EQ(summary.constant_bytes_saved, 2u * 1024);
  EXPECT_EQ(summary.flops_saved, 0);
  EXPECT_EQ(summary.body_flops_saved, 0);
}

TEST(BodyPaths, AWholeStageInCommonIsCountedOnce) {
  const PathSummary summary = Summary({{"a", Foreach({1, 2})}, {"b", Foreach({1, 2})}});
  EXPECT_EQ(Lines(summary), (List{"lines: 2, 2, 1", "stage lines (foreach): m1..m2: 2, 2, 1"}));
  EXPECT_EQ(summary.flops_saved, kRows * 2 * kProduct) << "not once more for what is inside";
  ASSERT_EQ(summary.bodies.size(), 1u);
  EXPECT_EQ(summary.bodies.begin()->second.pipelines, (List{"a", "b"}));
}

TEST(BodyPaths, ALayerInsideAndOutsideIsOneSegment) {
  const PathSummary summary =
      Summary({{"a", Foreach({1, 3})},
               {"b", Builder().Op("Abs").Layer(9).Done()},
               {"c", [] {
                  TestGraph t;
                  t.Output(Products(t, t.Input("y", {1, 16}), "model", {1}));
                  return Finish(t);
                }()}});
  const auto shared = std::find_if(summary.segments.begin(), summary.segments.end(),
                                   [](const SegmentSummary& s) { return s.pipelines.size() == 2; });
  ASSERT_NE(shared, summary.segments.end());
  EXPECT_EQ(shared->pipelines, (List{"a", "c"}));
  EXPECT_EQ(shared->stage, "") << "it has a place outside of stages";
  EXPECT_EQ(shared->distinct_calls, 2u);
}

TEST(BodyPaths, LoopsAreEqualTurnByTurnOnlyWhereTheyMakeTheSame) {
  // The first product of each first turn is equal in fact; nobody counts on it.
  const PathSummary other = Summary({{"a", Repeat({1, 2})}, {"b", Repeat({1, 3})}});
  EXPECT_EQ(other.constant_bytes_saved, 1024u + sizeof(int64_t)) << "the limit, too";
  EXPECT_EQ(other.body_flops_saved, 0);
  // What is made beside what is carried differs.
  const auto with_output = [](int own) {
    TestGraph body;
    body.Input("i", {}, DType::kInt64);
    const ValueId going = body.Input("going", {}, DType::kBool);
    const ValueId next = Products(body, body.Input("v", {1, 16}), "turns", {1, 2});
    body.Output(body.Op("turns/on", "Identity", {going}));
    body.Output(next);
    body.Output(Products(body, next, "turns", {own}));
    TestGraph t;
    const ValueId x = t.Input("x", {1, 16});
    const ValueId limit = t.Const("limit", Tensor::ScalarInt64(3));
    t.infer = false;
    t.Op("turns", "Loop", {limit, ValueId(), x}, {{"body", Finish(body)}, {"stage", int64_t{1}}});
    Value all;
    all.name = "all";
    all.dtype = DType::kFloat32;
    t.g.nodes().back().outputs.push_back(t.g.AddValue(std::move(all)));
    t.Output(t.g.nodes().back().outputs.back());
    return Finish(t);
  };
  const PathSummary same = Summary({{"a", with_output(3)}, {"b", with_output(4)}});
  EXPECT_EQ(same.body_flops, 6 * kProduct + 2) << "and an Identity in each";
  EXPECT_EQ(same.body_flops_saved, 2 * kProduct + 1);
  EXPECT_EQ(same.flops_saved, 0) << "how often a loop turns, a run tells";
}

TEST(BodyPaths, BranchesAreNamed) {
  const PathSummary summary = Summary({{"a", When({1, 2})}, {"b", When({1, 3})}});
  List named;
  for (const SegmentSummary& s : summary.segments) {
    if (s.pipelines.size() == 2) named.push_back(s.name);
  }
  EXPECT_EQ(named, (List{"stage turn (when, else): same", "stage turn (when, then): m1"}));
  EXPECT_EQ(summary.body_flops_saved, kProduct + 16) << "a product, and a row copied";
}

TEST(BodyPaths, BodiesComeAndGoWithTheirPipelines) {
  PathFinder finder;
  BodyPaths bodies;
  finder.Update({{"a", Foreach({1, 2})}, {"b", Foreach({1, 3})}});
  const PathMapPtr both = bodies.Follow(finder);
  EXPECT_EQ(both->paths.size(), 4u);
  EXPECT_EQ(both->bodies.size(), 2u);
  finder.Update({}, {"b"});
  const PathMapPtr one = bodies.Follow(finder);
  EXPECT_EQ(one->paths.size(), 2u);
  ASSERT_EQ(one->bodies.size(), 1u);
  EXPECT_EQ(one->paths.at(one->bodies.begin()->second)->calls.size(), 1u) << "shared with nobody";
  finder.Update({}, {"a"});
  EXPECT_TRUE(bodies.Follow(finder)->paths.empty());
}

TEST(BodyPaths, JsonAndPicturesShowThem) {
  const PathSummary summary = Summary({{"a", Foreach({1, 2, 3})}, {"b", Foreach({1, 2, 4})}});
  std::string text;
  JsonWriter json(&text);
  WriteSummary(summary, json);
  const std::optional<TestJson> read = TestJson::Parse(text);
  ASSERT_TRUE(read.has_value()) << text;
  EXPECT_EQ((*read)["segments"].items[1]["stage"].text, "stage lines (foreach)");
  EXPECT_EQ((*read)["body_flops_saved"].number, 2 * kProduct);
  const TestJson& call = (*read)["pipelines"]["a"]["calls"].items[0];
  ASSERT_EQ(call["bodies"].items.size(), 1u) << text;
  const TestJson& body = (*read)["bodies"][call["bodies"].items[0].text];
  EXPECT_EQ(body["calls"].items[0]["segment"].text, "stage lines (foreach): m1..m2");
  EXPECT_EQ(body["calls"].items.size(), 2u);
  EXPECT_EQ(body["pipelines"].items[0].text, "a");

  for (const std::string& picture : {DrawSvg(summary), DrawDot(summary)}) {
    EXPECT_NE(picture.find("stage lines (foreach)"), std::string::npos) << picture;
    EXPECT_EQ(picture.find("~/"), std::string::npos) << "bodies are nobody's pipelines";
  }
}

}  // namespace
}  // namespace plexus
