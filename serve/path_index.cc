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

PathIndex::PathIndex(Parts parts) : parts_(parts), evaluator_(ReferenceEvaluator::Get()) {}

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
  std::map<std::string, Loaded> now;
  for (const ServablePtr& servable : loaded) {
    if (left_out.count(servable->name) > 0) continue;
    const bool is_latest = latest.at(servable->name) == servable->version;
    now[is_latest ? servable->name : servable->name + "/" + servable->version] = {
        servable->executable, servable->config.precision, servable->inputs};
  }
  std::lock_guard lock(mutex_);
  loaded_ = std::move(now);
}

void PathIndex::Analyse() {
  std::map<Precision, std::vector<PathFinder::Load>> fresh;
  std::vector<std::string> gone;
  std::map<std::string, Loaded> analysed;
  for (const auto& [name, loaded] : loaded_) {
    const ExecutablePtr executable = loaded.executable.lock();
    if (executable == nullptr) continue;  // unloaded this moment
    analysed[name] = loaded;
    const auto it = analysed_.find(name);
    if (it != analysed_.end() && it->second.executable.lock() == executable) continue;
    // Kept for the call only: the finder makes its own copy.
    fresh[loaded.precision].push_back({name, GraphPtr(executable, &executable->graph())});
    finders_.try_emplace(loaded.precision, PathOptions{&evaluator_});
    if (it != analysed_.end()) gone.push_back(name);  // it may run in another precision now
  }
  for (const auto& [name, loaded] : analysed_) {
    if (analysed.count(name) == 0) gone.push_back(name);
  }
  analysed_ = std::move(analysed);
  for (auto& [precision, finder] : finders_) {
    if (gone.empty() && fresh[precision].empty()) continue;
    finder.Update(std::move(fresh[precision]), gone);
    maps_[precision] = bodies_[precision].Follow(finder);
  }
}

PathSummary PathIndex::Summary(const std::map<std::string, Shape>& shapes) {
  auto all = std::make_shared<PathMap>();
  PathInputs known;
  {
    std::lock_guard lock(mutex_);
    Analyse();
    for (const auto& [precision, map] : maps_) {
      // Bodies are numbered for each precision by itself.
      const std::string among = std::to_string(static_cast<int>(precision));
      for (const auto& [name, path] : map->paths) {
        all->paths[BodyPaths::IsBody(name) ? name + " " + among : name] = path;
      }
      for (const auto& [body, name] : map->bodies) all->bodies[body] = name + " " + among;
      all->segments.insert(all->segments.end(), map->segments.begin(), map->segments.end());
      all->constant_bytes_saved += map->constant_bytes_saved;
    }
    for (const auto& [name, loaded] : analysed_) {
      for (const TensorMetadata& input : loaded.inputs) {
        known[name].push_back(
            {input.dtype, ShapeFor(input, loaded.inputs.size() == 1, shapes), std::nullopt});
      }
    }
  }
  return Summarize(std::move(all), known, evaluator_);
}

Result<std::string> PathIndex::FirstDifference(const std::string& first,
                                               const std::string& second) {
  std::lock_guard lock(mutex_);
  Analyse();
  const auto a = analysed_.find(first), b = analysed_.find(second);
  for (const auto& [it, name] : {std::pair(a, &first), std::pair(b, &second)}) {
    if (it == analysed_.end()) return NotFoundError("'" + *name + "' is not loaded");
  }
  if (a->second.precision != b->second.precision) {
    return std::string("its first node: the two run in different precision");
  }
  return finders_.at(a->second.precision).FirstDifference(first, second);
}

}  // namespace plexus
