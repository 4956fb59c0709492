#include "paths/summary.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "paths/flops.h"
#include "paths/unit.h"

namespace plexus {
namespace {

// A node of a pipeline is named STAGE/NODE; one of a model as its file says.
std::string StageOf(const Node& node) {
  const size_t slash = node.name.find('/');
  return slash == std::string::npos || slash == 0 ? node.name : node.name.substr(0, slash);
}

std::string SpanOf(const Graph& graph) {
  if (graph.nodes().empty()) return graph.name;
  const std::string first = StageOf(graph.nodes().front());
  const std::string last = StageOf(graph.nodes().back());
  return first == last ? first : first + ".." + last;
}

void NameSegments(std::vector<SegmentSummary>& segments) {
  std::set<std::string> taken;
  for (SegmentSummary& segment : segments) {
    std::string name = SpanOf(*segment.segment->graph);
    if (segment.pipelines.size() == 1) name = segment.pipelines[0] + "/" + name;
    segment.name = name;
    for (int n = 2; !taken.insert(segment.name).second; ++n) {
      segment.name = name + "#" + std::to_string(n);
    }
  }
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

// Tells equal calls of different pipelines apart from others: what each value of a path is, as a
// number that is the same wherever the value is.
class ValueNumbers {
 public:
  // Of all calls of a path, whether each is the first of its kind.
  std::vector<bool> Number(const Path& path) {
    std::vector<bool> first;
    std::vector<uint32_t> numbers;
    for (const Call& call : path.calls) {
      Key key = {call.segment->deterministic ? call.segment->id : 0, {}};
      for (const PathValue& in : call.inputs) key.second.push_back(Of(path, in, numbers));
      // Random work is another's each time.
      if (!call.segment->deterministic) key.second.push_back({3, next_, 0});
      const auto [it, is_new] = calls_.emplace(std::move(key), next_);
      if (is_new) ++next_;
      numbers.push_back(it->second);
      first.push_back(is_new);
    }
    return first;
  }

 private:
  using Source = std::tuple<uint64_t, uint64_t, uint64_t>;
  using Key = std::pair<uint64_t, std::vector<Source>>;

  Source Of(const Path& path, const PathValue& value, const std::vector<uint32_t>& numbers) {
    switch (value.from) {
      case PathValue::From::kCall:
        return {0, numbers[value.call], value.index};
      case PathValue::From::kConstant:
        return {1, reinterpret_cast<uintptr_t>(value.constant.get()), 0};
      case PathValue::From::kInput:
        break;
    }
    const Value& input = path.inputs[value.index];
    const std::string name =
        input.name + " " + std::to_string(static_cast<int>(input.dtype)) + input.shape.ToString();
    return {2, inputs_.emplace(name, inputs_.size()).first->second, 0};
  }

  std::map<Key, uint32_t> calls_;
  std::map<std::string, size_t> inputs_;
  uint32_t next_ = 0;
};

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

void Count(SegmentSummary& segment, const Flops& flops, bool first, PathSummary& summary) {
  if (flops.count > 0 || flops.complete) {
    segment.flops = std::max(segment.flops.value_or(0), flops.count);
  }
  segment.flops_complete &= flops.complete;
  summary.flops_complete &= flops.complete;
  summary.flops += flops.count;
  if (first) {
    ++segment.distinct_calls;
  } else {
    summary.flops_saved += flops.count;
  }
}

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

void WritePath(const Path& path, const std::map<const Segment*, const SegmentSummary*>& segments,
               JsonWriter& json) {
  json.BeginObject();
  json.Key("calls").BeginArray();
  for (const Call& call : path.calls) {
    json.BeginObject();
    json.Key("segment").String(segments.at(call.segment.get())->name);
    json.Key("inputs").BeginArray();
    for (const PathValue& in : call.inputs) WriteSource(path, in, json);
    json.EndArray();
    json.EndObject();
  }
  json.EndArray();
  json.Key("outputs").BeginArray();
  for (const PathValue& out : path.outputs) WriteSource(path, out, json);
  json.EndArray();
  json.EndObject();
}

void WriteSegment(const SegmentSummary& segment, JsonWriter& json) {
  json.BeginObject();
  json.Key("name").String(segment.name);
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
  summary.pipelines = summary.map->paths.size();
  std::map<const Segment*, size_t> index;
  ConstantSet all;
  for (const SegmentUse& use : summary.map->segments) {
    index[use.segment.get()] = summary.segments.size();
    SegmentSummary segment;
    segment.segment = use.segment;
    segment.pipelines = use.pipelines;
    segment.calls = use.calls;
    segment.nodes = use.segment->graph->num_nodes();
    segment.constant_bytes = use.segment->constant_bytes;
    summary.segments.push_back(std::move(segment));
    summary.constant_bytes += AddConstants(*use.segment, &all);
  }
  NameSegments(summary.segments);
  FlopCounter counter(evaluator);
  ValueNumbers numbers;
  size_t apart = 0;
  for (const auto& [name, path] : summary.map->paths) {
    ConstantSet own;
    for (const Call& call : path->calls) apart += AddConstants(*call.segment, &own);
    const auto given = inputs.find(name);
    const std::vector<Flops> flops =
        counter.CountPath(*path, given == inputs.end() ? Declared(*path) : given->second);
    const std::vector<bool> first = numbers.Number(*path);
    for (size_t c = 0; c < path->calls.size(); ++c) {
      Count(summary.segments[index.at(path->calls[c].segment.get())], flops[c], first[c], summary);
    }
  }
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
    json.Key(name);
    WritePath(*path, segments, json);
  }
  json.EndObject();
  json.Key("constant_bytes").Uint(summary.constant_bytes);
  json.Key("constant_bytes_saved").Uint(summary.constant_bytes_saved);
  json.Key("flops").Double(summary.flops);
  json.Key("flops_saved").Double(summary.flops_saved);
  json.Key("flops_complete").Bool(summary.flops_complete);
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
