#include "simulate/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/json_writer.h"

namespace plexus {
namespace {

double Milliseconds(Duration d) { return static_cast<double>(d.count()) / 1e6; }
double Seconds(Duration d) { return static_cast<double>(d.count()) / 1e9; }

// Nearest rank: the smallest value that at least p of all are not above. `sorted` not empty.
double Percentile(const std::vector<double>& sorted, double p) {
  const size_t rank = static_cast<size_t>(std::ceil(p * static_cast<double>(sorted.size())));
  return sorted[std::min(std::max<size_t>(rank, 1), sorted.size()) - 1];
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

JobStatistics Statistics(std::string model, std::vector<double> ms, std::vector<double> slowdown) {
  JobStatistics s;
  s.model = std::move(model);
  s.jobs = ms.size();
  if (ms.empty()) return s;
  std::sort(ms.begin(), ms.end());
  std::sort(slowdown.begin(), slowdown.end());
  s.mean_ms = Mean(ms);
  s.p50_ms = Percentile(ms, 0.5);
  s.p90_ms = Percentile(ms, 0.9);
  s.p99_ms = Percentile(ms, 0.99);
  s.max_ms = ms.back();
  s.mean_slowdown = Mean(slowdown);
  s.p99_slowdown = Percentile(slowdown, 0.99);
  return s;
}

void WriteStatistics(const JobStatistics& s, JsonWriter& json) {
  json.BeginObject();
  if (!s.model.empty()) json.Key("model").String(s.model);
  json.Key("jobs").Uint(s.jobs);
  if (s.jobs > 0) {
    json.Key("mean_ms").Double(s.mean_ms);
    json.Key("p50_ms").Double(s.p50_ms);
    json.Key("p90_ms").Double(s.p90_ms);
    json.Key("p99_ms").Double(s.p99_ms);
    json.Key("max_ms").Double(s.max_ms);
    json.Key("mean_slowdown").Double(s.mean_slowdown);
    json.Key("p99_slowdown").Double(s.p99_slowdown);
    if (s.due > 0) {
      json.Key("attainment").Double(static_cast<double>(s.in_time) / static_cast<double>(s.due));
    }
  }
  json.EndObject();
}

template <typename... Args>
void Append(std::string* out, const char* format, Args... args) {
  char line[256];
  std::snprintf(line, sizeof(line), format, args...);
  *out += line;
}

void AppendLine(const JobStatistics& s, std::string* out) {
  const std::string name = s.model.empty() ? "all" : s.model.substr(0, 20);
  if (s.jobs == 0) {
    Append(out, "%-20s %8d\n", name.c_str(), 0);
    return;
  }
  Append(out, "%-20s %8zu %10.3f %10.3f %10.3f %10.3f %9.2f %9.2f", name.c_str(), s.jobs, s.mean_ms,
         s.p50_ms, s.p90_ms, s.p99_ms, s.mean_slowdown, s.p99_slowdown);
  if (s.due > 0) {
    Append(out, " %7.1f %%", 100 * static_cast<double>(s.in_time) / static_cast<double>(s.due));
  }
  *out += "\n";
}

std::string Escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else if (static_cast<unsigned char>(c) >= 0x20) {
      out += c;
    }
  }
  return out;
}

}  // namespace

Report MakeReport(const Workload& workload, const SimulationResult& result) {
  const size_t num_models = workload.models.size();
  std::vector<std::vector<double>> ms(num_models + 1), slowdown(num_models + 1);
  std::vector<double> demand;  // device time by model, if blocks filled it entirely
  ManualClock clock;
  const auto gpu = SimGpu::Create(workload.device, clock, nullptr);
  for (const SimModel& model : workload.models) {
    double ns = 0;
    for (const Kernel& kernel : model.program->kernels) {
      const uint32_t capacity = gpu.ok() ? (*gpu)->Capacity(kernel.resources) : 0;
      ns += kernel.grid * static_cast<double>(kernel.estimated_block_time.count()) /
            std::max(capacity, 1u);
    }
    demand.push_back(ns);
  }
  std::vector<size_t> due(num_models + 1), in_time(num_models + 1);
  double used_ns = 0;
  TimePoint first = TimePoint::max(), last{};
  for (const JobOutcome& job : result.jobs) {
    const double time = Milliseconds(job.done - job.arrival);
    const double alone = Milliseconds(workload.models[job.model].alone_time);
    for (const size_t row : {size_t{job.model}, num_models}) {
      ms[row].push_back(time);
      slowdown[row].push_back(alone > 0 ? time / alone : 0);
      const Duration deadline = workload.models[job.model].deadline;
      if (deadline == Duration{0}) continue;
      ++due[row];
      in_time[row] += job.done - job.arrival <= deadline ? 1 : 0;
    }
    used_ns += demand[job.model];
    first = std::min(first, job.arrival);
    last = std::max(last, job.arrival);
  }
  Report report;
  report.all = Statistics("", std::move(ms[num_models]), std::move(slowdown[num_models]));
  for (size_t m = 0; m < num_models; ++m) {
    report.models.push_back(
        Statistics(workload.models[m].name, std::move(ms[m]), std::move(slowdown[m])));
  }
  report.all.due = due[num_models];
  report.all.in_time = in_time[num_models];
  for (size_t m = 0; m < num_models; ++m) {
    report.models[m].due = due[m];
    report.models[m].in_time = in_time[m];
  }
  if (result.jobs.empty()) return report;
  const double jobs = static_cast<double>(result.jobs.size());
  report.makespan_s = Seconds(result.end - first);
  if (report.makespan_s > 0) {
    report.throughput_per_s = jobs / report.makespan_s;
    report.utilisation = used_ns / 1e9 / report.makespan_s;
  }
  if (last > first) report.offered_per_s = jobs / Seconds(last - first);
  report.launches = result.launches;
  report.blocks = result.blocks;
  return report;
}

std::string ReportToJson(const Workload& workload, const Report& report) {
  std::string text;
  JsonWriter json(&text);
  json.BeginObject();
  json.Key("simulated").Bool(true);
  json.Key("workload").String(workload.name);
  json.Key("device").String(workload.device.name);
  json.Key("system").String(workload.system.name);
  if (workload.system.name == "plexus" || workload.system.name == "bounded") {
    json.Key("policy").String(workload.system.policy);
  }
  json.Key("jobs").Uint(workload.jobs);
  json.Key("seed").Uint(workload.seed);
  json.Key("makespan_s").Double(report.makespan_s);
  json.Key("throughput_per_s").Double(report.throughput_per_s);
  json.Key("offered_per_s").Double(report.offered_per_s);
  json.Key("utilisation").Double(report.utilisation);
  json.Key("launches").Uint(report.launches);
  json.Key("blocks").Uint(report.blocks);
  json.Key("all");
  WriteStatistics(report.all, json);
  json.Key("models").BeginArray();
  for (const JobStatistics& model : report.models) WriteStatistics(model, json);
  json.EndArray();
  json.EndObject();
  return text;
}

std::string ReportToTable(const Workload& workload, const Report& report) {
  std::string out;
  const bool has_policy = workload.system.name == "plexus" || workload.system.name == "bounded";
  out += "simulated " + workload.device.name + ", system " + workload.system.name +
         (has_policy ? ", policy " + workload.system.policy : "") + "\n";
  Append(&out, "%zu jobs in %.3f s: %.1f/s, utilisation %.0f %%\n\n", report.all.jobs,
         report.makespan_s, report.throughput_per_s, 100 * report.utilisation);
  Append(&out, "%-20s %8s %10s %10s %10s %10s %9s %9s%s\n", "model", "jobs", "mean ms", "p50 ms",
         "p90 ms", "p99 ms", "slowdown", "its p99", report.all.due > 0 ? "   in time" : "");
  for (const JobStatistics& model : report.models) AppendLine(model, &out);
  AppendLine(report.all, &out);
  return out;
}

// One line per model: which share of its jobs were done within a time, on a logarithmic axis.
std::string ReportToSvg(const Workload& workload, const SimulationResult& result) {
  constexpr double kLeft = 60, kTop = 40, kWidth = 520, kHeight = 300;
  constexpr const char* kColors[] = {"#2a7f62", "#b5533c", "#3c6db5", "#8a5fb0",
                                     "#b08b2a", "#4aa5b0", "#777777", "#b03c7d"};
  std::vector<std::vector<double>> ms(workload.models.size());
  double low = 1e300, high = 0;
  for (const JobOutcome& job : result.jobs) {
    const double time = std::max(Milliseconds(job.done - job.arrival), 1e-6);
    ms[job.model].push_back(time);
    low = std::min(low, time);
    high = std::max(high, time);
  }
  if (!(low < high)) high = low * 10;
  const double first = std::floor(std::log10(low)), decades = std::ceil(std::log10(high)) - first;
  const auto x_of = [&](double time) {
    return kLeft + kWidth * (std::log10(time) - first) / std::max(decades, 1.0);
  };
  std::string svg;
  Append(&svg,
         "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"390\" "
         "font-family=\"sans-serif\" font-size=\"12\">\n"
         "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n");
  svg += "<text x=\"8\" y=\"20\" font-size=\"14\">" +
         Escaped("Jobs done within a time (simulated " + workload.device.name + ", " +
                 workload.system.name + ")") +
         "</text>\n";
  for (int d = 0; d <= std::max(decades, 1.0); ++d) {
    const double x = x_of(std::pow(10, first + d));
    Append(&svg, "<path d=\"M%.1f %.1f V%.1f\" stroke=\"#ddd\"/>", x, kTop, kTop + kHeight);
    Append(&svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g ms</text>\n", x,
           kTop + kHeight + 16, std::pow(10, first + d));
  }
  for (int percent = 0; percent <= 100; percent += 25) {
    const double y = kTop + kHeight * (1 - percent / 100.0);
    Append(&svg, "<path d=\"M%.1f %.1f H%.1f\" stroke=\"#ddd\"/>", kLeft, y, kLeft + kWidth);
    Append(&svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%d %%</text>\n", kLeft - 6, y + 4,
           percent);
  }
  for (size_t m = 0; m < ms.size(); ++m) {
    if (ms[m].empty()) continue;
    std::sort(ms[m].begin(), ms[m].end());
    const char* color = kColors[m % std::size(kColors)];
    svg += "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"" + std::string(color) +
           "\" points=\"";
    constexpr int kPoints = 200;
    for (int i = 0; i <= kPoints; ++i) {
      const double share = static_cast<double>(i) / kPoints;
      Append(&svg, "%.1f,%.1f ", x_of(Percentile(ms[m], share)), kTop + kHeight * (1 - share));
    }
    svg += "\"/>\n";
    Append(&svg, "<rect x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\" fill=\"%s\"/>",
           kLeft + kWidth + 14, kTop + 16.0 * static_cast<double>(m), color);
    Append(&svg, "<text x=\"%.1f\" y=\"%.1f\">", kLeft + kWidth + 30,
           kTop + 16.0 * static_cast<double>(m) + 9);
    svg += Escaped(workload.models[m].name) + "</text>\n";
  }
  return svg + "</svg>\n";
}

}  // namespace plexus
