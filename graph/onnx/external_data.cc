#include "graph/onnx/external_data.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "graph/onnx/wire.h"

namespace plexus::onnx {
namespace {

namespace fs = std::filesystem;

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

bool LiesIn(const fs::path& file, const fs::path& folder) {
  const auto [end, unused] = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  return end == folder.end();
}

Status ErrnoError(const std::string& what, int error) {
  const std::string message = what + ": " + std::generic_category().message(error);
  if (error == ENOENT || error == ENOTDIR) return NotFoundError(message);
  if (error == EACCES || error == EPERM) return PermissionDeniedError(message);
  return InvalidArgumentError(message);
}

}  // namespace

Result<fs::path> ExternalData::Resolve(const std::string& location) const {
  const std::string what = "external data " + Quoted(location);
  if (folder_.empty()) {
    return FailedPreconditionError(what + ": external data is not allowed here");
  }
  if (location.empty() || location.find('\0') != std::string::npos) {
    return InvalidArgumentError(what + ": not a file name");
  }
  const fs::path relative(location);
  if (relative.is_absolute() ||
      std::find(relative.begin(), relative.end(), fs::path("..")) != relative.end()) {
    return InvalidArgumentError(what + ": must lie in the model's folder");
  }
  std::error_code error;
  const fs::path root = fs::canonical(folder_, error);
  if (error) return ErrnoError("model folder " + Quoted(folder_.string()), error.value());
  const fs::path file = fs::canonical(root / relative, error);
  if (error) return ErrnoError(what, error.value());
  if (!LiesIn(file, root)) {
    return InvalidArgumentError(what + ": a link leads out of the model's folder");
  }
  return file;
}

Result<std::shared_ptr<Buffer>> ExternalData::ReadRange(const fs::path& file, uint64_t offset,
                                                        uint64_t length, bool first_time) {
  // The path is resolved, so a link here was put there meanwhile; not blocking on a pipe.
  const FileDescriptor fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (fd.get() < 0) return ErrnoError("cannot open", errno);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoError("cannot stat", errno);
  if (!S_ISREG(info.st_mode)) return InvalidArgumentError("not a regular file");
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  if (offset > size || length > size - offset) {
    return InvalidArgumentError("bytes " + std::to_string(offset) + " to " +
                                std::to_string(offset) + "+" + std::to_string(length) +
                                " are not in the file of " + std::to_string(size) + " bytes");
  }
  // Distinct ranges that overlap many times over would turn a small model into a huge one.
  uint64_t& total = read_bytes_[file.string()];
  if (first_time && (total + length) / 4 > size + (1 << 18)) {
    return ResourceExhaustedError("tensors overlap: together they are over 4 times the file");
  }
  if (first_time) total += length;
  PLEXUS_ASSIGN_OR_RETURN(std::shared_ptr<Buffer> buffer, Buffer::Allocate(length));
  for (uint64_t done = 0; done < length;) {
    const ssize_t got =
        pread(fd.get(), buffer->data() + done, length - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError("cannot read", errno);
    if (got == 0) return DataLossError("the file became shorter while it was read");
    done += static_cast<uint64_t>(got);
  }
  return buffer;
}

Result<std::shared_ptr<Buffer>> ExternalData::Read(const std::string& location, uint64_t offset,
                                                   uint64_t length) {
  PLEXUS_ASSIGN_OR_RETURN(const fs::path file, Resolve(location));
  auto [range, first_time] = ranges_.try_emplace({file.string(), offset, length});
  if (auto known = range->second.lock()) return known;
  auto buffer = ReadRange(file, offset, length, first_time);
  if (!buffer.ok()) {
    return buffer.status().WithContext("external data " + Quoted(location));
  }
  range->second = *buffer;
  return std::move(buffer).value();
}

}  // namespace plexus::onnx
