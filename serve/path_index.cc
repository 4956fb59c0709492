#include "serve/path_index.h"

#include <optional>
#include <set>
#include <utility>

#include "program/reference/reference.h"

namespace plexus {
namespace {

bool Fits(const SymbolicShape& declared, const Shape& shape) {
  if (!declared.has_rank) return true;
  if (declared.dims.size() != shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (declared.dims[i].value.value_or(shape[i]) != shape[i]) return false;
  }
  return true;
}

std::optional<Shape> ShapeFor(const TensorMetadata& input, bool only,
                              const std::map<std::string, Shape>& given) {
  auto it = given.find(input.name);
  if (it == given.end() && only) it = given.find("");
  if (it != given.end() && Fits(input.shape, it->second)) return it->second;
  if (!input.shape.has_rank) return std::nullopt;
  Shape shape;
  const std::vector<SymbolicDim>& dims = input.shape.dims;
  for (size_t i = 0; i < dims.size(); ++i) {
    const bool rows = i == 0 && dims.size() > 1;
    if (!dims[i].value && !rows) return std::nullopt;
    shape.push_back(dims[i].value.value_or(1));
  }
  return shape;
}

}  // namespace

PathIndex::PathIndex(Parts parts)
    : parts_(parts), evaluator_(ReferenceEvaluator::Get()), finder_({&evaluator_}) {}

void PathIndex::Update(const std::vector<ServablePtr>& loaded) {
  std::map<std::string, std::string> latest;  // they come oldest first
  std::set<std::string> left_out;
  for (const ServablePtr& servable : loaded) {
    latest[servable->name] = servable->version;
    if (parts_ == Parts::kListed) continue;
    if (servable->platform == "plexus_group") {
      left_out.insert(servable->name);
    } else {
      left_out.insert(servable->models.begin(), servable->models.end());
    }
  }
  std::map<std::string, ServablePtr> now;
  for (const ServablePtr& servable : loaded) {
    if (left_out.count(servable->name) > 0) continue;
    const bool is_latest = latest.at(servable->name) == servable->version;
    now[is_latest ? servable->name : servable->name + "/" + servable->version] = servable;
  }

  std::lock_guard lock(mutex_);
  std::vector<std::string> gone;
  for (const auto& [name, executable] : held_) {
    if (now.count(name) == 0) gone.push_back(name);
  }
  std::vector<PathFinder::Load> fresh;
  for (const auto& [name, servable] : now) {
    const ExecutablePtr& executable = servable->executable;
    const auto it = held_.find(name);
    if (it != held_.end() && it->second.lock() == executable) continue;
    // Kept for the call only: the finder makes its own copy.
    fresh.push_back({name, GraphPtr(executable, &executable->graph())});
    held_[name] = executable;
    inputs_[name] = servable->inputs;
  }
  for (const std::string& name : gone) {
    held_.erase(name);
    inputs_.erase(name);
  }
  if (!fresh.empty() || !gone.empty()) finder_.Update(std::move(fresh), gone);
}

PathSummary PathIndex::Summary(const std::map<std::string, Shape>& shapes) const {
  PathMapPtr map;
  PathInputs known;
  {
    std::lock_guard lock(mutex_);
    map = finder_.map();
    for (const auto& [name, inputs] : inputs_) {
      for (const TensorMetadata& input : inputs) {
        known[name].push_back(
            {input.dtype, ShapeFor(input, inputs.size() == 1, shapes), std::nullopt});
      }
    }
  }
  return Summarize(std::move(map), known, evaluator_);
}

Result<std::string> PathIndex::FirstDifference(const std::string& first,
                                               const std::string& second) const {
  std::lock_guard lock(mutex_);
  return finder_.FirstDifference(first, second);
}

}  // namespace plexus
