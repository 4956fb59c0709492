#include "serve/server.h"

#include "base/log.h"

namespace plexus {
namespace {

// How long requests that were given up may take to say so.
constexpr Duration kCancelGrace = std::chrono::seconds(5);
constexpr size_t kMaxAdminConnections = 16;

V2ApiOptions ApiOptions(const ServerOptions& options) {
  V2ApiOptions api = options.api;
  api.max_body_bytes = options.http.max_body_bytes;
  return api;
}

}  // namespace

Server::Server(Runtime& runtime, const ServerOptions& options)
    : paths_(PathIndex::Parts::kListed),
      repository_(options.repository, runtime),
      http_(options.http, runtime.clock()),
      api_(runtime, repository_, tenants_, ApiOptions(options)),
      admin_(runtime, http_, api_, tenants_, paths_, repository_) {}

Result<std::unique_ptr<Server>> Server::Start(Runtime& runtime, const ServerOptions& options,
                                              std::function<void()> loaded) {
  std::error_code error;
  if (!std::filesystem::is_directory(options.repository, error)) {
    return NotFoundError("model repository '" + options.repository.string() + "' is no folder" +
                         (error ? ": " + error.message() : ""));
  }
  std::unique_ptr<Server> server(new Server(runtime, options));
  PLEXUS_RETURN_IF_ERROR(server->repository_.CheckReadable());
  for (const auto& [name, weight] : options.tenant_weights) {
    PLEXUS_ASSIGN_OR_RETURN(const TenantId id, server->tenants_.Keep(name));
    const Status set = runtime.dispatcher().SetTenantWeight(id, weight);
    if (!set.ok()) return set.WithContext("tenant '" + name + "'");
  }
  PLEXUS_ASSIGN_OR_RETURN(server->http_port_,
                          server->http_.Listen(options.host, options.http_port, &server->api_));
  if (options.admin_port) {
    PLEXUS_ASSIGN_OR_RETURN(server->admin_port_,
                            server->http_.Listen("127.0.0.1", *options.admin_port, &server->admin_,
                                                 kMaxAdminConnections));
  }
  if (options.admin_port) {  // nobody else asks what is shared
    ModelRepository& repository = server->repository_;
    repository.OnChange(
        [&repository, &paths = server->paths_] { paths.Update(repository.Loaded()); });
  }
  server->api_.LoadRepository(std::move(loaded));
  return server;
}

Server::~Server() {
  repository_.StopLoading();
  http_.Stop();
}

bool Server::Drain(Duration limit) {
  // Idle connections close before readiness turns: whoever sees "not ready" and connects anew gets
  // an answer, not a closed connection.
  http_.BeginDrain();
  api_.BeginDrain();
  repository_.StopLoading();
  const bool finished = http_.WaitIdle(limit);
  if (!finished) {
    http_.CancelAll(UnavailableError("the server is shutting down"));
    http_.WaitIdle(kCancelGrace);
  }
  http_.Stop();
  return finished;
}

}  // namespace plexus
