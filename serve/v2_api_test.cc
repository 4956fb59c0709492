#include "serve/v2_api.h"

#include <gtest/gtest.h>

#include <cstring>
#include <future>

#include "serve/admin_api.h"
#include "serve/compression.h"
#include "serve/http_server.h"
#include "serve/server.h"
#include "serve/test_connection.h"
#include "serve/test_runtime.h"

namespace plexus {
namespace {

SharedBytes Bytes(std::string_view text) {
  SharedBytes body = AllocateBody(text.size(), 0).value();
  std::memcpy(body.data, text.data(), text.size());
  return body;
}

std::string Body(const std::string& data, const std::string& more = "") {
  return R"({"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":)" + data + "}]" + more +
         "}";
}

// A server's parts without its sockets: requests go straight to the handler.
struct Fixture {
  explicit Fixture(V2ApiOptions options = {}) : repository(folder.path(), runtime) {
    folder.Write("same/model.onnx", IdentityModel());
    folder.Write("text/model.onnx", IdentityModel(8));
    folder.Write("broken/model.onnx", "no model");
    api = std::make_unique<V2Api>(runtime, repository, tenants, options);
    std::promise<void> loaded;
    api->LoadRepository([&loaded] { loaded.set_value(); });
    loaded.get_future().get();
  }

  using Answer = std::shared_future<HttpResponse>;
  Answer Start(HttpRequest request, std::shared_ptr<CancelToken>* token = nullptr) {
    auto promise = std::make_shared<std::promise<HttpResponse>>();
    request.received = runtime.clock().Now();
    auto made = api->Handle(std::move(request), [promise](HttpResponse response) {
      promise->set_value(std::move(response));
    });
    if (token != nullptr) *token = std::move(made);
    return promise->get_future().share();
  }
  static HttpRequest Request(const std::string& method, const std::string& path,
                             const std::string& body = "") {
    HttpRequest request;
    request.method = method;
    request.path = path;
    request.body = Bytes(body);
    return request;
  }
  HttpResponse Call(const std::string& method, const std::string& path,
                    const std::string& body = "") {
    return Start(Request(method, path, body)).get();
  }

  TestFolder folder;
  TestRuntime runtime;
  ModelRepository repository;
  TenantTable tenants;
  std::unique_ptr<V2Api> api;
};

TEST(V2Api, DescribesServerAndModels) {
  Fixture f;
  struct Case {
    const char* path;
    const char* body;
  };
  const Case cases[] = {
      {"/v2", R"("name":"plexus")"},
      {"/v2/", R"("extensions":["binary_tensor_data")"},
      {"/v2/health/live", R"({"live":true})"},
      {"/v2/health/ready", R"({"ready":true})"},
      {"/v2/models", R"({"models":["same","text"]})"},
      {"/v2/models/same", R"({"name":"same","versions":["1"],"platform":"onnx",)"
                          R"("inputs":[{"name":"x","datatype":"FP32","shape":[-1]}],)"
                          R"("outputs":[{"name":"y","datatype":"FP32","shape":[-1]}]})"},
      {"/v2/models/same/versions/1", R"("name":"same")"},
      {"/v2/models/%73ame", R"("name":"same")"},
      {"/v2/models/same/ready", R"("ready":true)"},
      {"/v2/models/text/config", R"("data_type":"TYPE_STRING")"},
      {"/v2/models/same/config", R"("max_batch_size":0)"},
      {"/v2/models/same/stats", R"({"model_stats":[{"name":"same","version":"1")"},
      {"/v2/models/stats", R"("name":"text")"},
  };
  for (const Case& c : cases) {
    const HttpResponse response = f.Call("GET", c.path);
    EXPECT_EQ(response.status, 200) << c.path;
    EXPECT_NE(response.body.find(c.body), std::string::npos) << c.path << response.body;
  }
}

TEST(V2Api, RefusesWrongPathsAndMethods) {
  Fixture f;
  struct Case {
    const char* method;
    const char* path;
    int status;
  };
  const Case cases[] = {
      {"GET", "/", 404},
      {"GET", "/v3", 404},
      {"GET", "/v2/health", 404},
      {"GET", "/v2/models/nope", 404},
      {"GET", "/v2/models/nope/ready", 404},
      {"GET", "/v2/models/same/versions/7", 404},
      {"GET", "/v2/models/same/versions", 404},
      {"GET", "/v2/models/same/nope", 404},
      {"GET", "/v2/models/same/infer/more", 404},
      {"GET", "/v2/models/%zz", 400},
      {"GET", "/v2/models/a%00b", 400},
      {"GET", "/v2/models/broken", 503},
      {"GET", "/v2/models/broken/ready", 400},
      {"POST", "/v2/models/broken/infer", 503},
      {"POST", "/v2/models/nope/infer", 404},
      {"POST", "/v2", 405},
      {"GET", "/v2/models/same/infer", 405},
      {"PUT", "/v2/models/same/infer", 405},
      {"GET", "/v2/repository/index", 405},
      {"POST", "/v2/repository/nope", 404},
      {"POST", "/v2/repository/models/nope/load", 404},
      {"POST", "/v2/repository/models/nope/unload", 404},
      {"POST", "/v2/models/same/infer", 400},
  };
  for (const Case& c : cases) {
    const HttpResponse response = f.Call(c.method, c.path);
    EXPECT_EQ(response.status, c.status) << c.method << c.path << response.body;
    EXPECT_EQ(response.body.substr(0, 10), R"({"error":")") << response.body;
  }
}

TEST(V2Api, InfersAndCountsIt) {
  Fixture f;
  const HttpResponse response =
      f.Call("POST", "/v2/models/same/versions/1/infer", Body("[1,2]", R"(,"id":"q")"));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, R"({"model_name":"same","model_version":"1","id":"q","outputs":[)"
                           R"({"name":"y","datatype":"FP32","shape":[2],"data":[1,2]}]})");
  f.runtime.FailNext(InternalError("lost"));
  EXPECT_EQ(f.Call("POST", "/v2/models/same/infer", Body("[1,2]")).status, 500);
  const std::string stats = f.Call("GET", "/v2/models/same/stats").body;
  for (const char* part :
       {R"("inference_count":1)", R"("execution_count":1)", R"("success":{"count":1,"ns":)",
        R"("fail":{"count":1,"ns":)", R"("queue":{"count":1,"ns":3000})",
        R"("compute_input":{"count":1)", R"("compute_infer":{"count":1,"ns":5000})",
        R"("compute_output":{"count":1)", R"("cache_hit":{"count":0,"ns":0})",
        R"("cache_miss":{"count":0,"ns":0})", R"("last_inference":)"}) {
    EXPECT_NE(stats.find(part), std::string::npos) << part << stats;
  }
}

TEST(V2Api, AResultThatIsNotOfTheDeclaredShapeIsAnErrorOfThePipeline) {
  Fixture f;
  f.folder.Write("pipelines/pair.yaml",
                 "name: pair\ninputs: [{name: x, dtype: FP32, shape: [-1]}]\n"
                 "stages: [{name: s, model: same, input: x}]\n"
                 "outputs: [{name: o, from: s, shape: [2]}]\n");
  ASSERT_EQ(f.Call("POST", "/v2/repository/models/pair/load").status, 200);
  const auto infer = [&](const char* size, const char* data) {
    return f.Call("POST", "/v2/models/pair/infer",
                  std::string(R"({"inputs":[{"name":"x","datatype":"FP32","shape":[)") + size +
                      R"(],"data":)" + data + "}]}");
  };
  EXPECT_EQ(infer("2", "[1,2]").status, 200);
  const HttpResponse response = infer("3", "[1,2,3]");
  EXPECT_EQ(response.status, 500);
  EXPECT_NE(response.body.find("output 'o'"), std::string::npos) << response.body;
}

// --- Groups

struct GroupFixture : Fixture {
  GroupFixture() {
    folder.Write("other/model.onnx", IdentityModel());
    EXPECT_EQ(Call("POST", "/v2/repository/models/other/load").status, 200);
  }
};

TEST(V2Api, SeveralModelsAnswerOneRequest) {
  GroupFixture f;
  for (int time = 1; time <= 2; ++time) {  // made, then kept
    const HttpResponse response = f.Call("POST", "/v2/models/same,other/infer", Body("[1,2]"));
    EXPECT_EQ(response.body, R"({"model_name":"same,other","model_version":"1","outputs":[)"
                             R"({"name":"same.y","datatype":"FP32","shape":[2],"data":[1,2]},)"
                             R"({"name":"other.y","datatype":"FP32","shape":[2],"data":[1,2]}]})");
    EXPECT_EQ(f.runtime.last_inputs().size(), 1u) << "asked for once";
  }
  EXPECT_NE(f.Call("GET", "/v2/models/other/stats").body.find(R"("inference_count":2)"),
            std::string::npos);
  const HttpResponse one = f.Call("POST", "/v2/models/same,other/infer",
                                  Body("[1,2]", R"(,"outputs":[{"name":"other.y"}])"));
  EXPECT_EQ(one.body.find("same.y"), std::string::npos) << one.body;
}

TEST(V2Api, DescribesAGroup) {
  for (const bool used : {false, true}) {
    GroupFixture f;
    if (used) f.Call("POST", "/v2/models/other,same/infer", Body("[1,2]"));
    const HttpResponse metadata = f.Call("GET", "/v2/models/other,same");
    EXPECT_EQ(metadata.body, R"({"name":"other,same","versions":["1"],"platform":"plexus_group",)"
                             R"("inputs":[{"name":"x","datatype":"FP32","shape":[-1]}],"outputs":[)"
                             R"({"name":"other.y","datatype":"FP32","shape":[-1]},)"
                             R"({"name":"same.y","datatype":"FP32","shape":[-1]}]})");
    EXPECT_EQ(f.Call("GET", "/v2/models/other,same/ready").status, 200);
    EXPECT_EQ(f.Call("GET", "/v2/models/other,same/config").status, 200);
  }
}

TEST(V2Api, RefusesGroupsThatAreNone) {
  GroupFixture f;
  std::string many = "same";
  for (int i = 0; i < 70; ++i) many += ",m";
  struct Case {
    std::string path;
    int status;
    const char* part;
  };
  const Case cases[] = {
      {"same,nothing/infer", 404, "'nothing'"},
      {"same,broken/infer", 503, "'broken'"},
      {"same,same/infer", 400, "'same' stands twice"},
      {"same,/infer", 404, "''"},
      {",/infer", 404, "''"},
      {"same,text/infer", 400, "input 'x'"},
      {"same,other/versions/1/infer", 400, "no versions"},
      {many + "/infer", 404, "'m'"},
  };
  for (const Case& c : cases) {
    const HttpResponse response = f.Call("POST", "/v2/models/" + c.path, Body("[1,2]"));
    EXPECT_EQ(response.status, c.status) << c.path;
    EXPECT_NE(response.body.find(c.part), std::string::npos) << c.path << response.body;
  }
  EXPECT_EQ(f.Call("GET", "/v2/models/same,nothing").status, 404);
  EXPECT_EQ(f.Call("GET", "/v2/models/same,nothing/ready").status, 404);
}

TEST(V2Api, AGroupFollowsItsMembers) {
  GroupFixture f;
  const char* const path = "/v2/models/same,other/infer";
  EXPECT_EQ(f.Call("POST", path, Body("[1,2]")).status, 200);
  f.runtime.Hold();
  auto running = f.Start(Fixture::Request("POST", path, Body("[1,2]")));
  f.runtime.WaitForStarts(2);
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/other/unload").status, 200);
  EXPECT_EQ(f.Call("POST", path, Body("[1,2]")).status, 503);
  f.folder.Write("other/model.onnx", IdentityModel(8));
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/other/load").status, 200);
  EXPECT_EQ(f.Call("POST", path, Body("[1,2]")).status, 400) << "now a text";
  f.folder.Write("other/model.onnx", IdentityModel());
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/other/load").status, 200);
  f.runtime.Release();
  EXPECT_EQ(running.get().status, 200);
  EXPECT_EQ(f.Call("POST", path, Body("[1,2]")).status, 200);
}

TEST(V2Api, AModelWhoseNameHasACommaIsNoGroup) {
  Fixture f;
  f.folder.Write("a,b/model.onnx", IdentityModel());
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/a,b/load").status, 200);
  const HttpResponse response = f.Call("POST", "/v2/models/a,b/infer", Body("[1,2]"));
  EXPECT_NE(response.body.find(R"("name":"y")"), std::string::npos) << response.body;
}

TEST(V2Api, CodesOfTheRuntimeBecomeHttpOnes) {
  Fixture f;
  const std::pair<Status, int> cases[] = {
      {InternalError("x"), 500},      {UnavailableError("x"), 503},
      {UnimplementedError("x"), 501}, {DeadlineExceededError("x"), 504},
      {NotFoundError("x"), 404},      {InvalidArgumentError("x"), 400},
      {CancelledError("x"), 503},     {ResourceExhaustedError("x"), 503},
  };
  for (const auto& [status, http] : cases) {
    f.runtime.FailNext(status);
    const HttpResponse response = f.Call("POST", "/v2/models/same/infer", Body("[1,2]"));
    EXPECT_EQ(response.status, http) << status.ToString();
    EXPECT_EQ(response.body, R"({"error":"x"})");
  }
}

TEST(V2Api, PassesTenantPriorityTimeoutAndDeadlineOn) {
  Fixture f;
  HttpRequest request = Fixture::Request(
      "POST", "/v2/models/same/infer",
      Body("[1,2]", R"(,"parameters":{"priority":2,"timeout":60000000,"deadline_us":500})"));
  request.tenant = "alice";
  EXPECT_EQ(f.Start(request).get().status, 200);
  const RequestAttributes attributes = f.runtime.last_attributes();
  EXPECT_EQ(attributes.priority, 2u);
  EXPECT_EQ(*attributes.timeout_at - attributes.arrival, std::chrono::seconds(60));
  EXPECT_EQ(*attributes.deadline - attributes.arrival, std::chrono::microseconds(500));
  EXPECT_EQ(f.tenants.Name(attributes.tenant), "alice");
  request.tenant = "no spaces";
  EXPECT_EQ(f.Start(request).get().status, 400);
  const HttpResponse past =
      f.Call("POST", "/v2/models/same/infer", Body("[1,2]", R"(,"parameters":{"deadline_us":-1})"));
  EXPECT_EQ(past.status, 400);
  EXPECT_NE(past.body.find("deadline_us"), std::string::npos) << past.body;
}

TEST(Tenants, TheTableIsBoundedAndForgetsTheLongestUnheard) {
  TenantTable tenants(3);
  EXPECT_EQ(tenants.Find("").value(), TenantId(0));
  EXPECT_EQ(tenants.Find("a").value(), TenantId(1));
  EXPECT_EQ(tenants.Find("b").value(), TenantId(2));
  EXPECT_EQ(tenants.Find("a").value(), TenantId(1));
  EXPECT_EQ(tenants.Find("c").value(), TenantId(2)) << "b was heard of before a";
  EXPECT_EQ(tenants.Find("a").value(), TenantId(1));
  EXPECT_EQ(tenants.Name(TenantId(2)), "c");
  EXPECT_FALSE(tenants.Find(std::string(65, 'a')).ok());
}

TEST(Tenants, WhoGetsTheIdOfAnotherIsToldApart) {
  TenantTable tenants(2);
  uint64_t first = 0, again = 0, second = 0, third = 0, none = 1;
  EXPECT_EQ(tenants.Find("a", &first).value(), TenantId(1));
  EXPECT_EQ(tenants.Find("a", &again).value(), TenantId(1));
  EXPECT_EQ(tenants.Find("b", &second).value(), TenantId(1));
  EXPECT_EQ(tenants.Find("a", &third).value(), TenantId(1));
  EXPECT_EQ(first, again);
  EXPECT_NE(second, first);
  EXPECT_NE(third, first) << "what others may have seen meanwhile";
  EXPECT_NE(third, second);
  EXPECT_EQ(tenants.Find("", &none).value(), TenantId(0));
  EXPECT_EQ(none, 0u);
}

TEST(Tenants, KeptOnesAreNeverForgottenAndLeaveRoomForOthers) {
  TenantTable tenants(4);
  const TenantId shop = tenants.Keep("shop").value();
  EXPECT_EQ(tenants.Keep("shop").value(), shop);
  EXPECT_EQ(tenants.Keep("").value(), TenantId(0));
  EXPECT_TRUE(tenants.Keep("other").ok());
  EXPECT_EQ(tenants.Keep("third").status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(tenants.Keep("no spaces").status().code(), StatusCode::kInvalidArgument);
  for (const char* name : {"a", "b", "c", "d"}) EXPECT_TRUE(tenants.Find(name).ok());
  EXPECT_EQ(tenants.Find("shop").value(), shop);
  EXPECT_EQ(tenants.Names(), (std::vector<std::string>{"", "shop", "other", "d"}));
}

TEST(Tenants, AForgottenOneComesBackAsSomebodyElse) {
  TenantTable tenants(4);
  uint64_t before = 0, after = 0;
  const TenantId shop = tenants.Keep("shop").value();
  ASSERT_TRUE(tenants.Keep("other").ok());
  EXPECT_EQ(tenants.Find("shop", &before).value(), shop);
  EXPECT_EQ(tenants.Keep("third").status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(tenants.Forget("shop").value(), shop);
  EXPECT_EQ(tenants.Forget("shop").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(tenants.Forget("").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(tenants.Names(), (std::vector<std::string>{"", "", "other"}));
  EXPECT_TRUE(tenants.Keep("third").ok()) << "its place is free";
  EXPECT_EQ(tenants.Find("shop", &after).value(), shop) << "no other id is left";
  EXPECT_NE(before, after);
}

TEST(V2Api, ReturnsOnlyTheOutputsAskedFor) {
  Fixture f;
  EXPECT_EQ(
      f.Call("POST", "/v2/models/same/infer", Body("[1,2]", R"(,"outputs":[{"name":"z"}])")).status,
      400);
  const HttpResponse response =
      f.Call("POST", "/v2/models/same/infer",
             Body("[1,2]", R"(,"outputs":[{"name":"y","parameters":{"binary_data":true}}])"));
  EXPECT_EQ(response.status, 200);
  ASSERT_EQ(response.payload.size(), 1u);
  EXPECT_EQ(response.payload[0].size_bytes, 8u);
}

TEST(V2Api, DecodesAndEncodesCompressedBodies) {
  Fixture f;
  HttpResponse packed;
  std::string data = "[0";
  for (int i = 1; i < 2000; ++i) data += ",0";
  packed.body =
      R"({"inputs":[{"name":"x","datatype":"FP32","shape":[2000],"data":)" + data + "]}]}";
  ASSERT_TRUE(CompressResponse("gzip", &packed).ok());
  HttpRequest request = Fixture::Request("POST", "/v2/models/same/infer", packed.body);
  request.content_encoding = "gzip";
  request.accept_encoding = "gzip";
  const HttpResponse response = f.Start(request).get();
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(response.headers.at(0).second, "gzip");
  const auto decoded = DecodeBody(Bytes(response.body), "gzip", 1 << 20, 0);
  ASSERT_TRUE(decoded.ok());
  EXPECT_NE(std::string(reinterpret_cast<const char*>(decoded->data), decoded->size_bytes)
                .find(R"("shape":[2000])"),
            std::string::npos);
}

TEST(V2Api, RefusesAZipBomb) {
  V2ApiOptions options;
  options.max_body_bytes = 1 << 20;
  Fixture f(options);
  HttpResponse bomb;
  bomb.body.assign(20 << 20, ' ');
  ASSERT_TRUE(CompressResponse("gzip", &bomb).ok());
  HttpRequest request = Fixture::Request("POST", "/v2/models/same/infer", bomb.body);
  request.content_encoding = "gzip";
  const HttpResponse response = f.Start(request).get();
  EXPECT_EQ(response.status, 413);
  EXPECT_NE(response.body.find("larger than the limit"), std::string::npos) << response.body;
}

TEST(V2Api, LargeRequestsGoThroughTheCodecThread) {
  V2ApiOptions options;
  options.inline_bytes = 0;
  Fixture f(options);
  const HttpResponse response = f.Call("POST", "/v2/models/same/infer", Body("[1,2]"));
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(f.Call("POST", "/v2/models/same/infer", "{").status, 400);
}

TEST(V2Api, UnloadAndReloadLoseNothingInFlight) {
  Fixture f;
  f.runtime.Hold();
  auto running = f.Start(Fixture::Request("POST", "/v2/models/same/infer", Body("[1,2]")));
  f.runtime.WaitForStarts(1);
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/same/unload").status, 200);
  EXPECT_EQ(f.Call("POST", "/v2/models/same/infer", Body("[1,2]")).status, 503);
  EXPECT_EQ(f.Call("GET", "/v2/models/same/ready").status, 400);
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/same/load", R"({"parameters":{}})").status, 200);
  auto second = f.Start(Fixture::Request("POST", "/v2/models/same/infer", Body("[3,4]")));
  f.runtime.WaitForStarts(2);
  f.runtime.Release();
  EXPECT_EQ(running.get().status, 200);
  EXPECT_EQ(second.get().status, 200);
}

TEST(V2Api, IndexListsEverything) {
  Fixture f;
  const std::string index = f.Call("POST", "/v2/repository/index").body;
  EXPECT_NE(index.find(R"({"name":"broken","version":"","state":"UNAVAILABLE","reason":"model )"),
            std::string::npos)
      << index;
  EXPECT_NE(index.find(R"({"name":"same","version":"1","state":"READY","reason":""})"),
            std::string::npos);
  const std::string ready = f.Call("POST", "/v2/repository/index", R"({"ready":true})").body;
  EXPECT_EQ(ready.find("broken"), std::string::npos);
  EXPECT_EQ(f.Call("POST", "/v2/repository/index", R"({"ready":1})").status, 400);
  EXPECT_EQ(f.Call("POST", "/v2/repository/index", "[").status, 400);
}

TEST(V2Api, LoadParametersAreChecked) {
  Fixture f;
  const std::string load = "/v2/repository/models/same/load";
  EXPECT_EQ(f.Call("POST", load, R"({"parameters":{"config":"{}"}})").status, 501);
  EXPECT_EQ(f.Call("POST", load, R"({"parameters":{"file:1/model.onnx":"AAAA"}})").status, 501);
  EXPECT_EQ(f.Call("POST", load, R"({"parameters":7})").status, 400);
  EXPECT_EQ(f.Call("POST", load, "x").status, 400);
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/same/unload",
                   R"({"parameters":{"unload_dependents":3}})")
                .status,
            400);
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/broken/load").status, 400);
}

TEST(V2Api, ACancelledRequestIsAnswered) {
  Fixture f;
  f.runtime.Hold();
  std::shared_ptr<CancelToken> token;
  auto answer = f.Start(Fixture::Request("POST", "/v2/models/same/infer", Body("[1,2]")), &token);
  token->Cancel(UnavailableError("stop"));
  EXPECT_EQ(answer.get().status, 503);
  EXPECT_TRUE(token->cancelled());
}

TEST(V2Api, ACancelBeforeTheDecodeStartsNothing) {
  V2ApiOptions options;
  options.inline_bytes = 0;
  Fixture f(options);
  f.runtime.Hold();
  // Whichever thread is first, the request is answered once, and only with the reason.
  for (int i = 0; i < 50; ++i) {
    std::shared_ptr<CancelToken> token;
    auto answer = f.Start(Fixture::Request("POST", "/v2/models/same/infer", Body("[1,2]")), &token);
    token->Cancel(UnavailableError("stop"));
    EXPECT_EQ(answer.get().status, 503);
  }
}

TEST(V2Api, DrainingRefusesNewWorkAndFinishesTheOld) {
  Fixture f;
  f.runtime.Hold();
  auto running = f.Start(Fixture::Request("POST", "/v2/models/same/infer", Body("[1,2]")));
  f.api->BeginDrain();
  EXPECT_EQ(f.Call("GET", "/v2/health/live").status, 200);
  EXPECT_EQ(f.Call("GET", "/v2/health/ready").status, 400);
  const HttpResponse refused = f.Call("POST", "/v2/models/same/infer", Body("[1,2]"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_TRUE(refused.close);
  EXPECT_EQ(f.Call("POST", "/v2/repository/models/same/load").status, 503);
  f.runtime.Release();
  EXPECT_EQ(running.get().status, 200);
}

// The whole server over sockets.
struct ServerFixture {
  explicit ServerFixture(size_t max_body_bytes = 1 << 20) {
    folder.Write("same/model.onnx", IdentityModel());
    ServerOptions options;
    options.repository = folder.path();
    options.http_port = 0;
    options.admin_port = 0;
    options.http.max_body_bytes = max_body_bytes;
    std::promise<void> loaded;
    server = Server::Start(runtime, options, [&loaded] { loaded.set_value(); }).value();
    loaded.get_future().get();
  }
  ~ServerFixture() {
    runtime.Release();
    server.reset();
  }
  TestFolder folder;
  TestRuntime runtime;
  std::unique_ptr<Server> server;
};

TEST(Server, ADisconnectedClientCancelsItsInference) {
  ServerFixture f;
  f.runtime.Hold();
  {
    TestConnection client(f.server->http_port());
    client.Send(Post("/v2/models/same/infer", Body("[1,2]")));
    f.runtime.WaitForStarts(1);
  }
  f.runtime.WaitForCancels(1);
  EXPECT_EQ(f.runtime.cancels()[0].code(), StatusCode::kCancelled);
}

TEST(Server, DrainAnswersWhatIsInFlight) {
  ServerFixture f;
  f.runtime.Hold();
  TestConnection client(f.server->http_port());
  client.Send(Post("/v2/models/same/infer", Body("[1,2]")));
  f.runtime.WaitForStarts(1);
  auto drained =
      std::async(std::launch::async, [&] { return f.server->Drain(std::chrono::minutes(1)); });
  // New work is refused while the old one is still there.
  int status = 200;
  while (status == 200 || status == 0) {
    TestConnection probe(f.server->http_port());
    status = probe.Call(Get("/v2/health/ready")).status;
  }
  EXPECT_EQ(status, 400);
  EXPECT_EQ(TestConnection(f.server->http_port())
                .Call(Post("/v2/models/same/infer", Body("[1,2]")))
                .status,
            503);
  EXPECT_EQ(TestConnection(f.server->http_port()).Call(Get("/v2/health/live")).status, 200);
  f.runtime.Release();
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_TRUE(drained.get());
}

TEST(Server, DrainGivesUpWhatTakesTooLong) {
  ServerFixture f;
  f.runtime.Hold();
  TestConnection client(f.server->http_port());
  client.Send(Post("/v2/models/same/infer", Body("[1,2]")));
  f.runtime.WaitForStarts(1);
  EXPECT_FALSE(f.server->Drain(std::chrono::milliseconds(1)));
  EXPECT_EQ(client.Read().status, 503);
}

TEST(Server, BodiesAboveTheLimitAreRefusedAndTheServerStaysUp) {
  ServerFixture f;
  TestConnection client(f.server->http_port());
  EXPECT_EQ(client.Call(Post("/v2/models/same/infer", std::string(2 << 20, ' '))).status, 413);
  EXPECT_EQ(TestConnection(f.server->http_port())
                .Call(Post("/v2/models/same/infer", Body("[1,2]")))
                .status,
            200);
}

TEST(Server, BinaryTensorsTravelBothWays) {
  ServerFixture f;
  const std::string json =
      R"({"inputs":[{"name":"x","datatype":"FP32","shape":[2],"parameters":{"binary_data_size":8}}],)"
      R"("parameters":{"binary_data_output":true}})";
  const std::string tensor("\0\0\x80\x3f\0\0\0\x40", 8);
  TestConnection client(f.server->http_port());
  const auto response =
      client.Call(Post("/v2/models/same/infer", json + tensor,
                       "Inference-Header-Content-Length: " + std::to_string(json.size()) + "\r\n"));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body.substr(response.body.size() - 8), tensor);
  EXPECT_NE(response.head.find("Inference-Header-Content-Length: "), std::string::npos);
}

TEST(Admin, SwitchesThePolicyAndShowsCounters) {
  ServerFixture f;
  TestConnection admin(f.server->admin_port());
  EXPECT_NE(admin.Call(Get("/policy")).body.find(R"("policy":"fifo")"), std::string::npos);
  EXPECT_EQ(admin.Call(Post("/policy?name=srpt", "")).status, 200);
  EXPECT_NE(admin.Call(Get("/policy")).body.find(R"("policy":"srpt")"), std::string::npos);
  EXPECT_EQ(admin.Call(Post("/policy", R"({"policy":"fifo"})")).status, 200);
  const auto unknown = admin.Call(Post("/policy?name=nope", ""));
  EXPECT_EQ(unknown.status, 400);
  EXPECT_NE(unknown.body.find("srpt"), std::string::npos) << unknown.body;
  EXPECT_EQ(admin.Call(Post("/policy", "")).status, 400);
  EXPECT_EQ(admin.Call(Post("/stats", "")).status, 405);
  EXPECT_EQ(admin.Call(Get("/nope")).status, 404);
  const std::string stats = admin.Call(Get("/stats")).body;
  for (const char* part : {R"("policy":"fifo")", R"("dispatcher":{"jobs_submitted":0)",
                           R"("program_cache":{)", R"("constants":{)", R"("http":{)"}) {
    EXPECT_NE(stats.find(part), std::string::npos) << part << stats;
  }
}

TEST(Admin, TakesPoliciesWithArgumentsAndSaysWhatIsWrongWithThem) {
  ServerFixture f;
  TestConnection admin(f.server->admin_port());
  EXPECT_EQ(admin.Call(Post("/policy?name=fair(srpt,1000)", "")).status, 200);
  EXPECT_NE(admin.Call(Get("/policy")).body.find("\"policy\":\"fair(srpt, 1000)\""),
            std::string::npos);
  const auto nan = admin.Call(Post("/policy", "{\"policy\":\"fair(srpt, nan)\"}"));
  EXPECT_EQ(nan.status, 400);
  EXPECT_NE(nan.body.find("at least 0, or inf"), std::string::npos) << nan.body;
  EXPECT_EQ(f.runtime.dispatcher().policy_name(), "fair(srpt, 1000)");
}

TEST(Admin, SetsAndShowsTheWeightsOfTenants) {
  ServerFixture f;
  TestConnection admin(f.server->admin_port());
  EXPECT_EQ(admin
                .Call("PUT /tenants?name=shop&weight=3 HTTP/1.1\r\nHost: test\r\n"
                      "Content-Length: 0\r\n\r\n")
                .status,
            200);
  EXPECT_EQ(admin.Call(Post("/tenants", R"({"tenant":"reports","weight":0.5})")).status, 200);
  for (const char* path : {"/tenants", "/stats"}) {
    const std::string body = admin.Call(Get(path)).body;
    EXPECT_NE(body.find(R"("shop":{"weight":3,"device_time_ns":0,)"), std::string::npos) << body;
    EXPECT_NE(body.find(R"("reports":{"weight":0.5,)"), std::string::npos) << body;
  }
  for (const char* path : {"/tenants?name=shop&weight=-1", "/tenants?name=shop&weight=nan",
                           "/tenants?name=shop&weight=0", "/tenants?name=shop&weight=3x",
                           "/tenants?name=shop", "/tenants?name=a%20b&weight=1", "/tenants"}) {
    EXPECT_EQ(admin.Call(Post(path, "")).status, 400) << path;
  }
  EXPECT_EQ(admin.Call(Post("/tenants", R"({"tenant":"a","weight":-2})")).status, 400);
  EXPECT_NE(admin.Call(Get("/tenants")).body.find(R"("shop":{"weight":3,)"), std::string::npos);
  EXPECT_EQ(admin.Call("DELETE /tenants HTTP/1.1\r\nHost: test\r\n\r\n").status, 405);
}

std::string Delete(const std::string& path) {
  return "DELETE " + path + " HTTP/1.1\r\nHost: test\r\n\r\n";
}

TEST(Admin, RemovesATenantWithItsRequestsAndItsWeight) {
  ServerFixture f;
  TestConnection admin(f.server->admin_port());
  EXPECT_EQ(admin.Call(Post("/tenants?name=shop&weight=3", "")).status, 200);
  f.runtime.Hold();
  const std::string infer = "/v2/models/same/infer";
  TestConnection first(f.server->http_port()), second(f.server->http_port()),
      other(f.server->http_port());
  for (TestConnection* of_shop : {&first, &second}) {
    ASSERT_TRUE(of_shop->Send(Post(infer, Body("[1,2]"), "plexus-tenant: shop\r\n")));
  }
  ASSERT_TRUE(other.Send(Post(infer, Body("[1,2]"), "plexus-tenant: reports\r\n")));
  f.runtime.WaitForStarts(3);
  const auto removed = admin.Call(Delete("/tenants/shop"));
  EXPECT_EQ(removed.status, 200);
  EXPECT_EQ(removed.body, R"({"tenant":"shop","requests":2,"sessions":0})");
  for (TestConnection* of_shop : {&first, &second}) {
    const auto answer = of_shop->Read();
    EXPECT_EQ(answer.status, 503);
    EXPECT_NE(answer.body.find("tenant 'shop' was removed"), std::string::npos) << answer.body;
  }
  f.runtime.Release();
  EXPECT_EQ(other.Read().status, 200);
  const std::string tenants = admin.Call(Get("/tenants")).body;
  EXPECT_EQ(tenants.find("shop"), std::string::npos) << tenants;
  EXPECT_NE(tenants.find("reports"), std::string::npos) << tenants;
  EXPECT_EQ(admin.Call(Delete("/tenants/shop")).status, 404);
  // Who has the name later is somebody else.
  EXPECT_EQ(first.Call(Post(infer, Body("[1,2]"), "plexus-tenant: shop\r\n")).status, 200);
  EXPECT_NE(admin.Call(Get("/tenants")).body.find(R"("shop":{"weight":1,)"), std::string::npos);
  EXPECT_EQ(admin.Call(Delete("/tenants/reports")).body,
            R"({"tenant":"reports","requests":0,"sessions":0})");
}

TEST(Admin, SaysWhyATenantCannotBeRemoved) {
  ServerFixture f;
  TestConnection admin(f.server->admin_port());
  EXPECT_EQ(admin.Call(Delete("/tenants/nobody")).status, 404);
  EXPECT_EQ(admin.Call(Delete("/tenants/")).status, 400);
  EXPECT_EQ(admin.Call(Delete("/tenants/no%20spaces")).status, 400);
  EXPECT_EQ(admin.Call(Delete("/tenants/%zz")).status, 400);
  const auto wrong = admin.Call(Get("/tenants/shop"));
  EXPECT_EQ(wrong.status, 405);
  EXPECT_NE(wrong.head.find("Allow: DELETE"), std::string::npos) << wrong.head;
}

TEST(Server, SaysWhyItCannotStart) {
  ServerFixture f;
  ServerOptions options;
  options.repository = f.folder.path();
  options.http_port = f.server->http_port();
  EXPECT_EQ(Server::Start(f.runtime, options).status().code(), StatusCode::kAlreadyExists);
  options.repository = f.folder.path() / "nowhere";
  EXPECT_EQ(Server::Start(f.runtime, options).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace plexus
