// RoiAlign and NonMaxSuppression.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

// Four pixels around a point of plane [height, width], and their weights; zero weights outside.
struct Corners {
  int64_t at[4] = {0, 0, 0, 0};
  double weight[4] = {0, 0, 0, 0};
};

Corners MakeCorners(double y, double x, int64_t height, int64_t width) {
  Corners c;
  if (!(y >= -1 && y <= static_cast<double>(height) && x >= -1 &&
        x <= static_cast<double>(width))) {
    return c;
  }
  y = std::max(y, 0.0);
  x = std::max(x, 0.0);
  int64_t y0 = static_cast<int64_t>(y), x0 = static_cast<int64_t>(x);
  int64_t y1 = y0 + 1, x1 = x0 + 1;
  if (y0 >= height - 1) {
    y0 = y1 = height - 1;
    y = static_cast<double>(y0);
  }
  if (x0 >= width - 1) {
    x0 = x1 = width - 1;
    x = static_cast<double>(x0);
  }
  const double fy = y - static_cast<double>(y0), fx = x - static_cast<double>(x0);
  const int64_t at[] = {y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1};
  const double weight[] = {(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx};
  std::copy(at, at + 4, c.at);
  std::copy(weight, weight + 4, c.weight);
  return c;
}

struct RoiSettings {
  int64_t out_height = 1, out_width = 1, sampling = 0;
  double scale = 1;
  bool half_pixel = true, max = false;
};

// Sampling points per bin along one dimension.
Result<int64_t> PointsPerBin(const RoiSettings& s, double bin) {
  if (s.sampling > 0) return s.sampling;
  if (!(std::abs(bin) <= 4096)) return InvalidArgumentError("a roi is too large or not finite");
  return std::max<int64_t>(0, static_cast<int64_t>(std::ceil(bin)));
}

// All of one roi's bins; `corners` is grouped by bin, `per_bin` each.
Status PlaceRoi(const RoiSettings& s, const double* roi, int64_t height, int64_t width,
                std::vector<Corners>* corners, int64_t* per_bin) {
  const double offset = s.half_pixel ? 0.5 : 0.0;
  const double x1 = roi[0] * s.scale - offset, y1 = roi[1] * s.scale - offset;
  double w = roi[2] * s.scale - offset - x1, h = roi[3] * s.scale - offset - y1;
  if (!s.half_pixel) {
    w = std::max(w, 1.0);
    h = std::max(h, 1.0);
  }
  const double bin_h = h / static_cast<double>(s.out_height);
  const double bin_w = w / static_cast<double>(s.out_width);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t rows, PointsPerBin(s, bin_h));
  PLEXUS_ASSIGN_OR_RETURN(const int64_t cols, PointsPerBin(s, bin_w));
  PLEXUS_ASSIGN_OR_RETURN(const int64_t total,
                          NumElements({rows, cols, s.out_height, s.out_width}));
  if (total > kMaxResultBytes / static_cast<int64_t>(sizeof(Corners))) {
    return ResourceExhaustedError("a roi has too many sampling points");
  }
  *per_bin = rows * cols;
  corners->clear();
  for (int64_t ph = 0; ph < s.out_height; ++ph) {
    for (int64_t pw = 0; pw < s.out_width; ++pw) {
      for (int64_t i = 0; i < rows; ++i) {
        const double y = y1 + ph * bin_h + (i + 0.5) * bin_h / static_cast<double>(rows);
        for (int64_t j = 0; j < cols; ++j) {
          const double x = x1 + pw * bin_w + (j + 0.5) * bin_w / static_cast<double>(cols);
          corners->push_back(MakeCorners(y, x, height, width));
        }
      }
    }
  }
  return OkStatus();
}

template <typename T>
T PoolBin(const T* plane, const Corners* corners, int64_t count, bool max) {
  double result = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Corners& c = corners[i];
    double v[4];
    for (int k = 0; k < 4; ++k) v[k] = c.weight[k] * plane[c.at[k]];
    if (!max) {
      result += v[0] + v[1] + v[2] + v[3];
      continue;
    }
    // The standard takes the largest weighted corner, not the largest interpolated value.
    const double best = *std::max_element(v, v + 4);
    result = i == 0 ? best : std::max(result, best);
  }
  return static_cast<T>(max ? result : result / static_cast<double>(std::max<int64_t>(count, 1)));
}

// x: [N, C, H, W], rois: [R, 4] as x1, y1, x2, y2, batch_indices: [R] → [R, C, oH, oW].
Status RoiAlign(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Node& node = ctx.node;
  const Tensor& x = ctx.Input(0);
  PLEXUS_RETURN_IF_ERROR(CheckRank("input", x, 4));
  PLEXUS_RETURN_IF_ERROR(CheckRank("rois", ctx.Input(1), 2));
  const int64_t rois = ctx.Input(1).shape()[0];
  PLEXUS_RETURN_IF_ERROR(CheckShape("rois", ctx.Input(1), {rois, 4}));
  PLEXUS_RETURN_IF_ERROR(CheckShape("batch_indices", ctx.Input(2), {rois}));
  RoiSettings s;
  s.out_height = node.IntAttr("output_height", 1);
  s.out_width = node.IntAttr("output_width", 1);
  s.sampling = node.IntAttr("sampling_ratio", 0);
  s.scale = node.FloatAttr("spatial_scale", 1.0f);
  PLEXUS_RETURN_IF_ERROR(CheckRange("output_height", s.out_height, 1, int64_t{1} << 20));
  PLEXUS_RETURN_IF_ERROR(CheckRange("output_width", s.out_width, 1, int64_t{1} << 20));
  PLEXUS_RETURN_IF_ERROR(CheckRange("sampling_ratio", s.sampling, 0, 4096));
  const std::string transform = node.StringAttr(
      "coordinate_transformation_mode", node.version < 16 ? "output_half_pixel" : "half_pixel");
  if (transform != "half_pixel" && transform != "output_half_pixel") {
    return InvalidArgumentError("coordinate_transformation_mode \"" + transform + "\" is unknown");
  }
  s.half_pixel = transform == "half_pixel";
  const std::string mode = node.StringAttr("mode", "avg");
  if (mode != "avg" && mode != "max")
    return InvalidArgumentError("mode \"" + mode + "\" is unknown");
  s.max = mode == "max";
  const int64_t channels = x.shape()[1], height = x.shape()[2], width = x.shape()[3];
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> batches, IntsInput(ctx, 2));
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto boxes, Elements<double>::Load(ctx.Input(1)));
    PLEXUS_ASSIGN_OR_RETURN(
        auto y, Output<T>::Make(x.dtype(), {rois, channels, s.out_height, s.out_width}));
    if (y.size() > 0 && xs.empty()) return InvalidArgumentError("the input is empty");
    std::vector<Corners> corners;
    const int64_t bins = s.out_height * s.out_width;
    for (int64_t r = 0; r < rois && y.size() > 0; ++r) {
      PLEXUS_RETURN_IF_ERROR(CheckRange("batch index", batches[r], 0, x.shape()[0] - 1));
      int64_t per_bin = 0;
      PLEXUS_RETURN_IF_ERROR(PlaceRoi(s, boxes.data() + 4 * r, height, width, &corners, &per_bin));
      for (int64_t c = 0; c < channels; ++c) {
        const T* plane = xs.data() + (batches[r] * channels + c) * height * width;
        T* out = y.data() + (r * channels + c) * bins;
        for (int64_t b = 0; b < bins; ++b) {
          out[b] = PoolBin(plane, corners.data() + b * per_bin, per_bin, s.max);
        }
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

struct Box {
  double y1, x1, y2, x2;
  double Area() const { return (y2 - y1) * (x2 - x1); }
};

Box MakeBox(const float* v, bool centre) {
  if (centre) {  // x, y, width, height
    return {v[1] - v[3] / 2.0, v[0] - v[2] / 2.0, v[1] + v[3] / 2.0, v[0] + v[2] / 2.0};
  }
  return {std::min(v[0], v[2]), std::min(v[1], v[3]), std::max(v[0], v[2]), std::max(v[1], v[3])};
}

bool Overlap(const Box& a, const Box& b, double threshold) {
  const double h = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  const double w = std::min(a.x2, b.x2) - std::max(a.x1, b.x1);
  if (!(h > 0 && w > 0)) return false;
  const double both = h * w;
  const double either = a.Area() + b.Area() - both;
  return either > 0 && both / either > threshold;
}

// boxes: [N, S, 4], scores: [N, C, S] → [selected, 3] of batch, class and box index.
Status NonMaxSuppression(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& boxes = ctx.Input(0);
  const Tensor& scores = ctx.Input(1);
  PLEXUS_RETURN_IF_ERROR(CheckRank("boxes", boxes, 3));
  PLEXUS_RETURN_IF_ERROR(CheckRank("scores", scores, 3));
  const int64_t batch = boxes.shape()[0], count = boxes.shape()[1], classes = scores.shape()[1];
  PLEXUS_RETURN_IF_ERROR(CheckShape("boxes", boxes, {batch, count, 4}));
  PLEXUS_RETURN_IF_ERROR(CheckShape("scores", scores, {batch, classes, count}));
  PLEXUS_ASSIGN_OR_RETURN(const double wanted, ScalarInput(ctx, 2, 0));
  PLEXUS_ASSIGN_OR_RETURN(const double iou_threshold, ScalarInput(ctx, 3, 0));
  PLEXUS_ASSIGN_OR_RETURN(const double score_threshold, ScalarInput(ctx, 4, 0));
  const bool by_score = ctx.HasInput(4);
  if (!(iou_threshold >= 0 && iou_threshold <= 1)) {
    return InvalidArgumentError("iou_threshold must lie in [0, 1]");
  }
  const size_t limit = static_cast<size_t>(std::clamp(wanted, 0.0, static_cast<double>(count)));
  PLEXUS_ASSIGN_OR_RETURN(auto corners, Elements<float>::Load(boxes));
  PLEXUS_ASSIGN_OR_RETURN(auto values, Elements<float>::Load(scores));
  const bool centre = ctx.node.IntAttr("center_point_box", 0) != 0;
  std::vector<int64_t> selected;
  std::vector<int64_t> order;
  std::vector<Box> kept;
  for (int64_t i = 0; i < batch * classes && limit > 0; ++i) {
    const float* score = values.data() + i * count;
    order.clear();
    for (int64_t b = 0; b < count; ++b) {
      const bool passes = by_score ? score[b] > score_threshold : !std::isnan(score[b]);
      if (passes) order.push_back(b);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return score[a] > score[b]; });
    kept.clear();
    for (size_t o = 0; o < order.size() && kept.size() < limit; ++o) {
      const Box box = MakeBox(corners.data() + (i / classes * count + order[o]) * 4, centre);
      const bool overlaps = std::any_of(
          kept.begin(), kept.end(), [&](const Box& k) { return Overlap(k, box, iou_threshold); });
      if (overlaps) continue;
      kept.push_back(box);
      selected.insert(selected.end(), {i / classes, i % classes, order[o]});
    }
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y,
                          NewTensor(DType::kInt64, {static_cast<int64_t>(selected.size()) / 3, 3}));
  std::copy(selected.begin(), selected.end(), y.mutable_data<int64_t>().begin());
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "NonMaxSuppression", 10, kLatest, NonMaxSuppression},
    {"", "RoiAlign", 10, kLatest, RoiAlign},
};

}  // namespace

std::span<const OpEntry> DetectionOps() { return kOps; }

}  // namespace plexus::reference
