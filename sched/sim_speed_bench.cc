// How fast the simulator runs with the real dispatcher: a closed population of jobs on a simulated
// GPU. One line of JSON per case.
//   sim_speed_bench [--preset h100] [--policy srpt] [--jobs 64] [--blocks 20000000]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "device/sim/sim_device.h"
#include "sched/dispatcher.h"

namespace plexus {
namespace {

using std::chrono::microseconds;

struct Arguments {
  std::string preset = "h100", policy = "srpt";
  uint64_t jobs = 64, blocks = 20'000'000;
};

// Chains of kernels as networks have them: large grids of short blocks first, small ones at the
// end, elementwise ones between the products.
ProgramPtr MakeNetwork(std::mt19937& random, uint32_t number) {
  auto program = std::make_shared<Program>();
  program->name = "net" + std::to_string(number);
  ContentHasher hasher;
  hasher.UpdateString(program->name);
  program->signature = hasher.Finish();
  program->device_kind = "sim";
  const uint32_t kernels = 10 + random() % 50;
  for (uint32_t k = 0; k < kernels; ++k) {
    Kernel kernel;
    kernel.name = "k" + std::to_string(k);
    const bool product = random() % 2 == 0;
    const uint32_t shrink = 1 + 15 * k / kernels;
    kernel.grid = 1 + (product ? random() % 1024 : random() % 8192) / shrink;
    kernel.resources.threads = product && random() % 2 == 0 ? 128 : 256;
    kernel.resources.registers_per_thread = product ? 96 : 32;
    kernel.resources.shared_bytes = product ? 32 << 10 : 0;
    kernel.estimated_block_time =
        Duration(product ? 20'000 + random() % 80'000 : 3'000 + random() % 10'000);
    kernel.dependencies = k > 0 ? 1 : 0;
    if (k + 1 < kernels) kernel.successors = {KernelId(k + 1)};
    program->kernels.push_back(std::move(kernel));
  }
  return program;
}

class Counter : public JobListener {
 public:
  void OnJobDone(JobId, Status status, JobBuffers) override {
    ++done;
    if (!status.ok()) ++failed;
  }
  uint64_t done = 0, failed = 0;
};

int Run(const Arguments& args, double jitter) {
  Result<SimGpuOptions> gpu = SimGpuPreset(args.preset);
  Result<std::unique_ptr<Policy>> policy = MakePolicy(args.policy);
  for (const Status& status : {gpu.status(), policy.status()}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "sim_speed_bench: %s\n", status.message().c_str());
    return 2;
  }
  gpu->block_jitter = jitter;
  ManualClock clock;
  const auto device = SimDevice::Create(*gpu, clock).value();
  Dispatcher dispatcher(*device, std::move(policy).value(), clock, nullptr, nullptr);
  std::mt19937 random(1);
  std::vector<ProgramPtr> programs;
  for (uint32_t p = 0; p < 16; ++p) programs.push_back(MakeNetwork(random, p));
  Counter counter;
  uint64_t submitted = 0;
  const auto begin = std::chrono::steady_clock::now();
  while (device->gpu()->stats().blocks_finished < args.blocks) {
    for (; submitted < counter.done + args.jobs; ++submitted) {
      JobSpec spec;
      spec.program = programs[random() % programs.size()];
      spec.listener = &counter;
      spec.attributes.arrival = clock.Now();
      if (!dispatcher.Submit(std::move(spec)).ok()) return 1;
    }
    if (!device->Step()) return 1;
  }
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  const std::chrono::duration<double> simulated = clock.Now().time_since_epoch();
  const SimGpu::Stats stats = device->gpu()->stats();
  const uint64_t launches = dispatcher.stats().launches, done = counter.done;
  while (device->Step()) {
  }
  const double capacity = simulated.count() * device->info().units;
  std::printf(
      "{\"preset\": \"%s\", \"policy\": \"%s\", \"jobs_at_a_time\": %llu, \"block_jitter\": %g, "
      "\"blocks\": %llu, \"messages\": %llu, \"launches\": %llu, \"jobs\": %llu, "
      "\"simulated_s\": %.4f, \"resident_blocks_per_sm\": %.2f, \"wall_s\": %.4f, "
      "\"block_events_per_s\": %.0f}\n",
      args.preset.c_str(), args.policy.c_str(), static_cast<unsigned long long>(args.jobs), jitter,
      static_cast<unsigned long long>(stats.blocks_finished),
      static_cast<unsigned long long>(stats.reports), static_cast<unsigned long long>(launches),
      static_cast<unsigned long long>(done), simulated.count(),
      std::chrono::duration<double>(stats.busy).count() / capacity, wall.count(),
      static_cast<double>(stats.blocks_finished) / wall.count());
  return counter.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace plexus

int main(int argc, char** argv) {
  plexus::Arguments args;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--preset") {
      args.preset = value;
    } else if (name == "--policy") {
      args.policy = value;
    } else if (name == "--jobs") {
      args.jobs = std::strtoull(value.c_str(), nullptr, 10);
    } else if (name == "--blocks") {
      args.blocks = std::strtoull(value.c_str(), nullptr, 10);
    } else {
      std::fprintf(stderr, "sim_speed_bench: unknown option %s\n", name.c_str());
      return 2;
    }
  }
  const int exact = plexus::Run(args, 0);
  return exact != 0 ? exact : plexus::Run(args, 0.1);
}
