#include "serve/infer_codec.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/json_writer.h"
#include "serve/json_tensor.h"

namespace plexus {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxRank = 64;
constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr uint64_t kMaxMicroseconds = 1'000'000'000'000'000;  // 31 years
// A parser keeps the memory of the largest document it has seen; larger ones get their own.
constexpr size_t kSharedParserBytes = 256 << 10;

std::string Quote(std::string_view name) {
  if (name.size() > 200) return "'" + std::string(name.substr(0, 197)) + "...'";
  return "'" + std::string(name) + "'";
}

Status JsonError(simdjson::error_code code, int max_depth) {
  switch (code) {
    case simdjson::DEPTH_ERROR:
      return InvalidArgumentError("the request's JSON is nested deeper than " +
                                  std::to_string(max_depth) + " levels");
    case simdjson::NUMBER_ERROR:
      return InvalidArgumentError(
          "the request's JSON holds a number that is malformed or out of range "
          "(JSON has no NaN and no Infinity)");
    case simdjson::EMPTY:
      return InvalidArgumentError("the request has no JSON");
    case simdjson::MEMALLOC:
    case simdjson::CAPACITY:
      return InvalidArgumentError("the request's JSON is too large");
    default:
      return InvalidArgumentError(std::string("the request's JSON is malformed: ") +
                                  simdjson::error_message(code) +
                                  " (JSON has no NaN and no Infinity)");
  }
}

// Reads the members of one JSON object by name, each at most once.
class Members {
 public:
  Members(dom::element value, std::string what) : what_(std::move(what)) {
    if (value.get(object_) != simdjson::SUCCESS) {
      status_ = InvalidArgumentError(what_ + " is not a JSON object");
    }
  }
  // Calls visit(key, value) for every member; stops at the first error. Duplicate keys are errors.
  template <typename Visit>
  Status ForEach(const Visit& visit) {
    PLEXUS_RETURN_IF_ERROR(status_);
    std::vector<std::string_view> seen;
    for (const dom::key_value_pair member : object_) {
      for (const std::string_view key : seen) {
        if (key == member.key) {
          return InvalidArgumentError(what_ + " has the key " + Quote(member.key) + " twice");
        }
      }
      if (seen.size() == kMaxKeys) return InvalidArgumentError(what_ + " has too many keys");
      seen.push_back(member.key);
      PLEXUS_RETURN_IF_ERROR(visit(member.key, member.value));
    }
    return OkStatus();
  }

 private:
  static constexpr size_t kMaxKeys = 256;
  std::string what_;
  dom::object object_;
  Status status_;
};

Result<std::string> ReadString(dom::element value, const std::string& what) {
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS) return InvalidArgumentError(what + " is not a string");
  return std::string(text);
}

Result<bool> ReadBool(dom::element value, const std::string& what) {
  bool flag;
  if (value.get(flag) != simdjson::SUCCESS) {
    return InvalidArgumentError(what + " is neither true nor false");
  }
  return flag;
}

Result<uint64_t> ReadUint(dom::element value, const std::string& what, uint64_t max) {
  uint64_t number;
  if (value.get(number) != simdjson::SUCCESS || number > max) {
    return InvalidArgumentError(what + " is not an integer from 0 to " + std::to_string(max));
  }
  return number;
}

// 0 and "" are none, as in Triton.
Result<std::string> ReadSequenceId(dom::element value, const std::string& what) {
  constexpr size_t kMaxBytes = 256;
  uint64_t number = 0;
  std::string_view text;
  if (value.get(number) == simdjson::SUCCESS) {
    return number == 0 ? std::string() : std::to_string(number);
  }
  if (value.get(text) != simdjson::SUCCESS || text.size() > kMaxBytes) {
    return InvalidArgumentError(what + " is neither a whole number nor a text of at most " +
                                std::to_string(kMaxBytes) + " bytes");
  }
  return text.empty() ? std::string() : "'" + std::string(text) + "'";
}

Result<Shape> ReadShape(dom::element value, const std::string& what) {
  dom::array dims;
  if (value.get(dims) != simdjson::SUCCESS) return InvalidArgumentError(what + " is not an array");
  Shape shape;
  int64_t product = 1;  // without the zeros: no later product overflows, in whatever order
  for (const dom::element dim : dims) {
    int64_t extent;
    if (shape.size() == kMaxRank) return InvalidArgumentError(what + " has too many dimensions");
    if (dim.get(extent) != simdjson::SUCCESS || extent < 0) {
      return InvalidArgumentError(what + " holds something that is no size");
    }
    shape.push_back(extent);
    if (__builtin_mul_overflow(product, std::max<int64_t>(extent, 1), &product) ||
        product > kMaxElements) {
      return InvalidArgumentError(what + " has too many elements");
    }
  }
  return shape;
}

// One member of "inputs" as written.
struct InputSpec {
  std::string name;
  std::optional<DType> dtype;
  std::optional<Shape> shape;
  std::optional<dom::element> data;
  std::optional<size_t> binary_bytes;
};

class Decoder {
 public:
  Decoder(const Servable& servable, const SharedBytes& body, const CodecLimits& limits)
      : servable_(servable), body_(body), limits_(limits) {}

  Result<InferRequest> Json(size_t json_bytes);
  Result<InferRequest> Raw();

 private:
  Status ReadParameters(dom::element value);
  Status CheckKeepsState(const std::string& what) const;
  Status ReadInput(dom::element value);
  Result<InputSpec> ReadInputSpec(dom::element value);
  Result<Tensor> BinaryInput(const InputSpec& spec, int64_t elements);
  Result<Tensor> JsonInput(const InputSpec& spec, int64_t elements);
  Result<Tensor> BinaryTensor(DType dtype, const Shape& shape, std::byte* data, size_t size_bytes);
  Status ReadOutputs(const std::optional<dom::element>& value);
  Status ReadOutput(dom::element value, size_t position);
  Status CheckInput(const TensorMetadata& want, DType dtype, const Shape& shape) const;
  std::string KnownNames(const std::vector<TensorMetadata>& tensors) const;

  const Servable& servable_;
  const SharedBytes& body_;
  const CodecLimits& limits_;
  InferRequest request_;
  bool binary_outputs_ = false;
  size_t json_bytes_ = 0;
  size_t binary_at_ = 0;  // where the next binary tensor begins
  size_t tensor_bytes_ = 0;
};

std::string Decoder::KnownNames(const std::vector<TensorMetadata>& tensors) const {
  std::string names;
  for (const TensorMetadata& tensor : tensors) {
    if (names.size() > 200) return names + ", ...";
    names += (names.empty() ? "" : ", ") + tensor.name;
  }
  return names;
}

Status Decoder::CheckInput(const TensorMetadata& want, DType dtype, const Shape& shape) const {
  if (dtype != want.dtype) {
    return InvalidArgumentError("expected datatype " + std::string(DTypeProtocolName(want.dtype)) +
                                ", got " + std::string(DTypeProtocolName(dtype)));
  }
  if (!want.shape.has_rank) return OkStatus();
  bool fits = want.shape.dims.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) {
    fits = !want.shape.dims[i].value || *want.shape.dims[i].value == shape[i];
  }
  if (fits) return OkStatus();
  return InvalidArgumentError("expected shape " + want.shape.ToString() + ", got " +
                              ShapeToString(shape));
}

Result<InferRequest> Decoder::Json(size_t json_bytes) {
  json_bytes_ = binary_at_ = json_bytes;
  thread_local dom::parser shared_parser;
  dom::parser own_parser;
  dom::parser& parser = json_bytes > kSharedParserBytes ? own_parser : shared_parser;
  const auto depth = static_cast<size_t>(limits_.max_json_depth);
  // The parser refuses documents beyond what it was allocated for, so grow it by ourselves: only
  // this way it takes our depth.
  if (parser.capacity() < json_bytes || parser.max_depth() != depth) {
    const auto error = parser.allocate(std::max<size_t>(json_bytes, 4096), depth);
    if (error) return JsonError(error, limits_.max_json_depth);
  }
  dom::element root;
  const auto error =
      parser.parse(reinterpret_cast<const uint8_t*>(body_.data), json_bytes, false).get(root);
  if (error) return JsonError(error, limits_.max_json_depth);

  request_.inputs.resize(servable_.inputs.size());
  std::optional<dom::element> inputs, outputs, parameters;
  PLEXUS_RETURN_IF_ERROR(
      Members(root, "the request").ForEach([&](std::string_view key, dom::element value) {
        if (key == "inputs") inputs = value;
        if (key == "outputs") outputs = value;
        if (key == "parameters") parameters = value;
        if (key == "id") {
          PLEXUS_ASSIGN_OR_RETURN(request_.id, ReadString(value, "'id'"));
        }
        return OkStatus();
      }));
  if (parameters) PLEXUS_RETURN_IF_ERROR(ReadParameters(*parameters));
  if (!servable_.states.empty() && request_.sequence.id.empty()) {
    return InvalidArgumentError(
        Quote(servable_.name) +
        " keeps state from request to request: the parameter 'sequence_id' must say whose, a "
        "number other than 0 or a text");
  }
  dom::array list;
  if (!inputs) return InvalidArgumentError("the request has no 'inputs'");
  if (inputs->get(list) != simdjson::SUCCESS) {
    return InvalidArgumentError("'inputs' is not an array");
  }
  for (const dom::element input : list) PLEXUS_RETURN_IF_ERROR(ReadInput(input));
  for (size_t i = 0; i < servable_.inputs.size(); ++i) {
    if (request_.inputs[i].defined()) continue;
    return InvalidArgumentError("input " + Quote(servable_.inputs[i].name) + " is missing");
  }
  if (binary_at_ != body_.size_bytes) {
    return InvalidArgumentError(
        std::to_string(body_.size_bytes - binary_at_) +
        " bytes follow the request's JSON and the binary tensors that it announces");
  }
  PLEXUS_RETURN_IF_ERROR(ReadOutputs(outputs));
  return std::move(request_);
}

Status Decoder::ReadParameters(dom::element value) {
  return Members(value, "'parameters'")
      .ForEach([&](std::string_view key, dom::element v) -> Status {
        const std::string what = "parameter " + Quote(key);
        if (key == "binary_data_output") {
          PLEXUS_ASSIGN_OR_RETURN(binary_outputs_, ReadBool(v, what));
        } else if (key == "priority") {
          PLEXUS_ASSIGN_OR_RETURN(const uint64_t priority, ReadUint(v, what, UINT32_MAX));
          request_.priority = static_cast<uint32_t>(priority);
        } else if (key == "timeout" || key == "deadline_us") {
          PLEXUS_ASSIGN_OR_RETURN(const uint64_t us, ReadUint(v, what, kMaxMicroseconds));
          std::optional<Duration>& limit = key == "timeout" ? request_.timeout : request_.deadline;
          if (us > 0) limit = std::chrono::microseconds(us);
        } else if (key == "use_cache") {
          PLEXUS_ASSIGN_OR_RETURN(request_.use_cache, ReadBool(v, what));
        } else if (key == "sequence_start" || key == "sequence_end") {
          PLEXUS_ASSIGN_OR_RETURN(const bool on, ReadBool(v, what));
          (key == "sequence_start" ? request_.sequence.start : request_.sequence.end) = on;
          if (on) PLEXUS_RETURN_IF_ERROR(CheckKeepsState(what));
        } else if (key == "sequence_id") {
          PLEXUS_ASSIGN_OR_RETURN(request_.sequence.id, ReadSequenceId(v, what));
          if (!request_.sequence.id.empty()) PLEXUS_RETURN_IF_ERROR(CheckKeepsState(what));
        }
        return OkStatus();
      });
}

Status Decoder::CheckKeepsState(const std::string& what) const {
  if (!servable_.states.empty()) return OkStatus();
  return UnimplementedError(what + ": " + Quote(servable_.name) +
                            " keeps nothing from one request to the next");
}

Result<InputSpec> Decoder::ReadInputSpec(dom::element value) {
  InputSpec spec;
  std::optional<dom::element> datatype, shape, parameters;
  bool named = false;
  PLEXUS_RETURN_IF_ERROR(
      Members(value, "an entry of 'inputs'").ForEach([&](std::string_view key, dom::element v) {
        if (key == "name") {
          named = true;
          PLEXUS_ASSIGN_OR_RETURN(spec.name, ReadString(v, "the 'name' of an input"));
        }
        if (key == "datatype") datatype = v;
        if (key == "shape") shape = v;
        if (key == "parameters") parameters = v;
        if (key == "data") spec.data = v;
        return OkStatus();
      }));
  if (!named) return InvalidArgumentError("an entry of 'inputs' has no 'name'");
  const std::string what = "input " + Quote(spec.name);
  if (!datatype) return InvalidArgumentError(what + " has no 'datatype'");
  if (!shape) return InvalidArgumentError(what + " has no 'shape'");
  PLEXUS_ASSIGN_OR_RETURN(const std::string type, ReadString(*datatype, what + ": its 'datatype'"));
  spec.dtype = DTypeFromProtocolName(type);
  if (!spec.dtype) return InvalidArgumentError(what + ": unknown datatype " + Quote(type));
  PLEXUS_ASSIGN_OR_RETURN(spec.shape, ReadShape(*shape, what + ": its 'shape'"));
  if (!parameters) return spec;
  PLEXUS_RETURN_IF_ERROR(
      Members(*parameters, what + ": its 'parameters'")
          .ForEach([&](std::string_view key, dom::element v) -> Status {
            if (key.substr(0, 13) == "shared_memory") {
              return UnimplementedError(what + ": shared memory is not supported");
            }
            if (key != "binary_data_size") return OkStatus();
            PLEXUS_ASSIGN_OR_RETURN(spec.binary_bytes,
                                    ReadUint(v, what + ": 'binary_data_size'", INT64_MAX));
            return OkStatus();
          }));
  return spec;
}

Status Decoder::ReadInput(dom::element value) {
  PLEXUS_ASSIGN_OR_RETURN(const InputSpec spec, ReadInputSpec(value));
  const std::string what = "input " + Quote(spec.name);
  size_t index = 0;
  while (index < servable_.inputs.size() && servable_.inputs[index].name != spec.name) ++index;
  if (index == servable_.inputs.size()) {
    return InvalidArgumentError(Quote(servable_.name) + " has no " + what + "; it has " +
                                KnownNames(servable_.inputs));
  }
  if (request_.inputs[index].defined()) {
    return InvalidArgumentError(what + " is given twice");
  }
  PLEXUS_RETURN_IF_ERROR(
      CheckInput(servable_.inputs[index], *spec.dtype, *spec.shape).WithContext(what));
  const Result<int64_t> elements = NumElements(*spec.shape);
  if (!elements.ok()) return InvalidArgumentError(what + ": " + elements.status().message());
  if (spec.data && spec.binary_bytes) {
    return InvalidArgumentError(what + " has both 'data' and 'binary_data_size'");
  }
  if (!spec.data && !spec.binary_bytes) {
    return InvalidArgumentError(what + " has neither 'data' nor 'binary_data_size'");
  }
  Result<Tensor> tensor = spec.data ? JsonInput(spec, *elements) : BinaryInput(spec, *elements);
  if (!tensor.ok()) return tensor.status().WithContext(what);
  request_.inputs[index] = std::move(*tensor);
  return OkStatus();
}

Result<Tensor> Decoder::JsonInput(const InputSpec& spec, int64_t elements) {
  // An element takes a character and a comma at least: a shape that the text cannot fill is refused
  // before memory is taken for it.
  if (static_cast<uint64_t>(elements) > json_bytes_ / 2 + 1) {
    return InvalidArgumentError("its data holds fewer elements than the " +
                                std::to_string(elements) + " of shape " +
                                ShapeToString(*spec.shape));
  }
  tensor_bytes_ +=
      static_cast<size_t>(elements) *
      (DTypeSizeBytes(*spec.dtype) == 0 ? sizeof(std::string) : DTypeSizeBytes(*spec.dtype));
  if (tensor_bytes_ > limits_.max_tensor_bytes) {
    return InvalidArgumentError("the request's tensors take more than the limit of " +
                                std::to_string(limits_.max_tensor_bytes) + " bytes");
  }
  return TensorFromJson(*spec.dtype, *spec.shape, *spec.data);
}

Result<Tensor> Decoder::BinaryInput(const InputSpec& spec, int64_t elements) {
  const size_t left = body_.size_bytes - binary_at_;
  const size_t size = *spec.binary_bytes;
  if (size > left) {
    return InvalidArgumentError("'binary_data_size' is " + std::to_string(size) + ", but only " +
                                std::to_string(left) + " bytes are left in the body");
  }
  const size_t element_bytes = DTypeSizeBytes(*spec.dtype);
  if (*spec.dtype != DType::kString && static_cast<uint64_t>(elements) * element_bytes != size) {
    return InvalidArgumentError("'binary_data_size' is " + std::to_string(size) + ", shape " +
                                ShapeToString(*spec.shape) + " of " +
                                std::string(DTypeProtocolName(*spec.dtype)) + " takes " +
                                std::to_string(elements * element_bytes));
  }
  std::byte* const data = body_.data + binary_at_;
  binary_at_ += size;
  return BinaryTensor(*spec.dtype, *spec.shape, data, size);
}

Result<Tensor> Decoder::BinaryTensor(DType dtype, const Shape& shape, std::byte* data,
                                     size_t size_bytes) {
  if (dtype == DType::kString) return StringsFromBinary(shape, data, size_bytes);
  if (dtype == DType::kBool) {
    for (size_t i = 0; i < size_bytes; ++i) {
      if (data[i] > std::byte{1}) {
        return InvalidArgumentError("element " + std::to_string(i) + " is neither 0 nor 1");
      }
    }
  }
  if (reinterpret_cast<uintptr_t>(data) % DTypeSizeBytes(dtype) == 0) {
    return Tensor::FromBuffer(dtype, shape, Buffer::Wrap(data, size_bytes, body_.owner));
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor copy, Tensor::Allocate(dtype, shape));
  if (size_bytes > 0) std::memcpy(copy.raw_mutable(), data, size_bytes);
  return copy;
}

Status Decoder::ReadOutputs(const std::optional<dom::element>& value) {
  if (value) {
    dom::array list;
    if (value->get(list) != simdjson::SUCCESS) {
      return InvalidArgumentError("'outputs' is not an array");
    }
    for (const dom::element output : list) {
      PLEXUS_RETURN_IF_ERROR(ReadOutput(output, request_.outputs.size()));
    }
  }
  if (!request_.outputs.empty()) return OkStatus();
  for (size_t i = 0; i < servable_.outputs.size(); ++i) {
    request_.outputs.push_back({i, binary_outputs_});
  }
  return OkStatus();
}

Status Decoder::ReadOutput(dom::element value, size_t position) {
  std::optional<std::string> name;
  std::optional<dom::element> parameters;
  PLEXUS_RETURN_IF_ERROR(
      Members(value, "an entry of 'outputs'").ForEach([&](std::string_view key, dom::element v) {
        if (key == "name") {
          PLEXUS_ASSIGN_OR_RETURN(name, ReadString(v, "the 'name' of an output"));
        }
        if (key == "parameters") parameters = v;
        return OkStatus();
      }));
  if (!name) return InvalidArgumentError("an entry of 'outputs' has no 'name'");
  const std::string what = "output " + Quote(*name);
  RequestedOutput output{0, binary_outputs_};
  while (output.index < servable_.outputs.size() && servable_.outputs[output.index].name != *name) {
    ++output.index;
  }
  if (output.index == servable_.outputs.size()) {
    return InvalidArgumentError(Quote(servable_.name) + " has no " + what + "; it has " +
                                KnownNames(servable_.outputs));
  }
  for (size_t i = 0; i < position; ++i) {
    if (request_.outputs[i].index == output.index) {
      return InvalidArgumentError(what + " is asked for twice");
    }
  }
  if (parameters) {
    PLEXUS_RETURN_IF_ERROR(
        Members(*parameters, what + ": its 'parameters'")
            .ForEach([&](std::string_view key, dom::element v) -> Status {
              if (key.substr(0, 13) == "shared_memory") {
                return UnimplementedError(what + ": shared memory is not supported");
              }
              if (key == "classification") {
                uint64_t classes = 1;
                if (v.get(classes) == simdjson::SUCCESS && classes == 0) return OkStatus();
                return UnimplementedError(what + ": classification is not supported");
              }
              if (key != "binary_data") return OkStatus();
              PLEXUS_ASSIGN_OR_RETURN(output.binary, ReadBool(v, what + ": 'binary_data'"));
              return OkStatus();
            }));
  }
  request_.outputs.push_back(output);
  return OkStatus();
}

Result<InferRequest> Decoder::Raw() {
  if (servable_.inputs.size() != 1) {
    return InvalidArgumentError("a raw request needs a model of one input, " +
                                Quote(servable_.name) + " has " +
                                std::to_string(servable_.inputs.size()));
  }
  const TensorMetadata& input = servable_.inputs[0];
  const std::string what = "input " + Quote(input.name);
  if (!input.shape.has_rank) {
    return InvalidArgumentError(what + " has no known rank; send its shape");
  }
  const bool strings = input.dtype == DType::kString;
  Shape shape;
  std::optional<size_t> open;  // the one dimension that the body's size decides
  for (size_t i = 0; i < input.shape.dims.size(); ++i) {
    shape.push_back(input.shape.dims[i].value.value_or(1));
    if (input.shape.dims[i].value || strings) continue;
    if (open) {
      return InvalidArgumentError(what + " has shape " + input.shape.ToString() +
                                  ": a raw request leaves one dimension open at most");
    }
    open = i;
  }
  const Result<int64_t> elements = NumElements(shape);
  if (!elements.ok()) return InvalidArgumentError(what + ": " + elements.status().message());
  if (strings) {
    // The body is the one element.
    if (*elements != 1) {
      return InvalidArgumentError(what + ": a raw request holds one element, shape " +
                                  ShapeToString(shape) + " has " + std::to_string(*elements));
    }
    request_.inputs.push_back(Tensor::FromStrings(
        shape, {std::string(reinterpret_cast<const char*>(body_.data), body_.size_bytes)}));
  } else {
    const uint64_t unit = static_cast<uint64_t>(*elements) * DTypeSizeBytes(input.dtype);
    if (open && unit > 0 && body_.size_bytes % unit == 0) {
      shape[*open] = static_cast<int64_t>(body_.size_bytes / unit);
    } else if (unit != body_.size_bytes) {
      return InvalidArgumentError(what + ": " + std::to_string(body_.size_bytes) +
                                  " bytes do not fill shape " + input.shape.ToString() + " of " +
                                  std::string(DTypeProtocolName(input.dtype)));
    }
    Result<Tensor> tensor = BinaryTensor(input.dtype, shape, body_.data, body_.size_bytes);
    if (!tensor.ok()) return tensor.status().WithContext(what);
    request_.inputs.push_back(std::move(*tensor));
  }
  for (size_t i = 0; i < servable_.outputs.size(); ++i) request_.outputs.push_back({i, true});
  return std::move(request_);
}

}  // namespace

Result<InferRequest> DecodeInferRequest(const Servable& servable, const SharedBytes& body,
                                        std::optional<size_t> json_bytes,
                                        const CodecLimits& limits) {
  Decoder decoder(servable, body, limits);
  if (json_bytes && *json_bytes == 0) return decoder.Raw();
  if (json_bytes && *json_bytes > body.size_bytes) {
    return InvalidArgumentError("Inference-Header-Content-Length exceeds the body");
  }
  return decoder.Json(json_bytes.value_or(body.size_bytes));
}

Result<size_t> ParseTensorHeaderLength(std::string_view text, size_t body_bytes) {
  size_t value = 0;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end.ec != std::errc() || end.ptr != text.data() + text.size() || text.empty()) {
    return InvalidArgumentError("Inference-Header-Content-Length is not a number");
  }
  if (value > body_bytes) {
    return InvalidArgumentError("Inference-Header-Content-Length is " + std::to_string(value) +
                                ", the body has only " + std::to_string(body_bytes) + " bytes");
  }
  return value;
}

Result<HttpResponse> EncodeInferResponse(const Servable& servable, const InferRequest& request,
                                         const std::vector<Tensor>& outputs,
                                         std::shared_ptr<MemoryBudget> memory,
                                         const std::function<Status()>& alive) {
  HttpResponse response;
  const auto charge = std::make_shared<MemoryCharge>(std::move(memory));
  size_t charged = 0;
  const std::function<Status()> check = [&]() -> Status {
    if (alive != nullptr) PLEXUS_RETURN_IF_ERROR(alive());
    // Twice the text: it moves when it grows.
    const size_t grown = 2 * response.body.size() - charged;
    charged += grown;
    return charge->Grow(grown);
  };
  response.held = charge;
  JsonWriter json(&response.body);
  json.BeginObject();
  json.Key("model_name").String(servable.name);
  json.Key("model_version").String(servable.version);
  if (!request.id.empty()) json.Key("id").String(request.id);
  json.Key("outputs").BeginArray();
  bool binary = false;
  for (const RequestedOutput& wanted : request.outputs) {
    const Tensor& tensor = outputs[wanted.index];
    const std::string& name = servable.outputs[wanted.index].name;
    json.BeginObject();
    json.Key("name").String(name);
    json.Key("datatype").String(DTypeProtocolName(tensor.dtype()));
    json.Key("shape").BeginArray();
    for (const int64_t dim : tensor.shape()) json.Int(dim);
    json.EndArray();
    if (wanted.binary) {
      binary = true;
      SharedBytes part;
      if (tensor.dtype() == DType::kString) {
        PLEXUS_RETURN_IF_ERROR(
            charge->Grow(BinarySize(tensor)).WithContext("output " + Quote(name)));
        auto text = std::make_shared<std::string>(StringsToBinary(tensor));
        part.data = reinterpret_cast<std::byte*>(text->data());
        part.size_bytes = text->size();
        part.owner = std::move(text);
      } else {
        auto holder = std::make_shared<Tensor>(tensor);
        part.data = holder->raw_mutable();
        part.size_bytes = holder->size_bytes();
        part.owner = std::move(holder);
      }
      json.Key("parameters").BeginObject();
      json.Key("binary_data_size").Uint(part.size_bytes);
      json.EndObject();
      response.payload.push_back(std::move(part));
    } else {
      json.Key("data");
      PLEXUS_RETURN_IF_ERROR(
          TensorToJson(tensor, json, check).WithContext("output " + Quote(name)));
    }
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  if (binary) {
    response.content_type = "application/octet-stream";
    response.headers.emplace_back("Inference-Header-Content-Length",
                                  std::to_string(response.body.size()));
  }
  return response;
}

}  // namespace plexus
