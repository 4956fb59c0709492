// `plexus`: command lines to commands.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "sched/batching.h"
#include "sched/policy.h"
#include "simulate/system.h"

namespace plexus::cli {
namespace {

constexpr char kExitCodes[] =
    "Exit codes: 0 success, 1 failure, 2 wrong command line, 3 could not start.";

const std::map<std::string, LogLevel> kLogLevels = {{"debug", LogLevel::kDebug},
                                                    {"info", LogLevel::kInfo},
                                                    {"warning", LogLevel::kWarning},
                                                    {"error", LogLevel::kError},
                                                    {"off", LogLevel::kOff}};

// CLI11's own checks and conversions speak their own language; these run before its conversions and
// say what was expected and what came.
std::string Expected(const std::string& what, const std::string& got) {
  return "expected " + what + ", got '" + got + "'";
}

CLI::Validator Whole(uint64_t lowest, uint64_t highest) {
  return CLI::Validator(
      [=](std::string& text) {
        uint64_t value = 0;
        const char* const end = text.data() + text.size();
        const auto parsed = std::from_chars(text.data(), end, value);
        const bool good = parsed.ec == std::errc() && parsed.ptr == end && value >= lowest &&
                          value <= highest && !text.empty();
        return good ? ""
                    : Expected("a whole number from " + std::to_string(lowest) + " to " +
                                   std::to_string(highest),
                               text);
      },
      "");
}

// A number; `what` says which for the message.
CLI::Validator Number(double lowest, double highest, const char* what) {
  return CLI::Validator(
      [=](std::string& text) {
        double value = 0;
        const char* const end = text.data() + text.size();
        const auto parsed = std::from_chars(text.data(), end, value);
        const bool good = parsed.ec == std::errc() && parsed.ptr == end && value >= lowest &&
                          value <= highest && !text.empty();
        return good ? "" : Expected(what, text);
      },
      "");
}

CLI::Validator Seconds(double lowest) {
  return Number(lowest, 86400,
                lowest > 0 ? "seconds from 0.01 to 86400" : "seconds from 0 to 86400");
}

// Also turns "64MiB" into a number.
CLI::Validator Size(uint64_t lowest, uint64_t highest) {
  return CLI::Validator(
      [=](std::string& text) {
        const std::string what = "a size such as 512MB or 1GiB";
        std::string bytes = text;
        try {
          CLI::AsSizeValue units(false);
          if (!units(bytes).empty()) return Expected(what, text);
        } catch (const CLI::Error&) {
          return Expected(what, text);
        }
        uint64_t value = 0;
        const auto parsed = std::from_chars(bytes.data(), bytes.data() + bytes.size(), value);
        if (parsed.ec != std::errc()) return Expected(what, text);
        if (value < lowest || value > highest) {
          return Expected(
              "from " + std::to_string(lowest) + " to " + std::to_string(highest) + " bytes", text);
        }
        text = bytes;
        return std::string();
      },
      "");
}

// In any case of letters.
CLI::Validator OneOf(const std::vector<std::string>& names) {
  std::string list;
  for (size_t i = 0; i < names.size(); ++i) {
    list += (i == 0 ? "" : i + 1 < names.size() ? ", " : " or ") + names[i];
  }
  return CLI::Validator(
      [=](std::string& text) {
        const std::string lower = CLI::detail::to_lower(text);
        if (std::find(names.begin(), names.end(), lower) == names.end()) {
          return Expected(list, text);
        }
        text = lower;
        return std::string();
      },
      "");
}

void AddRuntimeFlags(CLI::App* command, RuntimeFlags* flags) {
  command->add_option("--threads", flags->threads, "Worker threads; 0: one per core")
      ->capture_default_str()
      ->type_name("N")
      ->check(Whole(0, 1024));
  command
      ->add_option("--pin-threads", flags->pin_threads,
                   "Each worker thread on its core: on, off, or auto: where each core has a worker")
      ->capture_default_str()
      ->type_name("WHEN")
      ->check(CLI::IsMember({"auto", "on", "off"}));
  command
      ->add_flag("--no-sharing", flags->no_sharing,
                 "Every request does its own work, whatever others are at (weights stay shared)")
      ->disable_flag_override();
  command
      ->add_flag("--share-across-tenants", flags->share_across_tenants,
                 "Also share work between tenants, who may learn from it what others ask for")
      ->disable_flag_override();
  command
      ->add_option("--batching", flags->batching,
                   std::string("How requests become batches: none, immediate, "
                               "timeout[(MICROSECONDS)], deferred or path-aware (default ") +
                       std::string(kDefaultBatchPolicy) + ")")
      ->type_name("POLICY")
      ->check(CLI::Validator(
          [](const std::string& text) {
            const auto policy = MakeBatchPolicy(text);
            return policy.ok() ? std::string() : policy.status().message();
          },
          ""));
  command->add_option("--max-batch", flags->max_batch, "Rows in a batch at most, 1 to 64")
      ->capture_default_str()
      ->type_name("N")
      ->check(Whole(1, BatchCurve::kMostRows));
  command
      ->add_option(
          "--policy", flags->policy,
          "What runs next: " + PolicyUsage() + " (default " + std::string(kDefaultPolicy) + ")")
      ->type_name("POLICY")
      ->check(CLI::Validator(
          [](const std::string& text) {
            const auto policy = MakePolicy(text);
            return policy.ok() ? std::string() : policy.status().message();
          },
          ""));
  command
      ->add_option("--program-cache-bytes", flags->program_cache_bytes,
                   "Compiled programs kept (1GiB, 512MB; default 2GiB)")
      ->type_name("SIZE")
      ->transform(Size(0, UINT64_MAX));
  command
      ->add_option(
          "--value-memory-bytes", flags->value_memory_bytes,
          "Outputs and data-dependent values of all requests (default: half of the memory)")
      ->type_name("SIZE")
      ->transform(Size(0, UINT64_MAX));
  command
      ->add_option("--request-memory-bytes", flags->request_memory_bytes,
                   "The same, of one request (default: a quarter of that)")
      ->type_name("SIZE")
      ->transform(Size(0, UINT64_MAX));
}

void AddLogLevel(CLI::App* command, std::string* level) {
  std::vector<std::string> names;
  for (const auto& [name, value] : kLogLevels) names.push_back(name);
  command->add_option("--log-level", *level, "debug, info, warning, error or off (default info)")
      ->type_name("LEVEL")
      ->transform(OneOf(names));
}

CLI::App* AddServe(CLI::App& app, ServeFlags* flags) {
  CLI::App* c = app.add_subcommand("serve", "Serve a model repository over HTTP");
  c->add_option("--repository", flags->repository, "Folder of models and pipelines")
      ->required()
      ->type_name("DIR");
  c->add_option("--host", flags->host, "IP address to listen on")
      ->capture_default_str()
      ->type_name("IP");
  c->add_option("--http-port", flags->http_port, "Port; 0 picks a free one")
      ->capture_default_str()
      ->type_name("N")
      ->check(Whole(0, 65535));
  c->add_option("--admin-port", flags->admin_port,
                "Administration on 127.0.0.1; 0 picks a free port (default: none)")
      ->type_name("N")
      ->check(Whole(0, 65535));
  AddRuntimeFlags(c, &flags->runtime);
  c->add_flag("--drop-late", flags->drop_late,
              "Drop requests that cannot meet their deadline any more")
      ->disable_flag_override();
  c->add_option("--config", flags->config,
                "File with policy, drop_late and the tenants' weights; flags go before it")
      ->type_name("FILE");
  c->add_option("--result-cache", flags->runtime.result_cache_bytes,
                "Finished results kept for equal requests (64MB, 1GiB); 0: none (default)")
      ->type_name("SIZE")
      ->transform(Size(0, UINT64_MAX));
  c->add_option("--profile-path", flags->runtime.profile_path,
                "File where measured kernel times are kept across restarts")
      ->type_name("FILE");
  c->add_option("--trace-sample", flags->runtime.trace_sample,
                "Record one request in N for traces, all the time; 0: only on demand")
      ->capture_default_str()
      ->type_name("N")
      ->check(Whole(0, 1'000'000));
  c->add_option("--max-body-bytes", flags->max_body_bytes,
                "Largest request body, also decoded (default 64MiB, at most 2GiB)")
      ->type_name("SIZE")
      ->transform(Size(1, uint64_t{2} << 30));
  c->add_option("--max-json-depth", flags->max_json_depth, "Deepest nesting of a request's JSON")
      ->capture_default_str()
      ->type_name("N")
      ->check(Whole(1, 1024));
  c->add_option("--max-connections", flags->max_connections, "Open connections")
      ->capture_default_str()
      ->type_name("N")
      ->check(Whole(1, 1'000'000));
  c->add_option("--drain-seconds", flags->drain_seconds,
                "How long SIGTERM waits for requests in flight")
      ->capture_default_str()
      ->type_name("S")
      ->check(Seconds(0));
  c->add_option("--read-timeout-seconds", flags->read_timeout_seconds,
                "A request or response that stands still this long is given up")
      ->capture_default_str()
      ->type_name("S")
      ->check(Seconds(0.01));
  c->add_option("--idle-timeout-seconds", flags->idle_timeout_seconds,
                "A connection without requests is closed after this")
      ->capture_default_str()
      ->type_name("S")
      ->check(Seconds(0.01));
  c->add_flag("--json", flags->json, "Announce the URLs as one JSON object")
      ->disable_flag_override();
  c->footer(
      "SIGTERM or SIGINT drains: new work is refused with 503, work in flight finishes; a second\n"
      "one ends the server at once.\n\n" +
      std::string(kExitCodes));
  return c;
}

CLI::App* AddInspect(CLI::App& app, const char* name, const char* description,
                     InspectFlags* flags) {
  CLI::App* c = app.add_subcommand(name, description);
  c->add_option("PATH", flags->path,
                "model.onnx, a pipeline's .yaml, a model's folder or a repository")
      ->required()
      ->type_name("");
  c->add_option("--shape", flags->shapes,
                "NAME=1,3,224,224: an input's shape; open dimensions are 1 where that can run,\n"
                "else the report names the --shape to give")
      ->type_name("SHAPE");
  AddRuntimeFlags(c, &flags->runtime);
  c->add_flag("--json", flags->json, "One JSON object")->disable_flag_override();
  c->footer(kExitCodes);
  return c;
}

void AddPathFlags(CLI::App* command, InspectFlags* flags) {
  command
      ->add_option("--diff", flags->diff,
                   "A B: only the first thing that keeps two pipelines of a repository apart")
      ->expected(2)
      ->type_name("NAME");
  command
      ->add_option("--dot", flags->dot_path, "Write the merged paths of all pipelines for Graphviz")
      ->type_name("FILE");
  command->add_option("--svg", flags->svg_path, "Write the merged paths as a picture")
      ->type_name("FILE");
}

CLI::App* AddInfer(CLI::App& app, InferFlags* flags) {
  CLI::App* c = app.add_subcommand("infer", "Send one request to a model or pipeline");
  c->add_option("NAME", flags->name,
                "Model or pipeline, NAME or NAME/VERSION, or several as one: A,B,C")
      ->required()
      ->type_name("");
  c->add_option("--input", flags->inputs,
                "NAME=@FILE (.wav 16-bit PCM, .npy, .json, anything else raw; a BYTES input takes\n"
                "the whole file) or NAME=VALUE (JSON, or text for a BYTES input)")
      ->type_name("INPUT");
  CLI::Option* server = c->add_option("--server", flags->server, "The server to ask")
                            ->capture_default_str()
                            ->type_name("URL");
  c->add_option("--repository", flags->repository, "Run in this process, from this folder")
      ->type_name("DIR")
      ->excludes(server);
  c->add_option("--shape", flags->shapes, "NAME=1,3,224,224: an input's shape")->type_name("SHAPE");
  c->add_option("--output-dir", flags->output_dir, "Write every output there as NAME.npy")
      ->type_name("DIR");
  c->add_option("--tenant", flags->tenant, "Tenant's name")->type_name("NAME");
  c->add_option("--priority", flags->priority, "0 default, 1 highest")
      ->capture_default_str()
      ->type_name("N")
      ->check(Whole(0, UINT32_MAX));
  c->add_option("--timeout", flags->timeout_seconds, "Seconds; 0: none")
      ->capture_default_str()
      ->type_name("S")
      ->check(Seconds(0));
  c->add_option(
       "--sequence-id", flags->sequence_id,
       "Whose state a pipeline with 'state' goes on with: a number other than 0, or a text")
      ->type_name("ID");
  c->add_flag("--sequence-start", flags->sequence_start, "Begin the sequence (anew)")
      ->disable_flag_override();
  c->add_flag("--sequence-end", flags->sequence_end, "Forget it after this request")
      ->disable_flag_override();
  AddRuntimeFlags(c, &flags->runtime);
  c->add_flag("--json", flags->json, "One JSON object: the answer")->disable_flag_override();
  c->footer(kExitCodes);
  return c;
}

CLI::App* AddSimulate(CLI::App& app, SimulateFlags* flags) {
  CLI::App* c = app.add_subcommand("simulate", "Run a workload on a simulated GPU");
  CLI::Option* file = c->add_option("FILE", flags->file, "Workload, YAML (docs/simulate.md)");
  file->type_name("");
  std::string presets;
  for (const std::string& name : WorkloadPresetNames()) presets += " " + name;
  c->add_option("--preset", flags->preset, "A workload that comes with Plexus:" + presets)
      ->type_name("NAME")
      ->excludes(file);
  std::string systems;
  for (const std::string& name : SystemNames()) systems += " " + name;
  c->add_option("--system", flags->system, "Who schedules:" + systems)->type_name("NAME");
  c->add_option("--policy", flags->policy, "What runs next, as for serve")->type_name("POLICY");
  std::string devices;
  for (const std::string& name : SimGpuPresetNames()) devices += " " + name;
  c->add_option("--device", flags->device, "The simulated GPU:" + devices)->type_name("NAME");
  c->add_option("--seed", flags->seed, "Of arrivals and jitter")->type_name("N");
  c->add_option("--jobs", flags->jobs, "How many arrive")
      ->type_name("N")
      ->check(Whole(1, 10'000'000));
  c->add_option("--load", flags->load,
                "Arrivals per mean time of a job alone; 1: as fast as jobs run one by one")
      ->type_name("X")
      ->check(Number(1e-6, 1e6, "a number from 0.000001 to 1000000"));
  c->add_option("--plot", flags->plot_path, "Write the distribution of times as SVG")
      ->type_name("FILE");
  c->add_option("--trace", flags->trace_path, "Write a Chrome trace of blocks and jobs")
      ->type_name("FILE");
  c->add_flag("--json", flags->json, "One JSON object")->disable_flag_override();
  c->footer(kExitCodes);
  return c;
}

// "5", "5s", "500ms" or "2m", up to a day, as nanoseconds.
CLI::Validator Span() {
  return CLI::Validator(
      [](std::string& text) {
        double value = 0;
        const char* const end = text.data() + text.size();
        const auto parsed = std::from_chars(text.data(), end, value);
        const std::string unit(parsed.ptr, end);
        const double seconds = value * (unit == "ms" ? 1e-3 : unit == "m" ? 60 : 1);
        const bool known = unit.empty() || unit == "ms" || unit == "s" || unit == "m";
        if (parsed.ec != std::errc() || !known || !(seconds >= 0 && seconds <= 86400)) {
          return Expected("a time such as 5s, 500ms or 2m, at most a day", text);
        }
        text = std::to_string(static_cast<int64_t>(seconds * 1e9));
        return std::string();
      },
      "");
}

CLI::App* AddTrace(CLI::App& app, TraceFlags* flags) {
  CLI::App* c = app.add_subcommand("trace", "Take a trace from a running server, for Perfetto");
  c->add_option("--server", flags->server, "The server's administration port")
      ->capture_default_str()
      ->type_name("HOST:PORT");
  c->add_option_function<int64_t>(
       "--duration", [flags](int64_t ns) { flags->duration = Duration(ns); },
       "How long to record (5s, 500ms; default 5s); 0: only fetch what the server has recorded")
      ->type_name("TIME")
      ->transform(Span());
  c->add_option("--sample", flags->sample, "Record one request in N")
      ->capture_default_str()
      ->type_name("N")
      ->check(Whole(1, 1'000'000));
  c->add_option("-o,--output", flags->output, "Where to write it: Chrome trace JSON")
      ->required()
      ->type_name("FILE");
  c->add_flag("--json", flags->json, "One JSON object: what the trace holds")
      ->disable_flag_override();
  c->footer("Open the file in https://ui.perfetto.dev or chrome://tracing.\n\n" +
            std::string(kExitCodes));
  return c;
}

// What `error` says, in our words. `command`: null where none was named.
std::string Describe(const CLI::ParseError& error, const CLI::App& app, const CLI::App* command) {
  const std::string what = error.what();
  const std::string name = what.substr(0, what.find_first_of(": "));  // most begin with the flag's
  const std::vector<std::string> extra =
      command == nullptr || command->remaining().empty() ? app.remaining() : command->remaining();
  if (command == nullptr && extra.empty()) {
    return "a command is missing: serve, infer, inspect, compile, simulate or trace";
  }
  if (command == nullptr || dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr) {
    const std::string first = extra.empty() ? what : extra.front();
    const char* kind = first.substr(0, 1) == "-" ? "unknown flag"
                       : command == nullptr      ? "unknown command"
                                                 : "unexpected argument";
    return std::string(kind) + " '" + first + "'";
  }
  if (dynamic_cast<const CLI::ExcludesError*>(&error) != nullptr) {
    return name + " and " + what.substr(what.rfind(' ') + 1) + " exclude each other";
  }
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    if (what.find("flag override") != std::string::npos) return "--" + name + " takes no value";
    return name + (what.find("At Most") != std::string::npos ? ": given more than once"
                                                             : ": its value is missing");
  }
  return what;  // "--repository is required", and what the checks above say
}

int Main(int argc, char** argv) {
  CLI::App app("Plexus serves machine-learning models and pipelines on few devices, by sharing.",
               "plexus");
  app.require_subcommand(1);
  app.set_version_flag("--version", "plexus " PLEXUS_VERSION);
  app.footer(kExitCodes);
  ServeFlags serve;
  InspectFlags inspect, compile;
  InferFlags infer;
  SimulateFlags simulate;
  TraceFlags trace;
  std::string log_level = "info";
  CLI::App* serve_command = AddServe(app, &serve);
  CLI::App* inspect_command = AddInspect(
      app, "inspect", "Show graphs, regions, kernels, memory, FLOPs, and what pipelines share",
      &inspect);
  AddPathFlags(inspect_command, &inspect);
  CLI::App* compile_command = AddInspect(
      app, "compile", "Compile for the given shapes and show how long it takes", &compile);
  CLI::App* infer_command = AddInfer(app, &infer);
  CLI::App* simulate_command = AddSimulate(app, &simulate);
  CLI::App* trace_command = AddTrace(app, &trace);
  for (CLI::App* c : {serve_command, inspect_command, compile_command, infer_command,
                      simulate_command, trace_command}) {
    AddLogLevel(c, &log_level);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    const CLI::App* command =
        app.get_subcommands().empty() ? nullptr : app.get_subcommands().front();
    return FailUsage(command == nullptr ? "" : command->get_name(), Describe(e, app, command));
  }
  const bool serving = serve_command->parsed();
  // A short command's own output is enough unless a level was asked for.
  SetLogLevel(!serving && log_level == "info" ? LogLevel::kWarning : kLogLevels.at(log_level));
  if (serving) return Serve(serve);
  if (inspect_command->parsed()) return Inspect(inspect);
  if (compile_command->parsed()) return Compile(compile);
  if (simulate_command->parsed()) return Simulate(simulate);
  if (trace_command->parsed()) return Trace(trace);
  return Infer(infer);
}

}  // namespace
}  // namespace plexus::cli

int main(int argc, char** argv) {
  try {
    return plexus::cli::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plexus: %s\n", e.what());
    return plexus::cli::kExitFailure;
  }
}
