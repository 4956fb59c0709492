#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>

#include "base/json_writer.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/files.h"
#include "cli/input_value.h"
#include "cli/transport.h"
#include "serve/json_tensor.h"

namespace plexus::cli {
namespace {

namespace dom = simdjson::dom;

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

// The reply, or what it says went wrong. Only a server's answer has an HTTP status to speak of.
Result<HttpReply> Expect200(const Transport& transport, Result<HttpReply> reply) {
  if (!reply.ok() || reply->status == 200) return reply;
  dom::parser parser;
  std::string_view text;
  if (parser.parse(reply->body)["error"].get(text)) text = reply->body;
  const bool remote = transport.over_http();
  return InternalError(std::string(text) +
                       (remote ? " (HTTP " + std::to_string(reply->status) + ")" : ""));
}

Result<std::vector<InputSpec>> ReadInputs(const std::string& metadata) {
  dom::parser parser;
  dom::array list;
  const Status bad = InternalError("the server's metadata is malformed");
  if (parser.parse(metadata)["inputs"].get(list)) return bad;
  std::vector<InputSpec> inputs;
  for (const dom::element element : list) {
    InputSpec input;
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

// JSON and, behind it, the binary tensors.
struct Body {
  std::string text;
  size_t json_bytes = 0;
};

// Inputs of the model by name, with the text of their --input. Every error is the command line's.
using Given = std::map<std::string, std::pair<const InputSpec*, std::string>>;
Result<Given> MatchInputs(const InferFlags& flags, const std::map<std::string, Shape>& shapes,
                          const std::vector<InputSpec>& inputs) {
  std::string names;
  for (const InputSpec& each : inputs) names += (names.empty() ? "" : ", ") + each.name;
  const std::string known = "no such input; '" + flags.name + "' has: " + names;
  Given given;
  for (const std::string& text : flags.inputs) {
    // A model's input may have '=' in its name: the longest known name that fits wins.
    const InputSpec* input = nullptr;
    for (const InputSpec& each : inputs) {
      const bool fits = text.size() > each.name.size() && text[each.name.size()] == '=' &&
                        text.compare(0, each.name.size(), each.name) == 0;
      if (fits && (input == nullptr || each.name.size() > input->name.size())) input = &each;
    }
    const std::string what = "--input " + text.substr(0, 60) + ": ";
    if (input == nullptr) return InvalidArgumentError(what + known);
    if (!given.emplace(input->name, std::pair(input, text.substr(input->name.size() + 1))).second) {
      return InvalidArgumentError(what + "'" + input->name + "' is given twice");
    }
  }
  for (const auto& [name, shape] : shapes) {
    const bool is_input = std::any_of(inputs.begin(), inputs.end(),
                                      [&](const InputSpec& each) { return each.name == name; });
    if (name.empty() ? inputs.size() == 1 : is_input) continue;
    return InvalidArgumentError("--shape " + name + (name.empty() ? "" : "=") +
                                ShapeToString(shape) + ": " + known);
  }
  return given;
}

// An id of digits alone travels as a number, as Triton's clients send it.
void WriteSequence(const InferFlags& flags, JsonWriter& json) {
  const std::string& id = flags.sequence_id;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
  json.Key("sequence_id");
  if (error == std::errc() && end == id.data() + id.size()) {
    json.Uint(number);
  } else {
    json.String(id);
  }
  json.Key("sequence_start").Bool(flags.sequence_start);
  json.Key("sequence_end").Bool(flags.sequence_end);
}

Result<Body> BuildBody(const InferFlags& flags, const std::map<std::string, Shape>& shapes,
                       const Given& inputs, bool binary_outputs, bool* usage) {
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
  if (!flags.sequence_id.empty()) WriteSequence(flags, json);
  json.EndObject();
  json.Key("inputs").BeginArray();
  for (const auto& [name, given] : inputs) {
    const auto& [input, text] = given;
    auto shape = shapes.find(name);
    if (shape == shapes.end()) shape = shapes.find("");
    Result<InputValue> value =
        ReadValue(*input, shape == shapes.end() ? nullptr : &shape->second, text);
    if (!value.ok()) {
      *usage = text.empty() || text[0] != '@';  // what a file holds is not the command line
      return value.status().WithContext("--input " + name);
    }
    json.BeginObject();
    json.Key("name").String(name);
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

// Sets `usage` where the command line is at fault, not what it asked for.
Status Run(const InferFlags& flags, bool* usage) {
  *usage = true;
  PLEXUS_ASSIGN_OR_RETURN(const auto shapes, ParseShapes(flags.shapes));
  for (const std::string& text : flags.inputs) {
    if (text.find('=') == std::string::npos) {
      return InvalidArgumentError("--input " + text.substr(0, 60) +
                                  ": expected NAME=@FILE or NAME=VALUE");
    }
  }
  if (flags.sequence_id.empty() && (flags.sequence_start || flags.sequence_end)) {
    return InvalidArgumentError("--sequence-start and --sequence-end need --sequence-id");
  }
  *usage = false;
  if (!flags.repository.empty() && !flags.sequence_id.empty() && !flags.sequence_end) {
    std::fprintf(stderr, "plexus: note: in this process a sequence ends with the command\n");
  }
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
  Result<std::unique_ptr<Transport>> reached =
      flags.repository.empty() ? ConnectTo(flags.server, limit)
                               : LoadLocally(flags.repository, model, flags.runtime);
  if (!reached.ok()) {
    *usage = flags.repository.empty();  // no URL
    return reached.status();
  }
  Transport& transport = **reached;
  const std::string path = ModelPath(flags.name);
  PLEXUS_ASSIGN_OR_RETURN(const HttpReply metadata,
                          Expect200(transport, transport.Call("GET", path, {}, "")));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<InputSpec> inputs, ReadInputs(metadata.body));
  const bool binary = !flags.json || !flags.output_dir.empty();
  *usage = true;
  PLEXUS_ASSIGN_OR_RETURN(const Given given, MatchInputs(flags, shapes, inputs));
  *usage = false;
  PLEXUS_ASSIGN_OR_RETURN(Body body, BuildBody(flags, shapes, given, binary, usage));
  HttpClient::Headers headers = {{"Content-Type", "application/octet-stream"}};
  headers.emplace_back("Inference-Header-Content-Length", std::to_string(body.json_bytes));
  if (!flags.tenant.empty()) headers.emplace_back("plexus-tenant", flags.tenant);
  PLEXUS_ASSIGN_OR_RETURN(
      const HttpReply reply,
      Expect200(transport, transport.Call("POST", path + "/infer", headers, std::move(body.text))));
  if (!binary) {
    std::printf("%s\n", reply.body.c_str());
    return OkStatus();
  }
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<Output> outputs, ReadOutputs(reply));
  return Show(flags, outputs);
}

}  // namespace

int Infer(const InferFlags& flags) {
  bool usage = false;
  const Status status = Run(flags, &usage);
  if (status.ok()) return kExitOk;
  return usage ? FailUsage("infer", status.message()) : Fail(status);
}

}  // namespace plexus::cli
