// Hashes: BLAKE2b-256 for content addresses, a fast 64-bit mixer for table keys.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace plexus {

// A content address: 256 bits of BLAKE2b (RFC 7693). Equality of addresses is a strong hint, and
// whoever shares on it compares the bytes as well.
struct ContentHash {
  std::array<uint8_t, 32> bytes{};
  friend auto operator<=>(const ContentHash&, const ContentHash&) = default;
  std::string ToHex() const;
};

// Incremental BLAKE2b-256. Thread-compatible.
class ContentHasher {
 public:
  ContentHasher();
  void Update(std::span<const std::byte> data);
  void Update(const void* data, size_t size_bytes);
  void UpdateString(std::string_view text);  // length-prefixed, so that "ab","c" != "a","bc"
  void UpdateInt(int64_t value);
  ContentHash Finish();  // call once

 private:
  void Compress(const uint8_t* block, bool last);
  std::array<uint64_t, 8> state_;
  uint64_t count_bytes_ = 0;
  std::array<uint8_t, 128> buffer_;
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
