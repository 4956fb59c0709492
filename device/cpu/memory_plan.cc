#include "device/cpu/memory_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace plexus::cpu {

namespace {

constexpr size_t kAlignment = 64;
// Above this many kernels the reachability bit sets would be large; dependencies stay unreduced.
constexpr size_t kMaxReduced = 20000;

bool Conflict(uint32_t a, uint32_t b) { return a == 0 || b == 0 || a == b; }

struct Use {
  uint32_t kernel;
  uint32_t part;
};

// Hazards on each storage itself.
void AddHazards(const PlanInput& input, std::vector<std::vector<uint32_t>>& predecessors) {
  std::vector<std::vector<Use>> writers(input.storage_bytes.size());
  std::vector<std::vector<Use>> readers(input.storage_bytes.size());
  for (uint32_t k = 0; k < input.kernels.size(); ++k) {
    auto wait_for = [&](const std::vector<Use>& uses, uint32_t part) {
      for (const Use& use : uses) {
        if (use.kernel != k && Conflict(use.part, part)) predecessors[k].push_back(use.kernel);
      }
    };
    for (const StorageAccess& access : input.kernels[k]) {
      wait_for(writers[access.storage], access.part);
      if (access.write) wait_for(readers[access.storage], access.part);
    }
    for (const StorageAccess& access : input.kernels[k]) {
      if (!access.write) {
        readers[access.storage].push_back({k, access.part});
        continue;
      }
      auto& w = writers[access.storage];
      auto& r = readers[access.storage];
      auto superseded = [&](const Use& use) {
        return use.kernel != k && (access.part == 0 || use.part == access.part);
      };
      w.erase(std::remove_if(w.begin(), w.end(), superseded), w.end());
      r.erase(std::remove_if(r.begin(), r.end(), superseded), r.end());
      w.push_back({k, access.part});
    }
  }
}

struct Life {
  uint32_t first = std::numeric_limits<uint32_t>::max();
  uint32_t last = 0;
  std::vector<uint32_t> users;    // kernels
  std::vector<uint32_t> writers;  // kernels
};

std::vector<Life> Lives(const PlanInput& input) {
  std::vector<Life> lives(input.storage_bytes.size());
  for (uint32_t k = 0; k < input.kernels.size(); ++k) {
    for (const StorageAccess& access : input.kernels[k]) {
      Life& life = lives[access.storage];
      life.first = std::min(life.first, k);
      life.last = std::max(life.last, k);
      if (life.users.empty() || life.users.back() != k) life.users.push_back(k);
      if (access.write) life.writers.push_back(k);
    }
  }
  return lives;
}

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Largest first, each at the lowest offset free during its whole life.
void PlaceStorages(const PlanInput& input, const std::vector<Life>& lives, MemoryPlan& plan,
                   std::vector<uint32_t>& placed) {
  std::vector<uint32_t> order;
  for (uint32_t s = 0; s < lives.size(); ++s) {
    if (input.storage_bytes[s] > 0 && !lives[s].users.empty()) order.push_back(s);
  }
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return input.storage_bytes[a] > input.storage_bytes[b];
  });
  for (uint32_t s : order) {
    std::vector<std::pair<size_t, size_t>> taken;  // [begin, end)
    for (uint32_t other : placed) {
      if (lives[other].last < lives[s].first || lives[s].last < lives[other].first) continue;
      taken.emplace_back(plan.offsets[other],
                         plan.offsets[other] + Aligned(input.storage_bytes[other]));
    }
    std::sort(taken.begin(), taken.end());
    const size_t size = Aligned(input.storage_bytes[s]);
    size_t offset = 0;
    for (const auto& [begin, end] : taken) {
      if (offset + size <= begin) break;
      offset = std::max(offset, end);
    }
    plan.offsets[s] = offset;
    plan.arena_bytes = std::max(plan.arena_bytes, offset + size);
    placed.push_back(s);
  }
}

// A storage's writers wait for all users of whatever lay at its addresses before.
void AddReuseHazards(const PlanInput& input, const std::vector<Life>& lives,
                     const std::vector<uint32_t>& placed, MemoryPlan& plan) {
  for (uint32_t later : placed) {
    const size_t begin = plan.offsets[later], end = begin + input.storage_bytes[later];
    for (uint32_t earlier : placed) {
      if (lives[earlier].last >= lives[later].first) continue;
      const size_t b = plan.offsets[earlier], e = b + input.storage_bytes[earlier];
      if (e <= begin || end <= b) continue;
      for (uint32_t writer : lives[later].writers) {
        for (uint32_t user : lives[earlier].users) plan.predecessors[writer].push_back(user);
      }
    }
  }
}

void Reduce(std::vector<std::vector<uint32_t>>& predecessors) {
  const size_t n = predecessors.size();
  const size_t words = (n + 63) / 64;
  const bool reduce = n <= kMaxReduced;
  std::vector<uint64_t> reach(reduce ? n * words : 0);
  for (size_t k = 0; k < n; ++k) {
    auto& list = predecessors[k];
    std::sort(list.begin(), list.end(), std::greater<>());
    list.erase(std::unique(list.begin(), list.end()), list.end());
    if (!reduce) continue;
    uint64_t* mine = reach.data() + k * words;
    std::vector<uint32_t> kept;
    for (uint32_t p : list) {
      if (mine[p / 64] >> (p % 64) & 1) continue;
      kept.push_back(p);
      const uint64_t* other = reach.data() + p * words;
      for (size_t w = 0; w <= p / 64; ++w) mine[w] |= other[w];
      mine[p / 64] |= uint64_t{1} << (p % 64);
    }
    list = std::move(kept);
  }
}

}  // namespace

MemoryPlan PlanMemory(const PlanInput& input) {
  MemoryPlan plan;
  plan.offsets.assign(input.storage_bytes.size(), 0);
  plan.predecessors.resize(input.kernels.size());
  AddHazards(input, plan.predecessors);
  const std::vector<Life> lives = Lives(input);
  std::vector<uint32_t> placed;
  PlaceStorages(input, lives, plan, placed);
  AddReuseHazards(input, lives, placed, plan);
  Reduce(plan.predecessors);
  return plan;
}

}  // namespace plexus::cpu
