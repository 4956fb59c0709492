// Groups that a file of pipelines/ names.
#include "serve/group.h"

#include <gtest/gtest.h>

#include <cstring>
#include <future>

#include "serve/compression.h"
#include "serve/path_index.h"
#include "serve/test_runtime.h"
#include "serve/v2_api.h"

namespace plexus {
namespace {

constexpr char kPipeline[] =
    "name: p\n"
    "inputs:\n  - {name: x, dtype: FP32, shape: [-1]}\n"
    "stages:\n  - {name: first, model: a, inputs: {x: x}}\n"
    "outputs:\n  - {name: out, from: first.y}\n";

bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Fixture {
  explicit Fixture(const std::string& group = "name: g\ngroup: [p, b]\n")
      : repository(folder.path(), runtime) {
    folder.Write("a/model.onnx", IdentityModel());
    folder.Write("b/model.onnx", IdentityModel());
    folder.Write("pipelines/p.yaml", kPipeline);
    folder.Write("pipelines/g.yaml", group);
    api = std::make_unique<V2Api>(runtime, repository, tenants);
  }
  void LoadAll() {
    std::promise<void> loaded;
    api->LoadRepository([&loaded] { loaded.set_value(); });
    loaded.get_future().get();
  }
  HttpResponse Call(const std::string& method, const std::string& path,
                    const std::string& body = "") {
    HttpRequest request;
    request.method = method;
    request.path = path;
    request.body = AllocateBody(body.size(), 0).value();
    std::memcpy(request.body.data, body.data(), body.size());
    request.received = runtime.clock().Now();
    std::promise<HttpResponse> promise;
    api->Handle(std::move(request),
                [&promise](HttpResponse response) { promise.set_value(std::move(response)); });
    return promise.get_future().get();
  }
  HttpResponse Infer(const std::string& name) {
    return Call("POST", "/v2/models/" + name + "/infer",
                R"({"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}]})");
  }
  std::string Reason(const std::string& name) {
    for (const IndexEntry& entry : repository.Index()) {
      if (entry.name == name) return entry.ready ? "" : entry.reason;
    }
    return "not there";
  }

  TestFolder folder;
  TestRuntime runtime;
  ModelRepository repository;
  TenantTable tenants;
  std::unique_ptr<V2Api> api;
};

TEST(GroupFile, IsListedLikeAModelAndAnswersLikeItsMembersNamedWithCommas) {
  Fixture f;
  f.LoadAll();
  EXPECT_TRUE(Holds(f.Call("GET", "/v2/models").body, "\"g\""));
  EXPECT_EQ(f.Call("GET", "/v2/models/g/ready").status, 200);
  const std::string about = f.Call("GET", "/v2/models/g").body;
  EXPECT_EQ(about, R"({"name":"g","versions":["1"],"platform":"plexus_group",)"
                   R"("inputs":[{"name":"x","datatype":"FP32","shape":[-1]}],"outputs":[)"
                   R"({"name":"p.out","datatype":"FP32","shape":[-1]},)"
                   R"({"name":"b.y","datatype":"FP32","shape":[-1]}]})");
  const HttpResponse named = f.Infer("p,b"), filed = f.Infer("g");
  EXPECT_EQ(filed.status, 200) << filed.body;
  const auto outputs = [](const std::string& body) {
    return body.substr(body.find("\"outputs\""));
  };
  EXPECT_EQ(outputs(filed.body), outputs(named.body));
  EXPECT_TRUE(Holds(filed.body, R"("model_name":"g")"));
  EXPECT_TRUE(Holds(f.Call("GET", "/v2/models/b/stats").body, R"("inference_count":2)"));
  EXPECT_TRUE(Holds(f.Call("GET", "/v2/models/g/stats").body, R"("inference_count":1)"));
}

TEST(GroupFile, IsLoadedAloneWithMembersThatNobodyElseSees) {
  Fixture f;
  ASSERT_TRUE(f.repository.Load("g").ok());
  EXPECT_EQ(f.Infer("g").status, 200);
  EXPECT_EQ(f.repository.Loaded().size(), 1u);
  EXPECT_EQ(f.Infer("b").status, 404);
}

TEST(GroupFile, FollowsItsMembersAndWhatTheyAreMadeOf) {
  Fixture f;
  f.LoadAll();
  ServablePtr before = f.repository.Find("g", "").value();
  for (const char* changed : {"b", "p", "a"}) {
    ASSERT_TRUE(f.repository.Load(changed).ok());
    const ServablePtr now = f.repository.Find("g", "").value();
    EXPECT_NE(now, before) << changed;
    EXPECT_EQ(now->members.at(0), f.repository.Find("p", "").value()) << changed;
    EXPECT_EQ(now->members.at(1), f.repository.Find("b", "").value()) << changed;
    before = now;
  }
  f.folder.Write("b/model.onnx", IdentityModel(8));  // a text: no input for the other one
  const Status refused = f.repository.Load("b");
  EXPECT_TRUE(Holds(refused.message(), "pipeline 'g': g.yaml:")) << refused.message();
  EXPECT_TRUE(Holds(refused.message(), "input 'x'")) << refused.message();
  EXPECT_EQ(f.Infer("b").status, 200) << "what was served goes on";
  EXPECT_EQ(f.Infer("g").status, 200);
  ASSERT_TRUE(f.repository.Unload("b", false).ok());
  EXPECT_EQ(f.Infer("g").status, 200);
  f.folder.Write("b/model.onnx", IdentityModel());
  ASSERT_TRUE(f.repository.Load("b").ok());
  ASSERT_TRUE(f.repository.Unload("a", true).ok());
  for (const char* name : {"a", "p", "g"}) EXPECT_EQ(f.Infer(name).status, 503) << name;
}

TEST(GroupFile, SaysWhatIsWrongWithIt) {
  struct Case {
    const char* yaml;
    const char* reason;
  };
  const Case cases[] = {
      {"name: g\ngroup: [p, nothing]\n", "key 'group': 'nothing' is not in the model repository"},
      {"name: g\ngroup: [p, p]\n", "'p' stands twice"},
      {"name: g\ngroup: [g]\n", "groups have no groups in them"},
      {"name: g\ngroup: [p, h]\n", "groups have no groups in them"},
      {"name: g\ngroup: []\n", "key 'group': expected a list of 1 to 64"},
      {"name: g\ngroup: p\n", "key 'group': expected a list"},
      {"name: g\ngroup: [[p]]\n", "group"},
      {"name: other\ngroup: [p]\n", "its 'name' is 'other', its file is named 'g'"},
      {"name: g\ngroup: [p]\nstages: []\n", "stages"},
      {"name: g\ngroup: [p]\ntenant: no tenant\n", "tenant"},
  };
  for (const Case& c : cases) {
    Fixture f(c.yaml);
    f.folder.Write("pipelines/h.yaml", "name: h\ngroup: [p]\n");
    f.LoadAll();
    EXPECT_TRUE(Holds(f.Reason("g"), "pipeline 'g': g.yaml:")) << f.Reason("g");
    EXPECT_TRUE(Holds(f.Reason("g"), c.reason)) << c.yaml << f.Reason("g");
    EXPECT_EQ(f.Reason("h"), "");
    EXPECT_FALSE(f.repository.Load("g").ok());
  }
}

TEST(GroupFile, ItsTenantIsThatOfRequestsThatNameNone) {
  Fixture f("name: g\ngroup: [p, b]\ntenant: shop\n");
  f.LoadAll();
  EXPECT_EQ(f.Infer("g").status, 200);
  EXPECT_EQ(f.tenants.Name(f.runtime.last_attributes().tenant), "shop");
  EXPECT_EQ(f.Infer("p").status, 200);
  EXPECT_EQ(f.runtime.last_attributes().tenant, TenantId(0));
}

TEST(PathIndexMembers, AreModelsThatPipelinesUseAndGroupsWhereTheyAreWanted) {
  Fixture f;
  f.LoadAll();
  PathIndex all(PathIndex::Parts::kListed), written(PathIndex::Parts::kLeftOut);
  all.Update(f.repository.Loaded());
  EXPECT_EQ(all.Summary({}).pipelines, 4u);  // a, b, p, g
  written.Update(f.repository.Loaded());
  EXPECT_EQ(written.Summary({}).pipelines, 2u);  // b, p
}

}  // namespace
}  // namespace plexus
