#include "graph/onnx/onnx_import.h"

#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <system_error>

#include "graph/onnx/graph_builder.h"
#include "graph/onnx/model_parser.h"

namespace plexus {
namespace {

using google::protobuf::io::ArrayInputStream;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::FileInputStream;
using google::protobuf::io::ZeroCopyInputStream;

Status CheckSize(uint64_t size_bytes, const ImportOptions& options) {
  // Protobuf knows no larger message; larger models keep their weights in external data.
  constexpr uint64_t kWireLimit = std::numeric_limits<int>::max() - 1;
  const uint64_t limit = std::min(options.max_file_bytes, kWireLimit);
  if (size_bytes <= limit) return OkStatus();
  return ResourceExhaustedError("the model has " + std::to_string(size_bytes) +
                                " bytes, the limit is " + std::to_string(limit));
}

Result<GraphPtr> ImportStream(ZeroCopyInputStream* stream, uint64_t size_bytes,
                              const std::filesystem::path& folder, const ImportOptions& options) {
  PLEXUS_RETURN_IF_ERROR(CheckSize(size_bytes, options));
  onnx::ExternalData external(folder);
  onnx::ModelAst model;
  {
    CodedInputStream coded(stream);
    onnx::WireReader reader(&coded, static_cast<int>(size_bytes), onnx::MaxMessageDepth(options));
    PLEXUS_ASSIGN_OR_RETURN(model, onnx::ParseModel(reader, &external, options));
  }
  return onnx::BuildGraph(model, options);
}

Result<GraphPtr> ImportFile(const std::filesystem::path& path, const ImportOptions& options) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string reason = "cannot open: " + std::generic_category().message(errno);
    return errno == EACCES ? PermissionDeniedError(reason) : NotFoundError(reason);
  }
  FileInputStream stream(fd);
  stream.SetCloseOnDelete(true);
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return InvalidArgumentError("not a regular file");
  }
  const std::filesystem::path folder = path.parent_path();
  return ImportStream(&stream, static_cast<uint64_t>(info.st_size), folder.empty() ? "." : folder,
                      options);
}

}  // namespace

Result<GraphPtr> ImportOnnxFile(const std::filesystem::path& path, const ImportOptions& options) {
  auto graph = ImportFile(path, options);
  if (!graph.ok()) return graph.status().WithContext(path.string());
  return graph;
}

Result<GraphPtr> ImportOnnxBytes(std::span<const std::byte> bytes,
                                 const std::filesystem::path& folder,
                                 const ImportOptions& options) {
  PLEXUS_RETURN_IF_ERROR(CheckSize(bytes.size(), options));
  ArrayInputStream stream(bytes.data(), static_cast<int>(bytes.size()));
  return ImportStream(&stream, bytes.size(), folder, options);
}

Result<Tensor> ReadTensorProto(std::span<const std::byte> bytes) {
  PLEXUS_RETURN_IF_ERROR(CheckSize(bytes.size(), {}));
  ArrayInputStream stream(bytes.data(), static_cast<int>(bytes.size()));
  CodedInputStream coded(&stream);
  onnx::WireReader reader(&coded, static_cast<int>(bytes.size()), onnx::MaxMessageDepth({}));
  onnx::TensorLimits limits{ImportOptions{}.max_tensor_bytes, nullptr};
  onnx::NamedTensor tensor = onnx::ParseTensor(reader, limits);
  if (!reader.ok()) return reader.status();
  return std::move(tensor.tensor);
}

}  // namespace plexus
