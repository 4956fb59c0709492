#include "serve/paths_api.h"

#include "base/json_writer.h"
#include "paths/drawing.h"

namespace plexus {

std::shared_ptr<CancelToken> PathsApi::Handle(HttpRequest request, Respond respond) {
  if (request.method != "GET") {
    respond(MethodNotAllowed(request, "GET"));
    return nullptr;
  }
  Result<Query> query = Read(request);
  if (!query.ok()) {
    respond(ErrorResponse(query.status()));
    return nullptr;
  }
  writer_.Post([this, query = std::move(*query), respond = std::move(respond)] {
    Result<HttpResponse> response = Answer(query);
    respond(response.ok() ? std::move(*response) : ErrorResponse(response.status()));
  });
  return nullptr;
}

Result<PathsApi::Query> PathsApi::Read(const HttpRequest& request) {
  Query out;
  PLEXUS_ASSIGN_OR_RETURN(const auto pairs, QueryPairs(request.query));
  for (const auto& [key, value] : pairs) {
    if (key == "first") {
      out.first = value;
    } else if (key == "second") {
      out.second = value;
    } else if (key == "format") {
      if (value != "json" && value != "svg" && value != "dot") {
        return InvalidArgumentError("parameter 'format': expected json, svg or dot, got '" +
                                    value.substr(0, 40) + "'");
      }
      out.format = value;
    } else if (key == "shape") {
      for (size_t at = 0; at <= value.size();) {
        const size_t end = std::min(value.find(';', at), value.size());
        Result<NamedShape> shape = ParseNamedShape(value.substr(at, end - at));
        if (!shape.ok()) return shape.status().WithContext("parameter 'shape'");
        out.shapes[shape->name] = std::move(shape->shape);
        at = end + 1;
      }
    } else {
      return InvalidArgumentError("unknown parameter '" + key.substr(0, 40) +
                                  "'; there are first, second, format, shape");
    }
  }
  if (out.first.empty() != out.second.empty()) {
    return InvalidArgumentError("a difference needs both 'first' and 'second'");
  }
  if (!out.first.empty() && out.format != "json") {
    return InvalidArgumentError("a difference is JSON only");
  }
  return out;
}

Result<HttpResponse> PathsApi::Answer(const Query& query) {
  HttpResponse response;
  JsonWriter json(&response.body);
  if (!query.first.empty()) {
    PLEXUS_ASSIGN_OR_RETURN(const std::string there,
                            index_.FirstDifference(query.first, query.second));
    PLEXUS_ASSIGN_OR_RETURN(const std::string back,
                            index_.FirstDifference(query.second, query.first));
    WriteDifference(query.first, query.second, there, back, json);
    return response;
  }
  const PathSummary summary = index_.Summary(query.shapes);
  if (query.format == "svg") {
    response.content_type = "image/svg+xml";
    response.body = DrawSvg(summary);
  } else if (query.format == "dot") {
    response.content_type = "text/vnd.graphviz";
    response.body = DrawDot(summary);
  } else {
    WriteSummary(summary, json);
  }
  return response;
}

}  // namespace plexus
