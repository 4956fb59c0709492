// A server on a real runtime: what a client sees of a request that runs on the device.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <future>
#include <thread>

#include "graph/onnx/wire_writer.h"
#include "pipeline/test_blocker.h"
#include "serve/server.h"
#include "serve/test_connection.h"
#include "serve/test_runtime.h"

namespace plexus {
namespace {

// y = x (x x^T) (x x^T) ...: many seconds of matrix products in one region.
std::string LongModel(int products) {
  using onnx::BytesField;
  using onnx::IntField;
  std::string nodes, from = "x";
  for (int i = 0; i < products; ++i) {
    const std::string to = i + 1 == products ? "y" : "v" + std::to_string(i);
    nodes += onnx::NodeField("MatMul", {from, "x"}, {to}, "", "product" + std::to_string(i));
    from = to;
  }
  const auto info = [](std::string_view name) {
    const std::string dim = BytesField(1, BytesField(2, "n"));
    const std::string type = BytesField(1, IntField(1, 1) + BytesField(2, dim + dim));
    return BytesField(1, name) + BytesField(2, type);
  };
  return onnx::ModelBytes(nodes + BytesField(2, "long") + BytesField(11, info("x")) +
                          BytesField(12, info("y")));
}

TEST(ServerEndToEnd, ARequestGivenUpAtTheDrainLimitIsAnswered503) {
  TestFolder folder;
  folder.Write("long/model.onnx", LongModel(2000));
  RuntimeOptions runtime_options;
  runtime_options.threads = 1;
  auto runtime = Runtime::Create(runtime_options).value();
  ServerOptions options;
  options.repository = folder.path();
  options.http_port = 0;
  std::promise<void> loaded;
  auto server = Server::Start(*runtime, options, [&] { loaded.set_value(); }).value();
  loaded.get_future().get();

  constexpr int kSize = 1024;
  std::string request =
      R"({"inputs":[{"name":"x","datatype":"FP32","shape":[1024,1024],)"
      R"("parameters":{"binary_data_size":4194304}}],"parameters":{"binary_data_output":true}})";
  const std::string header =
      "Inference-Header-Content-Length: " + std::to_string(request.size()) + "\r\n";
  request.append(size_t{kSize} * kSize * 4, '\0');
  TestConnection client(server->http_port());
  ASSERT_TRUE(client.Send(Post("/v2/models/long/infer", request, header)));
  // Until it runs on the device.
  while (runtime->dispatcher().stats().running == 0) std::this_thread::yield();

  EXPECT_FALSE(server->Drain(std::chrono::milliseconds(1)));
  const TestConnection::Response response = client.Read();
  EXPECT_EQ(response.status, 503) << response.body;
  EXPECT_NE(response.body.find("shutting down"), std::string::npos) << response.body;
  EXPECT_EQ(runtime->dispatcher().stats().jobs_cancelled, 1u);
}

// y = relu(... relu(x W0) W1 ...) on [n, kWidth]: rows of requests run together.
constexpr int kWidth = 256;
std::string WideModel(int layers) {
  using onnx::BytesField;
  using onnx::IntField;
  std::string nodes, weights, from = "x";
  for (int i = 0; i < layers; ++i) {
    const std::string number = std::to_string(i), to = i + 1 == layers ? "y" : "v" + number;
    nodes += onnx::NodeField("MatMul", {from, "w" + number}, {"p" + number});
    nodes += onnx::NodeField("Relu", {"p" + number}, {to});
    from = to;
    std::vector<float> values(size_t{kWidth} * kWidth);
    for (size_t k = 0; k < values.size(); ++k) {
      values[k] = 0.05f * std::sin(static_cast<float>(k) * static_cast<float>(i + 1));
    }
    onnx::TensorText w;
    w.name = "w" + number;
    w.dims = {kWidth, kWidth};
    w.data = BytesField(9, {reinterpret_cast<const char*>(values.data()), values.size() * 4});
    weights += BytesField(5, onnx::TensorBytes(w));
  }
  const auto info = [](std::string_view name) {
    const std::string dims = BytesField(1, BytesField(2, "n")) + BytesField(1, IntField(1, kWidth));
    const std::string type = BytesField(1, IntField(1, 1) + BytesField(2, dims));
    return BytesField(1, name) + BytesField(2, type);
  };
  return onnx::ModelBytes(nodes + BytesField(2, "wide") + weights + BytesField(11, info("x")) +
                          BytesField(12, info("y")));
}

// One row, another one for each number; as `tenant`.
std::string RowOf(int number, const std::string& tenant) {
  std::string body = R"({"inputs":[{"name":"x","datatype":"FP32","shape":[1,256],)"
                     R"("parameters":{"binary_data_size":1024}}],)"
                     R"("parameters":{"binary_data_output":true}})";
  const std::string header = "Inference-Header-Content-Length: " + std::to_string(body.size()) +
                             "\r\n" + "plexus-tenant: " + tenant + "\r\n";
  for (int i = 0; i < kWidth; ++i) {
    const float value = std::cos(static_cast<float>(number + i));
    body.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  return Post("/v2/models/wide/infer", body, header);
}

std::vector<float> ValuesIn(const TestConnection::Response& response) {
  std::vector<float> values(kWidth);
  if (response.body.size() < sizeof(float) * kWidth) return {};
  std::memcpy(values.data(), response.body.data() + response.body.size() - sizeof(float) * kWidth,
              sizeof(float) * kWidth);
  return values;
}

// Rows of two tenants wait as one batch for the only worker; one of the tenants is removed.
TEST(ServerEndToEnd, ARemovedTenantsRowsLeaveABatchAndTheOthersGoOn) {
  constexpr int kRows = 8;
  TestFolder folder;
  folder.Write("wide/model.onnx", WideModel(48));  // long enough to be worth a batch
  RuntimeOptions runtime_options;
  runtime_options.threads = 1;
  runtime_options.batching = "immediate";
  auto runtime = Runtime::Create(runtime_options).value();
  ServerOptions options;
  options.repository = folder.path();
  options.http_port = 0;
  options.admin_port = 0;
  std::promise<void> loaded;
  auto server = Server::Start(*runtime, options, [&] { loaded.set_value(); }).value();
  loaded.get_future().get();
  std::vector<std::unique_ptr<TestConnection>> clients;
  for (int i = 0; i < kRows; ++i) {
    clients.push_back(std::make_unique<TestConnection>(server->http_port()));
  }
  std::vector<std::vector<float>> alone;
  for (int i = 0; i < kRows; ++i) alone.push_back(ValuesIn(clients[0]->Call(RowOf(i, "a"))));
  // Until programs for batches are there: they are built meanwhile.
  for (int round = 0; round < 2000 && runtime->sharing_stats().batches == 0; ++round) {
    for (int i = 0; i < kRows; ++i) ASSERT_TRUE(clients[i]->Send(RowOf(i, "a")));
    for (const auto& client : clients) ASSERT_EQ(client->Read().status, 200);
  }
  ASSERT_GT(runtime->sharing_stats().batches, 0u);
  const uint64_t rows_before = runtime->sharing_stats().batched_rows;

  TestConnection admin(server->admin_port());
  {
    Blocker blocker(runtime->dispatcher());
    for (int i = 0; i < kRows; ++i) {
      ASSERT_TRUE(clients[i]->Send(RowOf(i, i % 2 == 0 ? "gone" : "stays")));
    }
    // One thread reads the requests, and answers this when it has begun them all.
    while (admin.Call(Get("/metrics"))
               .body.find("plexus_requests_pending{model=\"wide\",version=\"1\"} 8") ==
           std::string::npos) {
      std::this_thread::yield();
    }
    EXPECT_EQ(admin.Call("DELETE /tenants/gone HTTP/1.1\r\nHost: test\r\n\r\n").body,
              R"({"tenant":"gone","requests":4,"sessions":0})");
    for (int i = 0; i < kRows; i += 2) EXPECT_EQ(clients[i]->Read().status, 503);
  }
  for (int i = 1; i < kRows; i += 2) {
    const TestConnection::Response response = clients[i]->Read();
    ASSERT_EQ(response.status, 200) << response.body;
    const std::vector<float> row = ValuesIn(response);
    ASSERT_EQ(row.size(), alone[i].size());
    for (size_t k = 0; k < row.size(); ++k) {
      ASSERT_NEAR(row[k], alone[i][k], 1e-5f + 1e-5f * std::abs(alone[i][k]));
    }
  }
  EXPECT_GT(runtime->sharing_stats().batched_rows, rows_before) << "they ran together";
}

}  // namespace
}  // namespace plexus
