#include "base/trace_json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <tuple>

#include "base/json_writer.h"

namespace plexus {
namespace {

constexpr size_t kPieceBytes = 64 << 10;
// Process ids: devices come first, 1 and up.
constexpr uint64_t kDecisionsPid = 1 << 20;
constexpr uint64_t kJobsPid = kDecisionsPid + 1;
constexpr uint64_t kCompilesPid = kDecisionsPid + 2;
constexpr uint64_t kTenantsPid = kDecisionsPid + 16;
// Launches of one job on one unit belong to one stay there unless this much time lies between.
constexpr Duration kStayGap = std::chrono::microseconds(100);

// Assigns spans that come in order of their begin to as few rows as they need not to overlap.
class Rows {
 public:
  size_t Place(TimePoint begin, TimePoint end) {
    size_t row = 0;
    while (row < ends_.size() && ends_[row] > begin) ++row;
    if (row == ends_.size()) ends_.push_back(end);
    ends_[row] = end;
    return row;
  }

 private:
  std::vector<TimePoint> ends_;
};

// One span of a request's tree.
struct Span {
  TimePoint begin, end;
  std::string name, args;
};

// The job of a device, or a request on its own.
using JobKey = std::pair<uint16_t, uint64_t>;

class Writer {
 public:
  Writer(const TraceRecorder::Snapshot& snapshot, const TraceSink& sink)
      : snapshot_(snapshot), sink_(sink) {}

  bool Write() {
    Prepare();
    out_ = "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"begin_ns\":" +
           std::to_string(base_.time_since_epoch().count()) +
           ",\"events\":" + std::to_string(snapshot_.events.size()) +
           ",\"dropped\":" + std::to_string(snapshot_.dropped) + "},\n\"traceEvents\":[";
    WriteBlocks();
    WriteDecisions();
    WriteJobs();
    WriteCompiles();
    WriteFlows();
    WriteRequests();
    out_ += "\n]}\n";
    Flush();
    return !stopped_;
  }

 private:
  void Prepare() {
    base_ = TimePoint::max();
    for (const TraceEvent& e : snapshot_.events) {
      sorted_.push_back(&e);
      base_ = std::min(base_, e.begin);
      if (e.kind == TraceKind::kBlocks) base_ = std::min(base_, e.mark);
      if (e.kind == TraceKind::kRequest && e.label != 0) tenants_[e.tenant] = Name(e.label);
    }
    if (sorted_.empty()) base_ = TimePoint{};
    std::stable_sort(sorted_.begin(), sorted_.end(), [](const TraceEvent* a, const TraceEvent* b) {
      return std::tie(a->begin, b->end) < std::tie(b->begin, a->end);
    });
  }

  // --- Pieces of JSON

  void Flush() {
    if (!stopped_ && !out_.empty()) stopped_ = !sink_(out_);
    out_.clear();
  }
  void Begin() {
    if (out_.size() >= kPieceBytes) Flush();
    out_ += any_ ? ",\n{" : "\n{";
    any_ = true;
  }
  static std::string Quoted(std::string_view text) {
    std::string out;
    JsonWriter(&out).String(text);
    return out;
  }
  static std::string Micros(Duration d) {
    char text[40];
    const long long ns = std::max<long long>(d.count(), 0);
    std::snprintf(text, sizeof(text), "%lld.%03lld", ns / 1000, ns % 1000);
    return text;
  }
  std::string At(TimePoint t) const { return Micros(t - base_); }
  static std::string Number(double value) {
    if (!std::isfinite(value)) return Quoted(value > 0 ? "inf" : value < 0 ? "-inf" : "nan");
    char text[40];
    std::snprintf(text, sizeof(text), "%.17g", value);
    return text;
  }
  std::string Name(uint32_t id) const {
    const auto it = snapshot_.names.find(id);
    return it == snapshot_.names.end() ? "(forgotten)" : it->second;
  }
  std::string Tenant(uint32_t id) const {
    const auto it = tenants_.find(id);
    if (it != tenants_.end() && !it->second.empty()) return it->second;
    return id == 0 ? "default" : "tenant " + std::to_string(id);
  }
  void Meta(const char* what, uint64_t pid, uint64_t tid, const std::string& args) {
    Begin();
    out_ += "\"ph\":\"M\",\"name\":\"" + std::string(what) + "\",\"pid\":" + std::to_string(pid) +
            ",\"tid\":" + std::to_string(tid) + ",\"args\":{" + args + "}}";
  }
  void NameProcess(uint64_t pid, const std::string& name) {
    Meta("process_name", pid, 0, "\"name\":" + Quoted(name));
    Meta("process_sort_index", pid, 0, "\"sort_index\":" + std::to_string(pid));
  }
  void NameThread(uint64_t pid, uint64_t tid, const std::string& name) {
    Meta("thread_name", pid, tid, "\"name\":" + Quoted(name));
    Meta("thread_sort_index", pid, tid, "\"sort_index\":" + std::to_string(tid));
  }
  void Common(const char* phase, const char* category, const std::string& name, uint64_t pid,
              uint64_t tid, TimePoint at) {
    Begin();
    out_ += "\"ph\":\"";
    out_ += phase;
    out_ += "\",\"cat\":\"";
    out_ += category;
    out_ += "\",\"name\":";
    JsonWriter(&out_).String(name);
    out_ +=
        ",\"pid\":" + std::to_string(pid) + ",\"tid\":" + std::to_string(tid) + ",\"ts\":" + At(at);
  }
  void Complete(const char* category, const std::string& name, uint64_t pid, uint64_t tid,
                TimePoint begin, TimePoint end, const std::string& args) {
    Common("X", category, name, pid, tid, begin);
    out_ += ",\"dur\":" + Micros(end - begin) + ",\"args\":{" + args + "}}";
  }
  std::string JobArgs(const TraceEvent& e) const {
    std::string args = "\"job\":" + std::to_string(e.job);
    if (e.request != kNoTraceId) args += ",\"request\":" + std::to_string(e.request);
    return args + ",\"tenant\":" + Quoted(Tenant(e.tenant));
  }
  static std::string StatusArg(const TraceEvent& e) {
    return ",\"status\":" + Quoted(StatusCodeName(static_cast<StatusCode>(e.code)));
  }
  static std::string BlocksArg(const TraceEvent& e) {
    std::string range = std::to_string(e.first_block);
    if (e.blocks > 1) range += ".." + std::to_string(uint64_t{e.first_block} + e.blocks - 1);
    return ",\"blocks\":\"" + range + "\"";
  }
  static std::string JobName(const std::string& program, uint64_t job) {
    return program + " #" + std::to_string(job);
  }

  // --- Devices: a track per unit; a job's stay on a unit holds its kernels

  void WriteBlocks() {
    std::map<std::pair<uint16_t, uint32_t>, std::vector<const TraceEvent*>> units;
    for (const TraceEvent* e : sorted_) {
      if (e->kind == TraceKind::kBlocks) units[{e->device, e->unit}].push_back(e);
    }
    int last_device = -1;
    uint64_t tid = 0;
    for (const auto& [key, events] : units) {
      const auto [device, unit] = key;
      const bool known = device < snapshot_.devices.size();
      if (device != last_device) {
        NameProcess(1 + uint64_t{device}, known ? snapshot_.devices[device].name : "device");
        tid = 0;
        last_device = device;
      }
      const std::string track =
          unit == kNoTraceUnit
              ? "launches"
              : (known ? snapshot_.devices[device].unit : "unit") + " " + std::to_string(unit);
      Rows rows;
      std::vector<std::vector<const TraceEvent*>> by_row;
      for (const TraceEvent* e : events) {
        const size_t row = rows.Place(e->begin, e->end);
        by_row.resize(std::max(by_row.size(), row + 1));
        by_row[row].push_back(e);
      }
      for (size_t row = 0; row < by_row.size(); ++row) {
        ++tid;
        NameThread(1 + uint64_t{device}, tid,
                   row == 0 ? track : track + " (" + std::to_string(row + 1) + ")");
        WriteUnit(1 + uint64_t{device}, tid, by_row[row]);
      }
    }
  }

  void WriteUnit(uint64_t pid, uint64_t tid, const std::vector<const TraceEvent*>& events) {
    for (size_t i = 0; i < events.size();) {
      size_t end = i + 1;
      while (end < events.size() && events[end]->job == events[i]->job &&
             events[end]->begin - events[end - 1]->end <= kStayGap) {
        ++end;
      }
      const TraceEvent& first = *events[i];
      Complete("job", JobName(Name(first.label), first.job), pid, tid, first.begin,
               events[end - 1]->end, JobArgs(first));
      stays_[{first.device, first.job}].push_back({pid, tid, first.begin});
      for (; i < end; ++i) {
        const TraceEvent& e = *events[i];
        Complete("blocks", Name(e.name), pid, tid, e.begin, e.end,
                 JobArgs(e) + BlocksArg(e) + ",\"waited_us\":" + Micros(e.begin - e.mark));
      }
    }
  }

  void WriteDecisions() {
    bool named = false;
    for (const TraceEvent* e : sorted_) {
      if (e->kind != TraceKind::kBlocks || e->ready == 0) continue;
      if (!named) {
        NameProcess(kDecisionsPid, "scheduler");
        NameThread(kDecisionsPid, 1, "decisions");
        named = true;
      }
      Common("i", "decision", JobName(Name(e->label), e->job), kDecisionsPid, 1, e->mark);
      out_ += ",\"s\":\"t\",\"args\":{" + JobArgs(*e) + ",\"kernel\":" + Quoted(Name(e->name)) +
              BlocksArg(*e) + ",\"ready\":" + std::to_string(e->ready) +
              ",\"key\":" + Number(e->key) +
              ",\"remaining_us\":" + Micros(Duration(e->remaining_ns)) + "}}";
    }
  }

  // --- Jobs and compiles: rows

  void WriteJobs() {
    Rows rows;
    size_t named = 0;
    for (const TraceEvent* e : sorted_) {
      if (e->kind != TraceKind::kJob) continue;
      if (named == 0) NameProcess(kJobsPid, "jobs");
      const uint64_t tid = 1 + rows.Place(e->begin, e->end);
      if (tid > named) NameThread(kJobsPid, named = tid, "jobs " + std::to_string(tid));
      Complete("job", JobName(Name(e->name), e->job), kJobsPid, tid, e->begin, e->end,
               JobArgs(*e) + StatusArg(*e));
      auto& stays = stays_[{e->device, e->job}];
      stays.insert(stays.begin(), {kJobsPid, tid, e->begin});
      const TimePoint launched = FirstLaunch(*e);
      if (launched > e->begin) {
        Complete("wait", "waits", kJobsPid, tid, e->begin, launched, JobArgs(*e));
      }
    }
  }
  static TimePoint FirstLaunch(const TraceEvent& job) {
    return job.mark == TimePoint{} ? job.end : std::clamp(job.mark, job.begin, job.end);
  }

  void WriteCompiles() {
    Rows rows;
    size_t named = 0;
    for (const TraceEvent* e : sorted_) {
      if (e->kind != TraceKind::kCompile) continue;
      if (named == 0) NameProcess(kCompilesPid, "compiles");
      const uint64_t tid = 1 + rows.Place(e->begin, e->end);
      if (tid > named) NameThread(kCompilesPid, named = tid, "compile " + std::to_string(tid));
      Complete("compile", Name(e->name), kCompilesPid, tid, e->begin, e->end,
               "\"request\":" + std::to_string(e->request));
    }
  }

  // Arrows from a job to each of its stays on a unit.
  void WriteFlows() {
    uint64_t id = 0;
    for (auto& [job, stays] : stays_) {
      ++id;
      if (stays.size() < 2) continue;
      std::stable_sort(stays.begin(), stays.end(),
                       [](const Stay& a, const Stay& b) { return a.at < b.at; });
      for (size_t i = 0; i < stays.size(); ++i) {
        const bool last = i + 1 == stays.size();
        Common(i == 0 ? "s"
               : last ? "f"
                      : "t",
               "flow", "job", stays[i].pid, stays[i].tid, stays[i].at);
        out_ += ",\"id\":" + std::to_string(id) + (last ? ",\"bp\":\"e\"}" : "}");
      }
    }
  }

  // --- Requests: asynchronous spans, since those of a tenant overlap; what a request did lies
  // within

  void WriteRequests() {
    std::map<uint32_t, std::map<uint64_t, std::vector<const TraceEvent*>>> by_tenant;
    for (const TraceEvent* e : sorted_) {
      if (e->kind == TraceKind::kBlocks || e->kind == TraceKind::kCompile) continue;
      if (e->request != kNoTraceId) by_tenant[e->tenant][e->request].push_back(e);
    }
    uint64_t pid = kTenantsPid;
    for (const auto& [tenant, requests] : by_tenant) {
      NameProcess(pid, "requests of " + Tenant(tenant));
      for (const auto& [request, events] : requests) WriteRequest(pid, request, events);
      ++pid;
    }
  }

  void WriteRequest(uint64_t pid, uint64_t request, const std::vector<const TraceEvent*>& events) {
    const std::string id_arg = "\"request\":" + std::to_string(request);
    std::vector<Span> spans;
    for (const TraceEvent* e : events) {
      switch (e->kind) {
        case TraceKind::kRequest:
          // First, so that it encloses what begins with it.
          spans.insert(spans.begin(),
                       {e->begin, e->end, Name(e->name),
                        id_arg + ",\"tenant\":" + Quoted(Tenant(e->tenant)) + StatusArg(*e)});
          break;
        case TraceKind::kJob:
          spans.push_back({e->begin, e->end, "job " + Name(e->name), JobArgs(*e) + StatusArg(*e)});
          if (FirstLaunch(*e) > e->begin) {
            spans.push_back({e->begin, FirstLaunch(*e), "wait for launch", id_arg});
          }
          break;
        case TraceKind::kDecode:
          spans.push_back({e->begin, e->end, "decode", id_arg});
          break;
        case TraceKind::kEncode:
          spans.push_back({e->begin, e->end, "encode", id_arg});
          break;
        case TraceKind::kCompileWait:
          spans.push_back({e->begin, e->end, "wait for compile of " + Name(e->name), id_arg});
          break;
        case TraceKind::kJoin:
          spans.push_back({e->begin, e->end, "join " + Name(e->name), id_arg});
          break;
        default:
          spans.push_back({e->begin, e->end, Name(e->name), id_arg});
      }
    }
    std::stable_sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
      return std::tie(a.begin, b.end) < std::tie(b.begin, a.end);
    });
    WriteNested(pid, spans);
  }

  // Spans of one id must nest: each goes to the first id where it does.
  void WriteNested(uint64_t pid, const std::vector<Span>& spans) {
    std::vector<std::vector<const Span*>> rows, open;
    for (const Span& span : spans) {
      size_t row = 0;
      for (; row < rows.size(); ++row) {
        auto& stack = open[row];
        while (!stack.empty() && stack.back()->end <= span.begin) stack.pop_back();
        if (stack.empty() || span.end <= stack.back()->end) break;
      }
      if (row == rows.size()) {
        rows.emplace_back();
        open.emplace_back();
      }
      rows[row].push_back(&span);
      open[row].push_back(&span);
    }
    for (const auto& row : rows) {
      ++async_id_;
      std::vector<const Span*> stack;
      const auto close = [&] {
        Async("e", pid, *stack.back(), stack.back()->end);
        stack.pop_back();
      };
      for (const Span* span : row) {
        while (!stack.empty() && stack.back()->end <= span->begin) close();
        Async("b", pid, *span, span->begin);
        stack.push_back(span);
      }
      while (!stack.empty()) close();
    }
  }
  void Async(const char* phase, uint64_t pid, const Span& span, TimePoint at) {
    Common(phase, "request", span.name, pid, 0, at);
    char id[32];
    std::snprintf(id, sizeof(id), ",\"id\":\"0x%llx\"", static_cast<unsigned long long>(async_id_));
    out_ += id;
    out_ += *phase == 'b' ? ",\"args\":{" + span.args + "}}" : "}";
  }

  struct Stay {
    uint64_t pid, tid;
    TimePoint at;
  };

  const TraceRecorder::Snapshot& snapshot_;
  const TraceSink& sink_;
  std::string out_;
  bool any_ = false, stopped_ = false;
  TimePoint base_{};
  std::vector<const TraceEvent*> sorted_;  // by begin, longest first
  std::map<uint32_t, std::string> tenants_;
  std::map<JobKey, std::vector<Stay>> stays_;
  uint64_t async_id_ = 0;
};

}  // namespace

bool WriteTraceJson(const TraceRecorder::Snapshot& snapshot, const TraceSink& sink) {
  return Writer(snapshot, sink).Write();
}

Status WriteTraceFile(const TraceRecorder::Snapshot& snapshot, const std::string& path) {
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "wb"));
  if (file == nullptr) return PermissionDeniedError("cannot write to '" + path + "'");
  const bool written = WriteTraceJson(snapshot, [&](std::string_view piece) {
    return std::fwrite(piece.data(), 1, piece.size(), file.get()) == piece.size();
  });
  if (!written || std::fclose(file.release()) != 0) {
    return InternalError("'" + path + "' could not be written whole");
  }
  return OkStatus();
}

}  // namespace plexus
