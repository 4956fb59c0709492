#include "paths/summary.h"

#include <algorithm>
#include <set>
#include <utility>

#include "paths/bodies.h"
#include "paths/flops.h"
#include "paths/unit.h"
#include "paths/value_numbers.h"

namespace plexus {
namespace {

// A node of a pipeline is named STAGE/NODE, one inside a stage STAGE/INNER/NODE; one of a model as
// its file says. `inside`: "STAGE/" of the stages that hold it.
std::string StageOf(const Node& node, const std::set<std::string>& inside) {
  size_t begin = 0;
  for (const std::string& prefix : inside) {
    if (node.name.starts_with(prefix)) begin = std::max(begin, prefix.size());
  }
  const size_t slash = node.name.find('/', begin);
  const bool whole = slash == std::string::npos || slash == 0;
  return node.name.substr(begin, whole ? std::string::npos : slash - begin);
}

std::string SpanOf(const Graph& graph, const std::set<std::string>& inside) {
  if (graph.nodes().empty()) return graph.name;
  const std::string first = StageOf(graph.nodes().front(), inside);
  const std::string last = StageOf(graph.nodes().back(), inside);
  return first == last ? first : first + ".." + last;
}

std::string Unique(const std::string& name, std::set<std::string>* taken) {
  std::string unique = name;
  for (int n = 2; !taken->insert(unique).second; ++n) unique = name + "#" + std::to_string(n);
  return unique;
}

std::vector<KnownValue> Declared(const Path& path) {
  std::vector<KnownValue> inputs;
  for (const Value& value : path.inputs) {
    inputs.emplace_back();
    inputs.back().dtype = value.dtype;
    if (value.shape.IsConcrete()) inputs.back().shape = value.shape.ToConcrete();
  }
  return inputs;
}

// Bytes of the segment's constants that are not in `seen` yet.
size_t AddConstants(const Segment& segment, ConstantSet* seen) {
  ConstantSet own;
  for (const Node& node : segment.graph->nodes()) CollectConstants(*segment.graph, node, &own);
  size_t bytes = 0;
  for (const Constant* constant : own) {
    if (seen->insert(constant).second) bytes += constant->size_bytes();
  }
  return bytes;
}

// What is known of the inputs of a body, given what its stage reads.
std::vector<KnownValue> KnownInBody(const StageBody& body, const Path& body_path,
                                    const std::vector<KnownValue>& read) {
  std::vector<KnownValue> inputs = Declared(body_path);
  const size_t own = body.graph->inputs().size(), given = body.node->inputs.size();
  for (size_t i = 0; i < inputs.size(); ++i) {
    // Before a loop's values stands how often it runs, in their place what number the turn has.
    const bool is_capture = i >= own;
    if (body.node->op == "Loop" && i == 0) continue;
    const size_t from = is_capture ? given + i - own : i + (body.node->op == "Loop" ? 1 : 0);
    if (is_capture ? from >= read.size() : from >= given || from >= read.size()) continue;
    KnownValue known = read[from];
    if (!known.shape) continue;
    if (!is_capture) known.contents.reset();
    if (!is_capture && body.node->op == "MapRows" && !known.shape->empty()) (*known.shape)[0] = 1;
    inputs[i] = std::move(known);
  }
  return inputs;
}

// Goes through all pipelines, and in each through its stages' bodies where they stand.
class Summing {
 public:
  Summing(PathSummary* summary, const Evaluator& evaluator)
      : summary_(*summary), map_(*summary->map), counter_(evaluator) {}

  void AddPipeline(const Path& path, const std::vector<KnownValue>& inputs) {
    user_ = path.pipeline;
    ++summary_.pipelines;
    AddPath(path, inputs, numbers_.InputsOf(path), nullptr, 1);
  }

  void Name() {
    std::set<std::string> taken;
    for (SegmentSummary& segment : summary_.segments) {
      const Places& places = places_.at(segment.segment.get());
      const std::string span = SpanOf(*segment.segment->graph, places.inside);
      if (!places.outside) segment.stage = places.title;
      const std::string name = segment.stage.empty() ? span : segment.stage + ": " + span;
      segment.name = Unique(Owned(name, segment.pipelines), &taken);
    }
    for (auto& [path, body] : summary_.bodies) {
      body.name = Unique(Owned(body.title, body.pipelines), &taken);
    }
  }

 private:
  // Where a segment is run.
  struct Places {
    size_t index;                       // in PathSummary::segments
    bool outside = false;               // of all stages
    std::string title = {};             // of the first stage that does
    std::set<std::string> inside = {};  // see StageOf
  };

  static std::string Owned(const std::string& name, const std::vector<std::string>& users) {
    return users.size() == 1 ? users[0] + "/" + name : name;
  }
  void AddUser(std::vector<std::string>* users) const {
    if (users->empty() || users->back() != user_) users->push_back(user_);
  }

  SegmentSummary& Find(const SegmentPtr& segment, const StageBody* within) {
    const auto [it, is_new] = places_.try_emplace(segment.get(), Places{summary_.segments.size()});
    Places& places = it->second;
    if (is_new) {
      summary_.segments.emplace_back();
      summary_.segments.back().segment = segment;
      summary_.segments.back().nodes = segment->graph->num_nodes();
      summary_.segments.back().constant_bytes = segment->constant_bytes;
      summary_.constant_bytes += AddConstants(*segment, &constants_);
    }
    if (within == nullptr) {
      places.outside = true;
    } else {
      if (places.title.empty()) places.title = StageTitle(*within);
      places.inside.insert(within->node->name + "/");
      for (const char* branch : {"then/", "else/"}) {
        if (within->node->op == "If") places.inside.insert(within->node->name + "/" + branch);
      }
    }
    return summary_.segments[places.index];
  }

  // `times`: how often it runs in a request; none where only a run tells.
  void AddPath(const Path& path, const std::vector<KnownValue>& inputs,
               const ValueNumbers::Sources& sources, const StageBody* within,
               std::optional<double> times) {
    const auto counted = counter_.CountPath(path, inputs, /*one_row=*/within != nullptr);
    const ValueNumbers::Numbers numbers = numbers_.Number(path, sources);
    for (size_t c = 0; c < path.calls.size(); ++c) {
      const bool first = seen_.insert(numbers[c]).second;
      SegmentSummary& segment = Find(path.calls[c].segment, within);
      AddUser(&segment.pipelines);
      ++segment.calls;
      segment.distinct_calls += first ? 1 : 0;
      Count(*counted[c], first, within != nullptr, times, &segment);
      // What is done once as a whole saves all that is in it.
      for (const StageBody& body : StageBodies(*path.calls[c].segment->graph)) {
        AddBody(body, path, c, *counted[c], sources, numbers, first ? times : std::nullopt);
      }
    }
  }

  void Count(const FlopCounter::Counted& counted, bool first, bool in_body,
             std::optional<double> times, SegmentSummary* segment) {
    const Flops& flops = counted.flops;
    if (flops.count > 0 || flops.complete) {
      segment->flops = std::max(segment->flops.value_or(0), flops.count);
    }
    segment->flops_complete &= flops.complete;
    if (!first) summary_.flops_saved += flops.count * times.value_or(0);
    if (in_body) {
      summary_.body_flops += counted.own.count;
      summary_.body_flops_saved += first ? 0 : counted.own.count;
      summary_.body_flops_complete &= counted.own.complete;
    } else {
      summary_.flops += flops.count;
      summary_.flops_complete &= flops.complete;
    }
  }

  void AddBody(const StageBody& body, const Path& path, size_t call,
               const FlopCounter::Counted& counted, const ValueNumbers::Sources& sources,
               const ValueNumbers::Numbers& numbers, std::optional<double> times) {
    const auto known = map_.bodies.find(body.graph.get());
    if (known == map_.bodies.end()) return;  // nested too deeply
    const Path& body_path = *map_.paths.at(known->second);
    BodySummary& summary = summary_.bodies[known->second];
    summary.title = StageTitle(body);
    AddUser(&summary.pipelines);
    const auto read = counted.stages.find(body.node->name);
    std::optional<double> body_times;
    std::vector<KnownValue> inputs = Declared(body_path);
    if (read != counted.stages.end()) {
      inputs = KnownInBody(body, body_path, read->second);
      const std::vector<KnownValue>& values = read->second;
      const bool rows = body.node->op == "MapRows" && !values.empty() && values[0].shape &&
                        !values[0].shape->empty();
      // Else what is saved might be in no sum.
      if (rows && times && counted.flops.complete)
        body_times = *times * static_cast<double>((*values[0].shape)[0]);
    }
    AddPath(body_path, inputs, numbers_.InputsOf(body, body_path, path, call, sources, numbers),
            &body, body_times);
  }

  PathSummary& summary_;
  const PathMap& map_;
  FlopCounter counter_;
  ValueNumbers numbers_;
  std::string user_;  // the pipeline that it is at
  std::map<const Segment*, Places> places_;
  std::set<uint32_t> seen_;  // numbers of calls
  ConstantSet constants_;
};

void WriteSource(const Path& path, const PathValue& value, JsonWriter& json) {
  json.BeginObject();
  if (value.from == PathValue::From::kInput) {
    json.Key("input").String(path.inputs[value.index].name);
  } else if (value.from == PathValue::From::kCall) {
    json.Key("call").Uint(value.call);
    json.Key("output").Uint(value.index);
  } else {
    json.Key("constant_bytes").Uint(value.constant->size_bytes());
  }
  json.EndObject();
}

// "bodies":[NAME, …], where there are some.
void WriteBodyNames(const Graph& graph, const PathSummary& summary, JsonWriter& json) {
  bool any = false;
  for (const StageBody& body : StageBodies(graph)) {
    const auto path = summary.map->bodies.find(body.graph.get());
    if (path == summary.map->bodies.end()) continue;
    if (!std::exchange(any, true)) json.Key("bodies").BeginArray();
    json.String(summary.bodies.at(path->second).name);
  }
  if (any) json.EndArray();
}

// The members of a path's object.
void WritePath(const Path& path, const PathSummary& summary,
               const std::map<const Segment*, const SegmentSummary*>& segments, JsonWriter& json) {
  json.Key("calls").BeginArray();
  for (const Call& call : path.calls) {
    json.BeginObject();
    json.Key("segment").String(segments.at(call.segment.get())->name);
    json.Key("inputs").BeginArray();
    for (const PathValue& in : call.inputs) WriteSource(path, in, json);
    json.EndArray();
    WriteBodyNames(*call.segment->graph, summary, json);
    json.EndObject();
  }
  json.EndArray();
  json.Key("outputs").BeginArray();
  for (const PathValue& out : path.outputs) WriteSource(path, out, json);
  json.EndArray();
}

void WriteSegment(const SegmentSummary& segment, JsonWriter& json) {
  json.BeginObject();
  json.Key("name").String(segment.name);
  if (!segment.stage.empty()) json.Key("stage").String(segment.stage);
  json.Key("id").Uint(segment.segment->id);
  json.Key("pipelines").BeginArray();
  for (const std::string& name : segment.pipelines) json.String(name);
  json.EndArray();
  json.Key("calls").Uint(segment.calls);
  json.Key("distinct_calls").Uint(segment.distinct_calls);
  json.Key("nodes").Uint(segment.nodes);
  json.Key("constant_bytes").Uint(segment.constant_bytes);
  if (segment.flops) json.Key("flops").Double(*segment.flops);
  json.Key("flops_complete").Bool(segment.flops_complete);
  json.Key("deterministic").Bool(segment.segment->deterministic);
  json.Key("batchable").Bool(segment.segment->batchable);
  if (!segment.segment->batchable) {
    json.Key("why_not_batchable").String(segment.segment->why_not_batchable);
  }
  json.EndObject();
}

}  // namespace

PathSummary Summarize(PathMapPtr map, const PathInputs& inputs, const Evaluator& evaluator) {
  PathSummary summary;
  summary.map = std::move(map);
  Summing summing(&summary, evaluator);
  size_t apart = 0;
  for (const auto& [name, path] : summary.map->paths) {
    if (BodyPaths::IsBody(name)) continue;
    ConstantSet own;  // bodies' included
    for (const Call& call : path->calls) apart += AddConstants(*call.segment, &own);
    const auto given = inputs.find(name);
    summing.AddPipeline(*path, given == inputs.end() ? Declared(*path) : given->second);
  }
  summing.Name();
  summary.constant_bytes_saved = apart - summary.constant_bytes;
  return summary;
}

void WriteSummary(const PathSummary& summary, JsonWriter& json) {
  std::map<const Segment*, const SegmentSummary*> segments;
  json.BeginObject();
  json.Key("segments").BeginArray();
  for (const SegmentSummary& segment : summary.segments) {
    segments[segment.segment.get()] = &segment;
    WriteSegment(segment, json);
  }
  json.EndArray();
  json.Key("pipelines").BeginObject();
  for (const auto& [name, path] : summary.map->paths) {
    if (BodyPaths::IsBody(name)) continue;
    json.Key(name).BeginObject();
    WritePath(*path, summary, segments, json);
    json.EndObject();
  }
  json.EndObject();
  json.Key("bodies").BeginObject();
  for (const auto& [path, body] : summary.bodies) {
    json.Key(body.name).BeginObject();
    json.Key("stage").String(body.title);
    json.Key("pipelines").BeginArray();
    for (const std::string& name : body.pipelines) json.String(name);
    json.EndArray();
    WritePath(*summary.map->paths.at(path), summary, segments, json);
    json.EndObject();
  }
  json.EndObject();
  json.Key("constant_bytes").Uint(summary.constant_bytes);
  json.Key("constant_bytes_saved").Uint(summary.constant_bytes_saved);
  json.Key("flops").Double(summary.flops);
  json.Key("flops_saved").Double(summary.flops_saved);
  json.Key("flops_complete").Bool(summary.flops_complete);
  if (!summary.bodies.empty()) {
    json.Key("body_flops").Double(summary.body_flops);
    json.Key("body_flops_saved").Double(summary.body_flops_saved);
    json.Key("body_flops_complete").Bool(summary.body_flops_complete);
  }
  json.EndObject();
}

void WriteDifference(const std::string& first, const std::string& second,
                     const std::string& difference, const std::string& back, JsonWriter& json) {
  json.BeginObject();
  json.Key("first").String(first);
  json.Key("second").String(second);
  json.Key("difference").String(difference);
  json.Key("back").String(back);
  json.EndObject();
}

}  // namespace plexus
