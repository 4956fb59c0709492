// `plexus`: command lines to commands.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>

#include "base/log.h"
#include "cli/commands.h"
#include "sched/policy.h"

namespace plexus::cli {
namespace {

constexpr char kExitCodes[] =
    "Exit codes: 0 success, 1 failure, 2 wrong command line, 3 could not start.";

const std::map<std::string, LogLevel> kLogLevels = {{"debug", LogLevel::kDebug},
                                                    {"info", LogLevel::kInfo},
                                                    {"warning", LogLevel::kWarning},
                                                    {"error", LogLevel::kError},
                                                    {"off", LogLevel::kOff}};

void AddRuntimeFlags(CLI::App* command, RuntimeFlags* flags) {
  command->add_option("--threads", flags->threads, "Worker threads; 0: one per core")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  command->add_option("--policy", flags->policy, "What runs next")
      ->capture_default_str()
      ->check(CLI::IsMember(PolicyNames()));
  command
      ->add_option("--program-cache-bytes", flags->program_cache_bytes,
                   "Compiled programs kept, in bytes (1GiB, 512MB)")
      ->capture_default_str()
      ->transform(CLI::AsSizeValue(false));
}

void AddLogLevel(CLI::App* command, LogLevel* level) {
  command->add_option("--log-level", *level, "debug, info, warning, error or off (default info)")
      ->transform(CLI::CheckedTransformer(kLogLevels, CLI::ignore_case));
}

CLI::App* AddServe(CLI::App& app, ServeFlags* flags) {
  CLI::App* c = app.add_subcommand("serve", "Serve a model repository over HTTP");
  c->add_option("--repository", flags->repository, "Folder of models and pipelines")->required();
  c->add_option("--host", flags->host, "IP address to listen on")->capture_default_str();
  c->add_option("--http-port", flags->http_port, "Port; 0 picks a free one")->capture_default_str();
  c->add_option("--admin-port", flags->admin_port,
                "Administration on 127.0.0.1; 0 picks a free port (default: none)");
  AddRuntimeFlags(c, &flags->runtime);
  c->add_option("--profile-path", flags->runtime.profile_path,
                "File where measured kernel times are kept across restarts");
  c->add_option("--max-body-bytes", flags->max_body_bytes, "Largest request body, also decoded")
      ->capture_default_str()
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(uint64_t{1}, uint64_t{2} << 30));
  c->add_option("--max-json-depth", flags->max_json_depth, "Deepest nesting of a request's JSON")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  c->add_option("--max-connections", flags->max_connections, "Open connections")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  c->add_option("--drain-seconds", flags->drain_seconds,
                "How long SIGTERM waits for requests in flight")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 86400.0));
  c->add_option("--read-timeout-seconds", flags->read_timeout_seconds,
                "A request or response that stands still this long is given up")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 86400.0));
  c->add_option("--idle-timeout-seconds", flags->idle_timeout_seconds,
                "A connection without requests is closed after this")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 86400.0));
  c->add_flag("--json", flags->json, "Announce the URLs as one JSON object");
  c->footer(
      "SIGTERM or SIGINT drains: new work is refused with 503, work in flight finishes; a second\n"
      "one ends the server at once.\n\n" +
      std::string(kExitCodes));
  return c;
}

CLI::App* AddInspect(CLI::App& app, const char* name, const char* description,
                     InspectFlags* flags) {
  CLI::App* c = app.add_subcommand(name, description);
  c->add_option("path", flags->path,
                "model.onnx, a pipeline's .yaml, a model's folder or a repository")
      ->required();
  c->add_option("--shape", flags->shapes,
                "NAME=1,3,224,224: an input's shape (default: open dimensions are 1)");
  AddRuntimeFlags(c, &flags->runtime);
  c->add_flag("--json", flags->json, "One JSON object");
  c->footer(kExitCodes);
  return c;
}

CLI::App* AddInfer(CLI::App& app, InferFlags* flags) {
  CLI::App* c = app.add_subcommand("infer", "Send one request to a model or pipeline");
  c->add_option("name", flags->name, "Model or pipeline, NAME or NAME/VERSION")->required();
  c->add_option("--input", flags->inputs,
                "NAME=@FILE (.wav 16-bit PCM, .npy, .json, anything else raw; a BYTES input takes\n"
                "the whole file) or NAME=VALUE (JSON, or text for a BYTES input)");
  CLI::Option* server = c->add_option("--server", flags->server, "URL")->capture_default_str();
  c->add_option("--repository", flags->repository, "Run in this process, from this folder")
      ->excludes(server);
  c->add_option("--shape", flags->shapes, "NAME=1,3,224,224: an input's shape");
  c->add_option("--output-dir", flags->output_dir, "Write every output there as NAME.npy");
  c->add_option("--tenant", flags->tenant, "Tenant's name");
  c->add_option("--priority", flags->priority, "0 default, 1 highest")->capture_default_str();
  c->add_option("--timeout", flags->timeout_seconds, "Seconds; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 86400.0));
  AddRuntimeFlags(c, &flags->runtime);
  c->add_flag("--json", flags->json, "One JSON object: the answer");
  c->footer(kExitCodes);
  return c;
}

int Main(int argc, char** argv) {
  CLI::App app("Plexus serves machine-learning models and pipelines on few devices, by sharing.");
  app.require_subcommand(1);
  app.set_version_flag("--version", "plexus " PLEXUS_VERSION);
  app.footer(kExitCodes);
  ServeFlags serve;
  InspectFlags inspect, compile;
  InferFlags infer;
  LogLevel log_level = LogLevel::kInfo;
  CLI::App* serve_command = AddServe(app, &serve);
  CLI::App* inspect_command = AddInspect(
      app, "inspect", "Show a model's graph, regions, kernels, memory and FLOPs", &inspect);
  CLI::App* compile_command = AddInspect(
      app, "compile", "Compile for the given shapes and show how long it takes", &compile);
  CLI::App* infer_command = AddInfer(app, &infer);
  for (CLI::App* c : {serve_command, inspect_command, compile_command, infer_command}) {
    AddLogLevel(c, &log_level);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kExitOk : kExitUsage;
  }
  const bool serving = serve_command->parsed();
  // A short command's own output is enough unless a level was asked for.
  const bool chosen = !serving && log_level == LogLevel::kInfo;
  SetLogLevel(chosen ? LogLevel::kWarning : log_level);
  if (serving) return Serve(serve);
  if (inspect_command->parsed()) return Inspect(inspect);
  if (compile_command->parsed()) return Compile(compile);
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
