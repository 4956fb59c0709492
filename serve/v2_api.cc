#include "serve/v2_api.h"

#include <simdjson.h>

#include <optional>

#include "base/json_writer.h"
#include "base/log.h"
#include "serve/compression.h"
#include "serve/group.h"
#include "serve/infer_call.h"
#include "serve/protocol_json.h"

namespace plexus {

// What a path asks for.
struct V2Api::Route {
  enum class Kind {
    kServer,
    kLive,
    kReady,
    kModels,
    kAllStats,
    kModel,
    kModelReady,
    kModelConfig,
    kModelStats,
    kInfer,
    kIndex,
    kLoad,
    kUnload,
  };
  Kind kind = Kind::kServer;
  std::string model, version;

  bool is_post() const {
    return kind == Kind::kInfer || kind == Kind::kIndex || kind == Kind::kLoad ||
           kind == Kind::kUnload;
  }
  static Result<Route> Parse(std::string_view path);
};

namespace {

using Segments = std::vector<std::string>;

Result<Segments> Split(std::string_view path) {
  Segments segments;
  while (!path.empty()) {
    path.remove_prefix(1);  // every segment begins with '/'
    const size_t end = std::min(path.find('/'), path.size());
    PLEXUS_ASSIGN_OR_RETURN(std::string segment, PercentDecode(path.substr(0, end)));
    segments.push_back(std::move(segment));
    path.remove_prefix(end);
  }
  if (!segments.empty() && segments.back().empty()) segments.pop_back();  // trailing '/'
  return segments;
}

HttpResponse JsonResponse(std::string json) {
  HttpResponse response;
  response.body = std::move(json);
  return response;
}

Status DrainingError() { return UnavailableError("the server is shutting down"); }

// The JSON object in a body that may also be empty; visit(key, value) for each member.
template <typename Visit>
Status ReadObject(const SharedBytes& body, const Visit& visit) {
  if (body.size_bytes == 0) return OkStatus();
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  if (parser.parse(reinterpret_cast<const uint8_t*>(body.data), body.size_bytes, false)
          .get(object)) {
    return InvalidArgumentError("the body is not a JSON object");
  }
  for (const auto member : object) PLEXUS_RETURN_IF_ERROR(visit(member.key, member.value));
  return OkStatus();
}

// Stands for an inference that is yet to begin.
class DeferredCall : public CancelToken {
 public:
  void Cancel(Status why) override {
    std::shared_ptr<CancelToken> call;
    {
      std::lock_guard lock(mutex_);
      if (why_) return;
      why_ = why;
      call = call_;
    }
    if (call != nullptr) call->Cancel(std::move(why));
  }
  bool cancelled() const override {
    std::lock_guard lock(mutex_);
    return why_.has_value();
  }
  void Begun(std::shared_ptr<CancelToken> call) {
    std::optional<Status> why;
    {
      std::lock_guard lock(mutex_);
      call_ = call;
      why = why_;
    }
    if (why && call != nullptr) call->Cancel(std::move(*why));
  }

 private:
  mutable std::mutex mutex_;  // guards everything below
  std::optional<Status> why_;
  std::shared_ptr<CancelToken> call_;
};

}  // namespace

Result<V2Api::Route> V2Api::Route::Parse(std::string_view path) {
  PLEXUS_ASSIGN_OR_RETURN(const Segments s, Split(path));
  const auto is = [&](size_t i, std::string_view text) { return i < s.size() && s[i] == text; };
  const Status unknown = NotFoundError("no such path: " + std::string(path.substr(0, 200)));
  if (!is(0, "v2")) return unknown;
  Route route;
  if (s.size() == 1) return route;
  if (is(1, "health") && s.size() == 3 && (is(2, "live") || is(2, "ready"))) {
    route.kind = is(2, "live") ? Kind::kLive : Kind::kReady;
    return route;
  }
  if (is(1, "repository")) {
    if (s.size() == 3 && is(2, "index")) {
      route.kind = Kind::kIndex;
      return route;
    }
    if (s.size() != 5 || !is(2, "models") || !(is(4, "load") || is(4, "unload"))) return unknown;
    route.kind = is(4, "load") ? Kind::kLoad : Kind::kUnload;
    route.model = s[3];
    return route;
  }
  if (!is(1, "models")) return unknown;
  if (s.size() == 2 || (s.size() == 3 && is(2, "stats"))) {
    route.kind = s.size() == 2 ? Kind::kModels : Kind::kAllStats;
    return route;
  }
  route.model = s[2];
  size_t next = 3;
  if (is(3, "versions")) {
    if (s.size() < 5) return unknown;
    route.version = s[4];
    next = 5;
  }
  if (s.size() == next) {
    route.kind = Kind::kModel;
  } else if (s.size() != next + 1) {
    return unknown;
  } else if (is(next, "ready")) {
    route.kind = Kind::kModelReady;
  } else if (is(next, "config")) {
    route.kind = Kind::kModelConfig;
  } else if (is(next, "stats")) {
    route.kind = Kind::kModelStats;
  } else if (is(next, "infer")) {
    route.kind = Kind::kInfer;
  } else {
    return unknown;
  }
  return route;
}

V2Api::V2Api(Runtime& runtime, ModelRepository& repository, TenantTable& tenants,
             V2ApiOptions options)
    : runtime_(runtime),
      repository_(repository),
      tenants_(tenants),
      options_(options),
      sessions_(runtime.clock(), options.sessions),
      environment_(new InferEnvironment{runtime_, codec_, sessions_.store(), running_,
                                        options.limits, options.max_body_bytes,
                                        options.inline_bytes}) {}

V2Api::~V2Api() {
  std::unique_lock lock(mutex_);
  no_calls_.wait(lock, [this] { return calls_ == 0; });
}

void V2Api::LoadRepository(std::function<void()> done) {
  loader_.Post([this, done = std::move(done)] {
    const Status status = repository_.LoadAll();
    if (!status.ok()) PLEXUS_LOG(kError) << status.ToString();
    ready_.store(true, std::memory_order_release);
    if (done) done();
  });
}

void V2Api::BeginDrain() { draining_.store(true, std::memory_order_release); }

void V2Api::CallEnded() {
  std::lock_guard lock(mutex_);
  if (--calls_ == 0) no_calls_.notify_all();
}

std::shared_ptr<CancelToken> V2Api::Handle(HttpRequest request, Respond respond) {
  const Result<Route> route = Route::Parse(request.path);
  if (!route.ok()) {
    respond(ErrorResponse(route.status()));
    return nullptr;
  }
  const char* const method = route->is_post() ? "POST" : "GET";
  if (request.method != method) {
    respond(MethodNotAllowed(request, method));
    return nullptr;
  }
  using Kind = Route::Kind;
  const bool works =
      route->kind == Kind::kInfer || route->kind == Kind::kLoad || route->kind == Kind::kUnload;
  const std::vector<std::string> unmade = works ? std::vector<std::string>() : UnmadeGroup(*route);
  if (!works && unmade.empty()) {
    respond(Answer(*route, request));
    return nullptr;
  }
  if (works && draining()) {
    HttpResponse response = ErrorResponse(DrainingError());
    response.close = true;
    respond(std::move(response));
    return nullptr;
  }
  {
    std::lock_guard lock(mutex_);
    ++calls_;
  }
  Respond counted = [this, respond = std::move(respond)](HttpResponse response) {
    respond(std::move(response));
    CallEnded();
  };
  if (route->kind == Kind::kInfer) return Infer(*route, std::move(request), std::move(counted));
  if (!works) {
    codec_.Post([this, unmade, route = *route, counted = std::move(counted)] {
      const Result<ServablePtr> group = repository_.FindGroup(unmade);
      counted(group.ok() ? ModelDocument(route, *group) : ErrorResponse(group.status()));
    });
    return nullptr;
  }
  ChangeRepository(*route, std::move(request), std::move(counted));
  return nullptr;
}

HttpResponse V2Api::Answer(const Route& route, const HttpRequest& request) {
  using Kind = Route::Kind;
  switch (route.kind) {
    case Kind::kServer:
      return JsonResponse(ServerMetadataJson());
    case Kind::kLive:
    case Kind::kReady:
      return Health(route);
    case Kind::kModels:
      return JsonResponse(ModelListJson(repository_.Loaded()));
    case Kind::kAllStats:
      return JsonResponse(StatisticsJson(repository_.Loaded()));
    case Kind::kIndex:
      return Index(request);
    default:
      return ModelDocument(route);
  }
}

HttpResponse V2Api::Health(const Route& route) const {
  if (route.kind == Route::Kind::kLive) return JsonResponse("{\"live\":true}");
  if (!draining() && ready_.load(std::memory_order_acquire)) {
    return JsonResponse("{\"ready\":true}");
  }
  HttpResponse response = JsonResponse("{\"ready\":false}");
  response.status = 400;
  return response;
}

// The members of the group that a path about one model asks for, if it has to be made first.
std::vector<std::string> V2Api::UnmadeGroup(const Route& route) {
  std::vector<std::string> names = SplitGroup(route.model);
  if (names.empty() || !route.version.empty() || repository_.FindKeptGroup(names) != nullptr ||
      repository_.Find(route.model, "").status().code() != StatusCode::kNotFound) {
    return {};
  }
  return names;
}

HttpResponse V2Api::ModelDocument(const Route& route) {
  Result<ServablePtr> servable = repository_.Find(route.model, route.version);
  if (!servable.ok() && route.version.empty()) {
    ServablePtr group = repository_.FindKeptGroup(SplitGroup(route.model));
    if (group != nullptr) servable = std::move(group);
  }
  if (servable.ok()) return ModelDocument(route, *servable);
  HttpResponse response = ErrorResponse(servable.status());
  if (route.kind == Route::Kind::kModelReady && response.status != 404) response.status = 400;
  return response;
}

HttpResponse V2Api::ModelDocument(const Route& route, const ServablePtr& servable) {
  using Kind = Route::Kind;
  switch (route.kind) {
    case Kind::kModelReady: {
      std::string body;
      JsonWriter json(&body);
      json.BeginObject();
      json.Key("name").String(servable->name);
      json.Key("ready").Bool(true);
      json.EndObject();
      return JsonResponse(std::move(body));
    }
    case Kind::kModelConfig:
      return JsonResponse(ModelConfigJson(*servable));
    case Kind::kModelStats:
      if (!route.version.empty() || !servable->members.empty())
        return JsonResponse(StatisticsJson({servable}));
      return JsonResponse(StatisticsJson(repository_.Versions(route.model)));
    default: {
      std::vector<std::string> versions;
      for (const ServablePtr& each : repository_.Versions(route.model)) {
        versions.push_back(each->version);
      }
      if (versions.empty()) versions = {servable->version};  // a group
      return JsonResponse(ModelMetadataJson(*servable, versions));
    }
  }
}

HttpResponse V2Api::Index(const HttpRequest& request) {
  bool ready_only = false;
  const Status status =
      ReadObject(request.body, [&](std::string_view key, simdjson::dom::element value) {
        if (key != "ready" || value.get(ready_only) == simdjson::SUCCESS) return OkStatus();
        return InvalidArgumentError("'ready' is neither true nor false");
      });
  if (!status.ok()) return ErrorResponse(status);
  return JsonResponse(IndexJson(repository_.Index(), ready_only));
}

void V2Api::ChangeRepository(const Route& route, HttpRequest request, Respond respond) {
  const bool load = route.kind == Route::Kind::kLoad;
  bool unload_dependents = false;
  const Status status =
      ReadObject(request.body, [&](std::string_view key, simdjson::dom::element value) -> Status {
        simdjson::dom::object parameters;
        if (key != "parameters") return OkStatus();
        if (value.get(parameters)) return InvalidArgumentError("'parameters' is not an object");
        for (const auto parameter : parameters) {
          if (load && (parameter.key == "config" || parameter.key.substr(0, 5) == "file:")) {
            return UnimplementedError("parameter '" + std::string(parameter.key) +
                                      "': models load from the repository's folder alone");
          }
          if (!load && parameter.key == "unload_dependents" &&
              parameter.value.get(unload_dependents)) {
            return InvalidArgumentError("'unload_dependents' is neither true nor false");
          }
        }
        return OkStatus();
      });
  if (!status.ok()) return respond(ErrorResponse(status));
  loader_.Post([this, load, unload_dependents, name = route.model, respond = std::move(respond)] {
    const Status changed =
        load ? repository_.Load(name) : repository_.Unload(name, unload_dependents);
    if (changed.ok()) {
      PLEXUS_LOG(kInfo) << (load ? "loaded " : "unloaded ") << name;
    } else {
      PLEXUS_LOG(kWarning) << (load ? "not loaded: " : "not unloaded: ") << changed.ToString();
    }
    HttpResponse response;
    respond(changed.ok() ? std::move(response) : ErrorResponse(changed));
  });
}

std::shared_ptr<CancelToken> V2Api::Infer(const Route& route, HttpRequest request,
                                          Respond respond) {
  Result<ServablePtr> servable = repository_.Find(route.model, route.version);
  if (servable.ok()) return Infer(std::move(*servable), std::move(request), std::move(respond));
  const Status status = servable.status();
  std::vector<std::string> names = SplitGroup(route.model);
  if (names.empty() || status.code() != StatusCode::kNotFound) {
    respond(ErrorResponse(status));
    return nullptr;
  }
  if (!route.version.empty()) {
    respond(ErrorResponse(
        InvalidArgumentError("a group of models has no versions: it runs the latest of each")));
    return nullptr;
  }
  return InferGroup(std::move(names), std::move(request), std::move(respond));
}

std::shared_ptr<CancelToken> V2Api::InferGroup(std::vector<std::string> names, HttpRequest request,
                                               Respond respond) {
  if (ServablePtr kept = repository_.FindKeptGroup(names)) {
    return Infer(std::move(kept), std::move(request), std::move(respond));
  }
  auto deferred = std::make_shared<DeferredCall>();
  codec_.Post([this, deferred, names = std::move(names),
               request = std::make_shared<HttpRequest>(std::move(request)),
               respond = std::move(respond)]() mutable {
    Result<ServablePtr> group = repository_.FindGroup(names);
    if (!group.ok()) return respond(ErrorResponse(group.status()));
    deferred->Begun(Infer(std::move(*group), std::move(*request), std::move(respond)));
  });
  return deferred;
}

std::shared_ptr<CancelToken> V2Api::Infer(ServablePtr servable, HttpRequest request,
                                          Respond respond) {
  if (request.tenant.empty()) request.tenant = servable->tenant;
  RequestAttributes attributes;
  const Result<TenantId> tenant = tenants_.Find(request.tenant, &attributes.tenant_since);
  if (!tenant.ok()) {
    respond(ErrorResponse(tenant.status()));
    return nullptr;
  }
  attributes.request = RequestId(next_request_.fetch_add(1, std::memory_order_relaxed));
  attributes.tenant = *tenant;
  attributes.arrival = request.received;
  attributes.memory_bytes = servable->config.request_memory_bytes;
  attributes.may_batch = servable->config.batching;
  const std::optional<uint32_t> sample = servable->config.trace_sample;
  attributes.traced = sample ? TraceRecorder::Samples(attributes.request.value(), *sample)
                             : runtime_.trace().Samples(attributes.request.value());
  auto call = std::make_shared<InferCall>(*environment_, std::move(servable), std::move(request),
                                          attributes, std::move(respond));
  call->Begin();
  return call;
}

}  // namespace plexus
