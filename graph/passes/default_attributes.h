// The ONNX standard's default attribute values. Internal to graph/passes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace plexus {

// Exactly one of the values counts: int_value if set, else string_value if set, else float_value.
struct DefaultAttribute {
  std::string_view op;
  std::string_view name;
  std::optional<int64_t> int_value;
  float float_value;
  const char* string_value;
};

// Sorted by operator.
std::span<const DefaultAttribute> DefaultAttributes();

}  // namespace plexus
