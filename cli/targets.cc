#include "cli/targets.h"

#include <algorithm>
#include <filesystem>

namespace plexus::cli {
namespace {

namespace fs = std::filesystem;

bool IsModelFolder(const fs::path& folder) {
  std::error_code error;
  if (fs::exists(folder / "model.onnx", error)) return true;
  for (fs::directory_iterator it(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    const std::string name = it->path().filename();
    const bool number =
        std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c); });
    if (number && fs::exists(it->path() / "model.onnx", error)) return true;
  }
  return false;
}

Target LoadEntry(ModelRepository& repository, const std::string& name) {
  Target target;
  target.name = name;
  const TimePoint begin = RealClock::Get().Now();
  target.status = repository.Load(name);
  target.load_time = RealClock::Get().Now() - begin;
  if (!target.status.ok()) return target;
  Result<ServablePtr> found = repository.Find(name, "");
  target.status = found.status();
  if (found.ok()) target.servable = std::move(*found);
  return target;
}

}  // namespace

Result<std::vector<Target>> LoadTargets(const std::string& text, Runtime& runtime) {
  std::error_code error;
  const fs::path path = fs::weakly_canonical(text, error);
  if (error || !fs::exists(path, error)) return NotFoundError("'" + text + "' is not there");
  std::vector<Target> targets;
  if (fs::is_directory(path, error)) {
    const bool one = IsModelFolder(path);
    ModelRepository repository(one ? path.parent_path() : path, runtime);
    if (one) {
      targets.push_back(LoadEntry(repository, path.filename()));
      return targets;
    }
    PLEXUS_RETURN_IF_ERROR(repository.CheckReadable());
    for (const IndexEntry& entry : repository.Index()) {
      targets.push_back(LoadEntry(repository, entry.name));
    }
    if (targets.empty()) return NotFoundError("'" + text + "' holds no model and no pipeline");
    return targets;
  }
  if (path.extension() == ".yaml") {
    ModelRepository repository(path.parent_path().parent_path(), runtime);
    targets.push_back(LoadEntry(repository, path.stem()));
    return targets;
  }
  ModelRepository repository(path.parent_path(), runtime);
  Target target;
  target.name = path.stem();
  const TimePoint begin = RealClock::Get().Now();
  Result<ServablePtr> loaded = repository.LoadFile(target.name, 1, path, {});
  target.load_time = RealClock::Get().Now() - begin;
  target.status = loaded.status();
  if (loaded.ok()) target.servable = std::move(*loaded);
  targets.push_back(std::move(target));
  return targets;
}

Result<std::vector<Tensor>> ZeroInputs(const Servable& servable,
                                       const std::map<std::string, Shape>& given) {
  std::vector<Tensor> inputs;
  for (const TensorMetadata& input : servable.inputs) {
    Shape shape;
    auto it = given.find(input.name);
    if (it == given.end()) it = given.find("");
    if (it != given.end()) {
      shape = it->second;
    } else if (!input.shape.has_rank) {
      return InvalidArgumentError("input '" + input.name + "' has no known rank; give --shape " +
                                  input.name + "=...");
    } else {
      for (const SymbolicDim& dim : input.shape.dims) shape.push_back(dim.value.value_or(1));
    }
    PLEXUS_ASSIGN_OR_RETURN(Tensor zeros, Tensor::Allocate(input.dtype, std::move(shape)));
    if (zeros.size_bytes() > 0) std::fill_n(zeros.raw_mutable(), zeros.size_bytes(), std::byte{0});
    inputs.push_back(std::move(zeros));
  }
  return inputs;
}

}  // namespace plexus::cli
