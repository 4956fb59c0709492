#include "paths/layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace plexus {
namespace {

constexpr double kGapX = 56, kGapY = 16, kBendHeight = 4;
constexpr int kOrderSweeps = 12, kPlaceSweeps = 12;

// After Sugiyama: layers by longest path, bends where an edge passes a layer, order by the mean of
// the neighbours, then positions as close to the neighbours' as the order allows.
class LayoutMaker {
 public:
  LayoutMaker(const std::vector<LayoutBox>& boxes, const std::vector<LayoutEdge>& edges)
      : boxes_(boxes), edges_(edges), count_(boxes.size()) {}

  Layout Make() {
    if (count_ == 0) return {};
    Orient();
    AssignLayers();
    AddBends();
    Order();
    Place();
    return Finish();
  }

 private:
  struct Item {
    double height = 0, y = 0;  // y: of the middle
    uint32_t layer = 0;
    std::vector<uint32_t> left, right;
  };

  // Turns edges that close a cycle: depth first, what leads back to an open box.
  void Orient() {
    std::vector<std::vector<uint32_t>> out(count_);
    for (uint32_t e = 0; e < edges_.size(); ++e) out[edges_[e].from].push_back(e);
    turned_.assign(edges_.size(), false);
    std::vector<uint8_t> state(count_, 0);  // 1: open, 2: done
    for (uint32_t root = 0; root < count_; ++root) {
      if (state[root] != 0) continue;
      std::vector<std::pair<uint32_t, size_t>> stack = {{root, 0}};
      state[root] = 1;
      while (!stack.empty()) {
        auto& [box, next] = stack.back();
        if (next == out[box].size()) {
          state[box] = 2;
          stack.pop_back();
          continue;
        }
        const uint32_t e = out[box][next++];
        const uint32_t to = edges_[e].to;
        turned_[e] = state[to] == 1;
        if (state[to] != 0) continue;
        state[to] = 1;
        stack.push_back({to, 0});
      }
    }
  }

  uint32_t Left(uint32_t e) const { return turned_[e] ? edges_[e].to : edges_[e].from; }
  uint32_t Right(uint32_t e) const { return turned_[e] ? edges_[e].from : edges_[e].to; }

  void AssignLayers() {
    std::vector<std::vector<uint32_t>> out(count_);
    std::vector<uint32_t> waits(count_), ready;
    items_.resize(count_);
    for (uint32_t e = 0; e < edges_.size(); ++e) {
      out[Left(e)].push_back(Right(e));
      ++waits[Right(e)];
    }
    const bool has_first = std::any_of(boxes_.begin(), boxes_.end(), [](const LayoutBox& box) {
      return box.end == LayoutBox::End::kFirst;
    });
    for (uint32_t b = 0; b < count_; ++b) {
      items_[b].height = boxes_[b].height;
      if (has_first && boxes_[b].end != LayoutBox::End::kFirst) items_[b].layer = 1;
      if (waits[b] == 0) ready.push_back(b);
    }
    uint32_t last = 0;
    while (!ready.empty()) {
      const uint32_t b = ready.back();
      ready.pop_back();
      last = std::max(last, items_[b].layer);
      for (uint32_t to : out[b]) {
        items_[to].layer = std::max(items_[to].layer, items_[b].layer + 1);
        if (--waits[to] == 0) ready.push_back(to);
      }
    }
    for (uint32_t b = 0; b < count_; ++b) {
      if (boxes_[b].end == LayoutBox::End::kLast) items_[b].layer = last;
    }
    layers_.resize(last + 1);
  }

  void AddBends() {
    chains_.resize(edges_.size());
    for (uint32_t e = 0; e < edges_.size(); ++e) {
      uint32_t at = Left(e);
      const uint32_t end = Right(e);
      for (uint32_t layer = items_[at].layer + 1; layer < items_[end].layer; ++layer) {
        const auto bend = static_cast<uint32_t>(items_.size());
        items_.push_back({kBendHeight, 0, layer, {}, {}});
        Join(at, bend);
        chains_[e].push_back(bend);
        at = bend;
      }
      Join(at, end);
    }
  }

  void Join(uint32_t left, uint32_t right) {
    items_[left].right.push_back(right);
    items_[right].left.push_back(left);
  }

  void Order() {
    for (uint32_t i = 0; i < items_.size(); ++i) layers_[items_[i].layer].push_back(i);
    std::vector<double> place(items_.size());
    const auto number = [&](const std::vector<uint32_t>& layer) {
      for (size_t i = 0; i < layer.size(); ++i) {
        place[layer[i]] = (static_cast<double>(i) + 0.5) / static_cast<double>(layer.size());
      }
    };
    for (const auto& layer : layers_) number(layer);
    std::vector<double> wanted(items_.size());
    for (int sweep = 0; sweep < kOrderSweeps; ++sweep) {
      const bool forward = sweep % 2 == 0;
      for (size_t l = 0; l < layers_.size(); ++l) {
        std::vector<uint32_t>& layer = layers_[forward ? l : layers_.size() - 1 - l];
        for (uint32_t i : layer) {
          wanted[i] = Mean(forward ? items_[i].left : items_[i].right, place, place[i]);
        }
        std::stable_sort(layer.begin(), layer.end(),
                         [&](uint32_t a, uint32_t b) { return wanted[a] < wanted[b]; });
        number(layer);
      }
    }
  }

  static double Mean(const std::vector<uint32_t>& of, const std::vector<double>& values,
                     double otherwise) {
    if (of.empty()) return otherwise;
    double sum = 0;
    for (uint32_t i : of) sum += values[i];
    return sum / static_cast<double>(of.size());
  }

  void Place() {
    std::vector<double> y(items_.size());
    for (const std::vector<uint32_t>& layer : layers_) {
      double top = 0;
      for (uint32_t i : layer) {
        y[i] = top + items_[i].height / 2;
        top += items_[i].height + kGapY;
      }
      for (uint32_t i : layer) y[i] -= top / 2;
    }
    for (int sweep = 0; sweep < kPlaceSweeps; ++sweep) {
      for (size_t l = 0; l < layers_.size(); ++l) {
        const bool forward = sweep % 2 == 0;
        const std::vector<uint32_t>& layer = layers_[forward ? l : layers_.size() - 1 - l];
        std::vector<double> wanted;
        for (uint32_t i : layer) {
          std::vector<uint32_t> around = forward ? items_[i].left : items_[i].right;
          if (sweep + 2 >= kPlaceSweeps) {  // at last, between both sides
            around = items_[i].left;
            around.insert(around.end(), items_[i].right.begin(), items_[i].right.end());
          }
          wanted.push_back(Mean(around, y, y[i]));
        }
        const std::vector<double> placed = Apart(layer, wanted);
        for (size_t i = 0; i < layer.size(); ++i) y[layer[i]] = placed[i];
      }
    }
    for (size_t i = 0; i < items_.size(); ++i) items_[i].y = y[i];
  }

  // The positions closest to `wanted`, in least squares, that keep the order and the gaps: pool
  // adjacent violators.
  std::vector<double> Apart(const std::vector<uint32_t>& layer,
                            const std::vector<double>& wanted) const {
    struct Block {
      double sum = 0;
      size_t size = 0;
      double mean() const { return sum / static_cast<double>(size); }
    };
    std::vector<double> offset(layer.size());
    std::vector<Block> blocks;
    for (size_t i = 0; i < layer.size(); ++i) {
      if (i > 0) {
        offset[i] =
            offset[i - 1] + kGapY + (items_[layer[i - 1]].height + items_[layer[i]].height) / 2;
      }
      blocks.push_back({wanted[i] - offset[i], 1});
      while (blocks.size() > 1 && blocks[blocks.size() - 2].mean() > blocks.back().mean()) {
        blocks[blocks.size() - 2].sum += blocks.back().sum;
        blocks[blocks.size() - 2].size += blocks.back().size;
        blocks.pop_back();
      }
    }
    std::vector<double> placed;
    for (const Block& block : blocks) {
      for (size_t k = 0; k < block.size; ++k) {
        placed.push_back(block.mean() + offset[placed.size()]);
      }
    }
    return placed;
  }

  Layout Finish() const {
    Layout layout;
    std::vector<double> width(layers_.size(), 0), x(layers_.size(), 0);
    for (uint32_t b = 0; b < count_; ++b) {
      double& w = width[items_[b].layer];
      w = std::max(w, boxes_[b].width);
    }
    for (size_t l = 1; l < layers_.size(); ++l) x[l] = x[l - 1] + width[l - 1] + kGapX;
    layout.width = x.back() + width.back();
    double top = items_[0].y, bottom = items_[0].y;
    for (const Item& item : items_) {
      top = std::min(top, item.y - item.height / 2);
      bottom = std::max(bottom, item.y + item.height / 2);
    }
    layout.height = bottom - top;
    for (uint32_t b = 0; b < count_; ++b) {
      const uint32_t l = items_[b].layer;
      layout.boxes.push_back(
          {x[l] + (width[l] - boxes_[b].width) / 2, items_[b].y - items_[b].height / 2 - top});
    }
    for (uint32_t e = 0; e < edges_.size(); ++e) {
      const auto [from, to] = edges_[e];
      std::vector<LayoutPoint> points;
      points.push_back({layout.boxes[from].x + boxes_[from].width, items_[from].y - top});
      std::vector<uint32_t> chain = chains_[e];
      if (turned_[e]) std::reverse(chain.begin(), chain.end());
      for (uint32_t bend : chain) {
        const uint32_t l = items_[bend].layer;
        const double y = items_[bend].y - top;
        LayoutPoint in = {x[l], y}, out = {x[l] + width[l], y};
        if (turned_[e]) std::swap(in, out);
        points.push_back(in);
        points.push_back(out);
      }
      points.push_back({layout.boxes[to].x, items_[to].y - top});
      layout.edges.push_back(std::move(points));
    }
    return layout;
  }

  const std::vector<LayoutBox>& boxes_;
  const std::vector<LayoutEdge>& edges_;
  const size_t count_;
  std::vector<bool> turned_;                   // per edge
  std::vector<Item> items_;                    // boxes, then bends
  std::vector<std::vector<uint32_t>> layers_;  // items, from top to bottom
  std::vector<std::vector<uint32_t>> chains_;  // per edge: its bends, from left to right
};

}  // namespace

Layout LayOut(const std::vector<LayoutBox>& boxes, const std::vector<LayoutEdge>& edges) {
  return LayoutMaker(boxes, edges).Make();
}

}  // namespace plexus
