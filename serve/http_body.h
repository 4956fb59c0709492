// A request's body as it grows with what arrives. Internal to http_server.cc.
#pragma once

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/optional.hpp>
#include <cstdint>
#include <cstring>
#include <utility>

#include "serve/compression.h"
#include "serve/http.h"

namespace plexus {

inline constexpr size_t kFirstBodyBytes = 64 << 10;

// The body as it comes in. Grows with what has arrived, not with what was announced, beyond the
// first 64 KiB; `align_at` as in AllocateBody.
struct BodyBuffer {
  SharedBytes bytes;
  size_t capacity = 0;
  size_t align_at = 0;

  // Room for `size_bytes` in all; false without memory.
  bool Reserve(size_t size_bytes) {
    if (size_bytes <= capacity) return true;
    Result<SharedBytes> grown = AllocateBody(size_bytes, align_at);
    if (!grown.ok()) return false;
    if (bytes.size_bytes > 0) std::memcpy(grown->data, bytes.data, bytes.size_bytes);
    grown->size_bytes = bytes.size_bytes;
    bytes = std::move(*grown);
    capacity = size_bytes;
    return true;
  }
};

// Beast's Body concept, for chunked requests: appends to a BodyBuffer.
struct AppendBody {
  using value_type = BodyBuffer;
  class reader {
   public:
    template <bool is_request, class Fields>
    reader(boost::beast::http::header<is_request, Fields>&, value_type& body) : body_(body) {}
    void init(const boost::optional<uint64_t>&, boost::system::error_code& ec) { ec = {}; }
    template <class Buffers>
    size_t put(const Buffers& buffers, boost::system::error_code& ec) {
      ec = {};
      size_t total = 0;
      for (auto it = boost::asio::buffer_sequence_begin(buffers);
           it != boost::asio::buffer_sequence_end(buffers); ++it) {
        const boost::asio::const_buffer part(*it);
        const size_t size = body_.bytes.size_bytes + part.size();
        if (size > body_.capacity &&
            !body_.Reserve(std::max({size, body_.capacity * 2, kFirstBodyBytes}))) {
          ec = make_error_code(boost::system::errc::not_enough_memory);
          return total;
        }
        std::memcpy(body_.bytes.data + body_.bytes.size_bytes, part.data(), part.size());
        body_.bytes.size_bytes = size;
        total += part.size();
      }
      return total;
    }
    void finish(boost::system::error_code& ec) { ec = {}; }

   private:
    value_type& body_;
  };
};
}  // namespace plexus
