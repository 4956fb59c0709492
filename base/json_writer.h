// Writes JSON into a string: no tree, no copies.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace plexus {

// Calls follow the document's order; commas come by themselves. Strings become valid JSON whatever
// they hold (bytes that are not UTF-8 turn into U+FFFD). Numbers read back as the same value;
// NaN and infinities are written NaN, Infinity and -Infinity, as Python's json reads them.
class JsonWriter {
 public:
  explicit JsonWriter(std::string* out) : out_(*out) {}

  void BeginObject() { Open('{'); }
  void EndObject() { Close('}'); }
  void BeginArray() { Open('['); }
  void EndArray() { Close(']'); }
  JsonWriter& Key(std::string_view key);
  void String(std::string_view text);
  void Int(int64_t value);
  void Uint(uint64_t value);
  void Float(float value);
  void Double(double value);
  void Bool(bool value);
  // A value that is JSON already.
  void Raw(std::string_view json);

 private:
  void Open(char c);
  void Close(char c);
  void Separate();
  template <typename T>
  void Number(T value);
  template <typename T>
  void Floating(T value);

  std::string& out_;
  bool comma_ = false;
};

}  // namespace plexus
