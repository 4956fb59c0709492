#include "tests/onnx_case.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <span>

#include "graph/onnx/onnx_import.h"
#include "program/reference/kernels_util.h"
#include "program/reference/sequence.h"

namespace plexus::testing {
namespace {

using Bytes = std::span<const std::byte>;

// Just enough of protobuf's wire format to look into trusted test files.
class Fields {
 public:
  explicit Fields(Bytes bytes) : left_(bytes) {}
  // Steps to the next field; false at the end.
  bool Next() {
    if (left_.empty()) return false;
    const uint64_t tag = Varint();
    number = static_cast<int>(tag >> 3);
    bytes = {};
    switch (tag & 7) {
      case 0:
        varint = Varint();
        return true;
      case 1:
        return Skip(8);
      case 2:
        return Skip(Varint());
      case 5:
        return Skip(4);
      default:
        return false;
    }
  }
  std::string text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

  int number = 0;
  uint64_t varint = 0;
  Bytes bytes;

 private:
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !left_.empty(); shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(left_[0]);
      left_ = left_.subspan(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  }
  bool Skip(uint64_t count) {
    if (count > left_.size()) return false;
    bytes = left_.first(count);
    left_ = left_.subspan(count);
    return true;
  }
  Bytes left_;
};

Result<std::vector<std::byte>> ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFoundError(path.string());
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::byte* data = reinterpret_cast<const std::byte*>(text.data());
  return std::vector<std::byte>(data, data + text.size());
}

std::pair<std::string, ValueKind> ReadValueInfo(Bytes bytes) {
  std::pair<std::string, ValueKind> result = {"", ValueKind::kOther};
  for (Fields value(bytes); value.Next();) {
    if (value.number == 1) result.first = value.text();
    if (value.number != 2) continue;
    for (Fields type(value.bytes); type.Next();) {
      if (type.number == 1) result.second = ValueKind::kTensor;
      if (type.number == 4) result.second = ValueKind::kSequence;
      if (type.number == 9) result.second = ValueKind::kOptional;
    }
  }
  return result;
}

void ReadGraph(Bytes bytes, OnnxCase& out) {
  std::set<std::string> initialisers;
  for (Fields graph(bytes); graph.Next();) {
    if (graph.number == 1) {
      std::pair<std::string, std::string> op;
      for (Fields node(graph.bytes); node.Next();) {
        if (node.number == 4) op.second = node.text();
        if (node.number == 7) op.first = node.text();
      }
      out.operators.insert(op);
    } else if (graph.number == 5) {
      for (Fields tensor(graph.bytes); tensor.Next();) {
        if (tensor.number == 8) initialisers.insert(tensor.text());
      }
    } else if (graph.number == 11) {
      out.inputs.push_back(ReadValueInfo(graph.bytes));
    } else if (graph.number == 12) {
      out.outputs.push_back(ReadValueInfo(graph.bytes));
    }
  }
  std::erase_if(out.inputs, [&](const auto& input) { return initialisers.count(input.first) > 0; });
}

Result<Tensor> ReadSequence(Bytes bytes) {
  std::vector<Tensor> elements;
  for (Fields field(bytes); field.Next();) {
    if (field.number != 3 && field.number != 5) continue;
    PLEXUS_ASSIGN_OR_RETURN(Tensor element, field.number == 3 ? ReadTensorProto(field.bytes)
                                                              : ReadSequence(field.bytes));
    elements.push_back(std::move(element));
  }
  return reference::MakeSequence(std::move(elements));
}

Result<Tensor> ReadOptional(Bytes bytes) {
  for (Fields field(bytes); field.Next();) {
    if (field.number == 3 && !field.bytes.empty()) return ReadTensorProto(field.bytes);
    if (field.number == 5) return ReadSequence(field.bytes);
  }
  return Tensor();
}

Result<Tensor> ReadValue(const std::filesystem::path& path, ValueKind kind) {
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, ReadFile(path));
  switch (kind) {
    case ValueKind::kTensor:
      return ReadTensorProto(bytes);
    case ValueKind::kSequence:
      return ReadSequence(bytes);
    case ValueKind::kOptional:
      return ReadOptional(bytes);
    case ValueKind::kOther:
      break;
  }
  return UnimplementedError("a value that is neither tensor, sequence nor optional");
}

Status ReadValues(const std::filesystem::path& folder, const std::string& prefix,
                  const std::vector<std::pair<std::string, ValueKind>>& infos,
                  std::vector<Tensor>& out) {
  for (size_t i = 0; i < infos.size(); ++i) {
    const auto path = folder / (prefix + std::to_string(i) + ".pb");
    Tensor value;
    if (std::filesystem::exists(path)) {
      PLEXUS_ASSIGN_OR_RETURN(value, ReadValue(path, infos[i].second));
    }
    out.push_back(std::move(value));
  }
  return OkStatus();
}

Status CompareTensors(const Tensor& actual, const Tensor& expected, const Tolerance& tolerance) {
  if (actual.dtype() != expected.dtype() || actual.shape() != expected.shape()) {
    return DataLossError("got " + TensorToString(actual) + ", expected " +
                         TensorToString(expected));
  }
  if (tolerance.shapes_only || TensorsEqual(actual, expected)) return OkStatus();
  const Status differs =
      DataLossError("got " + TensorToString(actual) + ", expected " + TensorToString(expected));
  if (!reference::IsFloatLike(expected.dtype())) return differs;
  PLEXUS_ASSIGN_OR_RETURN(Tensor a, reference::AsFloat64(actual));
  PLEXUS_ASSIGN_OR_RETURN(Tensor b, reference::AsFloat64(expected));
  for (int64_t i = 0; i < a.num_elements(); ++i) {
    const double x = a.data<double>()[i], y = b.data<double>()[i];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    if (std::fabs(x - y) <= tolerance.absolute + tolerance.relative * std::fabs(y)) continue;
    return differs.WithContext("element " + std::to_string(i) + " is " + std::to_string(x) +
                               ", not " + std::to_string(y));
  }
  return OkStatus();
}

}  // namespace

std::vector<std::filesystem::path> FindCases(const std::filesystem::path& root) {
  std::vector<std::filesystem::path> cases;
  for (const char* group : {"node", "simple", "pytorch-converted", "pytorch-operator"}) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(root / group, error)) {
      if (std::filesystem::exists(entry.path() / "model.onnx")) cases.push_back(entry.path());
    }
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

Result<OnnxCase> ReadCase(const std::filesystem::path& folder) {
  OnnxCase result;
  result.name = folder.filename().string();
  result.folder = folder;
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, ReadFile(folder / "model.onnx"));
  for (Fields model(bytes); model.Next();) {
    if (model.number == 7) ReadGraph(model.bytes, result);
    if (model.number != 8) continue;
    for (Fields opset(model.bytes); opset.Next();) {
      if (opset.number == 1 && !opset.text().empty() && opset.text() != "ai.onnx") {
        result.foreign_domain = true;
      }
    }
  }
  return result;
}

Result<std::vector<DataSet>> ReadDataSets(const OnnxCase& test_case) {
  std::vector<DataSet> sets;
  for (int i = 0;; ++i) {
    const auto folder = test_case.folder / ("test_data_set_" + std::to_string(i));
    if (!std::filesystem::exists(folder)) return sets;
    DataSet set;
    PLEXUS_RETURN_IF_ERROR(ReadValues(folder, "input_", test_case.inputs, set.inputs));
    PLEXUS_RETURN_IF_ERROR(ReadValues(folder, "output_", test_case.outputs, set.outputs));
    sets.push_back(std::move(set));
  }
}

Status CompareValues(const Tensor& actual, const Tensor& expected, const Tolerance& tolerance) {
  const std::vector<Tensor>* expected_list = reference::AsSequence(expected);
  if (expected_list == nullptr) return CompareTensors(actual, expected, tolerance);
  const std::vector<Tensor>* actual_list = reference::AsSequence(actual);
  if (actual_list == nullptr || actual_list->size() != expected_list->size()) {
    return DataLossError("not a sequence of " + std::to_string(expected_list->size()));
  }
  for (size_t i = 0; i < expected_list->size(); ++i) {
    PLEXUS_RETURN_IF_ERROR(CompareValues((*actual_list)[i], (*expected_list)[i], tolerance)
                               .WithContext("sequence element " + std::to_string(i)));
  }
  return OkStatus();
}

}  // namespace plexus::testing
