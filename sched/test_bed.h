// TestBed: a dispatcher on a simulated device, and the words its tests speak.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device/sim/sim_device.h"
#include "sched/dispatcher.h"

namespace plexus {

inline constexpr Duration kUs = std::chrono::microseconds(1);

// One kernel for MakeProgram: its grid, one block's time, and who must finish first.
struct KernelSpec {
  uint32_t grid = 1;
  Duration block_time = kUs;
  std::vector<uint32_t> after;
  BlockResources resources;
};

inline ProgramPtr MakeProgram(std::string name, const std::vector<KernelSpec>& specs,
                              size_t arena_bytes = 0) {
  auto program = std::make_shared<Program>();
  program->name = std::move(name);
  ContentHasher hasher;
  hasher.UpdateString(program->name);
  program->signature = hasher.Finish();
  program->device_kind = "sim";
  program->arena_bytes = arena_bytes;
  for (const KernelSpec& spec : specs) {
    Kernel kernel;
    kernel.name = "k" + std::to_string(program->kernels.size());
    kernel.grid = spec.grid;
    kernel.estimated_block_time = spec.block_time;
    kernel.resources = spec.resources;
    kernel.dependencies = static_cast<uint32_t>(spec.after.size());
    const KernelId id(static_cast<uint32_t>(program->kernels.size()));
    program->kernels.push_back(std::move(kernel));
    for (uint32_t before : spec.after) program->kernels[before].successors.push_back(id);
  }
  return program;
}

// `kernels` kernels one after the other, each `grid` blocks of `block_time`.
inline ProgramPtr Chain(std::string name, uint32_t kernels, uint32_t grid, Duration block_time,
                        size_t arena_bytes = 0) {
  std::vector<KernelSpec> specs;
  for (uint32_t k = 0; k < kernels; ++k) {
    specs.push_back({grid, block_time, {}, {}});
    if (k > 0) specs.back().after = {k - 1};
  }
  return MakeProgram(std::move(name), specs, arena_bytes);
}

class TestBed : public JobListener {
 public:
  struct Options {
    SimDeviceOptions device;
    DispatcherOptions dispatcher;
    std::string policy = "fifo";
  };

  explicit TestBed(const Options& options)
      : device(options.device, clock, *this),
        dispatcher(device, MakePolicy(options.policy).value(), clock, &profiles, &trace,
                   options.dispatcher) {
    clock.Advance(std::chrono::seconds(1));
  }

  JobSpec Spec(const ProgramPtr& program) {
    JobSpec spec;
    spec.program = program;
    spec.listener = this;
    return spec;
  }
  JobId Submit(const ProgramPtr& program) { return Submit(Spec(program)); }
  JobId Submit(JobSpec spec) {
    const Result<JobId> id = TrySubmit(std::move(spec));
    EXPECT_TRUE(id.ok()) << id.status().ToString();
    return id.ok() ? *id : JobId();
  }
  Result<JobId> TrySubmit(JobSpec spec) {
    ProgramPtr program = spec.program;
    const Result<JobId> id = dispatcher.Submit(std::move(spec));
    if (!id.ok()) return id.status();
    programs[*id] = std::move(program);
    submitted.push_back(*id);
    return *id;
  }
  void Run() {
    while (device.Step()) {
    }
  }
  bool Ended(JobId id) const { return ended.count(id) > 0; }
  StatusCode CodeOf(JobId id) const { return ended.at(id).code(); }
  TimePoint EndOf(JobId id) const { return ended_at.at(id); }

  void OnJobDone(JobId job, Status status, JobBuffers) override {
    EXPECT_EQ(ended.count(job), 0u) << "a job ended twice";
    ended[job] = std::move(status);
    ended_at[job] = clock.Now();
    order.push_back(job);
  }

  // Every launch that ran, checked: no block twice, a kernel only after those it depends on, and
  // all blocks of every job that ended well.
  void CheckHistory() const {
    std::map<std::pair<JobId, uint32_t>, std::vector<int>> blocks;
    std::map<std::pair<JobId, uint32_t>, TimePoint> first, last;
    for (const SimDevice::Ran& ran : device.ran()) {
      const JobId job = id_of.at(ran.launch.id);
      const std::pair key(job, ran.launch.kernel.value());
      const Kernel& kernel = programs.at(job)->kernels[key.second];
      std::vector<int>& times = blocks[key];
      times.resize(kernel.grid);
      for (uint32_t b = 0; b < ran.launch.num_blocks; ++b) {
        ASSERT_LT(ran.launch.first_block + b, kernel.grid);
        ASSERT_EQ(++times[ran.launch.first_block + b], 1) << "a block ran twice";
      }
      if (first.count(key) == 0 || ran.begin < first[key]) first[key] = ran.begin;
      if (last.count(key) == 0 || ran.end > last[key]) last[key] = ran.end;
    }
    for (const auto& [job, status] : ended) {
      const Program& program = *programs.at(job);
      for (uint32_t k = 0; k < program.kernels.size(); ++k) {
        const std::pair key(job, k);
        if (status.ok()) {
          ASSERT_EQ(blocks[key], std::vector<int>(program.kernels[k].grid, 1));
        }
        for (KernelId next : program.kernels[k].successors) {
          const std::pair after(job, next.value());
          if (first.count(after) == 0) continue;
          ASSERT_TRUE(last.count(key) > 0) << "a kernel ran before what it needs";
          ASSERT_LE(last.at(key), first.at(after)) << "a kernel overlaps what it needs";
        }
      }
    }
  }

  // The mirror is empty and everybody has heard.
  void CheckAtRest() const {
    const DispatcherStats s = dispatcher.stats();
    EXPECT_EQ(s.in_flight, 0u);
    EXPECT_EQ(s.ready, 0u);
    EXPECT_EQ(s.running, 0u);
    EXPECT_EQ(s.jobs_waiting_for_arena, 0u);
    EXPECT_EQ(s.jobs_submitted, s.jobs_done + s.jobs_failed + s.jobs_cancelled + s.jobs_withdrawn);
    EXPECT_EQ(s.jobs_submitted - s.jobs_withdrawn, ended.size());
    EXPECT_EQ(device.arena_bytes(), 0u);
  }

  // Stands between the dispatcher and the device. Records which job a launch belongs to, as it
  // leaves the dispatcher: afterwards the job is gone. Shows every report before the dispatcher
  // hears it.
  class RecordingDevice : public SimDevice, private DeviceEventSink {
   public:
    RecordingDevice(const SimDeviceOptions& options, ManualClock& clock, TestBed& bed)
        : SimDevice(options, clock), bed_(bed) {}
    void SetSink(DeviceEventSink* sink) override {
      sink_ = sink;
      SimDevice::SetSink(this);
    }
    Status Submit(const Launch& launch) override {
      bed_.id_of[launch.id] = launch.job->id;
      if (bed_.on_launch) bed_.on_launch(launch);
      const Status status = SimDevice::Submit(launch);
      if (status.ok()) bed_.blocks_out += launch.num_blocks;
      return status;
    }

   private:
    void OnEvent(const DeviceEvent& event) override {
      if (event.kind == DeviceEvent::Kind::kBlocksFinished) bed_.blocks_out -= event.blocks;
      if (bed_.on_event) bed_.on_event(event);
      sink_->OnEvent(event);
    }
    TestBed& bed_;
    DeviceEventSink* sink_ = nullptr;
  };

  std::map<LaunchId, JobId> id_of;
  std::map<JobId, ProgramPtr> programs;
  std::map<JobId, Status> ended;
  std::map<JobId, TimePoint> ended_at;
  std::vector<JobId> submitted;  // in order
  std::vector<JobId> order;      // in which jobs ended
  bool device_lost = false;      // by the test, for whom it is of use
  uint64_t blocks_out = 0;       // launched and not reported finished; meaningless after repeats
  // Inside the dispatcher, which must not be called from there.
  std::function<void(const Launch&)> on_launch;
  // Before the dispatcher hears it.
  std::function<void(const DeviceEvent&)> on_event;
  ManualClock clock;
  ProfileStore profiles;
  TraceRecorder trace;
  RecordingDevice device;
  Dispatcher dispatcher;
};

}  // namespace plexus
