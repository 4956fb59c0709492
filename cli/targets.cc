#include "cli/targets.h"

#include <algorithm>
#include <filesystem>
#include <set>

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

bool IsFixed(const SymbolicShape& shape) { return shape.has_rank && shape.IsConcrete(); }

Shape Ones(const SymbolicShape& shape) {
  Shape ones;
  for (const SymbolicDim& dim : shape.dims) ones.push_back(dim.value.value_or(1));
  return ones;
}

std::string Join(const Shape& shape) {
  std::string text;
  for (const int64_t dim : shape) text += (text.empty() ? "" : ",") + std::to_string(dim);
  return text;
}

// A shape to suggest: one row; INT16 is taken for PCM, of which 4 s at 16 kHz are a usual clip.
std::string Example(const TensorMetadata& input) {
  const int64_t length = input.dtype == DType::kInt16 ? 64000 : 128;
  if (!input.shape.has_rank) return "1," + std::to_string(length);
  Shape shape;
  const std::vector<SymbolicDim>& dims = input.shape.dims;
  for (size_t i = 0; i < dims.size(); ++i) {
    const bool samples = dims[i].symbol.find("sample") != std::string::npos;
    const int64_t size = i == 0 && dims.size() > 1 ? 1 : samples ? 64000 : length;
    shape.push_back(dims[i].value.value_or(size));
  }
  return Join(shape);
}

std::string Describe(const TensorMetadata& input) {
  return input.name + " " + std::string(DTypeProtocolName(input.dtype)) + ShapeText(input.shape);
}

bool Fits(const SymbolicShape& declared, const Shape& shape) {
  if (!declared.has_rank) return true;
  if (declared.dims.size() != shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (declared.dims[i].value.value_or(shape[i]) != shape[i]) return false;
  }
  return true;
}

// Null where nothing is given; models of one repository may have inputs of one name and other
// shapes.
const Shape* GivenFor(const TensorMetadata& input, const Servable& servable, const Shapes& given) {
  auto shape = given.find(input.name);
  if (shape == given.end() && servable.inputs.size() == 1) shape = given.find("");
  return shape != given.end() && Fits(input.shape, shape->second) ? &shape->second : nullptr;
}

Result<Tensor> StandIn(DType dtype, Shape shape) {
  if (dtype == DType::kString) {
    PLEXUS_ASSIGN_OR_RETURN(const int64_t elements, NumElements(shape));
    constexpr int64_t kMaxStrings = 1 << 16;
    if (elements > kMaxStrings) return InvalidArgumentError("more than 65536 BYTES elements");
    const std::string text(4096, 'x');
    return Tensor::FromStrings(std::move(shape),
                               std::vector<std::string>(static_cast<size_t>(elements), text));
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor zeros, Tensor::Allocate(dtype, std::move(shape)));
  if (zeros.size_bytes() > 0) std::fill_n(zeros.raw_mutable(), zeros.size_bytes(), std::byte{0});
  return zeros;
}

}  // namespace

bool IsRepository(const std::filesystem::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (fs::is_directory(it->path(), error) && IsModelFolder(it->path())) return true;
  }
  for (fs::directory_iterator it(folder / "pipelines", error);
       !error && it != fs::directory_iterator(); it.increment(error)) {
    if (it->path().extension() == ".yaml") return true;
  }
  return false;
}

Result<std::vector<Target>> LoadTargets(const std::string& text, Runtime& runtime) {
  std::error_code error;
  const fs::path path = fs::weakly_canonical(text, error);
  if (error || !fs::exists(path, error)) return NotFoundError("'" + text + "' is not there");
  std::vector<Target> targets;
  if (fs::is_directory(path, error)) {
    const bool one = IsModelFolder(path);
    ModelRepository repository(one ? path.parent_path() : path, runtime);
    repository.SkipRuns();
    if (one) {
      targets.push_back(LoadEntry(repository, path.filename()));
      return targets;
    }
    PLEXUS_RETURN_IF_ERROR(repository.CheckReadable());
    if (!IsRepository(path)) return NotFoundError("'" + text + "' holds no model and no pipeline");
    std::vector<std::string> names;
    for (const IndexEntry& entry : repository.Index()) names.push_back(entry.name);
    // Models first: a model that is loaded after its pipelines rebuilds them.
    std::stable_partition(names.begin(), names.end(), [&](const std::string& name) {
      return !fs::exists(path / "pipelines" / (name + ".yaml"), error);
    });
    for (const std::string& name : names) targets.push_back(LoadEntry(repository, name));
    return targets;
  }
  if (path.extension() == ".yaml") {
    ModelRepository repository(path.parent_path().parent_path(), runtime);
    repository.SkipRuns();
    targets.push_back(LoadEntry(repository, path.stem()));
    return targets;
  }
  ModelRepository repository(path.parent_path(), runtime);
  repository.SkipRuns();
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

Status CheckShapes(const std::vector<Target>& targets, const Shapes& given) {
  std::set<std::string> inputs;
  for (const Target& target : targets) {
    if (target.servable == nullptr) continue;
    for (const TensorMetadata& input : target.servable->inputs) inputs.insert(Describe(input));
  }
  if (inputs.empty()) return OkStatus();  // nothing was loaded: that is what the user must hear
  for (const auto& [name, shape] : given) {
    bool wanted = false;
    for (const Target& target : targets) {
      if (target.servable == nullptr) continue;
      for (const TensorMetadata& input : target.servable->inputs) {
        wanted |= GivenFor(input, *target.servable, {{name, shape}}) != nullptr;
      }
    }
    if (wanted) continue;
    std::string list;
    for (const std::string& input : inputs) list += (list.empty() ? "" : ", ") + input;
    return InvalidArgumentError("--shape " + name + (name.empty() ? "" : "=") + Join(shape) +
                                ": no input of such a name and shape; there are: " + list);
  }
  return OkStatus();
}

std::string Complaint(const Target& target, const Status& status) {
  return target.status.ok() ? target.name + ": " + status.message() : status.message();
}

std::string ShapeText(const SymbolicShape& shape) {
  if (!shape.has_rank) return "[-1]";
  std::string text;
  for (const SymbolicDim& dim : shape.dims) {
    text += text.empty() ? "[" : ",";
    text += dim.value ? std::to_string(*dim.value) : dim.symbol.empty() ? "-1" : dim.symbol;
  }
  return text.empty() ? "[]" : text + "]";
}

Trial Try(const Target& target, const Shapes& given, Runtime& runtime) {
  Trial trial;
  trial.status = target.status;
  if (!trial.status.ok()) return trial;
  const Servable& servable = *target.servable;
  std::string open;  // inputs of open size, for the advice
  for (const TensorMetadata& input : servable.inputs) {
    const Shape* shape = GivenFor(input, servable, given);
    const bool is_given = shape != nullptr;
    if (!is_given && !IsFixed(input.shape)) {
      open += (open.empty() ? "input '" : ", input '") + input.name + "' " +
              std::string(DTypeProtocolName(input.dtype)) + ShapeText(input.shape) +
              " has no fixed size: give --shape " + input.name + "=" + Example(input);
      trial.wanted +=
          (trial.wanted.empty() ? "--shape " : " --shape ") + input.name + "=" + Example(input);
    }
    if (!is_given && !input.shape.has_rank) {
      trial.advice = open;
      return trial;
    }
    Result<Tensor> tensor = StandIn(input.dtype, is_given ? *shape : Ones(input.shape));
    if (!tensor.ok()) {
      trial.status = tensor.status().WithContext("input '" + input.name + "'");
      return trial;
    }
    if (is_given || !IsFixed(input.shape)) {
      trial.shapes += (trial.shapes.empty() ? "" : " ") + input.name + "=" + Join(tensor->shape());
    }
    trial.inputs.push_back(std::move(*tensor));
  }
  for (const PipelineState& state : servable.states) trial.inputs.push_back(state.initial);
  const RunResult result = runtime.Run(target.servable->executable, trial.inputs);
  const bool invented_text =
      std::any_of(servable.inputs.begin(), servable.inputs.end(),
                  [](const TensorMetadata& input) { return input.dtype == DType::kString; });
  if (invented_text && result.status.code() == StatusCode::kInvalidArgument) {
    // What stands in for a file need not be one.
    if (open.empty()) {
      trial.advice = "on text of our own: " + result.status.message();
      trial.wanted = "a file, with 'plexus infer'";
    }
  } else if (!result.status.ok() && open.empty()) {
    trial.status = result.status.WithContext(
        trial.shapes.empty() ? "does not run" : "does not run on " + trial.shapes);
  }
  for (size_t i = 0; i < result.outputs.size() && i < servable.outputs.size(); ++i) {
    const Tensor& output = result.outputs[i];
    if (output.defined() && output.num_elements() == 0) {
      trial.empty_outputs.push_back(servable.outputs[i].name);
    }
  }
  if (!open.empty() && !result.status.ok()) {
    trial.advice = open + "; on " + trial.shapes + " it does not run: " + result.status.message();
  } else if (!trial.empty_outputs.empty()) {
    trial.advice = open;
  }
  return trial;
}

}  // namespace plexus::cli
