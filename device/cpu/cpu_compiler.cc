#include "device/cpu/cpu_compiler.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "device/cpu/cpu_device.h"
#include "device/cpu/graph_signature.h"
#include "device/cpu/lowering.h"
#include "device/cpu/memory_plan.h"
#include "device/cpu/packed_memory.h"

namespace plexus {

namespace {

using cpu::BlockArgs;
using cpu::BlockFunction;
using cpu::KernelSpec;
using cpu::LoweringContext;
using cpu::MemoryPlan;
using cpu::Operand;

// Kernels of one block shorter than this run in one sequence with their neighbours.
constexpr Duration kTinyKernel = std::chrono::microseconds(20);
// Others do where nothing else could run beside them.
constexpr Duration kLongestSequence = std::chrono::microseconds(100);
constexpr size_t kOperandsOnStack = 32;

// Where an operand lies, with everything known that can be known before the job.
struct Slot {
  enum class Base : uint8_t { kArena, kInput, kOutput, kAddress };
  Base base = Base::kArena;
  uint32_t index = 0;
  size_t offset = 0;
  std::byte* address = nullptr;

  std::byte* Resolve(const CpuBlockContext& context) const {
    switch (base) {
      case Base::kArena:
        return context.arena + offset;
      case Base::kInput:
        // Kernels only read their inputs.
        return const_cast<std::byte*>(context.inputs[index].raw()) + offset;
      case Base::kOutput:
        return context.outputs[index].raw_mutable() + offset;
      case Base::kAddress:
        break;
    }
    return address;
  }
};

struct Step {
  std::vector<Slot> slots;
  uint32_t num_reads = 0;
  BlockFunction run;

  Status Run(uint32_t first, uint32_t count, const CpuBlockContext& context) const {
    std::array<std::byte*, kOperandsOnStack> on_stack;
    std::vector<std::byte*> on_heap;
    std::byte** operands = on_stack.data();
    if (slots.size() > kOperandsOnStack) {
      on_heap.resize(slots.size());
      operands = on_heap.data();
    }
    for (size_t i = 0; i < slots.size(); ++i) operands[i] = slots[i].Resolve(context);
    BlockArgs args;
    args.operands = operands;
    args.num_reads = num_reads;
    args.scratch = context.scratch;
    args.worker = context.worker;
    return run(first, count, args);
  }
};

using KeepAlive = std::shared_ptr<const std::vector<std::shared_ptr<const void>>>;

// One kernel, or several tiny ones in order (then the grid is one block).
class StepsCode : public CpuKernelCode {
 public:
  StepsCode(std::vector<Step> steps, size_t scratch_bytes, KeepAlive constants)
      : steps_(std::move(steps)), scratch_bytes_(scratch_bytes), constants_(std::move(constants)) {}

  size_t scratch_bytes() const override { return scratch_bytes_; }
  Status Run(uint32_t first, uint32_t count, const CpuBlockContext& context) const override {
    for (const Step& step : steps_) {
      PLEXUS_RETURN_IF_ERROR(step.Run(first, count, context));
    }
    return OkStatus();
  }

 private:
  std::vector<Step> steps_;
  size_t scratch_bytes_;
  KeepAlive constants_;
};

class CpuCompiler : public Compiler {
 public:
  explicit CpuCompiler(const CpuCompilerOptions& options) : options_(options) {}
  std::string device_kind() const override { return "cpu"; }
  Result<ProgramPtr> Compile(const Graph& region, const CompileOptions& options) override;

 private:
  CpuCompilerOptions options_;
};

MemoryPlan PlanFor(LoweringContext& context) {
  cpu::PlanInput input;
  for (const auto& storage : context.storages()) {
    const bool arena = storage.kind == LoweringContext::Storage::Kind::kArena;
    input.storage_bytes.push_back(arena ? storage.size_bytes : 0);
  }
  for (const KernelSpec& kernel : context.kernels()) {
    std::vector<cpu::StorageAccess> accesses;
    for (const Operand& read : kernel.reads) {
      accesses.push_back({read.storage.value(), read.part, false});
    }
    for (const Operand& write : kernel.writes) {
      accesses.push_back({write.storage.value(), write.part, true});
    }
    input.kernels.push_back(std::move(accesses));
  }
  return cpu::PlanMemory(input);
}

// Per lowered kernel: the program kernel it becomes part of.
std::vector<uint32_t> GroupSmallKernels(const std::vector<KernelSpec>& kernels,
                                        const MemoryPlan& plan, uint32_t workers) {
  std::vector<uint32_t> group(kernels.size()), successors(kernels.size());
  for (const auto& predecessors : plan.predecessors) {
    for (uint32_t p : predecessors) ++successors[p];
  }
  // Kernel k waits for the one before it, which nothing else waits for.
  const auto chained = [&](uint32_t k) {
    const auto& waits = plan.predecessors[k];
    return successors[k - 1] == 1 && std::find(waits.begin(), waits.end(), k - 1) != waits.end();
  };
  Duration total{0};
  uint32_t next = 0;
  bool open = false;  // the last group takes more
  for (uint32_t k = 0; k < kernels.size(); ++k) {
    const Duration time = kernels[k].time;
    const bool one_block = kernels[k].grid == 1;
    if (open && one_block && total + time <= kLongestSequence &&
        (time < kTinyKernel || workers == 1 || chained(k))) {
      total += time;
    } else {
      ++next;
      total = time;
      open = one_block;
    }
    group[k] = next - 1;
  }
  return group;
}

Step MakeStep(KernelSpec& kernel, const LoweringContext& context, const MemoryPlan& plan) {
  Step step;
  step.num_reads = static_cast<uint32_t>(kernel.reads.size());
  auto add = [&](const Operand& operand) {
    const auto& storage = context.storages()[operand.storage.value()];
    Slot slot;
    slot.index = storage.index;
    slot.offset = operand.offset_bytes;
    switch (storage.kind) {
      case LoweringContext::Storage::Kind::kArena:
        slot.base = Slot::Base::kArena;
        slot.offset += plan.offsets[operand.storage.value()];
        break;
      case LoweringContext::Storage::Kind::kInput:
        slot.base = Slot::Base::kInput;
        break;
      case LoweringContext::Storage::Kind::kOutput:
        slot.base = Slot::Base::kOutput;
        break;
      case LoweringContext::Storage::Kind::kConstant:
        slot.base = Slot::Base::kAddress;
        // Constants are never among a kernel's writes.
        slot.address = const_cast<std::byte*>(storage.constant) + operand.offset_bytes;
        break;
    }
    step.slots.push_back(slot);
  };
  for (const Operand& read : kernel.reads) add(read);
  for (const Operand& write : kernel.writes) add(write);
  step.run = std::move(kernel.run);
  return step;
}

void AddDependencies(const MemoryPlan& plan, const std::vector<uint32_t>& group, Program& program) {
  std::vector<std::vector<uint32_t>> waits(program.kernels.size());
  for (size_t k = 0; k < group.size(); ++k) {
    for (uint32_t p : plan.predecessors[k]) {
      if (group[p] != group[k]) waits[group[k]].push_back(group[p]);
    }
  }
  for (size_t g = 0; g < waits.size(); ++g) {
    std::sort(waits[g].begin(), waits[g].end());
    waits[g].erase(std::unique(waits[g].begin(), waits[g].end()), waits[g].end());
    program.kernels[g].dependencies = static_cast<uint32_t>(waits[g].size());
    for (uint32_t p : waits[g]) {
      program.kernels[p].successors.push_back(KernelId(static_cast<uint32_t>(g)));
    }
  }
}

ProgramId NextProgramId() {
  static std::atomic<uint64_t> next{1};
  return ProgramId(next.fetch_add(1, std::memory_order_relaxed));
}

void AddKernels(LoweringContext& context, const MemoryPlan& plan,
                const std::vector<uint32_t>& group, Program& program) {
  auto constants = std::make_shared<std::vector<std::shared_ptr<const void>>>();
  for (const auto& storage : context.storages()) {
    if (storage.keep_alive) constants->push_back(storage.keep_alive);
  }
  std::vector<KernelSpec>& specs = context.kernels();
  for (size_t begin = 0; begin < specs.size();) {
    size_t end = begin + 1;
    while (end < specs.size() && group[end] == group[begin]) ++end;
    Kernel kernel;
    kernel.name = specs[begin].name;
    for (size_t k = begin + 1; k < end; ++k) kernel.name += " + " + specs[k].name;
    kernel.grid = specs[begin].grid;
    Duration time{0};
    size_t scratch_bytes = 0;
    std::vector<Step> steps;
    for (size_t k = begin; k < end; ++k) {
      kernel.flops += specs[k].flops;
      kernel.bytes += specs[k].bytes;
      time += specs[k].time;
      scratch_bytes = std::max(scratch_bytes, specs[k].scratch_bytes);
      steps.push_back(MakeStep(specs[k], context, plan));
    }
    kernel.estimated_block_time = std::max(Duration(1), time / kernel.grid);
    kernel.code = std::make_shared<StepsCode>(std::move(steps), scratch_bytes, constants);
    program.flops += kernel.flops;
    program.kernels.push_back(std::move(kernel));
    begin = end;
  }
}

Result<ProgramPtr> CpuCompiler::Compile(const Graph& region, const CompileOptions& options) {
  auto graph = std::make_shared<const Graph>(region);
  LoweringContext context(graph, options, options_.workers, options_.target_block_time);
  PLEXUS_RETURN_IF_ERROR(context.LowerAll().WithContext("compile '" + options.name + "'"));
  cpu::ReleaseAfterPacking();
  const MemoryPlan plan = PlanFor(context);
  const std::vector<uint32_t> group = GroupSmallKernels(context.kernels(), plan, options_.workers);

  auto program = std::make_shared<Program>();
  program->id = NextProgramId();
  program->name = options.name;
  program->device_kind = device_kind();
  program->signature = cpu::SignatureOf(region, options, options_.workers);
  for (ValueId v : region.inputs()) {
    program->inputs.push_back({region.value(v).name, region.value(v).dtype, context.shape(v)});
  }
  for (ValueId v : region.outputs()) {
    program->outputs.push_back({region.value(v).name, region.value(v).dtype, context.shape(v)});
  }
  program->arena_bytes = plan.arena_bytes;
  program->constant_bytes = context.constant_bytes();
  AddKernels(context, plan, group, *program);
  AddDependencies(plan, group, *program);
  PLEXUS_RETURN_IF_ERROR(ValidateProgram(*program));
  return ProgramPtr(program);
}

}  // namespace

std::unique_ptr<Compiler> MakeCpuCompiler(const CpuCompilerOptions& options) {
  return std::make_unique<CpuCompiler>(options);
}

}  // namespace plexus
