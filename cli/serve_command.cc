#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/json_writer.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/targets.h"
#include "serve/server.h"
#include "serve/server_config.h"

namespace plexus::cli {
namespace {

Duration Seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

// Waits for SIGTERM or SIGINT on a thread of its own; the second one ends the process at once.
// Made before every other thread, which then inherit that these signals are blocked.
class SignalWatch {
 public:
  SignalWatch() {
    sigemptyset(&signals_);
    for (const int signal : {SIGTERM, SIGINT, SIGUSR2}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    thread_ = std::thread([this] { Loop(); });
  }
  ~SignalWatch() {
    {
      std::lock_guard lock(mutex_);
      ending_ = true;
    }
    pthread_kill(thread_.native_handle(), SIGUSR2);
    thread_.join();
  }

  void Wait() {
    std::unique_lock lock(mutex_);
    asked_.wait(lock, [this] { return signals_seen_ > 0; });
  }

 private:
  void Loop() {
    for (;;) {
      int signal = 0;
      sigwait(&signals_, &signal);
      std::lock_guard lock(mutex_);
      if (ending_) return;
      if (signal == SIGUSR2) continue;
      if (++signals_seen_ > 1) _exit(128 + signal);
      asked_.notify_all();
    }
  }

  sigset_t signals_;
  std::mutex mutex_;  // guards everything below
  std::condition_variable asked_;
  int signals_seen_ = 0;
  bool ending_ = false;
  std::thread thread_;
};

// Learned times are saved at the end of a long run: find out now whether they can be.
Status CheckProfilePath(const std::string& path) {
  if (path.empty()) return OkStatus();
  std::error_code ignored;
  const std::filesystem::file_status there = std::filesystem::status(path, ignored);
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there)) {
    return InvalidArgumentError("--profile-path: '" + path + "' is not a regular file");
  }
  const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  if (::access(folder.c_str(), W_OK) == 0) return OkStatus();
  const std::string reason = std::generic_category().message(errno);
  return PermissionDeniedError("--profile-path: cannot write to '" + folder.string() +
                               "': " + reason);
}

// How many connections there is room for: file descriptors are also needed by the administration
// port, by connections that are refused, and by models that are loaded. Takes as many as the system
// gives.
size_t FittingConnections(size_t wanted) {
  constexpr rlim_t kOthers = 80;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  const rlim_t enough = wanted < RLIM_INFINITY - kOthers ? wanted + kOthers : RLIM_INFINITY;
  if (limit.rlim_cur < enough) {
    limit.rlim_cur = std::min(limit.rlim_max, enough);
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= enough) return wanted;
  const rlim_t quarter = limit.rlim_cur / 4;
  const size_t fits = std::max(quarter, limit.rlim_cur - std::min(limit.rlim_cur, kOthers));
  PLEXUS_LOG(kWarning) << "at most " << fits << " connections instead of " << wanted
                       << ": the limit of open files is " << limit.rlim_cur;
  return std::max<size_t>(fits, 1);
}

std::string Url(const std::string& host, uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return "http://" + (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

int CannotStart(const Status& status) {
  std::fprintf(stderr, "plexus: %s\n", status.message().c_str());
  return kExitCannotStart;
}

void Announce(const ServeFlags& flags, const Server& server) {
  const std::string url = Url(flags.host, server.http_port());
  const std::string admin = server.admin_port() == 0 ? "" : Url("127.0.0.1", server.admin_port());
  if (flags.json) {
    std::string line;
    JsonWriter json(&line);
    json.BeginObject();
    json.Key("url").String(url);
    if (!admin.empty()) json.Key("admin_url").String(admin);
    json.EndObject();
    std::printf("%s\n", line.c_str());
  } else {
    std::printf("plexus: serving %s\n", url.c_str());
    if (!admin.empty()) std::printf("plexus: administration %s\n", admin.c_str());
  }
  std::fflush(stdout);
}

}  // namespace

int Serve(const ServeFlags& flags) {
  SignalWatch signals;
  Status writable = CheckProfilePath(flags.runtime.profile_path);
  if (!writable.ok()) return CannotStart(writable);
  ServerConfig config;
  if (!flags.config.empty()) {
    Result<ServerConfig> read = ReadServerConfig(flags.config);
    if (!read.ok()) return CannotStart(read.status());
    config = std::move(*read);
  }
  RuntimeOptions runtime_options = ToOptions(flags.runtime);
  if (flags.runtime.policy.empty() && config.policy) runtime_options.policy = *config.policy;
  runtime_options.drop_late = flags.drop_late || config.drop_late.value_or(false);
  Result<std::unique_ptr<Runtime>> runtime = Runtime::Create(runtime_options);
  if (!runtime.ok()) return CannotStart(runtime.status());

  ServerOptions options;
  options.repository = flags.repository;
  options.host = flags.host;
  options.http_port = flags.http_port;
  options.admin_port = flags.admin_port;
  options.tenant_weights = config.tenant_weights;
  options.api.sessions = config.sessions;
  options.http.max_body_bytes = flags.max_body_bytes;
  options.http.max_connections = FittingConnections(flags.max_connections);
  options.http.read_timeout = options.http.write_timeout = Seconds(flags.read_timeout_seconds);
  options.http.idle_timeout = Seconds(flags.idle_timeout_seconds);
  options.api.limits.max_json_depth = flags.max_json_depth;
  std::error_code error;
  if (std::filesystem::is_directory(flags.repository, error) && !IsRepository(flags.repository)) {
    PLEXUS_LOG(kWarning) << "'" << flags.repository
                         << "' holds no model (NAME/model.onnx) and no pipeline "
                            "(pipelines/NAME.yaml) yet";
  }
  Result<std::unique_ptr<Server>> started =
      Server::Start(**runtime, options, [] { PLEXUS_LOG(kInfo) << "ready"; });
  if (!started.ok()) return CannotStart(started.status());
  Server& server = **started;
  Announce(flags, server);

  signals.Wait();
  PLEXUS_LOG(kInfo) << "draining: new work is refused";
  if (!server.Drain(Seconds(flags.drain_seconds))) {
    PLEXUS_LOG(kWarning) << "requests were given up after " << flags.drain_seconds << " s";
  }
  started->reset();
  runtime->reset();
  PLEXUS_LOG(kInfo) << "stopped";
  return kExitOk;
}

}  // namespace plexus::cli
