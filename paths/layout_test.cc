#include "paths/layout.h"

#include <gtest/gtest.h>

#include <random>

namespace plexus {
namespace {

bool Overlap(const Layout& layout, const std::vector<LayoutBox>& boxes, size_t a, size_t b) {
  const LayoutPoint &p = layout.boxes[a], &q = layout.boxes[b];
  return p.x < q.x + boxes[b].width && q.x < p.x + boxes[a].width && p.y < q.y + boxes[b].height &&
         q.y < p.y + boxes[a].height;
}

TEST(Layout, NothingIsNothing) { EXPECT_EQ(LayOut({}, {}).width, 0); }

TEST(Layout, ArrowsPointRightAndEndsAreOutermost) {
  using End = LayoutBox::End;
  // 0 → 1 → 2 → 4, 0 → 2, 1 → 3; 0 is first, 3 and 4 are last.
  const std::vector<LayoutBox> boxes = {
      {40, 20, End::kFirst}, {60, 30}, {50, 30}, {40, 20, End::kLast}, {40, 20, End::kLast}};
  const std::vector<LayoutEdge> edges = {{0, 1}, {1, 2}, {2, 4}, {0, 2}, {1, 3}};
  const Layout layout = LayOut(boxes, edges);
  for (size_t e = 0; e < edges.size(); ++e) {
    const std::vector<LayoutPoint>& points = layout.edges[e];
    for (size_t i = 1; i < points.size(); ++i) EXPECT_GE(points[i].x, points[i - 1].x) << e;
    EXPECT_EQ(points.front().x, layout.boxes[edges[e].from].x + boxes[edges[e].from].width);
    EXPECT_EQ(points.back().x, layout.boxes[edges[e].to].x);
  }
  EXPECT_EQ(layout.edges[3].size(), 4u);  // passes the layer of box 1, in two points
  EXPECT_EQ(layout.boxes[3].x, layout.boxes[4].x);
  EXPECT_EQ(layout.boxes[0].x, 0);
}

TEST(Layout, AChainLiesOnOneLine) {
  const std::vector<LayoutBox> boxes(4, LayoutBox{30, 20});
  const Layout layout = LayOut(boxes, {{0, 1}, {1, 2}, {2, 3}});
  for (const LayoutPoint& box : layout.boxes) EXPECT_NEAR(box.y, 0, 1e-9);
  EXPECT_EQ(layout.height, 20);
}

TEST(Layout, ACycleHasOneArrowThatPointsLeft) {
  const std::vector<LayoutBox> boxes(3, LayoutBox{30, 20});
  const Layout layout = LayOut(boxes, {{0, 1}, {1, 2}, {2, 0}});
  EXPECT_LT(layout.boxes[0].x, layout.boxes[1].x);
  EXPECT_LT(layout.boxes[1].x, layout.boxes[2].x);
  EXPECT_GT(layout.edges[2].front().x, layout.edges[2].back().x);
}

TEST(Layout, BoxesNeverOverlapAndLieInside) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    std::vector<LayoutBox> boxes(1 + random() % 40);
    for (LayoutBox& box : boxes) {
      box.width = 20 + static_cast<double>(random() % 100);
      box.height = 10 + static_cast<double>(random() % 40);
    }
    std::vector<LayoutEdge> edges;
    for (uint32_t to = 1; to < boxes.size(); ++to) {
      for (uint32_t from = static_cast<uint32_t>(random() % to); from < to; from += 7) {
        edges.push_back(random() % 9 == 0 ? LayoutEdge{to, from} : LayoutEdge{from, to});
      }
    }
    const Layout layout = LayOut(boxes, edges);
    for (size_t a = 0; a < boxes.size(); ++a) {
      for (size_t b = 0; b < a; ++b) ASSERT_FALSE(Overlap(layout, boxes, a, b)) << "seed " << seed;
      ASSERT_GE(layout.boxes[a].y, -1e-6) << "seed " << seed;
      ASSERT_LE(layout.boxes[a].y + boxes[a].height, layout.height + 1e-6) << "seed " << seed;
      ASSERT_LE(layout.boxes[a].x + boxes[a].width, layout.width + 1e-6) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace plexus
