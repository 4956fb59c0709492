// Administration: what an operator may look at and change, on a loopback port of its own.
#pragma once

#include "pipeline/runtime.h"
#include "serve/http.h"
#include "serve/http_server.h"
#include "serve/trace_api.h"

namespace plexus {

// GET /policy, POST /policy?name=NAME or {"policy":"NAME"}, GET /stats, and
// /trace (TraceApi). Thread-safe.
class AdminApi : public HttpHandler {
 public:
  // Borrows both.
  AdminApi(Runtime& runtime, const HttpServer& http)
      : runtime_(runtime), http_(http), trace_(runtime) {}

  std::shared_ptr<CancelToken> Handle(HttpRequest request, Respond respond) override;

 private:
  HttpResponse Policy(const HttpRequest& request);
  Status SetPolicy(const HttpRequest& request);
  HttpResponse Stats() const;

  Runtime& runtime_;
  const HttpServer& http_;
  TraceApi trace_;
};

}  // namespace plexus
