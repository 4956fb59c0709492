#include "serve/admin_api.h"

#include <simdjson.h>

#include <charconv>

#include "base/json_writer.h"
#include "base/log.h"
#include "graph/constant_store.h"
#include "sched/fair_share.h"
#include "sched/policy.h"
#include "serve/metrics.h"

namespace plexus {
namespace {

constexpr std::string_view kOneTenant = "/tenants/";

void Counts(JsonWriter& json, std::initializer_list<std::pair<const char*, uint64_t>> counts) {
  json.BeginObject();
  for (const auto& [key, value] : counts) json.Key(key).Uint(value);
  json.EndObject();
}

}  // namespace

std::shared_ptr<CancelToken> AdminApi::Handle(HttpRequest request, Respond respond) {
  if (request.path == "/trace") return trace_.Handle(std::move(request), std::move(respond));
  if (request.path == "/paths") return paths_.Handle(std::move(request), std::move(respond));
  if (request.path == "/policy") {
    respond(Policy(request));
  } else if (request.path == "/tenants") {
    respond(Tenants(request));
  } else if (request.path.starts_with(kOneTenant)) {
    respond(OneTenant(request));
  } else if (request.path == "/stats") {
    respond(request.method == "GET" ? Stats() : MethodNotAllowed(request, "GET"));
  } else if (request.path == "/metrics") {
    respond(request.method == "GET" ? Metrics() : MethodNotAllowed(request, "GET"));
  } else {
    respond(ErrorResponse(
        NotFoundError("no such path: " + request.path.substr(0, 200) +
                      "; there are /policy, /tenants, /stats, /metrics, /trace, /paths")));
  }
  return nullptr;
}

HttpResponse AdminApi::Policy(const HttpRequest& request) {
  if (request.method != "GET" && request.method != "POST") {
    return MethodNotAllowed(request, "GET, POST");
  }
  if (request.method == "POST") {
    const Status set = SetPolicy(request);
    if (!set.ok()) return ErrorResponse(set);
  }
  HttpResponse response;
  JsonWriter json(&response.body);
  json.BeginObject();
  json.Key("policy").String(runtime_.dispatcher().policy_name());
  json.Key("policies").BeginArray();
  for (const std::string& name : PolicyNames()) json.String(name);
  json.EndArray();
  json.EndObject();
  return response;
}

Status AdminApi::SetPolicy(const HttpRequest& request) {
  PLEXUS_ASSIGN_OR_RETURN(std::string name, QueryValue(request.query, "name"));
  if (name.empty()) {
    simdjson::dom::parser parser;
    std::string_view text;
    if (parser
            .parse(reinterpret_cast<const uint8_t*>(request.body.data), request.body.size_bytes,
                   false)["policy"]
            .get(text)) {
      return InvalidArgumentError("name the policy: /policy?name=NAME or {\"policy\":\"NAME\"}");
    }
    name = text;
  }
  PLEXUS_ASSIGN_OR_RETURN(std::unique_ptr<class Policy> policy, MakePolicy(name));
  const std::string before = runtime_.dispatcher().policy_name();
  runtime_.dispatcher().SetPolicy(std::move(policy));
  PLEXUS_LOG(kInfo) << "policy " << before << " -> " << name;
  return OkStatus();
}

HttpResponse AdminApi::Tenants(const HttpRequest& request) {
  if (request.method != "GET" && request.method != "POST" && request.method != "PUT") {
    return MethodNotAllowed(request, "GET, POST, PUT");
  }
  if (request.method != "GET") {
    const Status set = SetWeight(request);
    if (!set.ok()) return ErrorResponse(set);
  }
  HttpResponse response;
  JsonWriter json(&response.body);
  json.BeginObject();
  WriteTenants(json);
  json.EndObject();
  return response;
}

Status AdminApi::SetWeight(const HttpRequest& request) {
  PLEXUS_ASSIGN_OR_RETURN(std::string name, QueryValue(request.query, "name"));
  PLEXUS_ASSIGN_OR_RETURN(const std::string text, QueryValue(request.query, "weight"));
  double weight = 0;
  if (name.empty() && text.empty()) {
    simdjson::dom::parser parser;
    simdjson::dom::element body;
    std::string_view tenant;
    if (parser
            .parse(reinterpret_cast<const uint8_t*>(request.body.data), request.body.size_bytes,
                   false)
            .get(body) ||
        body["tenant"].get(tenant) || body["weight"].get(weight)) {
      return InvalidArgumentError(
          "name the tenant and its weight: /tenants?name=NAME&weight=3 or "
          "{\"tenant\":\"NAME\",\"weight\":3}");
    }
    name = tenant;
  } else {
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, weight);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      return InvalidArgumentError("parameter 'weight': expected a number, got '" +
                                  text.substr(0, 40) + "'");
    }
  }
  PLEXUS_RETURN_IF_ERROR(FairShare::CheckWeight(weight));
  PLEXUS_ASSIGN_OR_RETURN(const TenantId id, tenants_.Keep(name));
  PLEXUS_RETURN_IF_ERROR(runtime_.dispatcher().SetTenantWeight(id, weight));
  PLEXUS_LOG(kInfo) << "tenant '" << name << "' has weight " << weight;
  return OkStatus();
}

// Removes it.
HttpResponse AdminApi::OneTenant(const HttpRequest& request) {
  if (request.method != "DELETE") return MethodNotAllowed(request, "DELETE");
  const Result<std::string> name =
      PercentDecode(std::string_view(request.path).substr(kOneTenant.size()));
  if (!name.ok()) return ErrorResponse(name.status());
  const Result<V2Api::Removed> removed = RemoveTenant(*name);
  if (!removed.ok()) return ErrorResponse(removed.status());
  HttpResponse response;
  JsonWriter json(&response.body);
  json.BeginObject();
  json.Key("tenant").String(*name);
  json.Key("requests").Uint(removed->requests);
  json.Key("sessions").Uint(removed->sessions);
  json.EndObject();
  return response;
}

// What of it is given up. Each request leaves what it shares with others; the
// dispatcher is told last, so that it finds nothing of the tenant's alone any more but what nobody
// asked for over this server.
Result<V2Api::Removed> AdminApi::RemoveTenant(std::string_view name) {
  PLEXUS_ASSIGN_OR_RETURN(const TenantId id, tenants_.Forget(name));
  const Status why = CancelledError("tenant '" + std::string(name) + "' was removed");
  const V2Api::Removed removed = api_.RemoveTenant(id, name, why);
  runtime_.dispatcher().RemoveTenant(id, why);
  PLEXUS_LOG(kInfo) << "tenant '" << name << "' was removed; " << removed.requests
                    << " requests of it were given up, " << removed.sessions << " sessions ended";
  return removed;
}

// Tenants that were heard of; shares are in device time.
void AdminApi::WriteTenants(JsonWriter& json) const {
  const std::vector<std::string> names = tenants_.Names();
  json.Key("tenants").BeginObject();
  for (uint32_t id = 0; id < names.size(); ++id) {
    if (id > 0 && names[id].empty()) continue;  // it was removed
    const TenantStats stats = runtime_.dispatcher().tenant_stats(TenantId(id));
    json.Key(names[id]).BeginObject();
    json.Key("weight").Double(stats.weight);
    json.Key("device_time_ns").Uint(static_cast<uint64_t>(stats.time.count()));
    json.Key("deficit_ns").Int(stats.deficit.count());
    json.Key("jobs").Uint(stats.jobs);
    json.EndObject();
  }
  json.EndObject();
}

HttpResponse AdminApi::Metrics() const {
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4";
  response.body = MetricsText(runtime_, runtime_.dispatcher().stats(), api_, repository_.Loaded());
  return response;
}

HttpResponse AdminApi::Stats() const {
  HttpResponse response;
  JsonWriter json(&response.body);
  json.BeginObject();
  json.Key("policy").String(runtime_.dispatcher().policy_name());
  WriteDispatcher(json);
  WriteTenants(json);
  WriteSharing(json);
  WriteSessions(json);
  WriteProcess(json);
  json.EndObject();
  return response;
}

void AdminApi::WriteDispatcher(JsonWriter& json) const {
  const DispatcherStats d = runtime_.dispatcher().stats();
  json.Key("dispatcher");
  Counts(json, {{"jobs_submitted", d.jobs_submitted},
                {"jobs_done", d.jobs_done},
                {"jobs_failed", d.jobs_failed},
                {"jobs_cancelled", d.jobs_cancelled},
                {"jobs_withdrawn", d.jobs_withdrawn},
                {"launches", d.launches},
                {"blocks", d.blocks},
                {"decisions", d.decisions},
                {"preemptions", d.preemptions},
                {"jobs_waiting_for_arena", d.jobs_waiting_for_arena},
                {"events_ignored", d.events_ignored},
                {"launches_lost", d.launches_lost},
                {"busy_ns", static_cast<uint64_t>(d.busy.count())},
                {"ready", d.ready},
                {"running", d.running},
                {"in_flight", d.in_flight}});
}

void AdminApi::WriteSharing(JsonWriter& json) const {
  const Runtime::CacheStats cache = runtime_.cache_stats();
  json.Key("program_cache");
  Counts(json, {{"programs", cache.programs},
                {"bytes", cache.bytes},
                {"hits", cache.hits},
                {"misses", cache.misses},
                {"evictions", cache.evictions}});
  const Runtime::SharingStats sharing = runtime_.sharing_stats();
  json.Key("sharing");
  Counts(json, {{"led", sharing.led},
                {"joined", sharing.joined},
                {"raised", sharing.raised},
                {"paths", sharing.paths}});
  json.Key("batching");
  Counts(json, {{"batches", sharing.batches}, {"rows", sharing.batched_rows}});
  const ResultCache::Stats results = runtime_.result_cache_stats();
  json.Key("result_cache");
  Counts(json, {{"max_bytes", results.max_bytes},
                {"bytes", results.bytes},
                {"entries", results.entries},
                {"hits", results.hits},
                {"misses", results.misses},
                {"evictions", results.evictions},
                {"too_large", results.too_large}});
}

void AdminApi::WriteSessions(JsonWriter& json) const {
  const SessionStore::Stats sessions = api_.session_stats();
  const SessionLimits& limits = api_.session_limits();
  json.Key("sessions");
  Counts(json, {{"open", sessions.sessions},
                {"max", limits.max_sessions},
                {"bytes", sessions.bytes},
                {"max_bytes", limits.max_bytes},
                {"waiting", sessions.waiting},
                {"max_waiting", limits.max_waiting},
                {"begun", sessions.begun},
                {"ended", sessions.ended},
                {"expired", sessions.expired},
                {"refused", sessions.refused}});
}

// Constants, the trace and HTTP: what is not a matter of requests alone.
void AdminApi::WriteProcess(JsonWriter& json) const {
  const ConstantStore::Stats constants = ConstantStore::Get().GetStats();
  json.Key("constants");
  Counts(json, {{"constants", constants.constants},
                {"plain_bytes", constants.plain_bytes},
                {"derived_bytes", constants.derived_bytes},
                {"shared_bytes", constants.shared_bytes}});
  const TraceRecorder::Stats trace = runtime_.trace().stats();
  json.Key("trace");
  Counts(json, {{"recording", trace.recording ? 1u : 0u},
                {"sample", trace.sample},
                {"events", trace.events},
                {"dropped", trace.dropped}});
  const HttpStats http = http_.stats();
  json.Key("http");
  Counts(json, {{"connections", http.connections},
                {"busy", http.busy},
                {"accepted", http.accepted},
                {"requests", http.requests},
                {"disconnects", http.disconnects}});
}

}  // namespace plexus
