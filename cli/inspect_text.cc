#include "cli/inspect_text.h"

#include <algorithm>
#include <cstdio>

#include "cli/common.h"

namespace plexus::cli {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kIndent = 12;  // of what stands behind a label
constexpr char kFusedWith[] = ") + ";

std::string Bytes(size_t bytes) { return HumanBytes(static_cast<double>(bytes)); }

// Terminal cells, not bytes: kernel names hold arrows.
size_t Cells(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string Padded(const std::string& text, size_t cells) {
  return text + std::string(cells - std::min(cells, Cells(text)), ' ');
}

void PrintLabel(const char* label) { std::printf("  %-*s", static_cast<int>(kIndent - 2), label); }

// Items with commas between, wrapped at kWidth.
void PrintList(const std::vector<std::string>& items) {
  size_t column = kIndent;
  for (size_t i = 0; i < items.size(); ++i) {
    const bool last = i + 1 == items.size();
    const size_t length = Cells(items[i]) + (last ? 0 : 1);
    if (i > 0 && column + 1 + length > kWidth) {
      std::printf("\n%*s", static_cast<int>(kIndent), "");
      column = kIndent;
    } else if (i > 0) {
      std::printf(" ");
      ++column;
    }
    std::printf("%s%s", items[i].c_str(), last ? "" : ",");
    column += length;
  }
  std::printf("\n");
}

// Left-aligned columns; the last one is not padded.
void PrintTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Cells(row[i]));
  }
  for (const auto& row : rows) {
    std::string line = " ";
    for (size_t i = 0; i < row.size(); ++i) line += " " + Padded(row[i], widths[i]) + " ";
    line.erase(line.find_last_not_of(' ') + 1);
    std::printf("%s\n", line.c_str());
  }
}

void PrintTensors(const Servable& servable) {
  size_t longest = 0;
  constexpr size_t kLongest = 40;
  for (const auto* list : {&servable.inputs, &servable.outputs}) {
    for (const TensorMetadata& t : *list) longest = std::max(longest, Cells(t.name));
  }
  longest = std::min(longest, kLongest);
  for (const auto& [label, list] :
       {std::pair{"input", &servable.inputs}, std::pair{"output", &servable.outputs}}) {
    for (const TensorMetadata& tensor : *list) {
      PrintLabel(label);
      std::printf("%s  %s%s\n", Padded(tensor.name, longest).c_str(),
                  std::string(DTypeProtocolName(tensor.dtype)).c_str(),
                  ShapeText(tensor.shape).c_str());
    }
  }
}

void PrintStages(const Servable& servable) {
  if (servable.stages.empty()) return;
  std::vector<std::vector<std::string>> rows = {{"stage", "does", "nodes", "weights", "reads"}};
  for (const PipelineStage& stage : servable.stages) {
    std::string reads;
    for (const std::string& input : stage.inputs) reads += (reads.empty() ? "" : ", ") + input;
    const bool model = !stage.model.empty();
    rows.push_back(
        {stage.name,
         model ? "model " + stage.model + (stage.map_rows ? ", row by row" : "") : stage.op,
         model ? std::to_string(stage.nodes) : "", model ? Bytes(stage.constant_bytes) : "",
         reads});
  }
  std::printf("\n");
  PrintTable(rows);
}

std::string ValueList(const std::vector<ProgramValue>& values) {
  std::string text;
  for (const ProgramValue& value : values) {
    text += (text.empty() ? "" : ", ") + value.name + " " +
            std::string(DTypeProtocolName(value.dtype)) + ShapeToString(value.shape);
  }
  return text;
}

// A chain that runs as one kernel takes a line per link.
void PrintKernelName(const std::string& name) {
  size_t from = 0;
  for (size_t at = name.find(kFusedWith); at != std::string::npos;
       at = name.find(kFusedWith, from)) {
    std::printf("%s\n%*s", name.substr(from, at + 1 - from).c_str(), 47, "+ ");
    from = at + sizeof(kFusedWith) - 1;
  }
  std::printf("%s\n", name.substr(from).c_str());
}

void PrintRegion(const Program& program, size_t index) {
  std::printf("\n  region %zu   %s\n%*s-> %s\n", index, ValueList(program.inputs).c_str(),
              static_cast<int>(kIndent), "", ValueList(program.outputs).c_str());
  std::printf("%*s%s arena, %s of packed weights\n", static_cast<int>(kIndent), "",
              Bytes(program.arena_bytes).c_str(), Bytes(program.constant_bytes).c_str());
  std::printf("  %6s %10s %11s %11s  %s\n", "grid", "MFLOP", "bytes", "estimated", "kernel");
  double bytes = 0;
  size_t blocks = 0;
  for (const Kernel& kernel : program.kernels) {
    bytes += kernel.bytes;
    blocks += kernel.grid;
    std::printf("  %6u %10.2f %11s %11s  ", kernel.grid, kernel.flops / 1e6,
                HumanBytes(kernel.bytes).c_str(),
                HumanTime(kernel.estimated_block_time * kernel.grid).c_str());
    PrintKernelName(kernel.name);
  }
  std::printf("  %6zu %10.2f %11s %11s  total of %zu kernel%s\n", blocks, program.flops / 1e6,
              HumanBytes(bytes).c_str(), HumanTime(program.EstimatedTime()).c_str(),
              program.kernels.size(), program.kernels.size() == 1 ? "" : "s");
}

void PrintNotes(const Trial& trial, size_t regions) {
  if (!trial.status.ok()) return;
  if (!trial.advice.empty()) {
    std::printf("\n  %s\n", trial.advice.c_str());
    return;
  }
  for (const std::string& output : trial.empty_outputs) {
    std::printf("\n  output '%s' has no element on these shapes: what makes it is not compiled\n",
                output.c_str());
  }
  if (regions == 0) {
    std::printf(
        "\n  no region: on these shapes everything is known beforehand or runs on the host\n");
  }
}

std::string Mflop(const SegmentSummary& segment) {
  if (!segment.flops) return "?";
  char text[48];
  std::snprintf(text, sizeof(text), "%s%.2f",
                segment.flops_complete ? "" : ">= ", *segment.flops / 1e6);
  return text;
}

std::string Users(const SegmentSummary& segment, const PathSummary& paths) {
  constexpr size_t kNamed = 4;
  if (segment.pipelines.size() == paths.pipelines && paths.pipelines > 2) return "all";
  std::string text;
  for (size_t i = 0; i < segment.pipelines.size(); ++i) {
    if (i == kNamed) return text + ", " + std::to_string(segment.pipelines.size() - i) + " more";
    text += (i == 0 ? "" : ", ") + segment.pipelines[i];
  }
  return text;
}

}  // namespace

Totals Sum(const std::vector<ProgramPtr>& programs) {
  Totals totals;
  for (const ProgramPtr& program : programs) {
    ++totals.regions;
    totals.kernels += program->kernels.size();
    totals.arena_bytes = std::max(totals.arena_bytes, program->arena_bytes);
    totals.packed_bytes += program->constant_bytes;
    totals.flops += program->flops;
    totals.estimated += program->EstimatedTime();
    for (const Kernel& kernel : program->kernels) totals.bytes += kernel.bytes;
  }
  return totals;
}

void PrintTarget(const Target& target, const Inspection& inspection) {
  const Servable& servable = *target.servable;
  std::printf("%s   %s, loaded in %s\n", target.name.c_str(),
              servable.stages.empty() ? "model" : "pipeline", HumanTime(target.load_time).c_str());
  PrintTensors(servable);
  std::vector<std::pair<size_t, std::string>> by_count;
  for (const auto& [op, count] : inspection.operators) by_count.emplace_back(count, op);
  std::sort(by_count.rbegin(), by_count.rend());
  std::vector<std::string> operators;
  for (const auto& [count, op] : by_count) operators.push_back(op + " " + std::to_string(count));
  PrintLabel("weights");
  std::printf("%s in %zu constants\n", Bytes(inspection.constant_bytes).c_str(),
              inspection.constants.size());
  PrintLabel("nodes");
  operators.insert(operators.begin(), std::to_string(inspection.nodes) + " in all");
  PrintList(operators);
  if (!inspection.trial.shapes.empty() && inspection.trial.advice.empty()) {
    PrintLabel("shapes");
    std::printf("%s\n", inspection.trial.shapes.c_str());
  }
  PrintStages(servable);
  for (size_t i = 0; i < inspection.programs.size(); ++i) PrintRegion(*inspection.programs[i], i);
  if (inspection.programs.size() > 1) {
    const Totals totals = Sum(inspection.programs);
    std::printf("\n  all regions: %zu kernels, %.2f MFLOP, %s, %s estimated\n", totals.kernels,
                totals.flops / 1e6, HumanBytes(totals.bytes).c_str(),
                HumanTime(totals.estimated).c_str());
  }
  PrintNotes(inspection.trial, inspection.programs.size());
  std::printf("\n");
}

void PrintSummary(const std::vector<Target>& targets, const std::vector<Inspection>& inspections) {
  size_t longest = 5;
  for (const Target& target : targets) longest = std::max(longest, Cells(target.name));
  std::printf("%s %6s %11s %8s %8s %10s %11s %11s\n", Padded("all", longest).c_str(), "nodes",
              "weights", "regions", "kernels", "MFLOP", "estimated", "arena");
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i].servable == nullptr) continue;
    std::printf("%s %6zu %11s", Padded(targets[i].name, longest).c_str(), inspections[i].nodes,
                Bytes(inspections[i].constant_bytes).c_str());
    const Totals totals = Sum(inspections[i].programs);
    if (totals.regions == 0) {
      std::printf(" %8s %8s %10s %11s %11s\n", "-", "-", "-", "-", "-");
      continue;
    }
    std::printf(" %8zu %8zu %10.2f %11s %11s\n", totals.regions, totals.kernels, totals.flops / 1e6,
                HumanTime(totals.estimated).c_str(), Bytes(totals.arena_bytes).c_str());
  }
}

void PrintPaths(const PathSummary& paths) {
  std::printf("\nshared paths: %zu pipelines in %zu segments\n\n", paths.pipelines,
              paths.segments.size());
  std::vector<std::vector<std::string>> rows = {
      {"segment", "users", "calls", "nodes", "weights", "MFLOP", "batch", "pipelines"}};
  for (const SegmentSummary& segment : paths.segments) {
    rows.push_back({segment.name, std::to_string(segment.pipelines.size()),
                    std::to_string(segment.calls), std::to_string(segment.nodes),
                    Bytes(segment.constant_bytes), Mflop(segment),
                    segment.segment->batchable ? "yes" : "no", Users(segment, paths)});
  }
  PrintTable(rows);
  std::printf("\n  weights     %s held, %s more without sharing\n",
              Bytes(paths.constant_bytes).c_str(), Bytes(paths.constant_bytes_saved).c_str());
  std::printf(
      "  work        %.2f MFLOP for one request to each, %.2f fewer when equally named\n"
      "              inputs are equal%s\n",
      paths.flops / 1e6, paths.flops_saved / 1e6,
      paths.flops_complete ? ""
                           : "; not counted: what depends on data, and on inputs of open "
                             "size (--shape)");
  if (paths.body_flops == 0) return;
  std::printf(
      "  in stages   %s%.2f MFLOP for one element of each foreach, one turn of each repeat and\n"
      "              each branch of a when, %.2f fewer when equally named inputs are equal\n",
      paths.body_flops_complete ? "" : "at least ", paths.body_flops / 1e6,
      paths.body_flops_saved / 1e6);
}

}  // namespace plexus::cli
