// What the loaded pipelines share, over HTTP (docs/sharing.md).
#pragma once

#include "serve/http.h"
#include "serve/path_index.h"
#include "serve/work_thread.h"

namespace plexus {

// GET /paths is what `plexus inspect --json` has under "paths"; with ?first=A&second=B the first
// difference of two pipelines instead; with ?format=svg or dot a picture. ?shape=NAME=1,3,224,224
// (several with ';') gives open inputs a size. Thread-safe; answers are made on a thread of its
// own.
class PathsApi : public HttpHandler {
 public:
  // Borrows the index.
  explicit PathsApi(PathIndex& index) : index_(index) {}

  std::shared_ptr<CancelToken> Handle(HttpRequest request, Respond respond) override;

 private:
  struct Query {
    std::string first, second;
    std::string format = "json";
    std::map<std::string, Shape> shapes;
  };
  static Result<Query> Read(const HttpRequest& request);
  Result<HttpResponse> Answer(const Query& query);

  PathIndex& index_;
  WorkThread writer_;  // last: its work uses the index
};

}  // namespace plexus
