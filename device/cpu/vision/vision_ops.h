// Image operators of domain "plexus", computed by OpenCV. Images are uint8[h, w, c], rows first,
// c = 1 or 3; colours stand in the order that DecodeImage was asked for.
//
//   DecodeImage(file: string[1]; order: "rgb" or "bgr", max_pixels: int, max_bytes: int)
//       → uint8[h, w, 3]. PNG or JPEG, told by content; alpha is dropped, grey becomes colour, 16
//       bits become 8, a JPEG's orientation tag is obeyed. The limits are checked before anything
//       is decoded. A damaged or truncated file is kInvalidArgument; what a decoder tolerates (a
//       flipped bit in a JPEG's pixels) gives an image.
//   ResizeImage(image; ...) → uint8[h', w', c], or float32 with `float` 1. One of three forms, each
//       interpolated as `interpolation` says ("linear", "area", "cubic", "nearest"):
//       size [h', w']: exactly that. With `keep_aspect` 1 the image fits inside, at the top left,
//         and the rest holds pad_value (float).
//       min_side and/or max_side (0: none), multiple: the shorter side is enlarged to min_side if
//       it
//         is less, then the longer one shrunk to max_side if it is more; then each side is rounded
//         to the nearest multiple, at least one. The aspect changes by that rounding only.
//       height, widths (ascending): as high as `height`, the aspect kept, but no wider than the
//       last
//         of `widths`; filled up on the right with pad_value to the first of `widths` that holds
//         it.
//   DbBoxes(map: float32[1,1,H,W] or [H,W], image; threshold, box_threshold, unclip: float,
//           max_boxes, dilate, min_size, line_height: int)
//       → boxes float32[n, 4, 2], scores float32[n]: text boxes in the image's pixels, as (x, y) of
//       the corners top left, top right, bottom right, bottom left, in reading order. `map` is the
//       detector's probability that a pixel belongs to text and covers the whole image.
//   PerspectiveCrop(image, box: float32 with 8 elements, corners as above; rotate_tall: float)
//       → uint8[h', w', c]: what the box holds, made rectangular by a perspective transform. A crop
//       at least rotate_tall times as high as wide is turned by 90° anticlockwise (0: never).
//   Rotate180(image) → uint8[h, w, c]: upside down.
//
// All return kInvalidArgument for images or boxes of the wrong type or shape and for attributes
// outside their range, and kResourceExhausted beyond the request's memory. Source of the text
// operators' method: Liao et al., Real-time Scene Text Detection with Differentiable Binarization.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace plexus {
namespace vision {

// Of an image, in pixels. Sides beyond it overflow 16-bit coordinates inside OpenCV.
inline constexpr int64_t kMaxSide = 32767;

}  // namespace vision

// Makes the operators above known to the reference evaluator, and keeps OpenCV from starting
// threads. Idempotent and thread-safe; call before a graph that uses them is prepared.
void RegisterVisionOps();

// Loads the decoders that DecodeImage needs, if they are not there yet; the first time takes a
// tenth of a second. kUnavailable, with the loader's reason, if they are not installed: better
// known when a pipeline is loaded than with its first request. Thread-safe.
Status LoadImageCodecs();

}  // namespace plexus
