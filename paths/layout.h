// Layout: places boxes in layers from left to right, so that most arrows point right and few cross.
#pragma once

#include <cstdint>
#include <vector>

namespace plexus {

struct LayoutBox {
  enum class End : uint8_t { kNone, kFirst, kLast };
  double width = 0, height = 0;
  End end = End::kNone;  // kFirst, kLast: in the outermost layers
};

struct LayoutEdge {
  uint32_t from = 0, to = 0;
};

struct LayoutPoint {
  double x = 0, y = 0;
};

struct Layout {
  std::vector<LayoutPoint> boxes;  // top left corners
  // Per edge: from the middle of a right side to the middle of a left side, around what lies
  // between.
  std::vector<std::vector<LayoutPoint>> edges;
  double width = 0, height = 0;
};

// Cycles are fine: one of their edges then points left. The same input gives the same layout on
// every machine. Edges name existing boxes, no edge a box twice.
Layout LayOut(const std::vector<LayoutBox>& boxes, const std::vector<LayoutEdge>& edges);

}  // namespace plexus
