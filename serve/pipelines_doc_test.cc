// Runs the worked examples of docs/pipelines.md: a block ```yaml that begins with `name:` is a
// pipeline, a block ```text after it is a conversation with it, "> " before what is sent to
// /v2/models/NAME/infer and "< " before what comes back.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <future>
#include <sstream>

#include "base/test_json.h"
#include "serve/compression.h"
#include "serve/test_runtime.h"
#include "serve/v2_api.h"

namespace plexus {
namespace {

struct Example {
  std::string name, yaml;
  std::vector<std::string> lines;  // with their marks
};

std::vector<Example> ReadExamples(const std::string& path) {
  std::vector<Example> examples;
  std::ifstream in(path);
  std::string fence, text;
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("```", 0) != 0) {
      if (!fence.empty()) text += line + "\n";
      continue;
    }
    if (fence.empty()) {
      fence = line;
      text.clear();
      continue;
    }
    if (fence == "```yaml" && text.rfind("name: ", 0) == 0) {
      const std::string name = text.substr(6, text.find_first_of(" \n", 6) - 6);
      examples.push_back({name, text, {}});
    } else if (fence == "```text" && text.rfind("> ", 0) == 0) {
      EXPECT_FALSE(examples.empty());
      std::istringstream lines(text);
      for (std::string each; std::getline(lines, each);) {
        if (each.rfind("  ", 0) == 0) {
          examples.back().lines.back() += each.substr(each.find_first_not_of(' ') - 1);  // goes on
        } else {
          examples.back().lines.push_back(each);
        }
      }
    }
    fence.clear();
  }
  return examples;
}

bool Same(const TestJson& a, const TestJson& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size()) return false;
  if (a.boolean != b.boolean || a.text != b.text) return false;
  if (std::abs(a.number - b.number) > 1e-5 * (1 + std::abs(b.number))) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!Same(a.items[i], b.items[i])) return false;
  }
  if (a.members.size() != b.members.size()) return false;
  for (const auto& [key, value] : a.members) {
    if (!b.has(key) || !Same(value, b[key])) return false;
  }
  return true;
}

TEST(PipelinesDoc, EveryWorkedExampleGivesWhatThePageSays) {
  const std::vector<Example> examples = ReadExamples("docs/pipelines.md");
  TestFolder folder;
  size_t spoken = 0;
  for (const Example& e : examples) {
    if (e.lines.empty()) continue;
    ++spoken;
    folder.Write("pipelines/" + e.name + ".yaml", e.yaml);
  }
  EXPECT_GE(spoken, 4u) << "when, foreach, repeat, state";
  RuntimeOptions options;
  options.threads = 1;
  const auto runtime = Runtime::Create(options).value();
  ModelRepository repository(folder.path(), *runtime);
  TenantTable tenants;
  V2Api api(*runtime, repository, tenants);
  std::promise<void> loaded;
  api.LoadRepository([&loaded] { loaded.set_value(); });
  loaded.get_future().get();
  for (const Example& e : examples) {
    std::string answer;
    for (const std::string& line : e.lines) {
      const std::string text = line.substr(2);
      if (line[0] == '<') {
        const auto want = TestJson::Parse(text), got = TestJson::Parse(answer);
        ASSERT_TRUE(want && got) << e.name << ": " << text << "\n" << answer;
        // The page leaves out what every answer says.
        TestJson rest = *got;
        rest.members.erase("model_name");
        rest.members.erase("model_version");
        EXPECT_TRUE(Same(*want, rest)) << e.name << "\n page: " << text << "\n got:  " << answer;
        continue;
      }
      HttpRequest request;
      request.method = "POST";
      request.path = "/v2/models/" + e.name + "/infer";
      request.received = runtime->clock().Now();
      request.body = AllocateBody(text.size(), 0).value();
      std::memcpy(request.body.data, text.data(), text.size());
      std::promise<std::string> body;
      api.Handle(std::move(request), [&](HttpResponse r) { body.set_value(r.body); });
      answer = body.get_future().get();
    }
  }
}

}  // namespace
}  // namespace plexus
