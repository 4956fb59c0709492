// Hashes: BLAKE2bp for content addresses, a fast 64-bit mixer for table keys.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace plexus {

// A content address: the first 256 bits of BLAKE2bp, the four-way parallel form of BLAKE2b (RFC
// 7693; Aumasson et al., 2013). Equality of addresses is a strong hint, and whoever shares on it
// compares the bytes as well.
struct ContentHash {
  std::array<uint8_t, 32> bytes{};
  friend auto operator<=>(const ContentHash&, const ContentHash&) = default;
  std::string ToHex() const;
};

// Incremental. Thread-compatible.
class ContentHasher {
 public:
  ContentHasher();
  void Update(std::span<const std::byte> data);
  void Update(const void* data, size_t size_bytes);
  void UpdateString(std::string_view text);  // length-prefixed, so that "ab","c" != "a","bc"
  void UpdateInt(int64_t value);
  ContentHash Finish();  // call once

 private:
  static constexpr size_t kBlockBytes = 128;
  static constexpr size_t kLanes = 4;
  static constexpr size_t kStripeBytes = kLanes * kBlockBytes;

  // states_[word][lane]; lane i hashes the i-th block of every stripe.
  alignas(64) std::array<std::array<uint64_t, kLanes>, 8> states_;
  uint64_t stripes_ = 0;  // compressed so far
  // Less than two stripes: a stripe is compressed once the next one is complete, for only then is
  // it known that none of its blocks is a lane's last.
  std::array<uint8_t, 2 * kStripeBytes> buffer_;
  size_t buffered_ = 0;
};

// Not for content addresses and not stable across releases.
uint64_t FastHash(const void* data, size_t size_bytes, uint64_t seed = 0);
inline uint64_t HashCombine(uint64_t a, uint64_t b) {
  uint64_t x = a ^ (b + 0x9e3779b97f4a7c15ULL + (a << 6) + (a >> 2));
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93ULL;
  return x ^ (x >> 32);
}

}  // namespace plexus

template <>
struct std::hash<plexus::ContentHash> {
  size_t operator()(const plexus::ContentHash& h) const {
    size_t value;
    __builtin_memcpy(&value, h.bytes.data(), sizeof(value));
    return value;
  }
};
