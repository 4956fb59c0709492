// Typed ids: an index or number that cannot be mistaken for another one.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <limits>

namespace plexus {

// Id<struct NodeTag> and Id<struct ValueTag> do not convert into each other. Default: invalid.
template <typename Tag, typename Rep = uint32_t>
class Id {
 public:
  constexpr Id() = default;
  constexpr explicit Id(Rep value) : value_(value) {}

  constexpr bool valid() const { return value_ != kInvalid; }
  constexpr Rep value() const { return value_; }
  friend constexpr auto operator<=>(Id, Id) = default;

 private:
  static constexpr Rep kInvalid = std::numeric_limits<Rep>::max();
  Rep value_ = kInvalid;
};

}  // namespace plexus

template <typename Tag, typename Rep>
struct std::hash<plexus::Id<Tag, Rep>> {
  size_t operator()(plexus::Id<Tag, Rep> id) const { return std::hash<Rep>()(id.value()); }
};
