// DbBoxes: from the probability map of a differentiable-binarisation detector to text boxes.
#include <algorithm>
#include <array>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "device/cpu/vision/opencv_guard.h"
#include "device/cpu/vision/vision_op_list.h"
#include "program/reference/kernels_util.h"

namespace plexus::vision {
namespace {

// Corners in the order top left, top right, bottom right, bottom left.
using Quad = std::array<cv::Point2f, 4>;

struct TextBox {
  Quad corners;  // in the image's pixels
  float score;
};

struct Options {
  float threshold, box_threshold, unclip;
  int64_t max_boxes, min_size, line_height;
  bool dilate;
};

Result<Options> ReadOptions(const Node& node) {
  const Options options{node.FloatAttr("threshold", 0.3f), node.FloatAttr("box_threshold", 0.5f),
                        node.FloatAttr("unclip", 1.6f),    node.IntAttr("max_boxes", 1000),
                        node.IntAttr("min_size", 3),       node.IntAttr("line_height", 10),
                        node.IntAttr("dilate", 1) != 0};
  const bool fine = options.unclip >= 0 && options.unclip <= 100 && options.max_boxes >= 0 &&
                    options.min_size >= 0 && options.line_height >= 0;
  if (fine) return options;
  return InvalidArgumentError("an attribute is negative, or 'unclip' above 100");
}

// The corners of a rectangle at any angle, in our order. The two leftmost are the left side.
Quad CornersOf(const cv::RotatedRect& rect) {
  Quad points;
  rect.points(points.data());
  std::stable_sort(points.begin(), points.end(),
                   [](const cv::Point2f& a, const cv::Point2f& b) { return a.x < b.x; });
  if (points[0].y > points[1].y) std::swap(points[0], points[1]);
  if (points[2].y > points[3].y) std::swap(points[2], points[3]);
  return {points[0], points[2], points[3], points[1]};
}

// Mean of the map inside the box, both in the map's pixels.
float MeanInside(const cv::Mat& map, const Quad& box) {
  const auto [left, right] = std::minmax({box[0].x, box[1].x, box[2].x, box[3].x});
  const auto [top, bottom] = std::minmax({box[0].y, box[1].y, box[2].y, box[3].y});
  const int x0 = std::clamp(static_cast<int>(std::floor(left)), 0, map.cols - 1);
  const int x1 = std::clamp(static_cast<int>(std::ceil(right)), 0, map.cols - 1);
  const int y0 = std::clamp(static_cast<int>(std::floor(top)), 0, map.rows - 1);
  const int y1 = std::clamp(static_cast<int>(std::ceil(bottom)), 0, map.rows - 1);
  cv::Mat mask = cv::Mat::zeros(y1 - y0 + 1, x1 - x0 + 1, CV_8U);
  std::vector<std::vector<cv::Point>> polygon(1);
  for (const cv::Point2f& p : box) {
    polygon[0].emplace_back(static_cast<int>(p.x - x0), static_cast<int>(p.y - y0));
  }
  cv::fillPoly(mask, polygon, cv::Scalar(1));
  return static_cast<float>(cv::mean(map(cv::Range(y0, y1 + 1), cv::Range(x0, x1 + 1)), mask)[0]);
}

// The detector is trained on shrunk boxes; each side moves out by area · unclip / perimeter. Offset
// with round corners, then boxed again, a rectangle stays a rectangle: its sides move, no more.
cv::RotatedRect Unclip(cv::RotatedRect rect, float unclip) {
  const float around = 2 * (rect.size.width + rect.size.height);
  const float distance = around > 0 ? rect.size.area() * unclip / around : 0;
  rect.size.width += 2 * distance;
  rect.size.height += 2 * distance;
  return rect;
}

float Distance(const cv::Point2f& a, const cv::Point2f& b) {
  return std::hypot(a.x - b.x, a.y - b.y);
}

// Appends the box of one contour, unless it is too small or too unlikely.
void AddBox(const cv::Mat& map, const std::vector<cv::Point>& contour, const Options& options,
            cv::Size image, std::vector<TextBox>& boxes) {
  const auto shorter = [](const cv::RotatedRect& r) {
    return std::min(r.size.width, r.size.height);
  };
  cv::RotatedRect rect = cv::minAreaRect(contour);
  if (shorter(rect) < static_cast<float>(options.min_size)) return;
  const float score = MeanInside(map, CornersOf(rect));
  if (!(score >= options.box_threshold)) return;
  rect = Unclip(rect, options.unclip);
  if (shorter(rect) < static_cast<float>(options.min_size + 2)) return;
  Quad corners = CornersOf(rect);
  for (cv::Point2f& p : corners) {
    const float x = std::nearbyint(p.x / static_cast<float>(map.cols) * image.width);
    const float y = std::nearbyint(p.y / static_cast<float>(map.rows) * image.height);
    p.x = std::clamp(x, 0.0f, static_cast<float>(image.width - 1));
    p.y = std::clamp(y, 0.0f, static_cast<float>(image.height - 1));
  }
  // What clipping left of a box at the border may be nothing.
  constexpr float kMinPixels = 4;
  if (Distance(corners[0], corners[1]) < kMinPixels) return;
  if (Distance(corners[0], corners[3]) < kMinPixels) return;
  boxes.push_back({corners, score});
}

// From top to bottom; boxes whose tops differ by less than `line_height` are one line, left to
// right.
void SortForReading(std::vector<TextBox>& boxes, float line_height) {
  const auto top_left = [](const TextBox& box) { return box.corners[0]; };
  std::stable_sort(boxes.begin(), boxes.end(), [&](const TextBox& a, const TextBox& b) {
    const cv::Point2f p = top_left(a), q = top_left(b);
    return p.y != q.y ? p.y < q.y : p.x < q.x;
  });
  for (size_t i = 1; i < boxes.size(); ++i) {
    for (size_t j = i; j > 0; --j) {
      const cv::Point2f before = top_left(boxes[j - 1]), here = top_left(boxes[j]);
      if (std::abs(here.y - before.y) >= line_height || here.x >= before.x) break;
      std::swap(boxes[j - 1], boxes[j]);
    }
  }
}

Result<cv::Mat> MapOf(const Tensor& t) {
  const Shape& shape = t.shape();
  const bool fine =
      t.dtype() == DType::kFloat32 &&
      (t.rank() == 2 || (t.rank() == 4 && shape[0] == 1 && shape[1] == 1)) &&
      std::all_of(shape.begin(), shape.end(), [](int64_t d) { return d >= 1 && d <= kMaxSide; });
  if (fine) return MatOf(t.Reshaped({shape[t.rank() - 2], shape[t.rank() - 1]}), CV_32F);
  return InvalidArgumentError("needs a probability map float32[1,1,h,w], got " +
                              std::string(DTypeName(t.dtype())) + ShapeToString(shape));
}

}  // namespace

Status DbBoxes(OpContext& c) {
  PLEXUS_RETURN_IF_ERROR(reference::RequireInputs(c, 2));
  PLEXUS_ASSIGN_OR_RETURN(const Options options, ReadOptions(c.node));
  PLEXUS_ASSIGN_OR_RETURN(const cv::Mat map, MapOf(c.Input(0)));
  PLEXUS_RETURN_IF_ERROR(CheckImage(c.Input(1)));
  const cv::Size image(static_cast<int>(c.Input(1).shape()[1]),
                       static_cast<int>(c.Input(1).shape()[0]));

  cv::Mat text;
  cv::compare(map, options.threshold, text, cv::CMP_GT);
  if (options.dilate) cv::dilate(text, text, cv::Mat::ones(2, 2, CV_8U));
  std::vector<std::vector<cv::Point>> contours;
  cv::findContours(text, contours, cv::RETR_LIST, cv::CHAIN_APPROX_SIMPLE);
  std::vector<TextBox> boxes;
  for (const std::vector<cv::Point>& contour : contours) {
    PLEXUS_RETURN_IF_ERROR(HostScope::CheckAlive());
    if (boxes.size() == static_cast<size_t>(options.max_boxes)) break;
    AddBox(map, contour, options, image, boxes);
  }
  SortForReading(boxes, static_cast<float>(options.line_height));

  const auto n = static_cast<int64_t>(boxes.size());
  PLEXUS_ASSIGN_OR_RETURN(Tensor corners, reference::NewTensor(DType::kFloat32, {n, 4, 2}));
  PLEXUS_ASSIGN_OR_RETURN(Tensor scores, reference::NewTensor(DType::kFloat32, {n}));
  for (size_t i = 0; i < boxes.size(); ++i) {
    for (size_t k = 0; k < 4; ++k) {
      corners.mutable_data<float>()[8 * i + 2 * k] = boxes[i].corners[k].x;
      corners.mutable_data<float>()[8 * i + 2 * k + 1] = boxes[i].corners[k].y;
    }
    scores.mutable_data<float>()[i] = boxes[i].score;
  }
  c.outputs[0] = std::move(corners);
  if (c.num_outputs() > 1) c.outputs[1] = std::move(scores);
  return OkStatus();
}

}  // namespace plexus::vision
