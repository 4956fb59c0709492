// A YAML mapping read strictly: every key must be asked for, errors say where.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"

namespace plexus {

// Parses one document of at most 1 MiB; kInvalidArgument with line and column otherwise, also
// for a key that stands twice in one mapping.
Result<YAML::Node> ParseYaml(std::string_view text, const std::string& where);

// Reads keys of one mapping and collects the first error, so that a reader is a list of fields:
//   YamlMap map(node, "stage 'mel'");
//   spec.size = map.Int("size");           // required
//   spec.step = map.Int("step", 1);        // optional
//   return map.Finish();                   // first error, or the first key nobody asked for
class YamlMap {
 public:
  YamlMap(const YAML::Node& node, std::string where);

  bool Has(const std::string& key);
  std::string String(const std::string& key);
  std::string String(const std::string& key, const std::string& fallback);
  int64_t Int(const std::string& key);
  int64_t Int(const std::string& key, int64_t fallback);
  double Double(const std::string& key);
  double Double(const std::string& key, double fallback);
  bool Bool(const std::string& key, bool fallback);
  std::vector<int64_t> Ints(const std::string& key);
  std::vector<std::string> Strings(const std::string& key);
  // The raw child; a Null node when absent.
  YAML::Node Child(const std::string& key);

  void Fail(const std::string& what);
  // The same, with the key and the line it stands on: "line 7: key 'jobs': what".
  void Fail(const std::string& key, const std::string& what);
  Status Finish();
  const std::string& where() const { return where_; }

 private:
  // "; given are a, b": one of them may be a misspelling of what is missing.
  std::string Given() const;
  template <typename T>
  T Get(const std::string& key, const char* type, const T* fallback);
  template <typename T>
  std::vector<T> GetList(const std::string& key, const char* type);

  YAML::Node node_;
  std::string where_;
  std::set<std::string> asked_;
  Status error_;
};

}  // namespace plexus
