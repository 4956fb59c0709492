#include "profile/profile_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

namespace plexus {
namespace {

// File: magic, version, then the payload (all integers little-endian, doubles as their bits), then
// BLAKE2b-256 of everything before it.
//   payload: u64 entries; each: signature[32], u32 rows, u32 kernels, kernels × {mean, variance,
//   samples} as u64
constexpr std::string_view kMagic = "plexprof";
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 8 + 4;
constexpr size_t kChecksumBytes = 32;
constexpr size_t kMaxFileBytes = size_t{256} << 20;
// No block and no step takes eleven days: sums of them would not fit.
constexpr double kMaxTimeNs = 1e15;

void PutInt(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i)));
}

// Reads from a span and remembers whether it ran over the end.
class Reader {
 public:
  explicit Reader(std::string_view data) : data_(data) {}

  uint64_t Int(int bytes) {
    if (data_.size() < static_cast<size_t>(bytes)) {
      failed_ = true;
      return 0;
    }
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= uint64_t{static_cast<uint8_t>(data_[i])} << (8 * i);
    data_.remove_prefix(bytes);
    return value;
  }
  void Bytes(void* to, size_t size) {
    if (data_.size() < size) {
      failed_ = true;
      return;
    }
    std::memcpy(to, data_.data(), size);
    data_.remove_prefix(size);
  }
  size_t left() const { return data_.size(); }
  bool failed() const { return failed_; }

 private:
  std::string_view data_;
  bool failed_ = false;
};

ContentHash Checksum(std::string_view data) {
  ContentHasher hasher;
  hasher.Update(data.data(), data.size());
  return hasher.Finish();
}

struct Sample {
  double mean_ns, variance_ns2;
  uint64_t samples;
};
struct FileEntry {
  ContentHash signature;
  uint32_t rows;
  std::vector<Sample> kernels;
};

Status Damaged(const std::filesystem::path& path, std::string_view why) {
  return DataLossError("profile file " + path.string() + ": " + std::string(why) +
                       "; remove it to start learning anew");
}

Result<std::vector<FileEntry>> Parse(const std::filesystem::path& path, std::string_view data) {
  if (data.size() < kHeaderBytes + kChecksumBytes) return Damaged(path, "too short");
  if (data.substr(0, kMagic.size()) != kMagic) return Damaged(path, "not a profile file");
  const std::string_view body = data.substr(0, data.size() - kChecksumBytes);
  const ContentHash checksum = Checksum(body);
  if (std::memcmp(checksum.bytes.data(), data.data() + body.size(), kChecksumBytes) != 0) {
    return Damaged(path, "checksum does not match");
  }
  Reader reader(body.substr(kMagic.size()));
  const uint64_t version = reader.Int(4);
  if (version != kVersion) {
    return Damaged(path, "version " + std::to_string(version) + ", this build reads " +
                             std::to_string(kVersion));
  }
  const uint64_t count = reader.Int(8);
  std::vector<FileEntry> entries;
  for (uint64_t i = 0; i < count && !reader.failed(); ++i) {
    FileEntry entry;
    reader.Bytes(entry.signature.bytes.data(), entry.signature.bytes.size());
    entry.rows = static_cast<uint32_t>(reader.Int(4));
    const uint64_t kernels = reader.Int(4);
    // Checked before anything is allocated for them.
    if (reader.failed() || kernels > reader.left() / 24) return Damaged(path, "wrong counts");
    for (uint64_t k = 0; k < kernels; ++k) {
      Sample s;
      s.mean_ns = std::bit_cast<double>(reader.Int(8));
      s.variance_ns2 = std::bit_cast<double>(reader.Int(8));
      s.samples = reader.Int(8);
      if (!std::isfinite(s.mean_ns) || s.mean_ns < 0 || !std::isfinite(s.variance_ns2) ||
          s.variance_ns2 < 0) {
        return Damaged(path, "a time is not a number");
      }
      if (s.mean_ns > kMaxTimeNs) return Damaged(path, "a time is longer than any");
      entry.kernels.push_back(s);
    }
    entries.push_back(std::move(entry));
  }
  if (reader.failed() || reader.left() != 0) return Damaged(path, "wrong counts");
  return entries;
}

Status DiskError(const std::filesystem::path& path, std::string_view what) {
  return UnavailableError("profile file " + path.string() + ": " + std::string(what) + ": " +
                          std::strerror(errno));
}

bool WriteAll(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t n = write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    data.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// Opens the file beside `path` that replaces it, empty; nobody else writes to it while it is open.
// Always the same one: what a process that died left of it is used again. -1 with errno.
int OpenBeside(const std::string& beside) {
  const int fd =
      open(beside.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (fd < 0) return fd;
  struct stat ours {
  }, named{};
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
    // Whoever had it locked may have renamed it meanwhile; then this is the profile itself.
    const bool same = fstat(fd, &ours) == 0 && stat(beside.c_str(), &named) == 0 &&
                      ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
    if (same && S_ISREG(ours.st_mode) && ftruncate(fd, 0) == 0) return fd;
    errno = EBUSY;
  }
  const int why = errno;
  close(fd);
  errno = why;
  return -1;
}

Status Replace(const std::filesystem::path& path, std::string_view data) {
  std::error_code ignored;
  const std::filesystem::file_status there = std::filesystem::status(path, ignored);
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there)) {
    return UnavailableError("profile file " + path.string() + ": not a regular file");
  }
  const std::string beside = path.string() + ".new";
  const int fd = OpenBeside(beside);
  if (fd < 0) return DiskError(path, "cannot write beside it");
  const bool written = WriteAll(fd, data) && fsync(fd) == 0;
  Status status = written ? OkStatus() : DiskError(path, "cannot write");
  if (status.ok() && std::rename(beside.c_str(), path.c_str()) != 0) {
    status = DiskError(path, "cannot replace");
  }
  if (!status.ok()) unlink(beside.c_str());
  if (close(fd) != 0 && status.ok()) status = DiskError(path, "cannot write");
  return status;
}

bool HasSample(const ProgramProfile& profile) {
  return std::any_of(profile.kernels.begin(), profile.kernels.end(),
                     [](const TimeEstimate& e) { return e.samples() > 0; });
}

}  // namespace

void TimeEstimate::Set(double mean_ns, double variance_ns2, uint64_t samples) {
  mean_ns_.store(mean_ns, std::memory_order_relaxed);
  variance_ns2_.store(variance_ns2, std::memory_order_relaxed);
  samples_.store(samples, std::memory_order_relaxed);
}

void TimeEstimate::Add(double sample_ns) {
  if (!(sample_ns >= 0) || !std::isfinite(sample_ns)) return;
  const uint64_t samples = this->samples();
  if (samples == 0) {
    Set(sample_ns, 0, 1);
    return;
  }
  constexpr double kWeight = 1.0 / 8;
  const double mean = mean_ns();
  if (samples >= kTrusted && mean > 0) sample_ns = std::min(sample_ns, kOutlier * mean);
  const double delta = sample_ns - mean;
  Set(mean + kWeight * delta, (1 - kWeight) * (variance_ns2() + kWeight * delta * delta),
      samples + 1);
}

ProgramProfilePtr ProfileStore::Get(const ContentHash& signature, uint32_t rows,
                                    size_t num_kernels) {
  std::lock_guard lock(mutex_);
  const Key key{signature, rows};
  const auto [it, is_new] = map_.try_emplace(key);
  Entry& entry = it->second;
  if (is_new) {
    entry.used = used_.insert(used_.begin(), key);
  } else {
    used_.splice(used_.begin(), used_, entry.used);
    if (entry.profile->kernels.size() == num_kernels) return entry.profile;
    bytes_ -= BytesOf(entry.profile->kernels.size());
  }
  entry.profile = std::make_shared<ProgramProfile>();
  entry.profile->kernels = std::vector<TimeEstimate>(num_kernels);
  bytes_ += BytesOf(num_kernels);
  ProgramProfilePtr profile = entry.profile;  // held: it is not forgotten now
  ForgetLocked();
  return profile;
}

std::shared_ptr<TimeEstimate> ProfileStore::GetPath(const ContentHash& what) {
  const ProgramProfilePtr profile = Get(what, kPathRows, 1);
  return {profile, profile->kernels.data()};
}

void ProfileStore::ForgetLocked() {
  constexpr int kLook = 16;  // at those in use, at once
  auto at = used_.end();
  for (int in_use = 0; bytes_ > max_bytes_ && in_use < kLook && at != used_.begin();) {
    --at;
    const auto it = map_.find(*at);
    // Nobody else can come by it meanwhile: only the store could give it away.
    if (it->second.profile.use_count() > 1) {
      ++in_use;
      continue;
    }
    bytes_ -= BytesOf(it->second.profile->kernels.size());
    map_.erase(it);
    at = used_.erase(at);
  }
}

Status ProfileStore::Load(const std::filesystem::path& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error == std::errc::no_such_file_or_directory) {
    return NotFoundError("profile file " + path.string() + ": " + error.message());
  }
  if (error) return UnavailableError("profile file " + path.string() + ": " + error.message());
  if (size > kMaxFileBytes) return Damaged(path, "larger than any profile");
  std::string data(size, '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(data.data(), static_cast<std::streamsize>(size))) {
    return Damaged(path, "cannot be read");
  }
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<FileEntry> entries, Parse(path, data));
  std::lock_guard lock(mutex_);
  for (const FileEntry& entry : entries) {
    const Key key{entry.signature, entry.rows};
    const auto [it, is_new] = map_.try_emplace(key);
    ProgramProfilePtr& profile = it->second.profile;
    if (is_new) {
      it->second.used = used_.insert(used_.end(), key);  // as it was saved: the last used first
      profile = std::make_shared<ProgramProfile>();
      profile->kernels = std::vector<TimeEstimate>(entry.kernels.size());
      bytes_ += BytesOf(entry.kernels.size());
    }
    if (profile->kernels.size() != entry.kernels.size()) continue;
    for (size_t k = 0; k < entry.kernels.size(); ++k) {
      const Sample& s = entry.kernels[k];
      if (profile->kernels[k].samples() == 0) {
        profile->kernels[k].Set(s.mean_ns, s.variance_ns2, s.samples);
      }
    }
  }
  ForgetLocked();
  return OkStatus();
}

Status ProfileStore::Save(const std::filesystem::path& path) const {
  std::string data(kMagic);
  PutInt(data, kVersion, 4);
  std::vector<std::pair<Key, ProgramProfilePtr>> learned;
  {
    std::lock_guard lock(mutex_);  // jobs wait for it meanwhile: no more than this is done here
    learned.reserve(used_.size());
    for (const Key& key : used_) {
      const ProgramProfilePtr& profile = map_.at(key).profile;
      if (HasSample(*profile)) learned.emplace_back(key, profile);
    }
  }
  PutInt(data, learned.size(), 8);
  for (const auto& [key, profile] : learned) {
    data.append(reinterpret_cast<const char*>(key.signature.bytes.data()),
                key.signature.bytes.size());
    PutInt(data, key.rows, 4);
    PutInt(data, profile->kernels.size(), 4);
    for (const TimeEstimate& e : profile->kernels) {
      PutInt(data, std::bit_cast<uint64_t>(e.mean_ns()), 8);
      PutInt(data, std::bit_cast<uint64_t>(e.variance_ns2()), 8);
      PutInt(data, e.samples(), 8);
    }
  }
  const ContentHash checksum = Checksum(data);
  data.append(reinterpret_cast<const char*>(checksum.bytes.data()), checksum.bytes.size());

  return Replace(path, data);
}

size_t ProfileStore::size() const {
  std::lock_guard lock(mutex_);
  return map_.size();
}

size_t ProfileStore::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace plexus
