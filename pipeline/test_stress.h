// For tests: many threads start, cancel and time out requests, while the policy changes and
// executables come and go.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pipeline/runtime.h"

namespace plexus {

class StressRandom;

struct StressLoad {
  int inputs = 3;  // there are so many, numbered from 0
  int threads = 3;
  int requests_each = 100;
  int at_a_time = 4;  // of one thread
  Duration longest_timeout = std::chrono::microseconds(400);
  bool deadlines = false;  // of every other request
};

// Its tests give it a runtime and executables that take Input, then Stress() them.
class StressTest : public ::testing::Test {
 protected:
  explicit StressTest(StressLoad load) : load_(load) {}

  virtual Tensor Input(int number) const = 0;
  // One more user of what is shared. Any thread.
  virtual ExecutablePtr LoadGuest() = 0;
  virtual void ExpectEqual(const Tensor& got, const Tensor& want, const std::string& which) = 0;

  // Begins anew with these, and asks each for each input, one after another: what it answers now
  // is what it must answer under stress.
  void Use(std::unique_ptr<Runtime> runtime,
           const std::function<std::vector<ExecutablePtr>()>& load);
  // Every request must be answered once: with its own result, or that it was given up. Returns when
  // all has ended.
  void Stress();

  const StressLoad load_;
  std::unique_ptr<Runtime> runtime_;
  std::vector<ExecutablePtr> executables_;

 private:
  struct Asked;
  Asked AskOne(StressRandom& random);
  void Ask(uint32_t seed);
  void Change(uint32_t round);

  std::vector<Tensor> expected_;  // by executable and input
};

}  // namespace plexus
