#include "serve/compression.h"

#include <zlib.h>

#include <algorithm>
#include <cctype>

namespace plexus {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kFirstOutputBytes = 64 << 10;
constexpr int kGzipOrZlib = MAX_WBITS + 32;
constexpr int kFastest = 1;  // an answer is sent once; the client waits for it

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// "q=0" and "q=0.000" refuse.
bool Refused(std::string_view parameters) {
  const size_t q = parameters.find("q=");
  if (q == std::string_view::npos) return false;
  const std::string_view value = Trim(parameters.substr(q + 2));
  return !value.empty() && value.find_first_not_of("0.") == std::string_view::npos;
}

// Ends the stream whatever way the function leaves.
struct Inflater {
  z_stream stream{};
  bool ready = inflateInit2(&stream, kGzipOrZlib) == Z_OK;
  ~Inflater() {
    if (ready) inflateEnd(&stream);
  }
};
struct Deflater {
  z_stream stream{};
  bool ready;
  explicit Deflater(bool gzip)
      : ready(deflateInit2(&stream, kFastest, Z_DEFLATED, MAX_WBITS + (gzip ? 16 : 0), 8,
                           Z_DEFAULT_STRATEGY) == Z_OK) {}
  ~Deflater() {
    if (ready) deflateEnd(&stream);
  }
};

}  // namespace

Result<SharedBytes> AllocateBody(size_t size_bytes, size_t align_at) {
  const size_t shift = (kAlignment - align_at % kAlignment) % kAlignment;
  PLEXUS_ASSIGN_OR_RETURN(std::shared_ptr<Buffer> buffer,
                          Buffer::Allocate(size_bytes + shift + kBodyPaddingBytes));
  std::byte* data = buffer->data() + shift;
  return SharedBytes{std::move(buffer), data, size_bytes};
}

std::string_view ChooseEncoding(std::string_view accept_encoding) {
  bool deflate = false;
  while (!accept_encoding.empty()) {
    const size_t comma = accept_encoding.find(',');
    const std::string_view item = accept_encoding.substr(0, comma);
    accept_encoding =
        comma == std::string_view::npos ? std::string_view() : accept_encoding.substr(comma + 1);
    const size_t semicolon = item.find(';');
    const std::string name = Lower(Trim(item.substr(0, semicolon)));
    if (semicolon != std::string_view::npos && Refused(item.substr(semicolon))) continue;
    if (name == "gzip") return "gzip";
    if (name == "deflate") deflate = true;
  }
  return deflate ? "deflate" : "";
}

Result<SharedBytes> DecodeBody(const SharedBytes& body, std::string_view encoding, size_t max_bytes,
                               size_t align_at) {
  const std::string name = Lower(Trim(encoding));
  if (name.empty() || name == "identity") return body;
  if (name != "gzip" && name != "deflate") {
    return UnimplementedError("Content-Encoding '" + name + "' is not gzip, deflate or identity");
  }
  Inflater inflater;
  if (!inflater.ready) return ResourceExhaustedError("no memory to decode the body");
  z_stream& z = inflater.stream;
  z.next_in = reinterpret_cast<Bytef*>(body.data);
  z.avail_in = static_cast<uInt>(body.size_bytes);
  SharedBytes out;
  size_t capacity = 0;
  for (int result = Z_OK; result != Z_STREAM_END;) {
    if (out.size_bytes == capacity) {
      if (capacity == max_bytes) {
        // One byte more is one too many; a stream that ends exactly here is fine.
        Bytef probe;
        z.next_out = &probe;
        z.avail_out = 1;
        result = inflate(&z, Z_NO_FLUSH);
        if (result == Z_STREAM_END && z.avail_out == 1) break;
        if (z.avail_out == 1) return InvalidArgumentError("the " + name + " body is damaged");
        return ResourceExhaustedError("the decoded body is larger than the limit of " +
                                      std::to_string(max_bytes) + " bytes");
      }
      capacity = std::min(max_bytes, std::max(kFirstOutputBytes, capacity * 2));
      PLEXUS_ASSIGN_OR_RETURN(SharedBytes grown, AllocateBody(capacity, align_at));
      if (out.size_bytes > 0) std::copy_n(out.data, out.size_bytes, grown.data);
      grown.size_bytes = out.size_bytes;
      out = std::move(grown);
    }
    z.next_out = reinterpret_cast<Bytef*>(out.data + out.size_bytes);
    z.avail_out = static_cast<uInt>(capacity - out.size_bytes);
    const uInt room = z.avail_out;
    result = inflate(&z, Z_NO_FLUSH);
    out.size_bytes += room - z.avail_out;
    const bool stuck = z.avail_out == room && z.avail_in == 0 && result != Z_STREAM_END;
    if (stuck || (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)) {
      return InvalidArgumentError("the " + name + " body is damaged or cut short");
    }
  }
  if (z.avail_in > 0) return InvalidArgumentError("bytes follow the end of the " + name + " body");
  return out;
}

Status CompressResponse(std::string_view encoding, HttpResponse* response,
                        const std::function<Status()>& alive) {
  Deflater deflater(encoding == "gzip");
  if (!deflater.ready) return ResourceExhaustedError("no memory to compress the response");
  z_stream& z = deflater.stream;
  std::string out;
  const auto add = [&](const void* data, size_t size_bytes, int flush) -> Status {
    z.next_in = static_cast<Bytef*>(const_cast<void*>(data));
    size_t left = size_bytes;
    do {
      if (alive != nullptr) PLEXUS_RETURN_IF_ERROR(alive());
      z.avail_in = static_cast<uInt>(std::min<size_t>(left, size_t{1} << 20));
      left -= z.avail_in;
      const int mode = left == 0 ? flush : Z_NO_FLUSH;
      do {
        const size_t used = out.size();
        out.resize(used + std::max<size_t>(kFirstOutputBytes, z.avail_in / 4));
        z.next_out = reinterpret_cast<Bytef*>(out.data() + used);
        z.avail_out = static_cast<uInt>(out.size() - used);
        deflate(&z, mode);
        out.resize(out.size() - z.avail_out);
      } while (z.avail_out == 0);
    } while (left > 0);
    return OkStatus();
  };
  PLEXUS_RETURN_IF_ERROR(add(response->body.data(), response->body.size(), Z_NO_FLUSH));
  for (const SharedBytes& part : response->payload) {
    PLEXUS_RETURN_IF_ERROR(add(part.data, part.size_bytes, Z_NO_FLUSH));
  }
  PLEXUS_RETURN_IF_ERROR(add(nullptr, 0, Z_FINISH));
  response->body = std::move(out);
  response->payload.clear();
  response->headers.emplace_back("Content-Encoding", encoding);
  return OkStatus();
}

}  // namespace plexus
