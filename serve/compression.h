// gzip and deflate bodies, with a limit on what they grow to.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "serve/http.h"

namespace plexus {

// What an Accept-Encoding header lets the answer be: "gzip", "deflate", or "" for neither.
std::string_view ChooseEncoding(std::string_view accept_encoding);

// Decodes `body` ("gzip" and "deflate", which is zlib's format; "" and "identity" leave it as it
// is). `align_at` is the offset that shall lie on a 64-byte boundary. kUnimplemented for another
// encoding, kInvalidArgument for damaged or trailing bytes, kResourceExhausted above `max_bytes`
// (no more than that is ever allocated).
Result<SharedBytes> DecodeBody(const SharedBytes& body, std::string_view encoding, size_t max_bytes,
                               size_t align_at);

// Replaces body and payload by their compressed form and names it in Content-Encoding. `alive`,
// where given, is asked now and then whether to go on; its error is returned.
Status CompressResponse(std::string_view encoding, HttpResponse* response,
                        const std::function<Status()>& alive = nullptr);

// Room for `size_bytes` and the padding, such that offset `align_at` is 64-byte aligned.
// kResourceExhausted.
Result<SharedBytes> AllocateBody(size_t size_bytes, size_t align_at);

}  // namespace plexus
