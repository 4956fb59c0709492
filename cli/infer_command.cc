#include <simdjson.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/json_writer.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/files.h"
#include "cli/transport.h"
#include "serve/json_tensor.h"

namespace plexus::cli {
namespace {

namespace dom = simdjson::dom;

struct Input {
  std::string name;
  DType dtype = DType::kUndefined;
  bool has_rank = true;
  std::vector<int64_t> dims;  // −1: open
};

std::string PercentEncode(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const unsigned char c : text) {
    if (std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '~') {
      out += static_cast<char>(c);
    } else {
      out += {'%', kHex[c >> 4], kHex[c & 15]};
    }
  }
  return out;
}

// "NAME/3" names a version.
std::string ModelPath(const std::string& name) {
  const size_t slash = name.rfind('/');
  if (slash == std::string::npos) return "/v2/models/" + PercentEncode(name);
  return "/v2/models/" + PercentEncode(name.substr(0, slash)) + "/versions/" +
         PercentEncode(name.substr(slash + 1));
}

// The reply, or what it says went wrong.
Result<HttpReply> Expect200(Result<HttpReply> reply) {
  if (!reply.ok() || reply->status == 200) return reply;
  dom::parser parser;
  std::string_view text;
  if (parser.parse(reply->body)["error"].get(text)) text = reply->body;
  return InternalError(std::string(text) + " (HTTP " + std::to_string(reply->status) + ")");
}

Result<std::vector<Input>> ReadInputs(const std::string& metadata) {
  dom::parser parser;
  dom::array list;
  const Status bad = InternalError("the server's metadata is malformed");
  if (parser.parse(metadata)["inputs"].get(list)) return bad;
  std::vector<Input> inputs;
  for (const dom::element element : list) {
    Input input;
    std::string_view name, datatype;
    dom::array dims;
    if (element["name"].get(name) || element["datatype"].get(datatype) ||
        element["shape"].get(dims)) {
      return bad;
    }
    input.name = name;
    input.dtype = DTypeFromProtocolName(datatype).value_or(DType::kUndefined);
    for (const dom::element dim : dims) {
      int64_t extent;
      if (dim.get(extent)) return bad;
      input.dims.push_back(extent);
    }
    inputs.push_back(std::move(input));
  }
  return inputs;
}

// The shape of `count` elements: given, or the model's with at most one open dimension filled in.
Result<Shape> FitShape(const Input& input, const Shape* given, int64_t count) {
  if (given != nullptr) {
    PLEXUS_ASSIGN_OR_RETURN(const int64_t elements, NumElements(*given));
    if (elements == count) return *given;
    return InvalidArgumentError("--shape " + ShapeToString(*given) + " has " +
                                std::to_string(elements) + " elements, the value has " +
                                std::to_string(count));
  }
  Shape shape = input.dims;
  int64_t known = 1;
  size_t open = shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] >= 0) {
      known *= shape[i];
    } else if (open == shape.size()) {
      open = i;
    } else {
      shape[i] = 1;  // the first open dimension takes what there is, the others one
    }
  }
  if (open < shape.size() && known > 0 && count % known == 0) shape[open] = count / known;
  const Result<int64_t> elements =
      open < shape.size() && shape[open] < 0 ? Result<int64_t>(int64_t{-1}) : NumElements(shape);
  if (elements.ok() && *elements == count) return shape;
  return InvalidArgumentError("a value of " + std::to_string(count) +
                              " elements does not fit its shape " + ShapeToString(input.dims) +
                              "; give --shape " + input.name + "=...");
}

// An input as it goes into the request: JSON data, or bytes behind it.
struct Value {
  Shape shape;
  std::string json;  // "" : binary
  std::string bytes;
};

// Counts a JSON value's elements and, where it is nested, its shape.
Status Measure(dom::element value, Shape* shape, int64_t* count) {
  dom::array list;
  if (value.get(list)) {
    *count = 1;
    return OkStatus();
  }
  Shape inner;
  int64_t length = 0, total = 0;
  for (const dom::element element : list) {
    Shape element_shape;
    int64_t element_count = 0;
    PLEXUS_RETURN_IF_ERROR(Measure(element, &element_shape, &element_count));
    if (length > 0 && element_shape != inner) {
      return InvalidArgumentError("its rows differ in length");
    }
    inner = element_shape;
    ++length;
    total += element_count;
  }
  shape->push_back(length);
  shape->insert(shape->end(), inner.begin(), inner.end());
  *count = total;
  return OkStatus();
}

Result<Value> FromJson(const Input& input, const Shape* given, const std::string& text) {
  dom::parser parser;
  dom::element root;
  if (const auto error = parser.parse(text).get(root)) {
    return InvalidArgumentError(std::string("no JSON: ") + simdjson::error_message(error));
  }
  Value value;
  int64_t count = 0;
  Shape nested;
  PLEXUS_RETURN_IF_ERROR(Measure(root, &nested, &count));
  const bool as_nested = given == nullptr && nested.size() == input.dims.size() && !nested.empty();
  if (as_nested) {
    value.shape = nested;
  } else {
    PLEXUS_ASSIGN_OR_RETURN(value.shape, FitShape(input, given, count));
  }
  value.json = simdjson::minify(root);
  if (!root.is_array()) value.json = "[" + value.json + "]";
  return value;
}

Result<Value> FromTensor(const Input& input, const Shape* given, const Tensor& tensor) {
  if (tensor.dtype() != input.dtype) {
    return InvalidArgumentError("is " + std::string(DTypeProtocolName(input.dtype)) +
                                ", the file holds " +
                                std::string(DTypeProtocolName(tensor.dtype())));
  }
  Value value;
  value.shape = tensor.shape();
  if (given != nullptr || tensor.shape().size() != input.dims.size()) {
    PLEXUS_ASSIGN_OR_RETURN(value.shape, FitShape(input, given, tensor.num_elements()));
  }
  value.bytes.assign(reinterpret_cast<const char*>(tensor.raw()), tensor.size_bytes());
  return value;
}

Result<Value> FromBytes(const Input& input, const Shape* given, std::string content) {
  Value value;
  if (input.dtype == DType::kString) {
    PLEXUS_ASSIGN_OR_RETURN(value.shape, FitShape(input, given, 1));
    value.bytes = StringsToBinary(Tensor::FromStrings(value.shape, {std::move(content)}));
    return value;
  }
  const size_t size = DTypeSizeBytes(input.dtype);
  if (size == 0 || content.size() % size != 0) {
    return InvalidArgumentError("a file of " + std::to_string(content.size()) +
                                " bytes holds no whole number of " +
                                std::string(DTypeProtocolName(input.dtype)));
  }
  PLEXUS_ASSIGN_OR_RETURN(value.shape,
                          FitShape(input, given, static_cast<int64_t>(content.size() / size)));
  value.bytes = std::move(content);
  return value;
}

Result<Value> ReadValue(const Input& input, const Shape* given, const std::string& text) {
  if (text.empty() || text[0] != '@') {
    const bool list = !text.empty() && text[0] == '[';
    if (input.dtype == DType::kString && !list) return FromBytes(input, given, text);
    return FromJson(input, given, text);
  }
  const std::string path = text.substr(1);
  PLEXUS_ASSIGN_OR_RETURN(std::string content, ReadFile(path));
  std::string extension = std::filesystem::path(path).extension();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (input.dtype == DType::kString) return FromBytes(input, given, std::move(content));
  if (extension == ".json") return FromJson(input, given, content);
  if (extension != ".wav" && extension != ".npy") {
    return FromBytes(input, given, std::move(content));
  }
  PLEXUS_ASSIGN_OR_RETURN(const Tensor tensor,
                          extension == ".wav" ? ParseWav(content) : ParseNpy(content));
  return FromTensor(input, given, tensor);
}

// JSON and, behind it, the binary tensors.
struct Body {
  std::string text;
  size_t json_bytes = 0;
};

Result<Body> BuildBody(const InferFlags& flags, const std::vector<Input>& inputs,
                       bool binary_outputs) {
  PLEXUS_ASSIGN_OR_RETURN(auto shapes, ParseShapes(flags.shapes));
  std::string tail;
  Body body;
  JsonWriter json(&body.text);
  json.BeginObject();
  json.Key("parameters").BeginObject();
  if (binary_outputs) json.Key("binary_data_output").Bool(true);
  if (flags.priority > 0) json.Key("priority").Uint(flags.priority);
  if (flags.timeout_seconds > 0) {
    json.Key("timeout").Uint(static_cast<uint64_t>(flags.timeout_seconds * 1e6));
  }
  json.EndObject();
  json.Key("inputs").BeginArray();
  for (const std::string& text : flags.inputs) {
    // A model's input may have '=' in its name: the longest known name that fits wins.
    const Input* input = nullptr;
    for (const Input& each : inputs) {
      const bool fits = text.size() > each.name.size() && text[each.name.size()] == '=' &&
                        text.compare(0, each.name.size(), each.name) == 0;
      if (fits && (input == nullptr || each.name.size() > input->name.size())) input = &each;
    }
    if (input == nullptr) {
      std::string names;
      for (const Input& each : inputs) names += (names.empty() ? "" : ", ") + each.name;
      return InvalidArgumentError("--input " + text.substr(0, 60) + ": expected NAME=... with " +
                                  names);
    }
    auto given = shapes.find(input->name);
    if (given == shapes.end()) given = shapes.find("");
    Result<Value> value = ReadValue(*input, given == shapes.end() ? nullptr : &given->second,
                                    text.substr(input->name.size() + 1));
    if (!value.ok()) return value.status().WithContext("input '" + input->name + "'");
    json.BeginObject();
    json.Key("name").String(input->name);
    json.Key("datatype").String(DTypeProtocolName(input->dtype));
    json.Key("shape").BeginArray();
    for (const int64_t dim : value->shape) json.Int(dim);
    json.EndArray();
    if (!value->json.empty()) {
      json.Key("data").Raw(value->json);
    } else {
      json.Key("parameters").BeginObject();
      json.Key("binary_data_size").Uint(value->bytes.size());
      json.EndObject();
      tail += value->bytes;
    }
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
  body.json_bytes = body.text.size();
  body.text += tail;
  return body;
}

struct Output {
  std::string name;
  Tensor tensor;
};

Result<std::vector<Output>> ReadOutputs(const HttpReply& reply) {
  const Status bad = InternalError("the server's answer is malformed");
  const auto header = reply.headers.find("inference-header-content-length");
  size_t json_bytes = reply.body.size();
  if (header != reply.headers.end()) json_bytes = std::strtoul(header->second.c_str(), nullptr, 10);
  if (json_bytes > reply.body.size()) return bad;
  dom::parser parser;
  dom::array list;
  if (parser.parse(reply.body.data(), json_bytes)["outputs"].get(list)) return bad;
  std::vector<Output> outputs;
  size_t at = json_bytes;
  for (const dom::element element : list) {
    std::string_view name, datatype;
    dom::array dims;
    uint64_t size = 0;
    if (element["name"].get(name) || element["datatype"].get(datatype) ||
        element["shape"].get(dims) || element["parameters"]["binary_data_size"].get(size) ||
        size > reply.body.size() - at) {
      return bad;
    }
    Shape shape;
    for (const dom::element dim : dims) {
      int64_t extent;
      if (dim.get(extent)) return bad;
      shape.push_back(extent);
    }
    const DType dtype = DTypeFromProtocolName(datatype).value_or(DType::kUndefined);
    const auto* data = reinterpret_cast<const std::byte*>(reply.body.data() + at);
    at += size;
    if (dtype == DType::kString) {
      PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, StringsFromBinary(shape, data, size));
      outputs.push_back({std::string(name), std::move(tensor)});
      continue;
    }
    PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(dtype, std::move(shape)));
    if (tensor.size_bytes() != size) return bad;
    if (size > 0) std::memcpy(tensor.raw_mutable(), data, size);
    outputs.push_back({std::string(name), std::move(tensor)});
  }
  return outputs;
}

std::string Preview(const Tensor& tensor) {
  constexpr int kShown = 8;
  if (tensor.dtype() != DType::kString) return TensorToString(tensor, kShown);
  std::string text = "bytes" + ShapeToString(tensor.shape());
  for (size_t i = 0; i < tensor.strings().size() && i < kShown; ++i) {
    std::string quoted;
    JsonWriter(&quoted).String(tensor.strings()[i].substr(0, 200));
    text += " " + quoted;
  }
  return text + (tensor.strings().size() > kShown ? " ..." : "");
}

// NAME.npy; a BYTES output of one element as NAME.bin, of more as NAME.json.
Result<std::string> Save(const std::string& folder, const Output& output) {
  std::string name = output.name;
  for (char& c : name) {
    if (c == '/' || c == '\0') c = '_';
  }
  if (name[0] == '.') name[0] = '_';
  std::string path = (std::filesystem::path(folder) / name).string();
  std::string content;
  if (output.tensor.dtype() != DType::kString) {
    PLEXUS_ASSIGN_OR_RETURN(content, WriteNpy(output.tensor));
    path += ".npy";
  } else if (output.tensor.num_elements() == 1) {
    content = output.tensor.strings()[0];
    path += ".bin";
  } else {
    JsonWriter json(&content);
    PLEXUS_RETURN_IF_ERROR(TensorToJson(output.tensor, json).WithContext(output.name));
    path += ".json";
  }
  PLEXUS_RETURN_IF_ERROR(WriteFile(path, content));
  return path;
}

Status Show(const InferFlags& flags, const std::vector<Output>& outputs) {
  std::string text;
  JsonWriter json(&text);
  json.BeginObject();
  json.Key("model_name").String(flags.name);
  json.Key("outputs").BeginArray();
  for (const Output& output : outputs) {
    std::string path;
    if (!flags.output_dir.empty()) {
      PLEXUS_ASSIGN_OR_RETURN(path, Save(flags.output_dir, output));
    }
    json.BeginObject();
    json.Key("name").String(output.name);
    json.Key("datatype").String(DTypeProtocolName(output.tensor.dtype()));
    json.Key("shape").BeginArray();
    for (const int64_t dim : output.tensor.shape()) json.Int(dim);
    json.EndArray();
    json.Key("file").String(path);
    json.EndObject();
    if (flags.json) continue;
    std::printf("%s: %s%s\n", output.name.c_str(), Preview(output.tensor).c_str(),
                path.empty() ? "" : (" -> " + path).c_str());
  }
  json.EndArray();
  json.EndObject();
  if (flags.json) std::printf("%s\n", text.c_str());
  return OkStatus();
}

Status Run(const InferFlags& flags) {
  if (!flags.output_dir.empty()) {
    std::error_code error;
    std::filesystem::create_directories(flags.output_dir, error);
    if (error) {
      return PermissionDeniedError("--output-dir '" + flags.output_dir + "': " + error.message());
    }
  }
  const Duration limit = flags.timeout_seconds > 0
                             ? std::chrono::duration_cast<Duration>(
                                   std::chrono::duration<double>(flags.timeout_seconds + 5))
                             : Duration(std::chrono::hours(1));
  const std::string model = flags.name.substr(0, flags.name.rfind('/'));
  PLEXUS_ASSIGN_OR_RETURN(const std::unique_ptr<Transport> transport,
                          flags.repository.empty()
                              ? ConnectTo(flags.server, limit)
                              : LoadLocally(flags.repository, model, flags.runtime));
  const std::string path = ModelPath(flags.name);
  PLEXUS_ASSIGN_OR_RETURN(const HttpReply metadata,
                          Expect200(transport->Call("GET", path, {}, "")));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<Input> inputs, ReadInputs(metadata.body));
  const bool binary = !flags.json || !flags.output_dir.empty();
  PLEXUS_ASSIGN_OR_RETURN(Body body, BuildBody(flags, inputs, binary));
  HttpClient::Headers headers = {{"Content-Type", "application/octet-stream"}};
  headers.emplace_back("Inference-Header-Content-Length", std::to_string(body.json_bytes));
  if (!flags.tenant.empty()) headers.emplace_back("plexus-tenant", flags.tenant);
  PLEXUS_ASSIGN_OR_RETURN(
      const HttpReply reply,
      Expect200(transport->Call("POST", path + "/infer", headers, std::move(body.text))));
  if (!binary) {
    std::printf("%s\n", reply.body.c_str());
    return OkStatus();
  }
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<Output> outputs, ReadOutputs(reply));
  return Show(flags, outputs);
}

}  // namespace

int Infer(const InferFlags& flags) {
  const Status status = Run(flags);
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace plexus::cli
