// The result cache, sessions and metrics as clients and operators see them, on a real runtime.
#include <gtest/gtest.h>

#include <future>
#include <sstream>
#include <thread>

#include "base/test_json.h"
#include "serve/server.h"
#include "serve/test_connection.h"
#include "serve/test_runtime.h"

namespace plexus {
namespace {

constexpr char kTotal[] =
    "name: total\n"
    "inputs: [{name: x, dtype: FP32, shape: [2]}]\n"
    "state: [{name: sum, dtype: FP32, shape: [2], next: more}]\n"
    "stages: [{name: more, op: add, inputs: [sum, x]}]\n"
    "outputs: [{name: out, from: more}]\n";

struct Fixture {
  explicit Fixture(bool across_tenants = false) {
    folder.Write("m/model.onnx", IdentityModel(1, {-1}, "Neg"));
    folder.Write("pipelines/total.yaml", kTotal);
    RuntimeOptions runtime_options;
    runtime_options.threads = 1;
    runtime_options.result_cache_bytes = 1 << 20;
    runtime_options.share_across_tenants = across_tenants;
    runtime = Runtime::Create(runtime_options).value();
    ServerOptions options;
    options.repository = folder.path();
    options.http_port = 0;
    options.admin_port = 0;
    options.api.sessions.max_sessions = 2;
    std::promise<void> loaded;
    server = Server::Start(*runtime, options, [&loaded] { loaded.set_value(); }).value();
    loaded.get_future().get();
    http = std::make_unique<TestConnection>(server->http_port());
    admin = std::make_unique<TestConnection>(server->admin_port());
  }
  // The answer's body; `parameters` as JSON members.
  std::string Infer(const std::string& model, const std::string& parameters = "",
                    const std::string& headers = "") {
    const auto response = http->Call(Post(
        "/v2/models/" + model + "/infer",
        R"({"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}],"parameters":{)" +
            parameters + "}}",
        headers));
    return response.body;
  }
  double Count(const std::string& what, const std::string& key) {
    const auto stats = TestJson::Parse(admin->Call(Get("/stats")).body);
    EXPECT_TRUE(stats.has_value());
    return stats ? (*stats)[what][key].number : -1;
  }
  std::string Metrics() { return admin->Call(Get("/metrics")).body; }
  // Whether the line stands there, whole.
  bool Has(const std::string& line) {
    return ("\n" + Metrics()).find("\n" + line + "\n") != std::string::npos;
  }

  TestFolder folder;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Server> server;
  std::unique_ptr<TestConnection> http, admin;
};

TEST(ServedResultCache, AnswersEqualRequestsUnlessTheySayNo) {
  Fixture f;
  const std::string answer = f.Infer("m");
  EXPECT_NE(answer.find(R"("data":[-1,-2])"), std::string::npos) << answer;
  EXPECT_EQ(f.Infer("m"), answer);
  EXPECT_EQ(f.Count("result_cache", "hits"), 1);
  EXPECT_EQ(f.Infer("m", R"("use_cache":false)"), answer);
  EXPECT_EQ(f.Count("result_cache", "hits"), 1);
  EXPECT_EQ(f.Count("result_cache", "misses"), 1);
  EXPECT_NE(f.Infer("m", R"("use_cache":3)").find("'use_cache' is"), std::string::npos);
  const std::string stats = f.http->Call(Get("/v2/models/m/stats")).body;
  EXPECT_NE(stats.find(R"("cache_hit":{"count":1)"), std::string::npos) << stats;
  EXPECT_NE(stats.find(R"("cache_miss":{"count":1)"), std::string::npos) << stats;
  EXPECT_TRUE(f.Has(R"(plexus_result_cache_lookups_total{outcome="hit"} 1)")) << f.Metrics();
  EXPECT_TRUE(f.Has(R"(plexus_requests_cached_total{model="m",version="1",outcome="hit"} 1)"));
  EXPECT_TRUE(f.Has("plexus_result_cache_entries 1"));
  EXPECT_TRUE(f.Has("plexus_result_cache_max_bytes 1048576"));
}

TEST(ServedResultCache, IsEachTenantsOwnUnlessToldOtherwise) {
  for (const bool across : {false, true}) {
    Fixture f(across);
    f.Infer("m", "", "plexus-tenant: shop\r\n");
    f.Infer("m", "", "plexus-tenant: reports\r\n");
    EXPECT_EQ(f.Count("result_cache", "hits"), across ? 1 : 0);
    f.Infer("m", "", "plexus-tenant: shop\r\n");
    EXPECT_EQ(f.Count("result_cache", "hits"), across ? 2 : 1);
  }
}

TEST(ServedResultCache, AReloadedModelAnswersAnew) {
  Fixture f;
  f.Infer("m");
  f.folder.Write("m/model.onnx", IdentityModel(1, {-1}, "Abs"));
  ASSERT_EQ(f.http->Call(Post("/v2/repository/models/m/load", "")).status, 200);
  const std::string answer = f.Infer("m");
  EXPECT_NE(answer.find(R"("data":[1,2])"), std::string::npos) << answer;
  EXPECT_EQ(f.Count("result_cache", "entries"), 1) << "what the old one left is gone";
  ASSERT_EQ(f.http->Call(Post("/v2/repository/models/m/unload", "")).status, 200);
  // Whoever was answered may still be on its way out.
  for (int i = 0; i < 600 && f.Count("result_cache", "entries") > 0; ++i) std::this_thread::yield();
  EXPECT_EQ(f.Count("result_cache", "entries"), 0);
}

TEST(ServedResultCache, LeavesSessionsAlone) {
  Fixture f;
  const std::string start = R"("sequence_id":5,"sequence_start":true)";
  EXPECT_EQ(f.Infer("total", start), f.Infer("total", start));
  EXPECT_NE(f.Infer("total", R"("sequence_id":5)").find("[2,4]"), std::string::npos);
  EXPECT_NE(f.Infer("total", R"("sequence_id":5)").find("[3,6]"), std::string::npos);
  EXPECT_EQ(f.Count("result_cache", "misses"), 0);
  EXPECT_EQ(f.Count("result_cache", "entries"), 0);
}

TEST(ServedSessions, AreCounted) {
  Fixture f;
  f.Infer("total", R"("sequence_id":5,"sequence_start":true)");
  f.Infer("total", R"("sequence_id":6,"sequence_start":true)");
  f.Infer("total", R"("sequence_id":7,"sequence_start":true)");  // one too many
  EXPECT_EQ(f.Count("sessions", "open"), 2);
  EXPECT_EQ(f.Count("sessions", "max"), 2);
  EXPECT_EQ(f.Count("sessions", "bytes"), 16);
  EXPECT_EQ(f.Count("sessions", "refused"), 1);
  f.Infer("total", R"("sequence_id":6,"sequence_end":true)");
  f.Infer("total", R"("sequence_id":8,"sequence_start":true,"sequence_end":true)");
  EXPECT_EQ(f.Count("sessions", "open"), 1);
  EXPECT_EQ(f.Count("sessions", "begun"), 3);
  EXPECT_EQ(f.Count("sessions", "ended"), 2);
  EXPECT_EQ(f.Count("sessions", "expired"), 0);
  EXPECT_TRUE(f.Has("plexus_sessions 1")) << f.Metrics();
  EXPECT_TRUE(f.Has(R"(plexus_sessions_total{event="ended"} 2)"));
  EXPECT_TRUE(f.Has("plexus_session_requests_refused_total 1"));
}

TEST(Metrics, EveryFamilyIsDescribedOnceAndEverySampleIsANumber) {
  Fixture f;
  f.Infer("m");
  EXPECT_NE(f.admin->Call(Get("/metrics")).head.find("text/plain; version=0.0.4"),
            std::string::npos);
  EXPECT_EQ(f.admin->Call(Post("/metrics", "")).status, 405);
  std::map<std::string, int> types;
  std::string family;
  std::istringstream lines(f.Metrics());
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first, second, name;
    words >> first >> second >> name;
    if (first == "#") {
      EXPECT_TRUE(second == "HELP" || second == "TYPE") << line;
      if (second == "TYPE") ++types[family = name];
      continue;
    }
    EXPECT_EQ(first.substr(0, first.find('{')), family) << line;
    const size_t space = line.rfind(' ');
    EXPECT_EQ(line.find_first_not_of("0123456789.", space + 1), line.npos) << line;
  }
  EXPECT_GT(types.size(), 15u);
  for (const auto& [name, times] : types) EXPECT_EQ(times, 1) << name;
  EXPECT_TRUE(f.Has(R"(plexus_requests_total{model="m",version="1",outcome="success"} 1)"));
}

}  // namespace
}  // namespace plexus
