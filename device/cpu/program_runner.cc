#include "device/cpu/program_runner.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>

#include "device/cpu/cpu_device.h"

namespace plexus::cpu {

namespace {

struct WorkItem {
  uint32_t kernel, block;
};

// The state of one run, shared by its threads.
class Run {
 public:
  Run(const Program& program, std::span<const Tensor> inputs, const RunOptions& options)
      : program_(program), inputs_(inputs), options_(options), random_(options.shuffle_seed) {}

  Status Prepare() {
    for (const ProgramValue& value : program_.outputs) {
      PLEXUS_ASSIGN_OR_RETURN(Tensor output, Tensor::Allocate(value.dtype, value.shape));
      outputs_.push_back(std::move(output));
    }
    PLEXUS_ASSIGN_OR_RETURN(arena_, Buffer::Allocate(std::max<size_t>(program_.arena_bytes, 64)));
    if (options_.shuffle_seed) std::memset(arena_->data(), 0xff, arena_->size_bytes());
    for (const Kernel& kernel : program_.kernels) {
      waits_.push_back(kernel.dependencies);
      blocks_left_.push_back(kernel.grid);
      const auto& code = static_cast<const CpuKernelCode&>(*kernel.code);
      scratch_bytes_ = std::max(scratch_bytes_, code.scratch_bytes());
    }
    kernels_left_ = program_.kernels.size();
    for (uint32_t k = 0; k < waits_.size(); ++k) {
      if (waits_[k] == 0) MakeReady(k);
    }
    return OkStatus();
  }

  void Work(uint32_t worker) {
    auto scratch = Buffer::Allocate(scratch_bytes_ + 64);
    std::unique_lock<std::mutex> lock(mutex_);
    if (!scratch.ok()) status_ = scratch.status();
    while (kernels_left_ > 0 && status_.ok()) {
      if (ready_.empty()) {
        changed_.wait(lock);
        continue;
      }
      const WorkItem item = Take();
      lock.unlock();
      CpuBlockContext context;
      context.arena = arena_->data();
      context.inputs = inputs_.data();
      context.outputs = outputs_.data();
      context.scratch = (*scratch)->data();
      context.worker = worker;
      const auto& code = static_cast<const CpuKernelCode&>(*program_.kernels[item.kernel].code);
      Status status = code.Run(item.block, 1, context);
      lock.lock();
      if (!status.ok() && status_.ok()) {
        status_ = status.WithContext(program_.kernels[item.kernel].name);
      }
      if (--blocks_left_[item.kernel] == 0) Finish(item.kernel);
      changed_.notify_all();
    }
    changed_.notify_all();
  }

  Status status() const { return status_; }
  std::vector<Tensor> TakeOutputs() { return std::move(outputs_); }

 private:
  void MakeReady(uint32_t kernel) {
    for (uint32_t b = 0; b < program_.kernels[kernel].grid; ++b) ready_.push_back({kernel, b});
  }

  WorkItem Take() {
    size_t at = 0;
    if (options_.shuffle_seed) at = random_() % ready_.size();
    const WorkItem item = ready_[at];
    ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(at));
    return item;
  }

  void Finish(uint32_t kernel) {
    --kernels_left_;
    for (KernelId next : program_.kernels[kernel].successors) {
      if (--waits_[next.value()] == 0) MakeReady(next.value());
    }
  }

  const Program& program_;
  std::span<const Tensor> inputs_;
  const RunOptions& options_;
  std::vector<Tensor> outputs_;
  std::shared_ptr<Buffer> arena_;
  size_t scratch_bytes_ = 0;

  std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  std::mt19937_64 random_;
  std::vector<WorkItem> ready_;
  std::vector<uint32_t> waits_, blocks_left_;
  size_t kernels_left_ = 0;
  Status status_;
};

}  // namespace

Result<std::vector<Tensor>> RunProgram(const Program& program, std::span<const Tensor> inputs,
                                       const RunOptions& options) {
  if (inputs.size() != program.inputs.size()) {
    return InvalidArgumentError("the program has " + std::to_string(program.inputs.size()) +
                                " inputs");
  }
  Run run(program, inputs, options);
  PLEXUS_RETURN_IF_ERROR(run.Prepare());
  std::vector<std::thread> threads;
  for (uint32_t t = 1; t < options.threads; ++t) threads.emplace_back([&run, t] { run.Work(t); });
  run.Work(0);
  for (std::thread& thread : threads) thread.join();
  PLEXUS_RETURN_IF_ERROR(run.status());
  return run.TakeOutputs();
}

}  // namespace plexus::cpu
