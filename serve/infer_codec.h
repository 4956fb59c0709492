// Inference requests and responses of the Open Inference Protocol v2: JSON, optionally followed by
// binary tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"
#include "serve/http.h"
#include "serve/repository.h"

namespace plexus {

struct CodecLimits {
  int max_json_depth = 100;
  // What all tensors of a request may take, beyond those that lie in its body.
  size_t max_tensor_bytes = size_t{1} << 30;
};

struct RequestedOutput {
  size_t index = 0;  // into Servable::outputs
  bool binary = false;
};

// Which session a request belongs to, and whether it is its first or its last.
struct SequenceParameters {
  std::string id;  // "" for none; a number n is "n", a text t is "'t'": they never meet
  bool start = false, end = false;
};

struct InferRequest {
  std::string id;
  std::vector<Tensor> inputs;            // as Servable::inputs
  std::vector<RequestedOutput> outputs;  // as asked for; all of them when none was
  uint32_t priority = 0;                 // 0 default, 1 highest
  std::optional<Duration> timeout;       // the request is dropped after it
  std::optional<Duration> deadline;      // when it is wanted, for the policy
  bool use_cache = true;                 // whether a kept result may answer it
  SequenceParameters sequence;           // of a servable with states only
};

// Reads a request for `servable`. `json_bytes`: length of the JSON in front of the binary tensors
// (Inference-Header-Content-Length); none means that the body is JSON alone; 0 that the body is
// the one input's bytes. Numeric binary tensors borrow the body where its alignment allows.
// Everything is checked before memory is taken for it: kInvalidArgument names the input and the
// reason; kUnimplemented for extensions that are not there (shared memory,
// classification, sequences of a servable without states).
Result<InferRequest> DecodeInferRequest(const Servable& servable, const SharedBytes& body,
                                        std::optional<size_t> json_bytes,
                                        const CodecLimits& limits);

// The value of Inference-Header-Content-Length, at most `body_bytes`.
Result<size_t> ParseTensorHeaderLength(std::string_view text, size_t body_bytes);

// The answer: JSON, and the binary outputs as payload that borrows `outputs`. kInvalidArgument when
// an output cannot be written as JSON (FP16, BF16, bytes that are not UTF-8); the caller should
// have asked for binary. The text is charged to `memory` (may be null) until the response is gone;
// `alive` (may be null) is asked now and then whether to go on.
Result<HttpResponse> EncodeInferResponse(const Servable& servable, const InferRequest& request,
                                         const std::vector<Tensor>& outputs,
                                         std::shared_ptr<MemoryBudget> memory = nullptr,
                                         const std::function<Status()>& alive = nullptr);

}  // namespace plexus
