#include "cli/transport.h"

#include <cstring>
#include <future>

#include "cli/common.h"
#include "serve/compression.h"
#include "serve/group.h"
#include "serve/v2_api.h"

namespace plexus::cli {
namespace {

class RemoteTransport : public Transport {
 public:
  RemoteTransport(HttpClient client, Duration limit) : client_(std::move(client)), limit_(limit) {}
  Result<HttpReply> Call(std::string_view method, const std::string& path,
                         const HttpClient::Headers& headers, std::string body) override {
    return client_.Call(method, path, headers, body, limit_);
  }
  bool over_http() const override { return true; }

 private:
  HttpClient client_;
  const Duration limit_;
};

class LocalTransport : public Transport {
 public:
  LocalTransport(std::unique_ptr<Runtime> runtime, const std::string& repository)
      : runtime_(std::move(runtime)),
        repository_(repository, *runtime_),
        api_(*runtime_, repository_, tenants_, Options()) {}

  // The members of a group where there is nothing of the whole name.
  Status Load(const std::string& name) {
    const Status status = repository_.Load(name);
    const std::vector<std::string> members = SplitGroup(name);
    if (status.code() != StatusCode::kNotFound || members.empty()) return status;
    for (const std::string& member : members) PLEXUS_RETURN_IF_ERROR(repository_.Load(member));
    return OkStatus();
  }

  Result<HttpReply> Call(std::string_view method, const std::string& path,
                         const HttpClient::Headers& headers, std::string body) override {
    HttpRequest request;
    request.method = method;
    request.path = path;
    for (const auto& [name, value] : headers) {
      if (name == "plexus-tenant") request.tenant = value;
      if (name != "Inference-Header-Content-Length") continue;
      request.tensor_header_length = value;
      request.has_tensor_header_length = true;
    }
    const size_t align_at = std::strtoul(request.tensor_header_length.c_str(), nullptr, 10);
    PLEXUS_ASSIGN_OR_RETURN(request.body, AllocateBody(body.size(), align_at));
    std::memcpy(request.body.data, body.data(), body.size());
    request.received = runtime_->clock().Now();
    std::promise<HttpResponse> promise;
    api_.Handle(std::move(request),
                [&promise](HttpResponse response) { promise.set_value(std::move(response)); });
    HttpResponse response = promise.get_future().get();
    HttpReply reply;
    reply.status = response.status;
    for (const auto& [name, value] : response.headers) {
      if (name == "Inference-Header-Content-Length") {
        reply.headers["inference-header-content-length"] = value;
      }
    }
    reply.body = std::move(response.body);
    for (const SharedBytes& part : response.payload) {
      reply.body.append(reinterpret_cast<const char*>(part.data), part.size_bytes);
    }
    return reply;
  }
  bool over_http() const override { return false; }

 private:
  static V2ApiOptions Options() {
    V2ApiOptions options;
    options.inline_bytes = SIZE_MAX;
    return options;
  }

  std::unique_ptr<Runtime> runtime_;
  ModelRepository repository_;
  TenantTable tenants_;
  V2Api api_;
};

}  // namespace

Result<std::unique_ptr<Transport>> ConnectTo(const std::string& url, Duration limit) {
  PLEXUS_ASSIGN_OR_RETURN(HttpClient client, HttpClient::Create(url));
  return std::unique_ptr<Transport>(new RemoteTransport(std::move(client), limit));
}

Result<std::unique_ptr<Transport>> LoadLocally(const std::string& repository,
                                               const std::string& model,
                                               const RuntimeFlags& flags) {
  PLEXUS_ASSIGN_OR_RETURN(std::unique_ptr<Runtime> runtime, Runtime::Create(ToOptions(flags)));
  auto local = std::make_unique<LocalTransport>(std::move(runtime), repository);
  PLEXUS_RETURN_IF_ERROR(local->Load(model));
  return std::unique_ptr<Transport>(std::move(local));
}

}  // namespace plexus::cli
