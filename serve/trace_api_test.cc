#include "serve/trace_api.h"

#include <gtest/gtest.h>

#include <future>
#include <map>
#include <set>

#include "base/test_json.h"
#include "serve/server.h"
#include "serve/test_connection.h"
#include "serve/test_runtime.h"

namespace plexus {
namespace {

// A whole server on the CPU: "relu" has an open shape, "quiet" is never recorded.
struct Fixture {
  explicit Fixture(uint32_t standing_sample = 0) {
    folder.Write("relu/model.onnx", IdentityModel(1, {-1}, "Exp"));
    folder.Write("quiet/model.onnx", IdentityModel(1, {-1}, "Neg"));
    folder.Write("quiet/config.yaml", "trace_sample: 0\n");
    RuntimeOptions runtime_options;
    runtime_options.threads = 2;
    runtime_options.trace_sample = standing_sample;
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

  void Infer(const std::string& model, int elements = 4, const std::string& headers = "") {
    std::string data = "0";
    for (int i = 1; i < elements; ++i) data += ",0";
    const std::string body = R"({"inputs":[{"name":"x","datatype":"FP32","shape":[)" +
                             std::to_string(elements) + R"(],"data":[)" + data + "]}]}";
    const auto response = http->Call(Post("/v2/models/" + model + "/infer", body, headers));
    ASSERT_EQ(response.status, 200) << response.body;
  }
  TestConnection::Response Delete() {
    return admin->Call("DELETE /trace HTTP/1.1\r\nHost: test\r\n\r\n");
  }
  std::vector<TestJson> Take() {
    const auto response = admin->Call(Get("/trace"));
    EXPECT_EQ(response.status, 200);
    EXPECT_NE(response.head.find("application/json"), std::string::npos);
    const std::optional<TestJson> document = TestJson::Parse(response.body);
    EXPECT_TRUE(document.has_value()) << response.body;
    return document ? (*document)["traceEvents"].items : std::vector<TestJson>();
  }

  TestFolder folder;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Server> server;
  std::unique_ptr<TestConnection> http, admin;
};

// How often each request shows up, by what.
std::map<double, std::multiset<std::string>> ByRequest(const std::vector<TestJson>& events) {
  std::map<double, std::multiset<std::string>> found;
  for (const TestJson& e : events) {
    if (!e["args"].has("request")) continue;
    const bool root = e["ph"].text == "b" && e["args"].has("status") && !e["args"].has("job");
    found[e["args"]["request"].number].insert(root                        ? "request"
                                              : e["cat"].text == "blocks" ? "blocks"
                                                                          : e["name"].text);
  }
  return found;
}

TEST(TraceApi, ATraceShowsARequestItsCompileItsJobAndItsBlocks) {
  Fixture f;
  f.Infer("relu");  // not recorded
  EXPECT_TRUE(f.Take().empty());
  const auto started = f.admin->Call(Post("/trace?duration_ms=600000&sample=1", ""));
  EXPECT_EQ(started.status, 200);
  EXPECT_NE(started.body.find(R"("recording":true,"sample":1,"events":0)"), std::string::npos);
  f.Infer("relu", 5, "plexus-tenant: acme\r\n");  // a new shape: waits for its compile
  f.Infer("relu", 5, "plexus-tenant: acme\r\n");
  f.Infer("quiet", 5);
  const std::vector<TestJson> events = f.Take();
  const auto requests = ByRequest(events);
  ASSERT_EQ(requests.size(), 2u);
  for (const auto& [id, what] : requests) {
    const bool first = id == requests.begin()->first;
    EXPECT_EQ(what.count("request"), 1u);
    EXPECT_EQ(what.count("decode"), 1u);
    EXPECT_EQ(what.count("encode"), 1u);
    EXPECT_GE(what.count("blocks"), 1u);
    EXPECT_EQ(what.count("wait for compile of relu"), first ? 1u : 0u);
  }
  std::set<std::string> processes, threads;
  size_t roots = 0, opened = 0, closed = 0, decisions = 0;
  for (const TestJson& e : events) {
    if (e["name"].text == "process_name") processes.insert(e["args"]["name"].text);
    if (e["name"].text == "thread_name") threads.insert(e["args"]["name"].text);
    opened += e["ph"].text == "b";
    closed += e["ph"].text == "e";
    decisions += e["cat"].text == "decision";
    if (e["ph"].text == "b" && e["name"].text == "relu") {
      ++roots;
      EXPECT_EQ(e["args"]["tenant"].text, "acme");
      EXPECT_EQ(e["args"]["status"].text, "OK");
    }
  }
  EXPECT_EQ(roots, 2u);
  EXPECT_EQ(opened, closed);
  EXPECT_GE(decisions, 2u);
  EXPECT_EQ(processes.count("requests of acme"), 1u);
  EXPECT_EQ(processes.count("jobs"), 1u);
  EXPECT_EQ(processes.count("compiles"), 1u);
  EXPECT_TRUE(threads.count("cpu worker 0") + threads.count("cpu worker 1") > 0);
}

TEST(TraceApi, StopKeepsWhatWasRecordedAndAddsNothing) {
  Fixture f;
  f.admin->Call(Post("/trace", ""));
  f.Infer("relu");
  EXPECT_NE(f.Delete().body.find(R"("recording":false)"), std::string::npos);
  const size_t events = f.Take().size();
  EXPECT_GT(events, 0u);
  f.Infer("relu");
  EXPECT_EQ(f.Take().size(), events);
  EXPECT_NE(f.admin->Call(Get("/stats")).body.find(R"("trace":{"recording":0)"), std::string::npos);
}

TEST(TraceApi, SamplingKeepsWholeRequests) {
  Fixture f(/*standing_sample=*/4);
  constexpr int kRequests = 80;
  for (int i = 0; i < kRequests; ++i) f.Infer("relu");
  const auto requests = ByRequest(f.Take());
  EXPECT_GT(requests.size(), 5u);
  EXPECT_LT(requests.size(), 45u);
  for (const auto& [id, what] : requests) {
    EXPECT_EQ(what.count("request"), 1u) << id;
    EXPECT_EQ(what.count("decode"), 1u) << id;
    EXPECT_GE(what.count("blocks"), 1u) << id;
  }
}

TEST(TraceApi, AFailedRequestSaysHowItEnded) {
  Fixture f;
  f.admin->Call(Post("/trace", ""));
  EXPECT_EQ(f.http->Call(Post("/v2/models/relu/infer", "{}")).status, 400);
  bool found = false;
  for (const TestJson& e : f.Take()) {
    found |= e["ph"].text == "b" && e["args"]["status"].text == "INVALID_ARGUMENT";
  }
  EXPECT_TRUE(found);
}

TEST(TraceApi, BadParametersAreRefusedWithTheReason) {
  Fixture f;
  struct Case {
    const char* query;
    const char* message;
  };
  const Case cases[] = {
      {"duration_ms=0", "duration_ms"},
      {"duration_ms=-5", "duration_ms"},
      {"duration_ms=5s", "duration_ms"},
      {"duration_ms=", "duration_ms"},
      {"duration_ms=99999999999999999999", "duration_ms"},
      {"duration_ms=86400001", "86400000"},
      {"sample=0", "sample"},
      {"sample=1.5", "sample"},
      {"sample=1000001", "sample"},
      {"duration=5", "unknown parameter 'duration'"},
      {"sample=%zz", "escape"},
  };
  for (const Case& c : cases) {
    const auto response = f.admin->Call(Post("/trace?" + std::string(c.query), ""));
    EXPECT_EQ(response.status, 400) << c.query;
    EXPECT_NE(response.body.find(c.message), std::string::npos) << c.query << response.body;
  }
  EXPECT_EQ(f.admin->Call(Post("/trace", "{}")).status, 400);
  EXPECT_EQ(f.admin->Call("PUT /trace HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").status,
            405);
  EXPECT_FALSE(f.runtime->trace().enabled());
}

}  // namespace
}  // namespace plexus
