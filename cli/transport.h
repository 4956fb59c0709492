// How `plexus infer` reaches a model: over HTTP, or in this process through the same protocol.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cli/commands.h"
#include "client/http_client.h"

namespace plexus::cli {

// Thread-compatible.
class Transport {
 public:
  virtual ~Transport() = default;
  // As HttpClient::Call.
  virtual Result<HttpReply> Call(std::string_view method, const std::string& path,
                                 const HttpClient::Headers& headers, std::string body) = 0;
  // False: there is no server, and the replies' HTTP statuses mean nothing to a user.
  virtual bool over_http() const = 0;
};

// kInvalidArgument when `url` is none; the connection is made by the first call.
Result<std::unique_ptr<Transport>> ConnectTo(const std::string& url, Duration limit);
// Loads `model` alone from the repository, or the models of "a,b,c".
Result<std::unique_ptr<Transport>> LoadLocally(const std::string& repository,
                                               const std::string& model, const RuntimeFlags& flags);

}  // namespace plexus::cli
