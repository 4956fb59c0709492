#include "program/reference/rows.h"

#include <algorithm>

#include "program/reference/kernels_util.h"

namespace plexus {
namespace {

// A scalar as one row.
Tensor AsRows(const Tensor& t) { return t.rank() == 0 ? t.Reshaped({1}) : t; }

// `part` in the corner of rows that are as large as `shape` says; the rest keeps its filling.
void Place(const Tensor& part, const Shape& shape, Tensor& out, int64_t row) {
  const std::vector<int64_t> to = reference::RowMajorStrides(shape);
  if (std::equal(shape.begin() + 1, shape.end(), part.shape().begin() + 1)) {
    return reference::CopyElements(part, 0, out, row * to[0], part.num_elements());
  }
  reference::CopyStrided(part, 0, reference::RowMajorStrides(part.shape()), out, row * to[0], to,
                         part.shape());
}

}  // namespace

Result<Tensor> JoinRows(std::span<const Tensor> parts, const Tensor* pad) {
  Shape shape = AsRows(parts[0]).shape();
  shape[0] = 0;
  bool differ = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Tensor part = AsRows(parts[i]);
    const bool fits = part.dtype() == parts[0].dtype() && part.shape().size() == shape.size();
    const bool same = fits && std::equal(shape.begin() + 1, shape.end(), part.shape().begin() + 1);
    if (!fits || (!same && pad == nullptr)) {
      return InvalidArgumentError(
          "element " + std::to_string(i) + " gives " + std::string(DTypeName(part.dtype())) +
          ShapeToString(parts[i].shape()) + ", element 0 " +
          std::string(DTypeName(parts[0].dtype())) + ShapeToString(parts[0].shape()) +
          (fits ? "; sizes that differ need 'pad'" : ""));
    }
    differ |= !same;
    if (__builtin_add_overflow(shape[0], part.shape()[0], &shape[0])) {
      return InvalidArgumentError("too many rows");
    }
    for (size_t d = 1; d < shape.size(); ++d) shape[d] = std::max(shape[d], part.shape()[d]);
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, reference::NewTensor(parts[0].dtype(), shape));
  if (differ) reference::FillWith(out, *pad);
  int64_t row = 0;
  for (const Tensor& each : parts) {
    const Tensor part = AsRows(each);
    if (part.num_elements() > 0) Place(part, shape, out, row);
    row += part.shape()[0];
  }
  return out;
}

Tensor RowCounts(std::span<const Tensor> parts) {
  std::vector<int64_t> counts;
  for (const Tensor& part : parts) counts.push_back(part.rank() == 0 ? 1 : part.shape()[0]);
  return Tensor::VectorInt64(counts);
}

Result<int64_t> CheckFanOut(const Node& node, std::span<const Tensor> inputs) {
  if (inputs.empty()) return InvalidArgumentError("nothing to walk");
  for (const Tensor& t : inputs) {
    if (t.rank() == 0) return InvalidArgumentError("a scalar has no axis to walk");
    if (t.shape()[0] != inputs[0].shape()[0]) {
      return InvalidArgumentError(
          "its inputs differ in length: " + std::to_string(inputs[0].shape()[0]) + " and " +
          std::to_string(t.shape()[0]));
    }
  }
  const int64_t rows = inputs[0].shape()[0];
  const int64_t limit = node.IntAttr("limit", INT64_MAX);
  if (rows <= limit) return rows;
  return InvalidArgumentError(std::to_string(rows) + " elements, its limit is " +
                              std::to_string(limit));
}

Status CheckLoopEnd(const Node& node, int64_t trips) {
  if (node.StringAttr("at_limit", "") != "error") return OkStatus();
  return FailedPreconditionError("still going after its limit of " + std::to_string(trips) +
                                 " turns");
}

}  // namespace plexus
