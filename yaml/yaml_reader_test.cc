#include "yaml/yaml_reader.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

TEST(YamlReaderTest, ReadsFieldsAndTakesFallbacks) {
  YamlMap map(ParseYaml("a: 3\nb: 2.5\nc: [1, 2]\nd: yes\n", "f.yaml").value(), "f.yaml");
  EXPECT_EQ(map.Int("a"), 3);
  EXPECT_EQ(map.Double("b"), 2.5);
  EXPECT_EQ(map.Ints("c"), (std::vector<int64_t>{1, 2}));
  EXPECT_TRUE(map.Bool("d", false));
  EXPECT_EQ(map.String("e", "none"), "none");
  EXPECT_TRUE(map.Finish().ok());
}

TEST(YamlReaderTest, ErrorsNameFileLineAndKey) {
  YamlMap map(ParseYaml("a: 3\n\nb: fast\n", "f.yaml").value(), "f.yaml");
  map.Int("a");
  map.Double("b");
  EXPECT_EQ(map.Finish().message(), "f.yaml: line 3: key 'b': expected a number");
}

TEST(YamlReaderTest, NanMissingAndUnknownKeysAreErrors) {
  const auto error = [](const char* text, auto read) {
    YamlMap map(ParseYaml(text, "f").value(), "f");
    read(map);
    return map.Finish().message();
  };
  EXPECT_EQ(error("a: .nan", [](YamlMap& m) { m.Double("a"); }),
            "f: line 1: key 'a': expected a finite number");
  EXPECT_EQ(error("a: 1", [](YamlMap& m) { m.Int("a"), m.Int("b"); }),
            "f: key 'b' is missing; given are a");
  EXPECT_EQ(error("a: 1\nz: 2", [](YamlMap& m) { m.Int("a"); }),
            "f: unknown key 'z'; there are: a");
}

TEST(YamlReaderTest, ASyntaxErrorHasItsLineAndColumn) {
  EXPECT_EQ(ParseYaml("a: [1\nb: 2\n", "f").status().message(),
            "f: line 2, column 2: no YAML: end of sequence flow not found");
}

TEST(YamlReaderTest, WhatIsNoMappingIsRefused) {
  EXPECT_FALSE(ParseYaml("- 1", "f").ok());
  EXPECT_FALSE(ParseYaml("a: [", "f").ok());
  EXPECT_FALSE(ParseYaml(std::string((1 << 20) + 1, ' '), "f").ok());
}

}  // namespace
}  // namespace plexus
