#include "serve/infer_call.h"

#include <chrono>

#include "base/log.h"
#include "pipeline/static_check.h"
#include "serve/compression.h"

namespace plexus {
namespace {

// Below it, compressing costs more than it saves.
constexpr size_t kMinCompressedBytes = 1024;

void Add(std::atomic<uint64_t>& counter, uint64_t by) {
  counter.fetch_add(by, std::memory_order_relaxed);  // counts order nothing
}
void Add(std::atomic<uint64_t>& counter, Duration by) {
  Add(counter, static_cast<uint64_t>(std::max<Duration::rep>(0, by.count())));
}

uint64_t EpochMilliseconds() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

}  // namespace

InferCall::InferCall(const InferEnvironment& environment, ServablePtr servable, HttpRequest request,
                     RequestAttributes attributes, Respond respond)
    : environment_(environment),
      servable_(std::move(servable)),
      request_(std::move(request)),
      attributes_(attributes),
      respond_(std::move(respond)),
      response_encoding_(ChooseEncoding(request_.accept_encoding)) {
  ForEachStats([](ServableStats& stats) { Add(stats.pending, 1); });
}

void InferCall::Begin() {
  environment_.calls.Add(attributes_.request, attributes_.tenant, weak_from_this());
  size_t text_bytes = request_.body.size_bytes;
  if (request_.has_tensor_header_length) {
    const Result<size_t> length =
        ParseTensorHeaderLength(request_.tensor_header_length, text_bytes);
    if (length.ok()) text_bytes = *length;
  }
  if (request_.content_encoding.empty() && text_bytes <= environment_.inline_bytes) {
    Decode();
  } else {
    environment_.codec.Post([self = shared_from_this()] { self->Decode(); });
  }
}

Result<InferRequest> InferCall::Read() {
  std::optional<size_t> json_bytes;
  if (request_.has_tensor_header_length) {
    PLEXUS_ASSIGN_OR_RETURN(json_bytes,
                            ParseTensorHeaderLength(request_.tensor_header_length, SIZE_MAX));
  }
  const Result<SharedBytes> body = DecodeBody(request_.body, request_.content_encoding,
                                              environment_.max_body_bytes, json_bytes.value_or(0));
  body_too_large_ = body.status().code() == StatusCode::kResourceExhausted;
  if (!body.ok()) return body.status();
  return DecodeInferRequest(*servable_, *body, json_bytes, environment_.limits);
}

void InferCall::Decode() {
  const TimePoint begin = environment_.runtime.clock().Now();
  Result<InferRequest> read = Read();
  request_.body = SharedBytes();  // tensors that borrow it keep it
  if (!read.ok()) return Fail(read.status());
  decoded_ = std::move(*read);
  attributes_.priority = decoded_.priority;
  // What depends on a session is nobody else's, and asked for once.
  attributes_.use_cache = decoded_.use_cache && servable_->states.empty();
  if (decoded_.timeout) attributes_.timeout_at = attributes_.arrival + *decoded_.timeout;
  if (decoded_.deadline) attributes_.deadline = attributes_.arrival + *decoded_.deadline;
  const TimePoint end = environment_.runtime.clock().Now();
  input_time_ = end - begin;
  Trace(TraceKind::kDecode, begin, end, StatusCode::kOk);
  if (servable_->states.empty()) return Start();
  EnterSession();
}

void InferCall::EnterSession() {
  const SessionStore::Ticket ticket = environment_.sessions.NewTicket();
  SessionStore::Entrant entrant;
  // The id is its tenant's, and one load's: what was kept may not fit what is loaded later.
  entrant.session =
      std::to_string(servable_->load_number) + " " + request_.tenant + " " + decoded_.sequence.id;
  entrant.owner = request_.tenant;
  entrant.name = "sequence " + decoded_.sequence.id + " of '" + servable_->name + "'";
  entrant.start = decoded_.sequence.start;
  entrant.end = decoded_.sequence.end;
  for (const PipelineState& state : servable_->states) entrant.initial.push_back(state.initial);
  entrant.idle = servable_->session_idle;
  entrant.give_up_at = attributes_.timeout_at;
  {
    std::lock_guard lock(mutex_);
    ticket_ = ticket;
  }
  environment_.sessions.Enter(ticket, std::move(entrant),
                              [self = shared_from_this()](Result<SessionStore::State> state) {
                                if (!state.ok()) return self->Fail(state.status());
                                for (Tensor& t : *state)
                                  self->decoded_.inputs.push_back(std::move(t));
                                self->Start();
                              });
  std::unique_lock lock(mutex_);
  if (!cancelled_) return;
  const Status why = cancel_reason_;  // came before there was anything to leave
  lock.unlock();
  if (environment_.sessions.Abandon(ticket)) Fail(why);
}

void InferCall::Start() {
  {
    std::unique_lock lock(mutex_);
    if (cancelled_) {
      const Status why = cancel_reason_;
      lock.unlock();
      return Fail(why);  // not started: nobody else answers
    }
  }
  std::shared_ptr<CancelToken> token = environment_.runtime.Start(
      servable_->executable, std::move(decoded_.inputs), attributes_,
      [self = shared_from_this()](RunResult result) { self->Finished(std::move(result)); });
  std::unique_lock lock(mutex_);
  running_ = token;
  if (!cancelled_ || token == nullptr) return;
  const Status why = cancel_reason_;  // came between the look above and the start
  lock.unlock();
  token->Cancel(why);
}

void InferCall::Cancel(Status why) {
  std::shared_ptr<CancelToken> running;
  SessionStore::Ticket ticket = 0;
  {
    std::lock_guard lock(mutex_);
    if (cancelled_) return;
    cancelled_ = true;
    cancel_reason_ = why;
    running = running_;
    ticket = ticket_;
  }
  if (running != nullptr) return running->Cancel(std::move(why));
  // Of one that waits for its turn; one that has it is left to see `cancelled_`.
  if (ticket != 0 && environment_.sessions.Abandon(ticket)) Fail(why);
}

bool InferCall::cancelled() const {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

Status InferCall::CheckAlive() const {
  {
    std::lock_guard lock(mutex_);
    if (cancelled_) return cancel_reason_;
  }
  if (attributes_.timeout_at && environment_.runtime.clock().Now() >= *attributes_.timeout_at) {
    return DeadlineExceededError("the request's timeout has passed");
  }
  return OkStatus();
}

void InferCall::Trace(TraceKind kind, TimePoint begin, TimePoint end, StatusCode code) const {
  TraceRecorder& trace = environment_.runtime.trace();
  if (!trace.enabled() || !attributes_.traced) return;
  TraceEvent span;
  span.kind = kind;
  span.code = static_cast<uint8_t>(code);
  span.begin = begin;
  span.end = std::max(begin, end);
  span.request = attributes_.request.value();
  span.tenant = attributes_.tenant.value();
  if (kind == TraceKind::kRequest) {
    span.name = trace.Intern(servable_->name);
    if (!request_.tenant.empty()) span.label = trace.Intern(request_.tenant);
  }
  trace.Record(span);
}

bool InferCall::IsLarge(const std::vector<Tensor>& outputs) const {
  size_t text_bytes = 0;
  for (const RequestedOutput& wanted : decoded_.outputs) {
    const Tensor& tensor = outputs[wanted.index];
    if (wanted.binary && response_encoding_.empty() && tensor.dtype() != DType::kString) continue;
    text_bytes += tensor.size_bytes();
    if (tensor.dtype() != DType::kString) continue;
    for (const std::string& text : tensor.strings()) text_bytes += text.size();
  }
  return text_bytes > environment_.inline_bytes;
}

void InferCall::Finished(RunResult result) {
  {
    std::lock_guard lock(mutex_);
    running_ = nullptr;  // it may hold what holds us
  }
  timings_ = result.timings;
  cache_ = result.cache;
  memory_ = std::move(result.memory);
  if (!result.status.ok()) {
    return Fail(servable_->platform == "plexus_pipeline"
                    ? result.status.WithContext("pipeline '" + servable_->name + "'")
                    : result.status);
  }
  if (result.outputs.size() != servable_->outputs.size() + servable_->states.size()) {
    return Fail(InternalError("'" + servable_->name + "' gave " +
                              std::to_string(result.outputs.size()) + " outputs"));
  }
  // A model's declared sizes may be an example's; a pipeline's are its author's promise.
  const Status next = TakeNextState(&result.outputs);
  if (!next.ok()) return Fail(next);
  for (size_t i = 0; servable_->platform != "onnx" && i < result.outputs.size(); ++i) {
    const Status fits = CheckDeclaredShape(servable_->outputs[i].shape, result.outputs[i].shape());
    if (fits.ok()) continue;
    return Fail(InternalError("pipeline '" + servable_->name + "': output '" +
                              servable_->outputs[i].name + "': " + fits.message()));
  }
  if (!IsLarge(result.outputs)) return Encode(result.outputs);
  environment_.codec.Post(
      [self = shared_from_this(), outputs = std::move(result.outputs)] { self->Encode(outputs); });
}

Status InferCall::TakeNextState(std::vector<Tensor>* outputs) {
  const size_t first = servable_->outputs.size();
  for (size_t i = first; i < outputs->size(); ++i) {
    const PipelineState& state = servable_->states[i - first];
    const Status fits = CheckDeclaredShape(state.shape, (*outputs)[i].shape());
    if (!fits.ok()) {
      return InternalError("pipeline '" + servable_->name + "': state '" + state.name +
                           "': " + fits.message());
    }
    next_state_.push_back(std::move((*outputs)[i]));
  }
  outputs->resize(first);
  return OkStatus();
}

void InferCall::Encode(const std::vector<Tensor>& outputs) {
  const TimePoint begin = environment_.runtime.clock().Now();
  const Status alive = CheckAlive();  // it may have waited for its turn here
  if (!alive.ok()) return Fail(alive);
  Result<HttpResponse> response =
      EncodeInferResponse(*servable_, decoded_, outputs, std::exchange(memory_, nullptr),
                          [this] { return CheckAlive(); });
  if (!response.ok()) return Fail(response.status());
  if (!response_encoding_.empty() && response->size_bytes() >= kMinCompressedBytes) {
    const Status compressed =
        CompressResponse(response_encoding_, &*response, [this] { return CheckAlive(); });
    if (!compressed.ok()) return Fail(compressed);
  }
  if (!servable_->states.empty()) {  // nothing can fail any more
    const Status kept =
        environment_.sessions.Commit(ticket_, std::exchange(next_state_, SessionStore::State()));
    if (!kept.ok()) return Fail(kept);
  }
  const TimePoint end = environment_.runtime.clock().Now();
  Trace(TraceKind::kEncode, begin, end, StatusCode::kOk);
  Trace(TraceKind::kRequest, attributes_.arrival, end, StatusCode::kOk);
  const uint64_t now_ms = EpochMilliseconds();
  ForEachStats([&](ServableStats& stats) {
    Add(stats.success, 1);
    Add(stats.input_ns, input_time_);
    Add(stats.queue_ns, timings_.queue);
    Add(stats.compute_ns, timings_.compute);
    Add(stats.output_ns, end - begin);
    if (cache_ != CacheUse::kNone) {
      const bool hit = cache_ == CacheUse::kHit;
      Add(hit ? stats.cache_hit : stats.cache_miss, 1);
      Add(hit ? stats.cache_hit_ns : stats.cache_miss_ns, timings_.cache);
    }
    Add(stats.request_ns, end - attributes_.arrival);
    stats.last_inference_ms.store(now_ms, std::memory_order_relaxed);  // counts order nothing
  });
  Answer(std::move(*response));
}

// Once. The server may be gone when the last of its requests is answered; the next one of this
// session, if there is one, has not been.
void InferCall::Answer(HttpResponse response) {
  environment_.calls.Remove(attributes_.request);
  ForEachStats([](ServableStats& stats) {
    stats.pending.fetch_sub(1, std::memory_order_relaxed);  // counts order nothing
  });
  std::function<void()> next;
  if (ticket_ != 0) next = environment_.sessions.EndTurn(ticket_);
  std::exchange(respond_, nullptr)(std::move(response));
  if (next) next();
}

void InferCall::Fail(const Status& status) {
  if (status.code() == StatusCode::kInternal) {
    PLEXUS_LOG(kError) << servable_->name << ": " << status.ToString();
  }
  const TimePoint end = environment_.runtime.clock().Now();
  Trace(TraceKind::kRequest, attributes_.arrival, end, status.code());
  ForEachStats([&](ServableStats& stats) {
    Add(stats.failure, 1);
    Add(stats.failure_ns, end - attributes_.arrival);
  });
  HttpResponse response = ErrorResponse(status);
  if (body_too_large_) response.status = 413;
  Answer(std::move(response));
}

}  // namespace plexus
