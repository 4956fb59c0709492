// For tests: writes ONNX messages by hand, valid or not.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace plexus::onnx {

inline std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
inline std::string IntField(int field, uint64_t value) {
  return Varint(field << 3) + Varint(value);
}
inline std::string BytesField(int field, std::string_view bytes) {
  return Varint(field << 3 | 2) + Varint(bytes.size()) + std::string(bytes);
}

struct TensorText {
  std::string name = "w";
  std::vector<int64_t> dims;
  int data_type = 1;
  std::string data;  // encoded data fields
};
inline std::string TensorBytes(const TensorText& t) {
  std::string out;
  for (int64_t dim : t.dims) out += IntField(1, static_cast<uint64_t>(dim));
  return out + IntField(2, t.data_type) + BytesField(8, t.name) + t.data;
}
inline std::string ExternalFields(std::string_view location, std::string_view offset = "",
                                  std::string_view length = "") {
  const auto entry = [](std::string_view key, std::string_view value) {
    return value.empty() ? "" : BytesField(13, BytesField(1, key) + BytesField(2, value));
  };
  return entry("location", location) + entry("offset", offset) + entry("length", length) +
         IntField(14, 1);
}

using Names = std::initializer_list<std::string_view>;
inline std::string NodeField(std::string_view op, Names inputs, Names outputs,
                             std::string_view more = "", std::string_view name = "") {
  std::string out;
  for (std::string_view input : inputs) out += BytesField(1, input);
  for (std::string_view output : outputs) out += BytesField(2, output);
  if (!name.empty()) out += BytesField(3, name);
  return BytesField(1, out + BytesField(4, op) + std::string(more));
}
// A float tensor of unknown shape.
inline std::string ValueInfo(std::string_view name) {
  return BytesField(1, name) + BytesField(2, BytesField(1, IntField(1, 1)));
}
inline std::string InputField(std::string_view name) { return BytesField(11, ValueInfo(name)); }
inline std::string OutputField(std::string_view name) { return BytesField(12, ValueInfo(name)); }
inline std::string GraphAttribute(std::string_view name, std::string_view graph) {
  return BytesField(5, BytesField(1, name) + IntField(20, 5) + BytesField(6, graph));
}

inline std::string Opset(std::string_view domain, int version) {
  return BytesField(1, domain) + IntField(2, version);
}
inline std::string ModelBytes(std::string_view graph, std::string_view more = "", int opset = 17,
                              int ir_version = 8) {
  return IntField(1, ir_version) + BytesField(8, Opset("", opset)) + BytesField(7, graph) +
         std::string(more);
}

}  // namespace plexus::onnx
