#include "yaml/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>

#include <cmath>
#include <map>
#include <sstream>

namespace plexus {

namespace {

constexpr size_t kMaxYamlBytes = 1 << 20;

// Finds a key that a mapping holds twice. Works on the parser's events: a walk over the nodes would
// follow every alias, however often it is used.
class DuplicateKeys : public YAML::EventHandler {
 public:
  const std::string& found() const { return found_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override { Take(nullptr, {}); }
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override { Take(nullptr, {}); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                const std::string& value) override {
    Take(&value, mark);
  }
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    Take(nullptr, {});
    open_.push_back({false, false, {}});
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Take(nullptr, {});
    open_.push_back({true, true, {}});
  }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  struct Collection {
    bool is_map;
    bool key_next;
    std::map<std::string, int> lines;  // of the keys so far
  };

  // One node, a key or a value; `text` is null where it is no scalar.
  void Take(const std::string* text, const YAML::Mark& mark) {
    if (open_.empty() || !open_.back().is_map) return;
    Collection& map = open_.back();
    const bool is_key = map.key_next;
    map.key_next = !map.key_next;
    if (!is_key || text == nullptr) return;
    const auto [it, fresh] = map.lines.emplace(*text, mark.line + 1);
    if (fresh || !found_.empty()) return;
    found_ = "line " + std::to_string(mark.line + 1) + ": key '" + *text +
             "' is there already, in line " + std::to_string(it->second);
  }

  std::vector<Collection> open_;
  std::string found_;
};

}  // namespace

Result<YAML::Node> ParseYaml(std::string_view text, const std::string& where) {
  if (text.size() > kMaxYamlBytes) {
    return InvalidArgumentError(where + ": larger than 1 MiB");
  }
  try {
    YAML::Node node = YAML::Load(std::string(text));
    if (!node.IsMap()) {
      return InvalidArgumentError(where + ": expected a mapping of keys to values");
    }
    std::istringstream stream{std::string(text)};
    DuplicateKeys duplicates;
    YAML::Parser(stream).HandleNextDocument(duplicates);
    if (!duplicates.found().empty()) return InvalidArgumentError(where + ": " + duplicates.found());
    return node;
  } catch (const YAML::Exception& e) {
    const std::string at = e.mark.is_null()
                               ? ""
                               : "line " + std::to_string(e.mark.line + 1) + ", column " +
                                     std::to_string(e.mark.column + 1) + ": ";
    return InvalidArgumentError(where + ": " + at + "no YAML: " + e.msg);
  } catch (const std::exception& e) {
    return InvalidArgumentError(where + ": " + e.what());
  }
}

YamlMap::YamlMap(const YAML::Node& node, std::string where) : where_(std::move(where)) {
  if (node.IsDefined() && node.IsMap()) {
    node_ = node;
  } else {
    node_ = YAML::Node(YAML::NodeType::Map);
    Fail("expected a mapping of keys to values");
  }
}

void YamlMap::Fail(const std::string& what) {
  if (error_.ok()) error_ = InvalidArgumentError(where_ + ": " + what);
}

void YamlMap::Fail(const std::string& key, const std::string& what) {
  const YAML::Node& readable = node_;
  const YAML::Node child = readable[key];
  const int line = (child.IsDefined() ? child : node_).Mark().line;
  Fail((line >= 0 ? "line " + std::to_string(line + 1) + ": " : "") + "key '" + key + "': " + what);
}

YAML::Node YamlMap::Child(const std::string& key) {
  asked_.insert(key);
  const YAML::Node& readable = node_;  // operator[] on a non-const node would insert
  YAML::Node child = readable[key];
  return child.IsDefined() ? child : YAML::Node();
}

bool YamlMap::Has(const std::string& key) { return !Child(key).IsNull(); }

std::string YamlMap::Given() const {
  constexpr size_t kMost = 20;
  std::string names;
  size_t count = 0;
  for (const auto& entry : node_) {
    if (!entry.first.IsScalar() || ++count > kMost) continue;
    names += (names.empty() ? "; given are " : ", ") + entry.first.Scalar();
  }
  return names;
}

template <typename T>
T YamlMap::Get(const std::string& key, const char* type, const T* fallback) {
  const YAML::Node child = Child(key);
  if (child.IsNull()) {
    if (fallback != nullptr) return *fallback;
    Fail("key '" + key + "' is missing" + Given());
    return T();
  }
  try {
    if (child.IsScalar()) return child.as<T>();
  } catch (const std::exception&) {
  }
  Fail(key, std::string("expected ") + type);
  return T();
}

template <typename T>
std::vector<T> YamlMap::GetList(const std::string& key, const char* type) {
  const YAML::Node child = Child(key);
  std::vector<T> out;
  if (!child.IsSequence()) {
    Fail(key, std::string("expected a list of ") + type);
    return out;
  }
  try {
    for (const YAML::Node& element : child) out.push_back(element.as<T>());
  } catch (const std::exception&) {
    Fail(key, std::string("expected a list of ") + type);
  }
  return out;
}

std::string YamlMap::String(const std::string& key) {
  return Get<std::string>(key, "a text", nullptr);
}
std::string YamlMap::String(const std::string& key, const std::string& fallback) {
  return Get<std::string>(key, "a text", &fallback);
}
int64_t YamlMap::Int(const std::string& key) {
  return Get<int64_t>(key, "a whole number", nullptr);
}
int64_t YamlMap::Int(const std::string& key, int64_t fallback) {
  return Get<int64_t>(key, "a whole number", &fallback);
}
double YamlMap::Double(const std::string& key) {
  const double value = Get<double>(key, "a number", nullptr);
  if (!std::isfinite(value)) Fail(key, "expected a finite number");
  return value;
}
double YamlMap::Double(const std::string& key, double fallback) {
  return Has(key) ? Double(key) : fallback;
}
bool YamlMap::Bool(const std::string& key, bool fallback) {
  return Get<bool>(key, "true or false", &fallback);
}
std::vector<int64_t> YamlMap::Ints(const std::string& key) {
  return GetList<int64_t>(key, "whole numbers");
}
std::vector<std::string> YamlMap::Strings(const std::string& key) {
  return GetList<std::string>(key, "texts");
}

Status YamlMap::Finish() {
  for (const auto& entry : node_) {
    std::string key;
    try {
      key = entry.first.as<std::string>();
    } catch (const std::exception&) {
      Fail("a key that is not a text");
      break;
    }
    if (asked_.count(key) > 0) continue;
    std::string known;
    for (const std::string& name : asked_) known += (known.empty() ? "" : ", ") + name;
    Fail("unknown key '" + key + "'" + (known.empty() ? "" : "; there are: " + known));
    break;
  }
  return error_;
}

}  // namespace plexus
