#include "program/reference/window.h"

#include <algorithm>
#include <string>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;

Status ReadPads(const Node& node, size_t rank, Window* w) {
  w->pad_begin.assign(rank, 0);
  w->pad_end.assign(rank, 0);
  const std::vector<int64_t> pads = node.IntsAttr("pads");
  if (pads.empty()) return OkStatus();
  if (pads.size() != 2 * rank) {
    return InvalidArgumentError("pads has " + std::to_string(pads.size()) + " values, expected " +
                                std::to_string(2 * rank));
  }
  for (size_t d = 0; d < 2 * rank; ++d) {
    PLEXUS_RETURN_IF_ERROR(CheckRange("pads", pads[d], 0, kLargest));
    (d < rank ? w->pad_begin[d] : w->pad_end[d - rank]) = pads[d];
  }
  return OkStatus();
}

Status ReadCommon(const Node& node, std::vector<int64_t> in, std::vector<int64_t> kernel,
                  Window* w) {
  const size_t rank = in.size();
  if (kernel.size() != rank || rank == 0) {
    return InvalidArgumentError("kernel has " + std::to_string(kernel.size()) +
                                " dimensions, the input " + std::to_string(rank) +
                                " spatial ones; both must agree and be at least one");
  }
  for (size_t d = 0; d < rank; ++d) {
    PLEXUS_RETURN_IF_ERROR(CheckRange("kernel size", kernel[d], 1, kLargest));
    PLEXUS_RETURN_IF_ERROR(CheckRange("spatial size", in[d], 0, kLargest));
  }
  const std::vector<int64_t> kernel_shape = node.IntsAttr("kernel_shape");
  if (!kernel_shape.empty() && kernel_shape != kernel) {
    return InvalidArgumentError("kernel_shape " + ShapeToString(kernel_shape) +
                                " contradicts the weight's " + ShapeToString(kernel));
  }
  w->in = std::move(in);
  w->kernel = std::move(kernel);
  PLEXUS_ASSIGN_OR_RETURN(w->stride, SpatialAttr(node, "strides", rank, 1, 1));
  PLEXUS_ASSIGN_OR_RETURN(w->dilation, SpatialAttr(node, "dilations", rank, 1, 1));
  w->out.assign(rank, 0);
  for (size_t d = 0; d < rank; ++d) {
    PLEXUS_RETURN_IF_ERROR(
        CheckRange("dilated kernel", (w->kernel[d] - 1) * w->dilation[d], 0, kLargest));
  }
  return OkStatus();
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

Status CheckProducts(const Window& w) {
  PLEXUS_RETURN_IF_ERROR(NumElements(w.in).status());
  PLEXUS_RETURN_IF_ERROR(NumElements(w.kernel).status());
  return NumElements(w.out).status();
}

}  // namespace

int64_t Window::KernelSize() const { return NumElementsUnchecked(kernel); }
int64_t Window::InSize() const { return NumElementsUnchecked(in); }
int64_t Window::OutSize() const { return NumElementsUnchecked(out); }

Result<std::vector<int64_t>> SpatialAttr(const Node& node, const char* name, size_t rank,
                                         int64_t fallback, int64_t lowest) {
  std::vector<int64_t> values = node.IntsAttr(name);
  if (values.empty()) values.assign(rank, fallback);
  if (values.size() != rank) {
    return InvalidArgumentError(std::string(name) + " has " + std::to_string(values.size()) +
                                " values, expected " + std::to_string(rank));
  }
  for (int64_t v : values) PLEXUS_RETURN_IF_ERROR(CheckRange(name, v, lowest, kLargest));
  return values;
}

Result<Window> MakeWindow(const Node& node, std::vector<int64_t> in, std::vector<int64_t> kernel) {
  Window w;
  PLEXUS_RETURN_IF_ERROR(ReadCommon(node, std::move(in), std::move(kernel), &w));
  const size_t rank = w.rank();
  const std::string auto_pad = node.StringAttr("auto_pad", "NOTSET");
  const bool ceil_mode = node.IntAttr("ceil_mode", 0) != 0;
  if (auto_pad == "NOTSET" || auto_pad.empty()) {
    PLEXUS_RETURN_IF_ERROR(ReadPads(node, rank, &w));
  } else if (auto_pad == "VALID") {
    w.pad_begin.assign(rank, 0);
    w.pad_end.assign(rank, 0);
  } else if (auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER") {
    w.pad_begin.assign(rank, 0);
    w.pad_end.assign(rank, 0);
    for (size_t d = 0; d < rank; ++d) {
      w.out[d] = CeilDiv(w.in[d], w.stride[d]);
      const int64_t total =
          std::max<int64_t>(0, (w.out[d] - 1) * w.stride[d] + w.Extent(d) - w.in[d]);
      w.pad_begin[d] = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.pad_end[d] = total - w.pad_begin[d];
    }
    PLEXUS_RETURN_IF_ERROR(CheckProducts(w));
    return w;
  } else {
    return InvalidArgumentError("auto_pad \"" + auto_pad + "\" is unknown");
  }
  for (size_t d = 0; d < rank; ++d) {
    const int64_t room = w.in[d] + w.pad_begin[d] + w.pad_end[d] - w.Extent(d);
    if (room < 0) {
      return InvalidArgumentError("the kernel spans " + std::to_string(w.Extent(d)) +
                                  ", more than the padded input of " +
                                  std::to_string(room + w.Extent(d)));
    }
    w.out[d] = room / w.stride[d] + 1;
    if (ceil_mode && auto_pad != "VALID") {
      w.out[d] = CeilDiv(room, w.stride[d]) + 1;
      // A window that would start in the end padding is left out.
      if ((w.out[d] - 1) * w.stride[d] >= w.in[d] + w.pad_begin[d]) --w.out[d];
    }
  }
  PLEXUS_RETURN_IF_ERROR(CheckProducts(w));
  return w;
}

Result<Window> MakeTransposedWindow(const Node& node, std::vector<int64_t> in,
                                    std::vector<int64_t> kernel) {
  Window w;
  PLEXUS_RETURN_IF_ERROR(ReadCommon(node, std::move(in), std::move(kernel), &w));
  const size_t rank = w.rank();
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> extra,
                          SpatialAttr(node, "output_padding", rank, 0, 0));
  const std::string auto_pad = node.StringAttr("auto_pad", "NOTSET");
  const bool same = auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER";
  if (!same && auto_pad != "NOTSET" && auto_pad != "VALID" && !auto_pad.empty()) {
    return InvalidArgumentError("auto_pad \"" + auto_pad + "\" is unknown");
  }
  std::vector<int64_t> output_shape = node.IntsAttr("output_shape");
  // Some exporters write batch and channels too.
  if (output_shape.size() == rank + 2)
    output_shape.erase(output_shape.begin(), output_shape.begin() + 2);
  if (!output_shape.empty() && output_shape.size() != rank) {
    return InvalidArgumentError("output_shape has " + std::to_string(output_shape.size()) +
                                " values, expected " + std::to_string(rank));
  }
  for (int64_t v : output_shape) {
    PLEXUS_RETURN_IF_ERROR(CheckRange("output_shape", v, 0, kLargest));
  }
  PLEXUS_RETURN_IF_ERROR(ReadPads(node, rank, &w));
  for (size_t d = 0; d < rank; ++d) {
    if (w.in[d] == 0) return InvalidArgumentError("a spatial dimension of the input is 0");
    const int64_t full = w.stride[d] * (w.in[d] - 1) + extra[d] + w.Extent(d);
    if (output_shape.empty() && !same) {
      if (auto_pad == "VALID") w.pad_begin[d] = w.pad_end[d] = 0;
      w.out[d] = full - w.pad_begin[d] - w.pad_end[d];
    } else {
      w.out[d] = output_shape.empty() ? w.in[d] * w.stride[d] : output_shape[d];
      const int64_t total = std::max<int64_t>(0, full - w.out[d]);
      w.pad_begin[d] = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
      w.pad_end[d] = total - w.pad_begin[d];
    }
    PLEXUS_RETURN_IF_ERROR(CheckRange("output size", w.out[d], 0, kLargest));
  }
  PLEXUS_RETURN_IF_ERROR(CheckProducts(w));
  return w;
}

bool NextIndex(const std::vector<int64_t>& shape, std::vector<int64_t>* index) {
  for (size_t d = shape.size(); d-- > 0;) {
    if (++(*index)[d] < shape[d]) return true;
    (*index)[d] = 0;
  }
  return false;
}

namespace {

// Calls run(row_offset or -1, first_w, kernel_w, count) for each stretch of output positions
// [from, to) that shares all coordinates but the last. row_offset is the input offset of the
// stretch's row under kernel position `k`, -1 when the row lies in the padding.
template <typename F>
void ForEachRun(const Window& w, const std::vector<int64_t>& k, int64_t from, int64_t to, F&& run) {
  const size_t last = w.rank() - 1;
  std::vector<int64_t> o(w.rank());
  int64_t rest = from;
  for (size_t d = w.rank(); d-- > 0;) {
    o[d] = rest % w.out[d];
    rest /= w.out[d];
  }
  for (int64_t p = from; p < to;) {
    const int64_t count = std::min(w.out[last] - o[last], to - p);
    int64_t offset = 0;
    for (size_t d = 0; d < last && offset >= 0; ++d) {
      const int64_t i = w.Start(d, o[d]) + k[d] * w.dilation[d];
      offset = i < 0 || i >= w.in[d] ? -1 : offset * w.in[d] + i;
    }
    run(offset < 0 ? -1 : offset * w.in[last], o[last], count);
    p += count;
    o[last] = 0;
    for (size_t d = last; d-- > 0;) {
      if (++o[d] < w.out[d]) break;
      o[d] = 0;
    }
  }
}

// The part [first, end) of `count` outputs from `o` on whose input coordinate is inside.
void InsideRange(const Window& w, size_t d, int64_t o, int64_t k, int64_t count, int64_t* first,
                 int64_t* end) {
  const int64_t start = w.Start(d, o) + k * w.dilation[d];  // of the first output
  const int64_t s = w.stride[d];
  *first = std::min(count, start >= 0 ? 0 : CeilDiv(-start, s));
  *end = start >= w.in[d] ? 0 : std::min(count, CeilDiv(w.in[d] - start, s));
  *end = std::max(*first, *end);
}

}  // namespace

template <typename T>
void Unfold(const Window& w, const T* x, int64_t channels, int64_t from, int64_t to, T* columns) {
  const size_t last = w.rank() - 1;
  const int64_t in_size = w.InSize();
  std::vector<int64_t> k(w.rank(), 0);
  T* row = columns;
  for (int64_t c = 0; c < channels; ++c, x += in_size) {
    std::fill(k.begin(), k.end(), 0);
    do {
      T* out = row;
      ForEachRun(w, k, from, to, [&](int64_t offset, int64_t o, int64_t count) {
        int64_t first = count, end = count;
        if (offset >= 0) InsideRange(w, last, o, k[last], count, &first, &end);
        std::fill(out, out + first, T{0});
        if (first < end) {
          const T* in = x + offset + w.Start(last, o) + k[last] * w.dilation[last];
          if (w.stride[last] == 1) {
            std::copy(in + first, in + end, out + first);
          } else {
            for (int64_t i = first; i < end; ++i) out[i] = in[i * w.stride[last]];
          }
        }
        std::fill(out + end, out + count, T{0});
        out += count;
      });
      row += to - from;
    } while (NextIndex(w.kernel, &k));
  }
}

template <typename T>
void FoldAdd(const Window& w, const T* columns, int64_t channels, int64_t from, int64_t to, T* x) {
  const size_t last = w.rank() - 1;
  const int64_t in_size = w.InSize();
  std::vector<int64_t> k(w.rank(), 0);
  const T* row = columns;
  for (int64_t c = 0; c < channels; ++c, x += in_size) {
    std::fill(k.begin(), k.end(), 0);
    do {
      const T* in = row;
      ForEachRun(w, k, from, to, [&](int64_t offset, int64_t o, int64_t count) {
        int64_t first = count, end = count;
        if (offset >= 0) InsideRange(w, last, o, k[last], count, &first, &end);
        const int64_t start = offset + w.Start(last, o) + k[last] * w.dilation[last];
        for (int64_t i = first; i < end; ++i) x[start + i * w.stride[last]] += in[i];
        in += count;
      });
      row += to - from;
    } while (NextIndex(w.kernel, &k));
  }
}

template void Unfold(const Window&, const float*, int64_t, int64_t, int64_t, float*);
template void Unfold(const Window&, const double*, int64_t, int64_t, int64_t, double*);
template void FoldAdd(const Window&, const float*, int64_t, int64_t, int64_t, float*);
template void FoldAdd(const Window&, const double*, int64_t, int64_t, int64_t, double*);

}  // namespace plexus::reference
