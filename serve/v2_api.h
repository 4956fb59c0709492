// The Open Inference Protocol v2 over HTTP requests, whoever carries them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/runtime.h"
#include "serve/call_table.h"
#include "serve/http.h"
#include "serve/infer_codec.h"
#include "serve/repository.h"
#include "serve/session_keeper.h"
#include "serve/tenants.h"
#include "serve/work_thread.h"

namespace plexus {

struct InferEnvironment;

struct V2ApiOptions {
  CodecLimits limits;
  size_t max_body_bytes = size_t{64} << 20;  // also of a decoded body
  // Bodies and answers beyond this are decoded, encoded and compressed on a thread of their own.
  size_t inline_bytes = 64 << 10;
  SessionLimits sessions;
};

// Thread-safe. Handle parses small requests on the caller's thread and large ones on its own; loads
// have another thread, so the server answers while a model loads.
class V2Api : public HttpHandler {
 public:
  // Borrows both; the tenants' table too.
  V2Api(Runtime& runtime, ModelRepository& repository, TenantTable& tenants,
        V2ApiOptions options = {});
  // Waits until every request has been answered.
  ~V2Api() override;

  std::shared_ptr<CancelToken> Handle(HttpRequest request, Respond respond) override;

  // Loads the whole repository on the loading thread, then calls `done` (may be null).
  // /v2/health/ready answers 200 from then on until BeginDrain(), which also refuses inferences and
  // repository changes with kUnavailable.
  void LoadRepository(std::function<void()> done);
  void BeginDrain();
  bool draining() const { return draining_.load(std::memory_order_acquire); }

  // Gives up every inference of the tenant that has begun and is not answered; `why` is what those
  // are answered. Work that other tenants wait for as well goes on, if `why` is kCancelled. Ends
  // the sessions that it has under `name`, too. How many there were of both.
  struct Removed {
    size_t requests = 0, sessions = 0;
  };
  Removed RemoveTenant(TenantId tenant, std::string_view name, const Status& why) {
    const size_t requests = running_.Cancel(tenant, why);
    return {requests, sessions_.store().EndAll(name, why)};
  }

  const SessionLimits& session_limits() const { return options_.sessions; }
  SessionStore::Stats session_stats() const { return sessions_.stats(); }

 private:
  struct Route;

  HttpResponse Answer(const Route& route, const HttpRequest& request);
  HttpResponse Health(const Route& route) const;
  HttpResponse ModelDocument(const Route& route);
  HttpResponse ModelDocument(const Route& route, const ServablePtr& servable);
  std::vector<std::string> UnmadeGroup(const Route& route);
  HttpResponse Index(const HttpRequest& request);
  void ChangeRepository(const Route& route, HttpRequest request, Respond respond);
  // Requests for a group that is not made yet wait for that on the codec thread.
  std::shared_ptr<CancelToken> InferGroup(std::vector<std::string> names, HttpRequest request,
                                          Respond respond);
  std::shared_ptr<CancelToken> Infer(const Route& route, HttpRequest request, Respond respond);
  std::shared_ptr<CancelToken> Infer(ServablePtr servable, HttpRequest request, Respond respond);
  void CallEnded();

  Runtime& runtime_;
  ModelRepository& repository_;
  TenantTable& tenants_;
  const V2ApiOptions options_;
  std::atomic<bool> ready_{false}, draining_{false};
  std::atomic<uint64_t> next_request_{1};

  std::mutex mutex_;  // guards calls_
  std::condition_variable no_calls_;
  size_t calls_ = 0;
  CallTable running_;

  // The last members: their work uses the others.
  WorkThread loader_, codec_;
  SessionKeeper sessions_;
  const std::unique_ptr<const InferEnvironment> environment_;
};

}  // namespace plexus
