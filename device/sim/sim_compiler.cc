#include "device/sim/sim_compiler.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace plexus {
namespace {

constexpr uint32_t kNone = ~0u;

// The same bytes under another shape.
bool IsView(const Node& node) {
  static const std::set<std::string> kViews = {"Reshape",   "Flatten",  "Squeeze",
                                               "Unsqueeze", "Identity", "Dropout"};
  return node.domain.empty() && kViews.count(node.op) > 0;
}

// One region on its way to a program.
class Lowering {
 public:
  Lowering(const Graph& graph, const SimCompilerOptions& options, const CompileOptions& compile)
      : graph_(graph), options_(options), compile_(compile) {}

  // With `by_group`, nodes of one fusion group become one kernel; false when that closes a cycle.
  bool Group(bool by_group);
  Result<ProgramPtr> Finish();

 private:
  double BytesOf(ValueId v) const;
  Status CheckShapes() const;
  void AddKernel(uint32_t group, Program& program) const;
  void AddDependencies(Program& program) const;
  size_t ArenaBytes() const;
  ContentHash Signature(const Program& program) const;

  const Graph& graph_;
  const SimCompilerOptions& options_;
  const CompileOptions& compile_;
  std::vector<ValueId> origin_;               // per value: whose bytes it is, through views
  std::vector<uint32_t> producer_;            // per value: the kernel that writes it
  std::vector<std::vector<NodeId>> kernels_;  // nodes of each, in topological order
  std::vector<std::set<uint32_t>> waits_;     // per kernel
};

double Lowering::BytesOf(ValueId v) const {
  const Value& value = graph_.value(v);
  double size = static_cast<double>(std::max<size_t>(1, DTypeSizeBytes(value.dtype)));
  if (value.dtype == DType::kFloat32 && compile_.precision == Precision::kBFloat16) size /= 2;
  return size * static_cast<double>(NumElementsUnchecked(value.shape.ToConcrete()));
}

Status Lowering::CheckShapes() const {
  for (const Node& node : graph_.nodes()) {
    for (const auto* ids : {&node.inputs, &node.outputs}) {
      for (ValueId v : *ids) {
        if (!v.valid()) continue;
        const Value& value = graph_.value(v);
        Status status = OkStatus();
        if (!value.shape.IsConcrete()) {
          status = InvalidArgumentError("the shape of '" + value.name + "' is not known");
        } else {
          status = NumElements(value.shape.ToConcrete()).status();
        }
        if (!status.ok()) return status.WithContext("node '" + node.name + "' (" + node.op + ")");
      }
    }
  }
  for (const auto* ids : {&graph_.inputs(), &graph_.outputs()}) {
    for (ValueId v : *ids) {
      const Value& value = graph_.value(v);
      if (!value.shape.IsConcrete()) {
        return InvalidArgumentError("the shape of '" + value.name + "' is not known");
      }
    }
  }
  return OkStatus();
}

bool Lowering::Group(bool by_group) {
  origin_.clear();
  for (uint32_t v = 0; v < graph_.num_values(); ++v) origin_.push_back(ValueId(v));
  // Nodes to groups, numbered by their first node.
  std::vector<std::vector<NodeId>> groups;
  std::map<uint32_t, uint32_t> of_mark;
  std::vector<uint32_t> made_by(graph_.num_values(), kNone);
  for (uint32_t n = 0; n < graph_.num_nodes(); ++n) {
    const Node& node = graph_.node(NodeId(n));
    if (IsView(node) && !node.inputs.empty() && node.inputs[0].valid() && !node.outputs.empty() &&
        node.outputs[0].valid()) {
      origin_[node.outputs[0].value()] = origin_[node.inputs[0].value()];
      continue;
    }
    uint32_t group = static_cast<uint32_t>(groups.size());
    if (by_group && node.fusion_group != 0) {
      group = of_mark.try_emplace(node.fusion_group, group).first->second;
    }
    if (group == groups.size()) groups.emplace_back();
    groups[group].push_back(NodeId(n));
    for (ValueId v : node.outputs) {
      if (v.valid()) made_by[v.value()] = group;
    }
  }
  std::vector<std::set<uint32_t>> waits(groups.size());
  for (uint32_t g = 0; g < groups.size(); ++g) {
    for (NodeId n : groups[g]) {
      for (const auto* ids : {&graph_.node(n).inputs, &graph_.node(n).implicit_inputs}) {
        for (ValueId v : *ids) {
          if (!v.valid()) continue;
          const uint32_t maker = made_by[origin_[v.value()].value()];
          if (maker != kNone && maker != g) waits[g].insert(maker);
        }
      }
    }
  }
  // A group stands where its last node stood, so order them anew: whatever is ready, lowest first.
  std::vector<uint32_t> left(groups.size()), place(groups.size(), kNone);
  std::vector<std::vector<uint32_t>> successors(groups.size());
  std::set<uint32_t> ready;
  for (uint32_t g = 0; g < groups.size(); ++g) {
    left[g] = static_cast<uint32_t>(waits[g].size());
    for (uint32_t before : waits[g]) successors[before].push_back(g);
    if (left[g] == 0) ready.insert(g);
  }
  kernels_.clear();
  waits_.clear();
  while (!ready.empty()) {
    const uint32_t g = *ready.begin();
    ready.erase(ready.begin());
    place[g] = static_cast<uint32_t>(kernels_.size());
    kernels_.push_back(groups[g]);
    waits_.emplace_back();
    for (uint32_t before : waits[g]) waits_.back().insert(place[before]);
    for (uint32_t next : successors[g]) {
      if (--left[next] == 0) ready.insert(next);
    }
  }
  producer_.assign(graph_.num_values(), kNone);
  for (uint32_t v = 0; v < graph_.num_values(); ++v) {
    if (made_by[v] != kNone) producer_[v] = place[made_by[v]];
  }
  return kernels_.size() == groups.size();
}

void Lowering::AddKernel(uint32_t k, Program& program) const {
  // The group's tiles are those of its heaviest product; what it reads from or leaves for others
  // goes through memory, the rest stays on chip.
  NodeWork work;
  std::set<ValueId> read, written;
  const Node* heaviest = nullptr;
  double flops = 0, most = -1;
  for (NodeId n : kernels_[k]) {
    const Node& node = graph_.node(n);
    const NodeWork own = WorkOf(graph_, node);
    flops += own.flops;
    const double weight = own.rows > 0 ? own.flops + 1e18 : own.flops;
    if (weight > most) {
      most = weight;
      heaviest = &node;
      work = own;
    }
    for (ValueId v : node.inputs) {
      if (v.valid() && producer_[origin_[v.value()].value()] != k) read.insert(origin_[v.value()]);
    }
    for (ValueId v : node.outputs) {
      if (v.valid()) written.insert(v);
    }
  }
  std::set<ValueId> used_elsewhere;
  if (kernels_[k].size() > 1) {
    for (const Node& node : graph_.nodes()) {
      const bool inside = std::any_of(kernels_[k].begin(), kernels_[k].end(),
                                      [&](NodeId n) { return &graph_.node(n) == &node; });
      for (ValueId v : node.inputs) {
        if (!inside && v.valid()) used_elsewhere.insert(origin_[v.value()]);
      }
    }
    for (ValueId v : graph_.outputs()) used_elsewhere.insert(origin_[v.value()]);
  }
  work.flops = flops;
  for (ValueId v : read) work.bytes += BytesOf(v);
  for (ValueId v : written) {
    if (kernels_[k].size() == 1 || used_elsewhere.count(v) > 0) work.bytes += BytesOf(v);
  }
  Kernel kernel;
  kernel.name = heaviest->op + " (" + heaviest->name + ")";
  PlanKernel(work, options_.gpu, options_.roofline, &kernel);
  program.flops += kernel.flops;
  program.kernels.push_back(std::move(kernel));
}

void Lowering::AddDependencies(Program& program) const {
  for (uint32_t k = 0; k < waits_.size(); ++k) {
    program.kernels[k].dependencies = static_cast<uint32_t>(waits_[k].size());
    for (uint32_t before : waits_[k]) program.kernels[before].successors.push_back(KernelId(k));
  }
}

size_t Lowering::ArenaBytes() const {
  std::vector<uint32_t> last(graph_.num_values(), kNone);  // per origin: the kernel that reads last
  for (uint32_t k = 0; k < kernels_.size(); ++k) {
    for (NodeId n : kernels_[k]) {
      for (ValueId v : graph_.node(n).inputs) {
        if (v.valid()) last[origin_[v.value()].value()] = k;
      }
    }
  }
  for (ValueId v : graph_.outputs()) last[origin_[v.value()].value()] = kNone;
  std::vector<double> change(kernels_.size() + 1);
  for (uint32_t v = 0; v < graph_.num_values(); ++v) {
    if (producer_[v] == kNone || last[v] == kNone || last[v] == producer_[v]) continue;
    const double bytes = BytesOf(ValueId(v));
    change[producer_[v]] += bytes;
    change[last[v] + 1] -= bytes;
  }
  double alive = 0, most = 0;
  for (double c : change) most = std::max(most, alive += c);
  return static_cast<size_t>(most);
}

// Of what the simulator can tell apart: the kernels, not the weights.
ContentHash Lowering::Signature(const Program& program) const {
  ContentHasher hasher;
  hasher.UpdateString("sim");
  hasher.UpdateString(options_.gpu.name);
  for (const Kernel& kernel : program.kernels) {
    for (int64_t v :
         {int64_t{kernel.grid}, int64_t{kernel.resources.threads},
          int64_t{kernel.resources.registers_per_thread}, int64_t{kernel.resources.shared_bytes},
          int64_t{kernel.dependencies}, int64_t{kernel.estimated_block_time.count()},
          static_cast<int64_t>(kernel.successors.size())}) {
      hasher.UpdateInt(v);
    }
    for (KernelId next : kernel.successors) hasher.UpdateInt(next.value());
  }
  return hasher.Finish();
}

Result<ProgramPtr> Lowering::Finish() {
  PLEXUS_RETURN_IF_ERROR(CheckShapes());
  if (!Group(true) && !Group(false)) return InternalError("the graph has a cycle");
  static std::atomic<uint64_t> next_id{1};
  auto program = std::make_shared<Program>();
  // Relaxed: only the number matters.
  program->id = ProgramId(next_id.fetch_add(1, std::memory_order_relaxed));
  program->name = compile_.name;
  program->device_kind = "sim";
  for (ValueId v : graph_.inputs()) {
    const Value& value = graph_.value(v);
    program->inputs.push_back({value.name, value.dtype, value.shape.ToConcrete()});
  }
  for (ValueId v : graph_.outputs()) {
    const Value& value = graph_.value(v);
    program->outputs.push_back({value.name, value.dtype, value.shape.ToConcrete()});
  }
  for (uint32_t k = 0; k < kernels_.size(); ++k) AddKernel(k, *program);
  AddDependencies(*program);
  program->arena_bytes = ArenaBytes();
  program->signature = Signature(*program);
  PLEXUS_RETURN_IF_ERROR(ValidateProgram(*program));
  return ProgramPtr(program);
}

class SimCompiler : public Compiler {
 public:
  explicit SimCompiler(const SimCompilerOptions& options) : options_(options) {}
  std::string device_kind() const override { return "sim"; }
  Result<ProgramPtr> Compile(const Graph& region, const CompileOptions& options) override {
    Result<ProgramPtr> program = Lowering(region, options_, options).Finish();
    if (program.ok()) return program;
    return program.status().WithContext("compile '" + options.name + "'");
  }

 private:
  const SimCompilerOptions options_;
};

}  // namespace

Result<std::unique_ptr<Compiler>> MakeSimCompiler(const SimCompilerOptions& options) {
  ManualClock clock;
  PLEXUS_RETURN_IF_ERROR(SimGpu::Create(options.gpu, clock, nullptr).status());
  const RooflineOptions& r = options.roofline;
  if (!(options.gpu.peak_flops > 0) || !(options.gpu.bytes_per_sec > 0)) {
    return InvalidArgumentError("simulated GPU '" + options.gpu.name +
                                "' has no peak_flops or bytes_per_sec: no times can be estimated");
  }
  if (!(r.compute_efficiency > 0) || !(r.memory_efficiency > 0) || !(r.sm_bandwidth_share > 0) ||
      r.large_tile < 1 || r.small_tile < 1 || r.elements_per_block < 1 || r.min_split_depth < 1) {
    return InvalidArgumentError("roofline parameters must be > 0");
  }
  std::unique_ptr<Compiler> compiler = std::make_unique<SimCompiler>(options);
  return compiler;
}

}  // namespace plexus
