#include "serve/repository.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "serve/test_runtime.h"

namespace plexus {
namespace {

constexpr char kPipeline[] =
    "name: twice\n"
    "inputs:\n  - {name: audio, dtype: FP32, shape: [-1]}\n"
    "stages:\n  - {name: first, model: same, inputs: {x: audio}}\n"
    "outputs:\n  - {name: out, from: first.y}\n";

struct Fixture {
  Fixture() : repository(folder.path(), runtime) {}
  const IndexEntry Entry(const std::string& name) {
    for (const IndexEntry& entry : repository.Index()) {
      if (entry.name == name) return entry;
    }
    return {};
  }
  TestFolder folder;
  TestRuntime runtime;
  ModelRepository repository;
};

TEST(Repository, ABadModelLeavesTheOthersServed) {
  Fixture f;
  f.folder.Write("same/model.onnx", IdentityModel());
  f.folder.Write("broken/model.onnx", "this is no model");
  f.folder.Write("empty/notes.txt", "");
  f.folder.Write("pipelines/twice.yaml", kPipeline);
  f.folder.Write("pipelines/lost.yaml",
                 "name: lost\ninputs: [{name: a, dtype: FP32, shape: [-1]}]\n"
                 "stages: [{name: s, model: nowhere, inputs: {x: a}}]\n"
                 "outputs: [{name: o, from: s.y}]\n");
  f.folder.Write("pipelines/bad.yaml", "name: [unclosed");
  ASSERT_TRUE(f.repository.LoadAll().ok());
  EXPECT_TRUE(f.repository.Find("same", "").ok());
  EXPECT_TRUE(f.repository.Find("twice", "1").ok());
  EXPECT_EQ(f.repository.Find("broken", "").status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(f.repository.Find("nowhere", "").status().code(), StatusCode::kNotFound);
  EXPECT_NE(f.Entry("broken").reason.find("model 'broken'"), std::string::npos);
  EXPECT_NE(f.Entry("lost").reason.find("nowhere"), std::string::npos) << f.Entry("lost").reason;
  EXPECT_NE(f.Entry("bad").reason.find("bad.yaml"), std::string::npos) << f.Entry("bad").reason;
  EXPECT_FALSE(f.Entry("empty").ready);
}

TEST(Repository, ServesTheLatestVersionUnlessAskedForOthers) {
  Fixture f;
  f.folder.Write("a/1/model.onnx", IdentityModel());
  f.folder.Write("a/12/model.onnx", IdentityModel());
  f.folder.Write("a/notes/model.onnx", "ignored");
  f.folder.Write("b/1/model.onnx", IdentityModel());
  f.folder.Write("b/2/model.onnx", IdentityModel());
  f.folder.Write("b/config.yaml", "versions: all\n");
  f.folder.Write("c/1/model.onnx", IdentityModel());
  f.folder.Write("c/config.yaml", "versions: [3]\n");
  ASSERT_TRUE(f.repository.LoadAll().ok());
  EXPECT_EQ(f.repository.Find("a", "").value()->version, "12");
  EXPECT_EQ(f.repository.Find("a", "1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(f.repository.Find("b", "1").value()->version, "1");
  EXPECT_EQ(f.repository.Versions("b").size(), 2u);
  for (const char* bad : {"0", "-1", "x", "99999999999999999999", "../1"}) {
    EXPECT_EQ(f.repository.Find("b", bad).status().code(), StatusCode::kNotFound) << bad;
  }
  EXPECT_FALSE(f.repository.Find("c", "").ok());
}

TEST(Repository, AListedVersionThatIsMissingIsAnErrorOfThatModelAlone) {
  Fixture f;
  f.folder.Write("a/1/model.onnx", IdentityModel());
  f.folder.Write("a/config.yaml", "versions: [1, 7, 9]\n");
  f.folder.Write("same/model.onnx", IdentityModel());
  ASSERT_TRUE(f.repository.LoadAll().ok());
  EXPECT_FALSE(f.repository.Find("a", "").ok());
  EXPECT_NE(f.Entry("a").reason.find("'versions': not there: 7, 9"), std::string::npos)
      << f.Entry("a").reason;
  EXPECT_TRUE(f.repository.Find("same", "").ok());
}

TEST(Repository, ADeclaredOutputShapeThatTheStagesContradictIsAnError) {
  Fixture f;
  f.folder.Write("same/model.onnx", IdentityModel());
  const std::string head =
      "name: p\ninputs: [{name: a, dtype: FP32, shape: [4]}]\n"
      "stages: [{name: s, model: same, input: a}]\n";
  f.folder.Write("pipelines/p.yaml", head + "outputs: [{name: o, from: s, shape: [5]}]\n");
  ASSERT_TRUE(f.repository.LoadAll().ok());
  EXPECT_EQ(f.Entry("p").reason,
            "pipeline 'p': p.yaml: output 'o': declared with shape [5], the stages give [4]");
  f.folder.Write("pipelines/p.yaml", head + "outputs: [{name: o, from: s, shape: [-1]}]\n");
  EXPECT_TRUE(f.repository.Load("p").ok());
}

TEST(Repository, ADuplicateKeyOfTheConfigurationIsAnErrorWithItsLines) {
  Fixture f;
  f.folder.Write("a/model.onnx", IdentityModel());
  f.folder.Write("a/config.yaml", "versions: all\nprecision: float32\nversions: latest\n");
  ASSERT_TRUE(f.repository.LoadAll().ok());
  EXPECT_EQ(f.Entry("a").reason,
            "model 'a': a/config.yaml: line 3: key 'versions' is there already, in line 1");
}

TEST(Repository, AFailedReloadKeepsWhatWasServed) {
  Fixture f;
  f.folder.Write("same/model.onnx", IdentityModel());
  ASSERT_TRUE(f.repository.LoadAll().ok());
  const ServablePtr before = f.repository.Find("same", "").value();
  f.folder.Write("same/model.onnx", "broken");
  const Status status = f.repository.Load("same");
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("same"), std::string::npos);
  EXPECT_EQ(f.repository.Find("same", "").value(), before);
}

TEST(Repository, AReloadRebuildsThePipelinesMadeOfTheModel) {
  Fixture f;
  f.folder.Write("same/model.onnx", IdentityModel());
  f.folder.Write("pipelines/twice.yaml", kPipeline);
  ASSERT_TRUE(f.repository.LoadAll().ok());
  const ServablePtr before = f.repository.Find("twice", "").value();
  ASSERT_TRUE(f.repository.Load("same").ok());
  EXPECT_NE(f.repository.Find("twice", "").value(), before);
}

TEST(Repository, UnloadTakesDependentsOnlyWhenAsked) {
  Fixture f;
  f.folder.Write("same/model.onnx", IdentityModel());
  f.folder.Write("pipelines/twice.yaml", kPipeline);
  ASSERT_TRUE(f.repository.LoadAll().ok());
  ASSERT_TRUE(f.repository.Unload("same", false).ok());
  EXPECT_FALSE(f.repository.Find("same", "").ok());
  EXPECT_TRUE(f.repository.Find("twice", "").ok());
  ASSERT_TRUE(f.repository.Load("same").ok());
  ASSERT_TRUE(f.repository.Unload("same", true).ok());
  EXPECT_FALSE(f.repository.Find("twice", "").ok());
  EXPECT_EQ(f.repository.Unload("same", true).code(), StatusCode::kNotFound);
}

// A writer replaces the model and tears it in place while loads go on: every load either sees one
// whole state or says why not, and what was served stays served.
TEST(Repository, AModelThatChangesWhileItLoadsIsWholeOrRefused) {
  Fixture f;
  const std::string model = IdentityModel();
  f.folder.Write("same/model.onnx", model);
  ASSERT_TRUE(f.repository.LoadAll().ok());
  std::atomic<bool> stop{false};
  std::atomic<size_t> writes{0};
  std::thread writer([&] {
    for (; !stop; ++writes)
      f.folder.Write("same/model.onnx", model.substr(0, writes % model.size()));
  });
  while (writes == 0) std::this_thread::yield();  // from here on the file is never whole
  int refused = 0;
  for (int i = 0; i < 300 || writes < model.size(); ++i) {
    const Status loaded = f.repository.Load("same");
    if (!loaded.ok()) {
      ++refused;
      EXPECT_TRUE(loaded.code() == StatusCode::kUnavailable ||
                  loaded.code() == StatusCode::kInvalidArgument ||
                  loaded.code() == StatusCode::kDataLoss)
          << loaded.ToString();
    }
    EXPECT_TRUE(f.repository.Find("same", "").ok());
  }
  stop = true;
  writer.join();
  EXPECT_GT(refused, 0);
  f.folder.Write("same/model.onnx", model);
  EXPECT_TRUE(f.repository.Load("same").ok());
}

TEST(Repository, NamesNeverLeaveTheFolder) {
  Fixture f;
  f.folder.Write("same/model.onnx", IdentityModel());
  ASSERT_TRUE(f.repository.LoadAll().ok());
  for (const char* name : {"..", ".", "", "../same", "same/../same", "/etc", "pipelines"}) {
    EXPECT_EQ(f.repository.Load(name).code(), StatusCode::kNotFound) << name;
  }
}

TEST(Repository, AMissingFolderIsAnError) {
  TestRuntime runtime;
  ModelRepository repository("/no/such/folder", runtime);
  EXPECT_EQ(repository.LoadAll().code(), StatusCode::kNotFound);
  EXPECT_EQ(repository.CheckReadable().code(), StatusCode::kNotFound);
}

TEST(Repository, AFolderThatCannotBeReadIsAnError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  TestFolder folder;
  TestRuntime runtime;
  std::filesystem::permissions(folder.path(), std::filesystem::perms::none);
  ModelRepository repository(folder.path(), runtime);
  EXPECT_EQ(repository.CheckReadable().code(), StatusCode::kPermissionDenied);
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
}

TEST(Repository, StopLoadingRefusesFurtherLoads) {
  Fixture f;
  f.folder.Write("same/model.onnx", IdentityModel());
  f.repository.StopLoading();
  ASSERT_TRUE(f.repository.LoadAll().ok());
  EXPECT_FALSE(f.repository.Find("same", "").ok());
}

TEST(ModelConfig, ReadsEveryKey) {
  const auto config = ParseModelConfig(
      "precision: bf16\nversions: [1, 3]\nwarm_up:\n  - {x: [1, 2], y: [4]}\n"
      "trace_sample: 20\n",
      "config.yaml");
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->precision, Precision::kBFloat16);
  EXPECT_EQ(config->versions, ModelConfig::Versions::kListed);
  EXPECT_EQ(config->listed_versions, (std::vector<int64_t>{1, 3}));
  ASSERT_EQ(config->warm_up.size(), 1u);
  EXPECT_EQ(config->warm_up[0].at("x"), (Shape{1, 2}));
  EXPECT_EQ(config->trace_sample, 20u);
  EXPECT_TRUE(ParseModelConfig("", "config.yaml").ok());
  EXPECT_TRUE(ParseModelConfig(" \n", "config.yaml").ok());
}

TEST(ModelConfig, BadFilesNameTheKey) {
  struct Case {
    const char* yaml;
    const char* message;
  };
  const Case cases[] = {
      {"precision: fp8\n", "precision"},
      {"precison: bf16\n", "precison"},
      {"trace_sample: -1\n", "trace_sample"},
      {"trace_sample: often\n", "trace_sample"},
      {"versions: 3\n", "versions"},
      {"versions: []\n", "versions"},
      {"versions: [0]\n", "versions"},
      {"versions: [a]\n", ""},
      {"warm_up: {x: [1]}\n", "warm_up"},
      {"warm_up: [[1]]\n", "warm_up"},
      {"warm_up: [{x: [-1]}]\n", "negative"},
      {"warm_up: [{x: [99999999, 99999999]}]\n", "too many elements"},
      {"- a\n", "config.yaml"},
      {"a: [\n", "config.yaml"},
  };
  for (const Case& c : cases) {
    const auto config = ParseModelConfig(c.yaml, "config.yaml");
    ASSERT_FALSE(config.ok()) << c.yaml;
    EXPECT_EQ(config.status().code(), StatusCode::kInvalidArgument) << c.yaml;
    EXPECT_NE(config.status().message().find(c.message), std::string::npos)
        << config.status().message();
    EXPECT_NE(config.status().message().find("config.yaml"), std::string::npos);
  }
}

}  // namespace
}  // namespace plexus
