// For tests: holds a CPU runtime's only worker, so that nothing depends on how fast it is.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <utility>

#include "device/cpu/cpu_device.h"
#include "sched/dispatcher.h"

namespace plexus {

// One kernel that ends when it is told to.
class Blocker : public JobListener {
 public:
  explicit Blocker(Dispatcher& dispatcher) {
    auto program = std::make_shared<Program>();
    program->name = "blocker";
    program->device_kind = "cpu";
    Kernel kernel;
    kernel.name = "blocker";
    kernel.estimated_block_time = std::chrono::microseconds(50);
    kernel.code = std::make_shared<Code>(*this);
    program->kernels.push_back(std::move(kernel));
    JobSpec spec;
    spec.program = program;
    spec.listener = this;
    spec.attributes.traced = false;
    EXPECT_TRUE(dispatcher.Submit(std::move(spec)).ok());
    began_.get_future().wait();
  }
  ~Blocker() override {
    Release();
    ended_.get_future().wait();
  }
  void Release() {
    if (!released_.exchange(true)) release_.set_value();
  }
  void OnJobDone(JobId, Status, JobBuffers) override { ended_.set_value(); }

 private:
  struct Code : CpuKernelCode {
    explicit Code(Blocker& blocker) : blocker(blocker) {}
    Status Run(uint32_t, uint32_t, const CpuBlockContext&) const override {
      blocker.began_.set_value();
      blocker.release_.get_future().wait();
      return OkStatus();
    }
    Blocker& blocker;
  };
  std::promise<void> began_, release_, ended_;
  std::atomic<bool> released_{false};
};

}  // namespace plexus
