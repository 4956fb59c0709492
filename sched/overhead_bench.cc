// What a decision costs: from a block-finished event, over occupancy, charge and key update, to the
// launch that follows. One line of JSON per policy and number of ready jobs.
//   overhead_bench [--decisions 20000] [--jobs 10,1000,100000] [--policy NAME]...
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "sched/dispatcher.h"

namespace {
std::atomic<uint64_t> allocations{0};
}  // namespace

void* operator new(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);  // one thread counts
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace plexus {
namespace {

using std::chrono::microseconds;

constexpr uint32_t kUnits = 2;
constexpr uint32_t kTenants = 8;
constexpr uint32_t kPrograms = 16;

// Holds what was launched until the benchmark reports it.
class HoldingDevice : public Device {
 public:
  HoldingDevice() {
    info_.kind = info_.name = "bench";
    info_.units = kUnits;
    info_.unit_addressed = true;
    info_.queue_depth = 0;
    launches.reserve(kUnits);
  }
  const DeviceInfo& info() const override { return info_; }
  void SetSink(DeviceEventSink*) override {}
  Status Submit(const Launch& launch) override {
    if (refuse) return UnavailableError("the benchmark is over");
    launches.push_back(launch);
    return OkStatus();
  }
  Result<std::unique_ptr<Arena>> AllocateArena(size_t) override {
    return ResourceExhaustedError("none");
  }
  void Stop() override {}
  std::vector<Launch> launches;
  bool refuse = false;

 private:
  DeviceInfo info_;
};

class Counter : public JobListener {
 public:
  void OnJobDone(JobId, Status, JobBuffers) override { ++done; }
  uint64_t done = 0;
};

// A chain of a few kernels; two neighbouring launches of it are of different kernels or blocks.
ProgramPtr MakeProgram(uint32_t number) {
  auto program = std::make_shared<Program>();
  program->name = "p" + std::to_string(number);
  ContentHasher hasher;
  hasher.UpdateString(program->name);
  program->signature = hasher.Finish();
  program->device_kind = "bench";
  const uint32_t kernels = 2 + number % 7;
  for (uint32_t k = 0; k < kernels; ++k) {
    Kernel kernel;
    kernel.grid = 1 + (number + k) % 5;
    kernel.estimated_block_time = microseconds(120 + 7 * number);
    kernel.dependencies = k > 0 ? 1 : 0;
    if (k + 1 < kernels) kernel.successors = {KernelId(k + 1)};
    program->kernels.push_back(std::move(kernel));
  }
  return program;
}

class Bench {
 public:
  Bench(const std::string& policy, uint32_t jobs)
      : dispatcher_(device_, MakePolicy(policy).value(), clock_, nullptr, nullptr, Options(jobs)) {
    clock_.Advance(std::chrono::seconds(1));
    for (uint32_t p = 0; p < kPrograms; ++p) programs_.push_back(MakeProgram(p));
    for (uint32_t t = 0; t < kTenants; ++t) {
      const Status set = dispatcher_.SetTenantWeight(TenantId(t), 1 + t % 3);
      PLEXUS_CHECK(set.ok());
    }
    for (uint32_t i = 0; i < jobs; ++i) Submit();
  }
  ~Bench() {
    device_.refuse = true;
    while (!device_.launches.empty()) Finish();
  }

  // Reports one launch and returns how long it took until the next one was out. Jobs that ended are
  // replaced outside of that time.
  double Decide() {
    const uint32_t at = random_() % device_.launches.size();
    std::swap(device_.launches[at], device_.launches.back());
    const DeviceEvent event = Finished();
    const uint64_t before = allocations.load(std::memory_order_relaxed);
    const auto from = std::chrono::steady_clock::now();
    dispatcher_.OnEvent(event);
    const auto to = std::chrono::steady_clock::now();
    allocated += allocations.load(std::memory_order_relaxed) - before;
    launched += device_.launches.size() == kUnits ? 1 : 0;
    for (; replaced_ < counter_.done; ++replaced_) Submit();
    return std::chrono::duration<double, std::nano>(to - from).count();
  }
  uint64_t allocated = 0, launched = 0;

 private:
  static DispatcherOptions Options(uint32_t jobs) {
    DispatcherOptions options;
    options.max_jobs = jobs + 1;
    return options;
  }
  DeviceEvent Finished() {
    const Launch launch = device_.launches.back();
    device_.launches.pop_back();
    const Duration each = microseconds(100 + random_() % 150);
    clock_.Advance(each / kUnits);
    DeviceEvent event;
    event.launch = launch.id;
    event.blocks = launch.num_blocks;
    event.at = clock_.Now();
    event.device_time = each * launch.num_blocks;
    return event;
  }
  void Finish() { dispatcher_.OnEvent(Finished()); }
  void Submit() {
    JobSpec spec;
    spec.program = programs_[random_() % kPrograms];
    spec.listener = &counter_;
    spec.attributes.tenant = TenantId(random_() % kTenants);
    spec.attributes.arrival = clock_.Now();
    spec.attributes.deadline = clock_.Now() + microseconds(1000 + random_() % 1'000'000);
    spec.attributes.priority = random_() % 4;
    spec.attributes.remaining_path = microseconds(random_() % 10'000);
    PLEXUS_CHECK(dispatcher_.Submit(std::move(spec)).ok());
  }

  ManualClock clock_;
  HoldingDevice device_;
  Counter counter_;
  std::vector<ProgramPtr> programs_;
  std::mt19937 random_{1};
  Dispatcher dispatcher_;
  uint64_t replaced_ = 0;
};

double At(std::vector<double>& sorted, double part) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(part * sorted.size()))];
}

// What reading the clock twice adds to every sample.
double ClockNs() {
  std::vector<double> samples(10'001);
  for (double& sample : samples) {
    const auto from = std::chrono::steady_clock::now();
    const auto to = std::chrono::steady_clock::now();
    sample = std::chrono::duration<double, std::nano>(to - from).count();
  }
  std::sort(samples.begin(), samples.end());
  return At(samples, 0.5);
}

void Measure(const std::string& policy, uint32_t jobs, uint64_t decisions) {
  Bench bench(policy, jobs);
  // Every job of a small population has run by then; round robin starts every job of a large one.
  for (uint64_t i = 0; i < 20'000 + 3 * uint64_t{jobs}; ++i) bench.Decide();
  bench.allocated = bench.launched = 0;
  std::vector<double> samples(decisions);
  for (double& sample : samples) sample = bench.Decide();
  std::sort(samples.begin(), samples.end());
  std::printf(
      "{\"policy\": \"%s\", \"jobs\": %u, \"p50_ns\": %.0f, \"p99_ns\": %.0f, "
      "\"clock_ns\": %.0f, \"allocations\": %llu, \"decisions\": %llu, \"launched\": %llu}\n",
      policy.c_str(), jobs, At(samples, 0.5), At(samples, 0.99), ClockNs(),
      static_cast<unsigned long long>(bench.allocated), static_cast<unsigned long long>(decisions),
      static_cast<unsigned long long>(bench.launched));
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  uint64_t decisions = 20'000;
  std::vector<uint32_t> jobs = {10, 1000, 100'000};
  std::vector<std::string> policies;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--decisions")
      decisions = std::max(1ull, std::strtoull(value.c_str(), nullptr, 10));
    if (flag == "--policy") policies.push_back(value);
    if (flag != "--jobs") continue;
    jobs.clear();
    for (size_t at = 0; at < value.size(); at = value.find(',', at) + 1) {
      jobs.push_back(static_cast<uint32_t>(std::strtoul(value.c_str() + at, nullptr, 10)));
      if (value.find(',', at) == value.npos) break;
    }
  }
  if (policies.empty()) {
    policies = PolicyNames();
    policies.push_back("fair(srpt, 1000)");
    policies.push_back("fair(stretch, 1000)");
  }
  for (const uint32_t n : jobs) {
    for (const std::string& policy : policies) Measure(policy, std::max(n, 2 * kUnits), decisions);
  }
  return 0;
}

}  // namespace
}  // namespace plexus

int main(int argc, char** argv) { return plexus::Main(argc, argv); }
