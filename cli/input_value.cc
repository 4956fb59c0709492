#include "cli/input_value.h"

#include <simdjson.h>

#include <algorithm>
#include <filesystem>

#include "cli/files.h"
#include "serve/json_tensor.h"

namespace plexus::cli {
namespace {

namespace dom = simdjson::dom;

// The shape of `count` elements: given, or the model's with at most one open dimension filled in.
Result<Shape> FitShape(const InputSpec& input, const Shape* given, int64_t count) {
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

Result<InputValue> FromJson(const InputSpec& input, const Shape* given, const std::string& text) {
  dom::parser parser;
  dom::element root;
  if (parser.parse(text).get(root)) {
    const auto printable = [](unsigned char c) { return c >= 0x20 && c < 0x7f; };
    const auto end = std::find_if_not(text.begin(), text.end(), printable);
    std::string shown(text.begin(),
                      std::min(end, text.begin() + std::min<size_t>(text.size(), 40)));
    if (shown.size() < text.size()) shown += "...";
    return InvalidArgumentError("expected JSON, such as [1, 2, 3], got '" + shown + "'");
  }
  InputValue value;
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

Result<InputValue> FromTensor(const InputSpec& input, const Shape* given, const Tensor& tensor) {
  if (tensor.dtype() != input.dtype) {
    return InvalidArgumentError("is " + std::string(DTypeProtocolName(input.dtype)) +
                                ", the file holds " +
                                std::string(DTypeProtocolName(tensor.dtype())));
  }
  InputValue value;
  value.shape = tensor.shape();
  if (given != nullptr || tensor.shape().size() != input.dims.size()) {
    PLEXUS_ASSIGN_OR_RETURN(value.shape, FitShape(input, given, tensor.num_elements()));
  }
  value.bytes.assign(reinterpret_cast<const char*>(tensor.raw()), tensor.size_bytes());
  return value;
}

Result<InputValue> FromBytes(const InputSpec& input, const Shape* given, std::string content) {
  InputValue value;
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

}  // namespace

Result<InputValue> ReadValue(const InputSpec& input, const Shape* given, const std::string& text) {
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

}  // namespace plexus::cli
