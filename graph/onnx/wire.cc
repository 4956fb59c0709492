#include "graph/onnx/wire.h"

#include <bit>
#include <limits>

namespace plexus::onnx {

std::string Quoted(std::string_view name) {
  constexpr size_t kShown = 120;
  std::string out = "'";
  for (char c : name.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  if (name.size() > kShown) out += "...";
  // A cut through a UTF-8 sequence, or bytes that never were one, must not reach a JSON reply.
  if (!IsValidUtf8(out)) {
    for (char& c : out) {
      if (static_cast<unsigned char>(c) >= 0x80) c = '?';
    }
  }
  return out + "'";
}

bool IsValidUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const int extra = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || i + extra >= text.size()) return false;
    uint32_t code = lead & (0x3f >> extra);
    for (int k = 1; k <= extra; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3f);
    }
    const uint32_t smallest = extra == 3 ? 0x10000 : extra == 2 ? 0x800 : 0x80;
    if (code < smallest || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
    i += 1 + extra;
  }
  return true;
}

WireReader::WireReader(google::protobuf::io::CodedInputStream* stream, int size_bytes,
                       int max_depth)
    : in_(stream), max_depth_(max_depth) {
  in_->SetTotalBytesLimit(std::numeric_limits<int>::max());
  in_->PushLimit(size_bytes);
}

bool WireReader::Next() {
  if (!ok()) return false;
  if (in_->BytesUntilLimit() == 0) return false;
  const uint32_t tag = in_->ReadTag();
  field_ = tag >> 3;
  type_ = static_cast<WireType>(tag & 7);
  if (field_ == 0) {
    Malformed("bad field tag");
    return false;
  }
  if (type_ != WireType::kVarint && type_ != WireType::kFixed64 && type_ != WireType::kBytes &&
      type_ != WireType::kFixed32) {
    Malformed("unknown wire type");
    return false;
  }
  return true;
}

bool WireReader::Expect(WireType type) {
  if (!ok()) return false;
  if (type_ == type) return true;
  Malformed("wrong wire type");
  return false;
}

bool WireReader::Length(int* length) {
  if (!Expect(WireType::kBytes)) return false;
  uint64_t claimed = 0;
  if (!in_->ReadVarint64(&claimed)) {
    Malformed("cut short");
    return false;
  }
  if (claimed > static_cast<uint64_t>(in_->BytesUntilLimit())) {
    Malformed("a length reaches beyond the end of its message");
    return false;
  }
  *length = static_cast<int>(claimed);
  return true;
}

int64_t WireReader::Int64() {
  uint64_t value = 0;
  if (!Expect(WireType::kVarint)) return 0;
  if (!in_->ReadVarint64(&value)) Malformed("cut short");
  return ok() ? static_cast<int64_t>(value) : 0;
}

float WireReader::Float() {
  uint32_t bits = 0;
  if (!Expect(WireType::kFixed32)) return 0;
  if (!in_->ReadLittleEndian32(&bits)) Malformed("cut short");
  return ok() ? std::bit_cast<float>(bits) : 0;
}

std::string WireReader::Bytes() {
  int length = 0;
  std::string out;
  if (!Length(&length)) return out;
  if (!in_->ReadString(&out, length)) {
    Malformed("cut short");
    out.clear();
  }
  return out;
}

std::string WireReader::Name() {
  std::string out = Bytes();
  if (!IsValidUtf8(out)) Malformed("a name is not UTF-8");
  return out;
}

std::shared_ptr<Buffer> WireReader::BytesToBuffer() {
  int length = 0;
  if (!Length(&length)) return nullptr;
  auto buffer = Buffer::Allocate(static_cast<size_t>(length));
  if (!buffer.ok()) {
    Fail(buffer.status());
    return nullptr;
  }
  if (length > 0 && !in_->ReadRaw((*buffer)->data(), length)) {
    Malformed("cut short");
    return nullptr;
  }
  return std::move(buffer).value();
}

template <typename T>
void WireReader::AppendVarintsAs(std::vector<T>* out) {
  if (!ok()) return;
  if (type_ == WireType::kVarint) {
    out->push_back(static_cast<T>(Int64()));
    return;
  }
  int length = 0;
  if (!Length(&length)) return;
  const auto outer = in_->PushLimit(length);
  while (in_->BytesUntilLimit() > 0) {
    uint64_t value = 0;
    if (!in_->ReadVarint64(&value)) {
      Malformed("cut short");
      break;
    }
    out->push_back(static_cast<T>(value));
  }
  in_->PopLimit(outer);
}

void WireReader::AppendVarints(std::vector<int64_t>* out) { AppendVarintsAs(out); }
void WireReader::AppendInt32s(std::vector<int32_t>* out) { AppendVarintsAs(out); }

template <typename T>
void WireReader::AppendFixed(std::vector<T>* out) {
  if (!ok()) return;
  const auto single = sizeof(T) == 4 ? WireType::kFixed32 : WireType::kFixed64;
  int length = sizeof(T);
  if (type_ != single && !Length(&length)) return;
  if (length % sizeof(T) != 0) return Malformed("a packed run ends inside a value");
  if (length > in_->BytesUntilLimit()) return Malformed("cut short");
  if (length == 0) return;
  const size_t old = out->size();
  out->resize(old + length / sizeof(T));
  if (!in_->ReadRaw(out->data() + old, length)) Malformed("cut short");
}

void WireReader::AppendFloats(std::vector<float>* out) { AppendFixed(out); }
void WireReader::AppendDoubles(std::vector<double>* out) { AppendFixed(out); }

void WireReader::Skip() {
  if (!ok()) return;
  uint64_t wide = 0;
  uint32_t narrow = 0;
  int length = 0;
  bool done = true;
  switch (type_) {
    case WireType::kVarint:
      done = in_->ReadVarint64(&wide);
      break;
    case WireType::kFixed64:
      done = in_->ReadLittleEndian64(&wide);
      break;
    case WireType::kFixed32:
      done = in_->ReadLittleEndian32(&narrow);
      break;
    case WireType::kBytes:
      done = !Length(&length) || in_->Skip(length);
      break;
  }
  if (!done) Malformed("cut short");
}

bool WireReader::Enter(int* outer) {
  int length = 0;
  if (!Length(&length)) return false;
  if (++depth_ > max_depth_) {
    Fail(InvalidArgumentError("messages are nested too deeply"));
    return false;
  }
  *outer = in_->PushLimit(length);
  return true;
}

void WireReader::Leave(int outer) {
  --depth_;
  if (ok() && in_->BytesUntilLimit() != 0) Malformed("a message was not read to its end");
  in_->PopLimit(outer);
}

void WireReader::Fail(Status status) {
  if (ok()) status_ = std::move(status);
}

void WireReader::AddContext(std::string_view where) {
  if (!ok()) status_ = status_.WithContext(where);
}

void WireReader::Malformed(const char* what) {
  Fail(InvalidArgumentError("not a valid ONNX file: " + std::string(what) + " (field " +
                            std::to_string(field_) + ", byte " +
                            std::to_string(in_->CurrentPosition()) + ")"));
}

}  // namespace plexus::onnx
