#include "serve/paths_api.h"

#include <gtest/gtest.h>

#include <future>
#include <memory>

#include "base/test_json.h"
#include "graph/onnx/wire_writer.h"
#include "serve/server.h"
#include "serve/test_connection.h"
#include "serve/test_runtime.h"

namespace plexus {
namespace {

// x [N,16] through one product per number; equal numbers have equal weights. `mixes`: a softmax
// over the rows behind the first one.
std::string Layers(const std::vector<int>& weights, bool mixes = false) {
  using onnx::BytesField;
  using onnx::IntField;
  const auto info = [](std::string_view name) {
    const std::string rows = BytesField(1, BytesField(2, "N"));
    const std::string columns = BytesField(1, IntField(1, 16));
    const std::string type = BytesField(1, IntField(1, 1) + BytesField(2, rows + columns));
    return BytesField(1, name) + BytesField(2, type);
  };
  std::string graph, from = "x";
  for (size_t i = 0; i < weights.size(); ++i) {
    onnx::TensorText tensor;
    tensor.name = "w" + std::to_string(i);
    tensor.dims = {16, 16};
    std::string raw;
    for (int k = 0; k < 256; ++k) {
      const float value = static_cast<float>(weights[i]) + static_cast<float>(k % 7);
      raw.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    tensor.data = BytesField(9, raw);
    graph += BytesField(5, onnx::TensorBytes(tensor));
    const std::string to = i + 1 == weights.size() ? "y" : "v" + std::to_string(i);
    graph += onnx::NodeField("MatMul", {from, tensor.name}, {to}, "", "m" + std::to_string(i));
    from = to;
    if (!mixes || i > 0) continue;
    from = "mixed";
    const std::string axis = onnx::BytesField(
        5, onnx::BytesField(1, "axis") + onnx::IntField(3, 0) + onnx::IntField(20, 2));
    graph += onnx::NodeField("Softmax", {to}, {from}, axis, "mix");
  }
  return onnx::ModelBytes(graph + BytesField(2, "layers") + BytesField(11, info("x")) +
                          BytesField(12, info("y")));
}

// A whole server on the CPU with its administration port: a and b share two of three layers.
struct Fixture {
  Fixture() {
    folder.Write("a/model.onnx", Layers({1, 2, 3}));
    folder.Write("b/model.onnx", Layers({1, 2, 4}));
    RuntimeOptions runtime_options;
    runtime_options.threads = 1;
    runtime = Runtime::Create(runtime_options).value();
    ServerOptions options;
    options.repository = folder.path();
    options.http_port = 0;
    options.admin_port = 0;
    std::promise<void> loaded;
    server = Server::Start(*runtime, options, [&loaded] { loaded.set_value(); }).value();
    loaded.get_future().get();
    http = std::make_unique<TestConnection>(server->http_port());
    admin = std::make_unique<TestConnection>(server->admin_port());
  }

  TestJson Paths(const std::string& query = "") {
    const auto response = admin->Call(Get("/paths" + query));
    EXPECT_EQ(response.status, 200) << response.body;
    const std::optional<TestJson> json = TestJson::Parse(response.body);
    EXPECT_TRUE(json.has_value()) << response.body;
    return json.value_or(TestJson());
  }
  void Repository(const std::string& model, const std::string& what) {
    const auto response = http->Call(Post("/v2/repository/models/" + model + "/" + what, ""));
    ASSERT_EQ(response.status, 200) << response.body;
  }

  TestFolder folder;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Server> server;
  std::unique_ptr<TestConnection> http, admin;
};

// "m0..m1: a b" per segment.
std::vector<std::string> Segments(const TestJson& paths) {
  std::vector<std::string> out;
  for (const TestJson& segment : paths["segments"].items) {
    std::string text = segment["name"].text + ":";
    for (const TestJson& user : segment["pipelines"].items) text += " " + user.text;
    out.push_back(text);
  }
  return out;
}
using List = std::vector<std::string>;

TEST(PathsApi, TellsSegmentsTheirUsersAndWhatSharingSaves) {
  Fixture f;
  const TestJson paths = f.Paths();
  EXPECT_EQ(Segments(paths), (List{"m0..m1: a b", "a/m2: a", "b/m2: b"}));
  const TestJson& shared = paths["segments"].items[0];
  EXPECT_EQ(shared["calls"].number, 2);
  EXPECT_EQ(shared["distinct_calls"].number, 1);
  EXPECT_EQ(shared["constant_bytes"].number, 2 * 1024);
  EXPECT_EQ(shared["flops"].number, 2 * 2 * 16 * 16);  // one row
  EXPECT_EQ(paths["constant_bytes"].number, 4 * 1024);
  EXPECT_EQ(paths["constant_bytes_saved"].number, 2 * 1024);
  EXPECT_EQ(paths["flops"].number, 6 * 512);
  EXPECT_EQ(paths["flops_saved"].number, 2 * 512);
  EXPECT_EQ(f.Paths("?shape=x=8,16")["flops"].number, 8 * 6 * 512);
  const TestJson& calls = paths["pipelines"]["b"]["calls"];
  ASSERT_EQ(calls.items.size(), 2u);
  EXPECT_EQ(calls.items[0]["inputs"].items[0]["input"].text, "x");
  EXPECT_EQ(calls.items[1]["segment"].text, "b/m2");
}

TEST(PathsApi, FollowsLoadsAndUnloads) {
  Fixture f;
  const double shared = f.Paths()["segments"].items[0]["id"].number;
  f.folder.Write("c/model.onnx", Layers({1, 2, 5}));
  f.Repository("c", "load");
  TestJson paths = f.Paths();
  EXPECT_EQ(Segments(paths), (List{"m0..m1: a b c", "a/m2: a", "b/m2: b", "c/m2: c"}));
  EXPECT_EQ(paths["segments"].items[0]["id"].number, shared);
  f.Repository("a", "unload");
  f.Repository("b", "unload");
  EXPECT_EQ(Segments(f.Paths()), (List{"c/m0..m2: c"}));
  // The same name with another content.
  f.folder.Write("c/model.onnx", Layers({7}));
  f.Repository("c", "load");
  EXPECT_EQ(Segments(f.Paths()), (List{"c/m0: c"}));
  f.Repository("c", "unload");
  EXPECT_TRUE(f.Paths()["segments"].items.empty());
}

TEST(PathsApi, AFailedReloadChangesNothing) {
  Fixture f;
  const List before = Segments(f.Paths());
  f.folder.Write("a/model.onnx", "broken");
  EXPECT_NE(f.http->Call(Post("/v2/repository/models/a/load", "")).status, 200);
  EXPECT_EQ(Segments(f.Paths()), before);
}

TEST(PathsApi, ModelsThatAPipelineIsMadeOfAreThereAsWell) {
  Fixture f;
  f.folder.Write("pipelines/p.yaml",
                 "name: p\ninputs: [{name: x, dtype: FP32, shape: [-1, 16]}]\n"
                 "stages: [{name: s, model: a, inputs: {x: x}}]\n"
                 "outputs: [{name: y, from: s.y}]\n");
  f.Repository("p", "load");
  EXPECT_EQ(Segments(f.Paths()), (List{"m0..m1: a b p", "m2: a p", "b/m2: b"}));
}

// A model for each row of x, behind what only data tells: so the rows stay apart.
std::string Foreach(const std::string& name, const std::string& model) {
  return "name: " + name +
         "\ninputs: [{name: x, dtype: FP32, shape: [-1, 16]}]\n"
         "stages:\n  - name: each\n    foreach: x\n    as: row\n    stages:\n"
         "      - {name: flat, op: reshape, input: row, shape: [-1]}\n"
         "      - {name: mark, op: compare, input: flat, is: greater, to: -1000000}\n"
         "      - {name: kept, op: filter, inputs: [flat, mark]}\n"
         "      - {name: again, op: reshape, input: kept, shape: [1, 16]}\n"
         "      - {name: s, model: " +
         model +
         ", inputs: {x: again}}\n"
         "    outputs: [{name: y, from: s.y}]\n"
         "outputs: [{name: y, from: each.y}]\n";
}

TEST(PathsApi, ShowsWhatBodiesOfStagesShare) {
  Fixture f;
  for (const auto& [name, model] : {std::pair("p", "a"), std::pair("q", "b")}) {
    f.folder.Write(std::string("pipelines/") + name + ".yaml", Foreach(name, model));
    f.Repository(name, "load");
  }
  const TestJson paths = f.Paths("?shape=x=8,16");
  const TestJson* shared = nullptr;
  for (const TestJson& segment : paths["segments"].items) {
    if (segment["pipelines"].items.size() == 4) shared = &segment;
  }
  ASSERT_NE(shared, nullptr) << "in the models and inside the stages";
  EXPECT_EQ((*shared)["name"].text, "m0..m1");
  EXPECT_EQ((*shared)["calls"].number, 4);
  EXPECT_EQ((*shared)["distinct_calls"].number, 2) << "p's rows are q's, and not those of a and b";
  const TestJson& each = paths["pipelines"]["p"]["calls"].items[0]["bodies"].items[0];
  EXPECT_EQ(each.text, "p/stage each (foreach)");
  EXPECT_EQ(paths["bodies"][each.text]["calls"].items.size(), 3u);
  // Two layers for b's rows. In the stages only a run tells the sizes.
  EXPECT_GE(paths["flops_saved"].number, 8 * (2 * 512));
  EXPECT_FALSE(paths["body_flops_complete"].boolean);
  EXPECT_NE(f.admin->Call(Get("/paths?format=dot")).body.find("stage each (foreach)"),
            std::string::npos);
  f.Repository("q", "unload");
  const TestJson left = f.Paths();
  for (const TestJson& segment : left["segments"].items) {
    for (const TestJson& user : segment["pipelines"].items) EXPECT_NE(user.text, "q");
  }
}

TEST(PathsApi, PrecisionKeepsEqualModelsApart) {
  Fixture f;
  f.folder.Write("b/config.yaml", "precision: bf16\n");
  f.Repository("b", "load");  // where the CPU has no bf16 as well
  EXPECT_EQ(Segments(f.Paths()), (List{"a/m0..m2: a", "b/m0..m2: b"}));
  EXPECT_NE(f.Paths("?first=a&second=b")["difference"].text.find("precision"), std::string::npos);
  f.folder.Write("a/config.yaml", "precision: bf16\n");
  f.Repository("a", "load");
  EXPECT_EQ(Segments(f.Paths()), (List{"m0..m1: a b", "a/m2: a", "b/m2: b"}));
}

TEST(PathsApi, CutsWhereRowsMixAsTheRuntimeDoes) {
  Fixture f;
  f.folder.Write("a/model.onnx", Layers({1, 2, 3}, /*mixes=*/true));
  f.folder.Write("b/model.onnx", Layers({1, 2, 4}, /*mixes=*/true));
  f.Repository("a", "load");
  f.Repository("b", "load");
  EXPECT_EQ(Segments(f.Paths()), (List{"m0: a b", "mix: a b", "m1: a b", "a/m2: a", "b/m2: b"}));
}

TEST(PathsApi, NamesTheFirstDifference) {
  Fixture f;
  const TestJson difference = f.Paths("?first=a&second=b");
  EXPECT_NE(difference["difference"].text.find("other values of the same shape [16,16]"),
            std::string::npos)
      << difference["difference"].text;
  EXPECT_EQ(difference["back"].text.substr(0, 11), "MatMul 'm2'");
  EXPECT_EQ(f.Paths("?first=a&second=a")["difference"].text, "");
}

TEST(PathsApi, Draws) {
  Fixture f;
  const auto svg = f.admin->Call(Get("/paths?format=svg"));
  EXPECT_EQ(svg.status, 200);
  EXPECT_NE(svg.head.find("image/svg+xml"), std::string::npos);
  EXPECT_EQ(svg.body.substr(0, 4), "<svg");
  EXPECT_EQ(f.admin->Call(Get("/paths?format=dot")).body.substr(0, 7), "digraph");
}

TEST(PathsApi, RefusesWhatMakesNoSense) {
  Fixture f;
  for (const char* query : {"?format=png", "?first=a", "?shape=x=1,,2", "?shape=x=-1", "?what=1",
                            "?first=a&second=b&format=svg"}) {
    EXPECT_EQ(f.admin->Call(Get(std::string("/paths") + query)).status, 400) << query;
  }
  EXPECT_EQ(f.admin->Call(Get("/paths?first=a&second=nothing")).status, 404);
  EXPECT_EQ(f.admin->Call(Post("/paths", "")).status, 405);
}

}  // namespace
}  // namespace plexus
