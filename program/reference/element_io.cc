#include "program/reference/element_io.h"

#include <limits>

namespace plexus::reference {

Status CheckRange(std::string_view what, int64_t value, int64_t lowest, int64_t highest) {
  if (value >= lowest && value <= highest) return OkStatus();
  return InvalidArgumentError(std::string(what) + " is " + std::to_string(value) + ", outside [" +
                              std::to_string(lowest) + ", " + std::to_string(highest) + "]");
}

Status CheckRank(std::string_view what, const Tensor& t, int64_t rank) {
  if (!t.defined()) return InvalidArgumentError(std::string(what) + " is missing");
  if (t.rank() == rank) return OkStatus();
  return InvalidArgumentError(std::string(what) + " has shape " + ShapeToString(t.shape()) +
                              ", expected rank " + std::to_string(rank));
}

Status CheckShape(std::string_view what, const Tensor& t, const Shape& shape) {
  if (!t.defined()) return InvalidArgumentError(std::string(what) + " is missing");
  if (t.shape() == shape) return OkStatus();
  return InvalidArgumentError(std::string(what) + " has shape " + ShapeToString(t.shape()) +
                              ", expected " + ShapeToString(shape));
}

Status CheckShapeIfAny(std::string_view what, const Tensor& t, const Shape& shape) {
  return t.defined() ? CheckShape(what, t, shape) : OkStatus();
}

Status CheckSameDType(std::string_view what, const Tensor& a, const Tensor& b) {
  if (a.dtype() == b.dtype()) return OkStatus();
  return InvalidArgumentError(std::string(what) + " has element type " +
                              std::string(DTypeName(b.dtype())) + ", expected " +
                              std::string(DTypeName(a.dtype())));
}

int64_t DimsProduct(const Shape& shape, size_t from, size_t to) {
  int64_t product = 1;
  for (size_t i = from; i < to && i < shape.size(); ++i) {
    if (__builtin_mul_overflow(product, shape[i], &product)) {
      return std::numeric_limits<int64_t>::max();
    }
  }
  return product;
}

}  // namespace plexus::reference
