// Server: a repository, a runtime and their ports, from start to drain.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "pipeline/runtime.h"
#include "serve/admin_api.h"
#include "serve/http_server.h"
#include "serve/path_index.h"
#include "serve/repository.h"
#include "serve/tenants.h"
#include "serve/v2_api.h"

namespace plexus {

struct ServerOptions {
  std::filesystem::path repository;
  std::string host = "127.0.0.1";
  uint16_t http_port = 8000;           // 0: a free one
  std::optional<uint16_t> admin_port;  // on 127.0.0.1; none: no administration
  HttpOptions http;
  V2ApiOptions api;
  std::map<std::string, double> tenant_weights;  // FairShare::CheckWeight; others have 1
};

// Thread-safe.
class Server {
 public:
  // Listens at once and loads the repository meanwhile; `loaded` (may be null) is called when that
  // has ended, from the loading thread. Borrows the runtime. kNotFound when the repository is no
  // folder that can be read; else as HttpServer::Listen.
  static Result<std::unique_ptr<Server>> Start(Runtime& runtime, const ServerOptions& options,
                                               std::function<void()> loaded = nullptr);
  ~Server();

  uint16_t http_port() const { return http_port_; }
  uint16_t admin_port() const { return admin_port_; }  // 0: none
  ModelRepository& repository() { return repository_; }

  // Refuses new inferences and loads with 503, answers what is in flight, gives up what is left
  // after `limit`, and closes. Returns whether everything in flight was finished.
  bool Drain(Duration limit);

 private:
  Server(Runtime& runtime, const ServerOptions& options);

  PathIndex paths_;  // before the repository, whose loads tell it
  ModelRepository repository_;
  TenantTable tenants_;
  HttpServer http_;  // before the handlers: their last answers go through it
  V2Api api_;
  AdminApi admin_;
  uint16_t http_port_ = 0, admin_port_ = 0;
};

}  // namespace plexus
