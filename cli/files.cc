#include "cli/files.h"

#include <unistd.h>

#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace plexus::cli {
namespace {

constexpr char kNpyMagic[] = "\x93NUMPY";
constexpr size_t kNpyMagicBytes = 6;

struct NpyType {
  std::string_view name;
  DType dtype;
};
constexpr NpyType kNpyTypes[] = {
    {"<f4", DType::kFloat32}, {"<f8", DType::kFloat64}, {"<f2", DType::kFloat16},
    {"|i1", DType::kInt8},    {"<i2", DType::kInt16},   {"<i4", DType::kInt32},
    {"<i8", DType::kInt64},   {"|u1", DType::kUint8},   {"<u2", DType::kUint16},
    {"<u4", DType::kUint32},  {"<u8", DType::kUint64},  {"|b1", DType::kBool}};

template <typename T>
T Load(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

Result<Tensor> Copy(DType dtype, Shape shape, std::string_view bytes) {
  PLEXUS_ASSIGN_OR_RETURN(const int64_t elements, NumElements(shape));
  if (static_cast<uint64_t>(elements) * DTypeSizeBytes(dtype) != bytes.size()) {
    return InvalidArgumentError("its data has " + std::to_string(bytes.size()) + " bytes, shape " +
                                ShapeToString(shape) + " of " +
                                std::string(DTypeProtocolName(dtype)) + " takes " +
                                std::to_string(elements * DTypeSizeBytes(dtype)));
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(dtype, std::move(shape)));
  if (!bytes.empty()) std::memcpy(tensor.raw_mutable(), bytes.data(), bytes.size());
  return tensor;
}

// The text behind 'key': in the header's Python dictionary.
std::string_view NpyField(std::string_view header, std::string_view key) {
  const size_t at = header.find("'" + std::string(key) + "':");
  if (at == std::string_view::npos) return {};
  header.remove_prefix(at + key.size() + 3);
  while (!header.empty() && header[0] == ' ') header.remove_prefix(1);
  return header;
}

}  // namespace

Status CheckWritable(const std::string& path) {
  const std::filesystem::path file = std::filesystem::absolute(path);
  std::error_code error;
  const bool there = std::filesystem::exists(file, error);
  const bool folder = std::filesystem::is_directory(file, error);
  const std::string checked = there ? file.string() : file.parent_path().string();
  if (!folder && ::access(checked.c_str(), W_OK) == 0) return OkStatus();
  const std::string reason = folder ? "it is a folder" : std::generic_category().message(errno);
  return PermissionDeniedError("cannot write to '" + path + "': " + reason);
}

Result<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return InvalidArgumentError("'" + path + "' is not there or not a regular file");
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFoundError("cannot read '" + path + "': " + std::strerror(errno));
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return NotFoundError("cannot read '" + path + "'");
  return text;
}

Status WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (!out) return PermissionDeniedError("cannot write '" + path + "': " + std::strerror(errno));
  return OkStatus();
}

Result<Tensor> ParseWav(std::string_view file) {
  if (file.size() < 12 || file.substr(0, 4) != "RIFF" || file.substr(8, 4) != "WAVE") {
    return InvalidArgumentError("no WAV file");
  }
  bool known = false;
  for (size_t at = 12; file.size() - at >= 8;) {
    const std::string_view id = file.substr(at, 4);
    const size_t size = std::min<size_t>(Load<uint32_t>(file, at + 4), file.size() - at - 8);
    at += 8;
    if (id == "fmt ") {
      if (size < 16) return InvalidArgumentError("a WAV file cut short");
      const auto format = Load<uint16_t>(file, at);
      const auto channels = Load<uint16_t>(file, at + 2);
      const auto bits = Load<uint16_t>(file, at + 14);
      if ((format != 1 && format != 0xfffe) || bits != 16 || channels != 1) {
        return InvalidArgumentError("expected mono 16-bit PCM, got " + std::to_string(channels) +
                                    " channels of " + std::to_string(bits) + " bits (format " +
                                    std::to_string(format) + ")");
      }
      known = true;
    } else if (id == "data" && known) {
      const size_t samples = size / 2;
      return Copy(DType::kInt16, {static_cast<int64_t>(samples)}, file.substr(at, samples * 2));
    }
    at += std::min(size + size % 2, file.size() - at);
  }
  return InvalidArgumentError("a WAV file without samples");
}

Result<Tensor> ParseNpy(std::string_view file) {
  const Status cut = InvalidArgumentError("a .npy file cut short");
  if (file.size() < 10 || file.substr(0, kNpyMagicBytes) != std::string_view(kNpyMagic, 6)) {
    return InvalidArgumentError("no .npy file");
  }
  const bool wide = file[6] >= 2;
  if (wide && file.size() < 12) return cut;
  const size_t length = wide ? Load<uint32_t>(file, 8) : Load<uint16_t>(file, 8);
  const size_t begin = wide ? 12 : 10;
  if (length > file.size() - begin) return cut;
  const std::string_view header = file.substr(begin, length);
  const std::string_view descr = NpyField(header, "descr");
  DType dtype = DType::kUndefined;
  for (const NpyType& type : kNpyTypes) {
    if (descr.size() > 5 && descr.substr(1, 3) == type.name) dtype = type.dtype;
  }
  if (dtype == DType::kUndefined) {
    return InvalidArgumentError("a .npy file of an element type that is not supported: " +
                                std::string(descr.substr(0, descr.find(','))));
  }
  if (NpyField(header, "fortran_order").substr(0, 5) != "False") {
    return InvalidArgumentError("a .npy file in Fortran order");
  }
  std::string_view dims = NpyField(header, "shape");
  if (dims.empty() || dims[0] != '(') return InvalidArgumentError("a .npy file without a shape");
  dims = dims.substr(1, dims.find(')') - 1);
  Shape shape;
  for (const char *at = dims.data(), *end = at + dims.size(); at != end;) {
    int64_t dim = 0;
    const auto parsed = std::from_chars(at, end, dim);
    if (parsed.ec == std::errc()) {
      shape.push_back(dim);
      at = parsed.ptr;
    } else {
      ++at;  // a comma or a space
    }
  }
  return Copy(dtype, std::move(shape), file.substr(begin + length));
}

Result<std::string> WriteNpy(const Tensor& tensor) {
  std::string_view name;
  for (const NpyType& type : kNpyTypes) {
    if (type.dtype == tensor.dtype()) name = type.name;
  }
  if (name.empty()) {
    return UnimplementedError(std::string(DTypeProtocolName(tensor.dtype())) + " has no .npy form");
  }
  std::string header = "{'descr': '" + std::string(name) + "', 'fortran_order': False, 'shape': (";
  for (const int64_t dim : tensor.shape()) header += std::to_string(dim) + ", ";
  header += "), }";
  constexpr size_t kFixed = kNpyMagicBytes + 4, kAlign = 64;
  header.append(kAlign - (kFixed + header.size() + 1) % kAlign, ' ');
  header += '\n';
  std::string out(kNpyMagic, kNpyMagicBytes);
  out += std::string_view("\x01\x00", 2);
  const auto length = static_cast<uint16_t>(header.size());
  out.append(reinterpret_cast<const char*>(&length), 2);
  out += header;
  out.append(reinterpret_cast<const char*>(tensor.raw()), tensor.size_bytes());
  return out;
}

}  // namespace plexus::cli
