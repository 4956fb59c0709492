// paella: the published scheduler, as far as its paper and code say (SOSP 2023). Whole kernels, one
// per job at a time. The first job's kernel goes out if its whole grid fits the mirror, else as one
// of at most B that wait in the hardware; a waiting kernel gives its slot back when its last block
// has started. The first job is the one with least remaining time, a sum of stage times learned by
// EWMA 1/2 that starts at zero, unless some model type has had too few launches.
#include <algorithm>
#include <set>

#include "device/packing.h"
#include "simulate/direct_run.h"

namespace plexus {
namespace {

class PaellaRun : public DirectRun {
 public:
  PaellaRun(const Workload& workload, const std::vector<Arrival>& arrivals, const RunHooks& hooks)
      : DirectRun(workload, arrivals, hooks),
        pool_(workload.system.streams),
        mirror_(workload.device.sms, workload.device.sm),
        state_(arrivals.size()),
        types_(workload.models.size()) {
    for (size_t m = 0; m < types_.size(); ++m) {
      const Program& program = *workload.models[m].program;
      types_[m].stage.resize(program.kernels.size());
      types_[m].left.resize(program.kernels.size() + 1);
      for (const Kernel& kernel : program.kernels) {
        types_[m].footprints.push_back(FootprintOf(workload.device.sm, kernel.resources));
      }
    }
  }

 protected:
  void OnArrival(uint32_t job) override {
    state_[job].stream = pool_.Take();
    Type& type = type_of(job);
    if (type.live++ == 0) type.deficit = 0;
    type.ready.insert(Place(job));
    Pump();
  }
  uint32_t StreamOf(uint32_t job) override { return state_[job].stream; }
  bool instrumented() const override { return true; }
  void OnReport(const SimGpuEvent& event) override {
    const uint32_t job = JobOfTag(event.tag);
    if (event.kind == SimGpuEvent::Kind::kBlocksStarted) {
      Started(job, event.blocks);
    } else {
      Finished(job, event.blocks, event.last);
    }
    Pump();
  }

 private:
  // A job's one kernel at the device, and where the job stands.
  struct State {
    uint32_t stream = 0;
    uint32_t next = 0;         // the kernel that is ready or in flight
    uint32_t not_started = 0;  // blocks of a kernel that waits in the hardware
    TimePoint released{};
    std::vector<UnitPacking::Share> shares;  // what the mirror holds for it
  };
  using Ready = std::pair<uint32_t, uint32_t>;  // kernels left, job: the first is furthest
  struct Type {
    std::vector<double> stage;  // learned times, ns; 0 before the first
    std::vector<double> left;   // sums of stage from each kernel on
    std::vector<BlockFootprint> footprints;
    std::set<Ready> ready;
    uint32_t live = 0;
    double deficit = 0;
  };
  Type& type_of(uint32_t job) { return types_[this->job(job).model]; }
  Ready Place(uint32_t job) const { return {num_kernels(job) - state_[job].next, job}; }

  // Least remaining time; among equals the earliest arrival.
  Type* First() {
    Type* first = nullptr;
    Type* starved = nullptr;
    const auto key = [&](const Type& type) {
      const uint32_t job = type.ready.begin()->second;
      return std::pair(type.left[state_[job].next], job);
    };
    for (Type& type : types_) {
      if (type.ready.empty()) continue;
      if (first == nullptr || key(type) < key(*first)) first = &type;
      if (type.deficit > workload_.system.fairness_threshold &&
          (starved == nullptr || type.deficit > starved->deficit)) {
        starved = &type;
      }
    }
    return starved != nullptr ? starved : first;
  }

  void Pump() {
    while (Type* type = First()) {
      const uint32_t job = type->ready.begin()->second;
      State& state = state_[job];
      const uint32_t grid = model_of(job).program->kernels[state.next].grid;
      const BlockFootprint& block = type->footprints[state.next];
      if (mirror_.Room(block, grid) >= grid) {
        mirror_.Place(block, grid, &state.shares);
      } else if (waiting_ < workload_.system.waiting_kernels) {
        ++waiting_;
        state.not_started = grid;
      } else {
        return;
      }
      type->ready.erase(type->ready.begin());
      state.released = now();
      Charge(*type);
      Issue(TagOf(job, state.next));
    }
  }

  // Launches, counted per model type among those that have jobs.
  void Charge(Type& chosen) {
    uint32_t live = 0;
    for (const Type& type : types_) live += type.live > 0 ? 1 : 0;
    for (Type& type : types_) {
      if (type.live > 0) type.deficit += 1.0 / live;
    }
    chosen.deficit -= 1;
  }

  void Started(uint32_t job, uint32_t blocks) {
    State& state = state_[job];
    if (state.not_started == 0) return;  // was in the mirror from the start
    blocks = std::min(blocks, state.not_started);
    mirror_.Place(type_of(job).footprints[state.next], blocks, &state.shares);
    state.not_started -= blocks;
    if (state.not_started == 0) --waiting_;
  }

  void Finished(uint32_t job, uint32_t blocks, bool last) {
    State& state = state_[job];
    Type& type = type_of(job);
    const BlockFootprint& block = type.footprints[state.next];
    while (blocks > 0 && !state.shares.empty()) {
      UnitPacking::Share& share = state.shares.back();
      const uint32_t freed = std::min(blocks, share.blocks);
      mirror_.Free(block, share.unit, freed);
      blocks -= freed;
      share.blocks -= freed;
      if (share.blocks == 0) state.shares.pop_back();
    }
    if (!last) return;
    for (const UnitPacking::Share& share : state.shares) {
      mirror_.Free(block, share.unit, share.blocks);
    }
    state.shares.clear();
    if (state.not_started > 0) {
      state.not_started = 0;
      --waiting_;
    }
    Learn(type, state.next, static_cast<double>((now() - state.released).count()));
    if (++state.next < num_kernels(job)) {
      type.ready.insert(Place(job));
      return;
    }
    --type.live;
    pool_.Return(state.stream);
    FinishJob(job);
  }

  void Learn(Type& type, uint32_t kernel, double ns) {
    double& stage = type.stage[kernel];
    stage = stage == 0 ? ns : (stage + ns) / 2;
    for (size_t k = kernel + 1; k-- > 0;) type.left[k] = type.left[k + 1] + type.stage[k];
  }

  StreamPool pool_;
  UnitPacking mirror_;
  std::vector<State> state_;
  std::vector<Type> types_;
  uint32_t waiting_ = 0;  // kernels released beyond what fits
};

}  // namespace

std::unique_ptr<SystemRun> MakePaella(const Workload& workload,
                                      const std::vector<Arrival>& arrivals, const RunHooks& hooks) {
  return std::make_unique<PaellaRun>(workload, arrivals, hooks);
}

}  // namespace plexus
