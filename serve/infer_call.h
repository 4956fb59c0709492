// One inference from its HTTP request to its HTTP response.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "pipeline/runtime.h"
#include "pipeline/session_store.h"
#include "serve/call_table.h"
#include "serve/http.h"
#include "serve/infer_codec.h"
#include "serve/repository.h"
#include "serve/work_thread.h"

namespace plexus {

// What all inferences of a server share; outlives them.
struct InferEnvironment {
  Runtime& runtime;
  WorkThread& codec;
  SessionStore& sessions;
  CallTable& calls;
  const CodecLimits limits;
  const size_t max_body_bytes;
  const size_t inline_bytes;
};

// Kept alive by whoever it has to hear from next; Cancel is thread-safe.
class InferCall : public CancelToken, public std::enable_shared_from_this<InferCall> {
 public:
  // `attributes` hold request, tenant and arrival; `respond` is called once.
  InferCall(const InferEnvironment& environment, ServablePtr servable, HttpRequest request,
            RequestAttributes attributes, Respond respond);

  // Decodes and starts the inference: here if it is small, else on the codec thread.
  void Begin();

  void Cancel(Status why) override;
  bool cancelled() const override;

 private:
  void Decode();
  Result<InferRequest> Read();
  void EnterSession();
  void Start();
  Status TakeNextState(std::vector<Tensor>* outputs);
  void Finished(RunResult result);
  void Encode(const std::vector<Tensor>& outputs);
  Status CheckAlive() const;  // the reason once cancelled or timed out
  void Fail(const Status& status);
  void Answer(HttpResponse response);
  // For traces: a span of this request; from arrival to now it is the request itself.
  void Trace(TraceKind kind, TimePoint begin, TimePoint end, StatusCode code) const;
  bool IsLarge(const std::vector<Tensor>& outputs) const;
  // The servable's statistics, and those of a group's members.
  template <typename Visit>
  void ForEachStats(Visit visit) const {
    visit(servable_->stats);
    for (const ServablePtr& member : servable_->members) visit(member->stats);
  }

  const InferEnvironment& environment_;
  const ServablePtr servable_;
  HttpRequest request_;
  RequestAttributes attributes_;
  Respond respond_;
  std::string_view response_encoding_;
  bool body_too_large_ = false;
  InferRequest decoded_;
  SessionStore::Ticket ticket_ = 0;  // 0: no session
  SessionStore::State next_state_;
  Duration input_time_{0};
  RunTimings timings_;
  CacheUse cache_ = CacheUse::kNone;
  std::shared_ptr<MemoryBudget> memory_;

  mutable std::mutex mutex_;  // guards everything below
  bool cancelled_ = false;
  Status cancel_reason_;
  std::shared_ptr<CancelToken> running_;
};

}  // namespace plexus
