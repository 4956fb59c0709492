// Reads the protobuf wire format field by field: no generated code, no trust in any length.
#pragma once

#include <google/protobuf/io/coded_stream.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"

namespace plexus::onnx {

// For messages: in quotes, control characters replaced, long names cut.
std::string Quoted(std::string_view name);
bool IsValidUtf8(std::string_view text);

enum class WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// Walks one message after the other over a stream of known size. Errors stick: after the first one
// every read returns a zero value and Next() returns false, so a parser checks ok() where it
// matters only. Every length is compared with the bytes left in the enclosing message before
// anything is allocated or read. Thread-compatible.
class WireReader {
 public:
  // `stream` outlives the reader and holds exactly `size_bytes` (< 2 GiB) more bytes.
  WireReader(google::protobuf::io::CodedInputStream* stream, int size_bytes, int max_depth);

  // Moves to the next field of the current message; false at its end or after an error.
  bool Next();
  uint32_t field() const { return field_; }

  // Each reads the current field's value; a wire type that does not fit is an error.
  int64_t Int64();
  float Float();
  std::string Bytes();
  std::string Name();  // must be UTF-8
  std::shared_ptr<Buffer> BytesToBuffer();
  // Appends one value or a packed run of them.
  void AppendVarints(std::vector<int64_t>* out);
  void AppendInt32s(std::vector<int32_t>* out);
  void AppendFloats(std::vector<float>* out);
  void AppendDoubles(std::vector<double>* out);
  void Skip();

  // The current field is a message: calls `body` with the reader inside it; `body` reads to its
  // end with Next().
  template <typename Body>
  void Message(const Body& body) {
    int outer = 0;
    if (!Enter(&outer)) return;
    body();
    Leave(outer);
  }

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  void Fail(Status status);                 // the first one counts
  void AddContext(std::string_view where);  // to an error already there

 private:
  bool Expect(WireType type);
  // Length prefix of the current field, checked against the bytes left.
  bool Length(int* length);
  bool Enter(int* outer);
  void Leave(int outer);
  void Malformed(const char* what);
  template <typename T>
  void AppendFixed(std::vector<T>* out);
  template <typename T>
  void AppendVarintsAs(std::vector<T>* out);

  google::protobuf::io::CodedInputStream* in_;
  Status status_;
  uint32_t field_ = 0;
  WireType type_ = WireType::kVarint;
  int depth_ = 0;
  const int max_depth_;
};

}  // namespace plexus::onnx
