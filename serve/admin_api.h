// Administration: what an operator may look at and change, on a loopback port of its own.
#pragma once

#include "base/json_writer.h"
#include "pipeline/runtime.h"
#include "serve/http.h"
#include "serve/http_server.h"
#include "serve/paths_api.h"
#include "serve/tenants.h"
#include "serve/trace_api.h"
#include "serve/v2_api.h"

namespace plexus {

// GET /policy, POST /policy?name=NAME or {"policy":"NAME"}; GET /tenants, PUT or POST
// /tenants?name=NAME&weight=3 or {"tenant":"NAME","weight":3}, DELETE /tenants/NAME; GET /stats
// and, for Prometheus, /metrics; /trace (TraceApi) and /paths (PathsApi). Thread-safe.
class AdminApi : public HttpHandler {
 public:
  // Borrows all.
  AdminApi(Runtime& runtime, const HttpServer& http, V2Api& api, TenantTable& tenants,
           PathIndex& paths, const ModelRepository& repository)
      : runtime_(runtime),
        http_(http),
        api_(api),
        tenants_(tenants),
        trace_(runtime),
        paths_(paths),
        repository_(repository) {}

  std::shared_ptr<CancelToken> Handle(HttpRequest request, Respond respond) override;

 private:
  HttpResponse Policy(const HttpRequest& request);
  Status SetPolicy(const HttpRequest& request);
  HttpResponse Tenants(const HttpRequest& request);
  Status SetWeight(const HttpRequest& request);
  Result<V2Api::Removed> RemoveTenant(std::string_view name);
  HttpResponse OneTenant(const HttpRequest& request);
  void WriteTenants(JsonWriter& json) const;
  HttpResponse Stats() const;
  void WriteDispatcher(JsonWriter& json) const;
  void WriteSharing(JsonWriter& json) const;
  void WriteSessions(JsonWriter& json) const;
  void WriteProcess(JsonWriter& json) const;
  HttpResponse Metrics() const;

  Runtime& runtime_;
  const HttpServer& http_;
  V2Api& api_;
  TenantTable& tenants_;
  TraceApi trace_;
  PathsApi paths_;
  const ModelRepository& repository_;
};

}  // namespace plexus
