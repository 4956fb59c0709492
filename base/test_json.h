// For tests: a strict JSON reader, so that what we write is read back by other code.
#pragma once

#include <cctype>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace plexus {

struct TestJson {
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  bool boolean = false;
  double number = 0;
  std::string text;
  std::vector<TestJson> items;
  std::map<std::string, TestJson> members;

  bool has(const std::string& key) const { return members.count(key) > 0; }
  // An absent member reads as null.
  const TestJson& operator[](const std::string& key) const {
    static const TestJson null;
    const auto it = members.find(key);
    return it == members.end() ? null : it->second;
  }

  // nullopt when `text` is not one JSON value.
  static std::optional<TestJson> Parse(std::string_view text);
};

class TestJsonParser {
 public:
  explicit TestJsonParser(std::string_view text) : text_(text) {}
  bool Value(TestJson* out) {
    Space();
    if (at_ == text_.size()) return false;
    switch (text_[at_]) {
      case '{':
        return Object(out);
      case '[':
        return Array(out);
      case '"':
        out->kind = TestJson::Kind::kString;
        return String(&out->text);
      default:
        return Word(out) || Number(out);
    }
  }
  bool AtEnd() {
    Space();
    return at_ == text_.size();
  }

 private:
  void Space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) ++at_;
  }
  bool Take(char c) {
    Space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool Word(TestJson* out) {
    for (const std::string_view word : {"null", "true", "false"}) {
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      out->kind = word == "null" ? TestJson::Kind::kNull : TestJson::Kind::kBool;
      out->boolean = word == "true";
      return true;
    }
    return false;
  }
  bool Number(TestJson* out) {
    const size_t begin = at_;
    while (at_ < text_.size() &&
           std::string_view("+-.0123456789eE").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
    const std::string digits(text_.substr(begin, at_ - begin));
    char* end = nullptr;
    out->kind = TestJson::Kind::kNumber;
    out->number = std::strtod(digits.c_str(), &end);
    return !digits.empty() && *end == '\0' && digits[0] != '+' && digits[0] != '.';
  }
  bool String(std::string* out) {
    ++at_;
    while (at_ < text_.size() && text_[at_] != '"') {
      const unsigned char c = static_cast<unsigned char>(text_[at_]);
      if (c < 0x20) return false;
      if (c != '\\') {
        out->push_back(text_[at_++]);
        continue;
      }
      if (at_ + 1 >= text_.size()) return false;
      const char escape = text_[at_ + 1];
      at_ += 2;
      if (escape == '"' || escape == '\\' || escape == '/') {
        out->push_back(escape);
      } else if (escape == 'n' || escape == 't') {
        out->push_back(escape == 'n' ? '\n' : '\t');
      } else if (escape == 'u' && at_ + 4 <= text_.size()) {
        const long code = std::strtol(std::string(text_.substr(at_, 4)).c_str(), nullptr, 16);
        out->append(code < 0x80 ? std::string(1, static_cast<char>(code)) : "\xef\xbf\xbd");
        at_ += 4;
      } else {
        return false;
      }
    }
    return at_++ < text_.size();
  }
  bool Array(TestJson* out) {
    out->kind = TestJson::Kind::kArray;
    ++at_;
    if (Take(']')) return true;
    do {
      if (!Value(&out->items.emplace_back())) return false;
    } while (Take(','));
    return Take(']');
  }
  bool Object(TestJson* out) {
    out->kind = TestJson::Kind::kObject;
    ++at_;
    if (Take('}')) return true;
    do {
      std::string key;
      Space();
      if (at_ == text_.size() || text_[at_] != '"' || !String(&key) || !Take(':')) return false;
      if (out->members.count(key) > 0 || !Value(&out->members[key])) return false;
    } while (Take(','));
    return Take('}');
  }

  std::string_view text_;
  size_t at_ = 0;
};

inline std::optional<TestJson> TestJson::Parse(std::string_view text) {
  TestJsonParser parser(text);
  TestJson value;
  if (!parser.Value(&value) || !parser.AtEnd()) return std::nullopt;
  return value;
}

}  // namespace plexus
