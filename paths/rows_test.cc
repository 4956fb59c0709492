// Cuts where rows mix: what may be batched and what must not, and that users are cut alike.
#include <random>

#include "graph/passes/tiny_evaluator.h"
#include "paths/test_pipelines.h"

namespace plexus {
namespace {

const TinyEvaluator kEvaluator;

PathOptions Rows(double dispatch_flops = 0) { return {&kEvaluator, dispatch_flops}; }

// "MatMul Relu {a b} rows" per segment, sorted; without "rows" where it is not batchable.
Set RowSegments(const PathMap& map) {
  Set out;
  for (const SegmentUse& use : map.segments) {
    std::string text = TestGraph::Ops(*use.segment->graph) + " {";
    for (size_t i = 0; i < use.pipelines.size(); ++i) text += (i ? " " : "") + use.pipelines[i];
    out.insert(text + (use.segment->batchable ? "} rows" : "}"));
    EXPECT_EQ(use.segment->batchable, use.segment->why_not_batchable.empty());
  }
  return out;
}

// Over the rows.
Builder& Mix(Builder& b) { return b.Op("Softmax", {{"axis", int64_t{0}}}); }

// One row may be any number of rows.
GraphPtr OpenRows(Builder& b) {
  Graph& graph = b.graph().g;
  for (ValueId id : graph.inputs()) graph.value(id).shape.dims[0] = {std::nullopt, "N"};
  return b.Done();
}

TEST(RowCuts, APipelineThatKeepsRowsApartStaysOneSegment) {
  const PathMapPtr map = Find({{"a", Builder().Layer(1).Op("Tanh").Layer(2).Done()}}, Rows());
  EXPECT_EQ(RowSegments(*map), (Set{"MatMul Relu Tanh MatMul Relu {a} rows"}));
}

TEST(RowCuts, WithoutAnEvaluatorNothingIsCutAndNothingIsBatched) {
  Builder b;
  Mix(b.Layer(1)).Layer(2);
  EXPECT_EQ(RowSegments(*Find({{"a", b.Done()}})), (Set{"MatMul Relu Softmax MatMul Relu {a}"}));
}

TEST(RowCuts, AReductionOverTheRowsStandsAlone) {
  // The largest value of a request, taken from all of its values: rows of one batch must not see
  // each other's.
  Builder b;
  const ValueId features = b.Layer(1).value();
  // Without axes: over everything.
  const ValueId most = b.Op("ReduceMax", {{"keepdims", int64_t{1}}}).value();
  b.From(b.graph().Op("scaled", "Sub", {features, most})).Layer(2);
  const PathMapPtr map = Find({{"a", OpenRows(b)}}, Rows());
  EXPECT_EQ(RowSegments(*map),
            (Set{"MatMul Relu {a} rows", "ReduceMax {a}", "Sub MatMul Relu {a} rows"}));
  for (const SegmentUse& use : map->segments) {
    if (use.segment->batchable) continue;
    EXPECT_NE(use.segment->why_not_batchable.find("ReduceMax"), std::string::npos);
  }
}

TEST(RowCuts, TwoThatMixLeaveThreeToBatch) {
  Builder b;
  Mix(Mix(b.Layer(1)).Layer(2)).Layer(3);
  EXPECT_EQ(RowSegments(*Find({{"a", OpenRows(b)}}, Rows())),
            (Set{"MatMul Relu {a} rows", "MatMul Relu {a} rows", "MatMul Relu {a} rows",
                 "Softmax {a}"}));  // called twice
}

TEST(RowCuts, WhatCostsLessThanItsDispatchJoinsItsNeighbour) {
  const auto chain = [] {
    Builder b;
    Mix(Mix(b.Layer(1)).Op("Tanh")).Layer(2);
    return OpenRows(b);
  };
  EXPECT_EQ(RowSegments(*Find({{"a", chain()}}, Rows())),
            (Set{"MatMul Relu {a} rows", "Softmax {a}", "Tanh {a} rows", "MatMul Relu {a} rows"}));
  EXPECT_EQ(RowSegments(*Find({{"a", chain()}}, Rows(1e6))),
            (Set{"MatMul Relu {a} rows", "Softmax Tanh Softmax {a}", "MatMul Relu {a} rows"}));
}

TEST(RowCuts, CheapGlueOfOneUserDoesNotJoinAnothersSegment) {
  // Tanh is a's alone; what mixes beside it is shared.
  const auto make = [](const char* between) {
    Builder b;
    Mix(b.Layer(1));
    b.Op(between);
    return OpenRows(b.Layer(2));
  };
  EXPECT_EQ(RowSegments(*Find({{"a", make("Tanh")}, {"b", make("Exp")}}, Rows(1e6))),
            (Set{"MatMul Relu {a b} rows", "Softmax {a b}", "Tanh {a} rows", "Exp {b} rows",
                 "MatMul Relu {a b} rows"}));
}

TEST(RowCuts, AllUsersOfASegmentAreCutAlike) {
  const auto make = [](int last) {
    Builder b;
    return OpenRows(Mix(b.Layer(1)).Layer(2).Layer(last));
  };
  EXPECT_EQ(RowSegments(*Find({{"a", make(3)}, {"b", make(4)}}, Rows())),
            (Set{"MatMul Relu {a b} rows", "Softmax {a b}", "MatMul Relu {a b} rows",
                 "MatMul Relu {a} rows", "MatMul Relu {b} rows"}));
}

TEST(RowCuts, ACutIsNeverMadeWhereAnEntryIsLessThanARow) {
  // Each row becomes four entries, which then meet across the batch.
  Builder b;
  b.Layer(1);
  const ValueId quarters =
      b.graph().Op("quarters", "Reshape", {b.value(), b.graph().Ints({-1, 4})});
  b.From(quarters);
  Mix(b);
  const PathMapPtr map = Find({{"a", OpenRows(b)}}, Rows());
  EXPECT_EQ(RowSegments(*map), (Set{"MatMul Relu {a} rows", "Reshape Softmax {a}"}));
}

TEST(RowCuts, AnOutputThatIsNotARowPerEntryIsNotBatched) {
  Builder b;
  b.Layer(1);
  b.From(b.graph().Op("turned", "Transpose", {b.value()}, {{"perm", std::vector<int64_t>{1, 0}}}));
  EXPECT_EQ(RowSegments(*Find({{"a", OpenRows(b)}}, Rows())),
            (Set{"MatMul Relu {a} rows", "Transpose {a}"}));
}

TEST(RowCuts, RandomWorkIsNotBatched) {
  Builder b;
  b.Layer(1);
  b.From(b.graph().Op("noise", "RandomNormalLike", {b.value()}));
  EXPECT_EQ(RowSegments(*Find({{"a", OpenRows(b.Layer(2))}}, Rows())),
            (Set{"MatMul Relu {a} rows", "RandomNormalLike {a}", "MatMul Relu {a} rows"}));
}

TEST(RowCuts, WhatTakesOneRowIsBatchedOnlyWhereARequestBringsOne) {
  // Flattens a row: of two rows it makes one of twice the length, not two.
  Builder b;
  b.From(b.graph().Op("halves", "Reshape", {b.Layer(1).value(), b.graph().Ints({-1, 2, 8})}));
  b.From(b.graph().Op("flat", "Reshape", {b.value(), b.graph().Ints({1, -1})})).Layer(2);
  const PathMapPtr map = Find({{"a", b.Done()}}, Rows());
  EXPECT_EQ(RowSegments(*map), (Set{"MatMul Relu Reshape Reshape MatMul Relu {a} rows"}));
  EXPECT_EQ(map->segments[0].segment->row_shapes[0].ToString(), "[1,16]");
}

TEST(RowCuts, AFixedRowIsNotTakenForManyEntries) {
  // [N] → [1,N]: entries are not rows, though each alone could be one.
  Builder b;
  const ValueId samples = b.graph().Input("samples", {16});
  b.From(b.graph().Op("clip", "Reshape", {samples, b.graph().Ints({1, -1})})).Layer(1);
  b.graph().g.inputs().erase(b.graph().g.inputs().begin());
  const PathMapPtr map = Find({{"a", b.Done()}}, Rows());
  EXPECT_EQ(RowSegments(*map), (Set{"Reshape {a}", "MatMul Relu {a} rows"}));
}

TEST(RowCuts, ShapesThatTheProofNeedsStandInTheSegment) {
  Builder b;
  Mix(b.Layer(1)).Layer(2);
  const PathMapPtr map = Find({{"a", OpenRows(b)}}, Rows());
  const Segment& first = *map->paths.at("a")->calls.front().segment;
  ASSERT_EQ(first.row_shapes.size(), 1u);
  EXPECT_EQ(first.row_shapes[0].ToString(), "[rows,16]");
}

TEST(RowCuts, ASegmentKeepsItsNameWhenOthersComeAndGo) {
  const auto make = [](int last) {
    Builder b;
    return OpenRows(Mix(b.Layer(1)).Layer(last));
  };
  PathFinder finder(Rows());
  const PathMapPtr before = finder.Update({{"a", make(2)}});
  finder.Update({{"b", make(3)}});
  const PathMapPtr after = finder.Update({}, {"b"});
  EXPECT_EQ(RowSegments(*after), RowSegments(*before));
  EXPECT_EQ(after->paths.at("a")->calls[0].segment, before->paths.at("a")->calls[0].segment);
}

// Whatever the pipelines: batchable segments pass the proof by themselves, and no segment that is
// not holds a layer with weights that could be.
TEST(RowCuts, BatchableSegmentsPassTheProof) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    std::map<std::string, GraphPtr> pipelines;
    for (int p = 0; p < 3; ++p) {
      Builder b;
      for (int i = 0; i < 6; ++i) {
        const uint32_t kind = random() % 4;
        if (kind == 0) {
          Mix(b);
        } else if (kind == 1) {
          b.Op("Tanh");
        } else {
          b.Layer(static_cast<int>(random() % 5));
        }
      }
      pipelines["p" + std::to_string(p)] = OpenRows(b);
    }
    const PathMapPtr map = Find(pipelines, Rows(seed % 2 ? 1e6 : 0));
    for (const SegmentUse& use : map->segments) {
      const Segment& segment = *use.segment;
      Graph typed = *segment.graph;
      for (size_t i = 0; i < segment.row_shapes.size(); ++i) {
        typed.value(typed.inputs()[i]).shape = segment.row_shapes[i];
      }
      const std::string ops = TestGraph::Ops(*segment.graph);
      if (segment.batchable) {
        ASSERT_TRUE(IsRowIndependent(typed, nullptr)) << "seed " << seed << ": " << ops;
      } else {
        ASSERT_EQ(ops.find("MatMul"), std::string::npos) << "seed " << seed << ": " << ops;
      }
    }
  }
}

}  // namespace
}  // namespace plexus
