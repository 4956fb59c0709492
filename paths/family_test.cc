#include "paths/family.h"

#include "paths/test_pipelines.h"

namespace plexus {
namespace {

std::map<std::string, GraphPtr> Members(const Family& family, int count) {
  std::map<std::string, GraphPtr> members;
  for (int m = 0; m < count; ++m) {
    Result<Graph> graph = FamilyMember(family, m);
    EXPECT_TRUE(graph.ok()) << graph.status().ToString();
    EXPECT_TRUE(graph->Validate().ok());
    EXPECT_TRUE(MarkFusionGroups(*graph).ok());
    members["m" + std::to_string(m)] = std::make_shared<const Graph>(std::move(*graph));
  }
  return members;
}

// Weights of segments that all members use, as a share of one member's.
double SharedShare(const Family& family, int count) {
  const PathMapPtr map = Find(Members(family, count));
  double shared = 0, own = 0;
  for (const SegmentUse& use : map->segments) {
    if (use.pipelines.size() == static_cast<size_t>(count)) {
      shared += static_cast<double>(use.segment->constant_bytes);
    } else {
      own += static_cast<double>(use.segment->constant_bytes) / count;
    }
  }
  return shared / (shared + own);
}

TEST(Family, MembersShareWhatTheirKindSays) {
  // 70 nodes are 10 blocks.
  EXPECT_NEAR(SharedShare({FamilyKind::kHeads, 70, 16, 0}, 4), 20.0 / 21, 0.01);
  EXPECT_NEAR(SharedShare({FamilyKind::kLastLayers, 70, 16, 3}, 4), 0.7, 0.02);
  EXPECT_NEAR(SharedShare({FamilyKind::kDecoders, 70, 16, 4}, 4), 0.6, 0.04);  // but its first norm
  // Two adapters of 4 nodes leave 8 blocks; each has a quarter of a block's weights.
  EXPECT_GT(SharedShare({FamilyKind::kAdapters, 70, 16, 2}, 4), 0.9);
  EXPECT_EQ(SharedShare({FamilyKind::kLastLayers, 70, 16, 9}, 1), 1.0);
  EXPECT_EQ(SharedShare({FamilyKind::kLastLayers, 70, 16, 10}, 4), 0.0) << "all changed";
}

TEST(Family, MembersDifferAndAreTheSameEveryTime) {
  const Family family = {FamilyKind::kLastLayers, 35, 16, 1};
  const std::map<std::string, GraphPtr> members = Members(family, 2);
  PathFinder finder;
  finder.Update({{"a", members.at("m0")}, {"b", members.at("m1")}});
  EXPECT_NE(finder.FirstDifference("a", "b").value(), "");
  finder.Update({{"b", Members(family, 1).at("m0")}});
  EXPECT_EQ(finder.FirstDifference("a", "b").value(), "");
}

TEST(Family, OtherSeedsShareNothing) {
  Family other = {FamilyKind::kHeads, 35, 16, 0};
  std::map<std::string, GraphPtr> two = {{"a", Members(other, 1).at("m0")}};
  other.seed = 2;
  two["b"] = Members(other, 1).at("m0");
  const PathMapPtr map = Find(two);
  for (const SegmentUse& use : map->segments) EXPECT_EQ(use.pipelines.size(), 1u);
}

TEST(Family, HasAboutTheNodesThatWereAskedFor) {
  for (const std::string& name : FamilyKindNames()) {
    const Family family = {ParseFamilyKind(name).value(), 400, 16, 3};
    const Result<Graph> member = FamilyMember(family, 7);
    ASSERT_TRUE(member.ok()) << name;
    EXPECT_NEAR(static_cast<double>(member->num_nodes()), 400, 12) << name;
  }
}

TEST(Family, SizesThatMakeNoModelAreRefused) {
  for (const Family& bad :
       {Family{FamilyKind::kHeads, 3, 16, 0}, Family{FamilyKind::kHeads, 70, 4, 0},
        Family{FamilyKind::kLastLayers, 70, 16, 11}, Family{FamilyKind::kDecoders, 70, 16, -1},
        Family{FamilyKind::kHeads, 200'000, 16, 0}, Family{FamilyKind::kAdapters, 70, 16, 60}}) {
    EXPECT_EQ(FamilyMember(bad, 0).status().code(), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(FamilyMember({}, -1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ParseFamilyKind("nothing").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
