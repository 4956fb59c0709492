// Traces over HTTP: taking one from a running server (docs/tracing.md).
#pragma once

#include "pipeline/runtime.h"
#include "serve/http.h"
#include "serve/work_thread.h"

namespace plexus {

// POST /trace?duration_ms=N&sample=N starts one, DELETE /trace stops it, GET /trace is Chrome trace
// JSON of what is recorded. Thread-safe; documents are written on a thread of its own.
class TraceApi : public HttpHandler {
 public:
  explicit TraceApi(Runtime& runtime) : runtime_(runtime) {}

  std::shared_ptr<CancelToken> Handle(HttpRequest request, Respond respond) override;

 private:
  Result<TraceOptions> ReadOptions(const HttpRequest& request) const;
  HttpResponse State() const;

  Runtime& runtime_;
  WorkThread writer_;  // last: its work uses the runtime
};

}  // namespace plexus
