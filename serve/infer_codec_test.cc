#include "serve/infer_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "serve/compression.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes);

namespace plexus {
namespace {

TensorMetadata Meta(const std::string& name, DType dtype, const std::vector<int64_t>& dims) {
  TensorMetadata tensor{name, dtype, {}};
  tensor.shape.has_rank = true;
  for (const int64_t dim : dims) {
    tensor.shape.dims.push_back({dim < 0 ? std::nullopt : std::optional<int64_t>(dim), "N"});
  }
  return tensor;
}

// a: FP32[N,2], s: BYTES[N]; outputs y: FP32, h: FP16, t: BYTES.
ServablePtr TwoInputs() {
  auto made = std::make_shared<Servable>();
  Servable& servable = *made;
  servable.name = "m";
  servable.version = "1";
  servable.inputs = {Meta("a", DType::kFloat32, {-1, 2}), Meta("s", DType::kString, {-1})};
  servable.outputs = {Meta("y", DType::kFloat32, {-1, 2}), Meta("h", DType::kFloat16, {-1}),
                      Meta("t", DType::kString, {-1})};
  return made;
}
ServablePtr OneInput(DType dtype, const std::vector<int64_t>& dims) {
  auto made = std::make_shared<Servable>();
  Servable& servable = *made;
  servable.name = "m";
  servable.version = "1";
  servable.inputs = {Meta("x", dtype, dims)};
  servable.outputs = {Meta("y", dtype, dims)};
  return made;
}

SharedBytes Bytes(std::string_view text, size_t align_at = 0) {
  SharedBytes body = AllocateBody(text.size(), align_at).value();
  std::memcpy(body.data, text.data(), text.size());
  return body;
}

Result<InferRequest> Decode(const ServablePtr& servable, const std::string& json,
                            const std::string& tail = "", const CodecLimits& limits = {}) {
  return DecodeInferRequest(*servable, Bytes(json + tail, json.size()),
                            tail.empty() ? std::nullopt : std::optional<size_t>(json.size()),
                            limits);
}

std::string F32(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * 4};
}
std::string BytesElement(const std::string& text) {
  const auto length = static_cast<uint32_t>(text.size());
  return std::string(reinterpret_cast<const char*>(&length), 4) + text;
}

constexpr char kStrings[] = R"({"name":"s","datatype":"BYTES","shape":[1],"data":["q"]})";
std::string WithA(const std::string& a) { return R"({"inputs":[)" + a + "," + kStrings + "]}"; }

TEST(InferCodec, ReadsFlatAndNestedJson) {
  for (const char* data : {"[1,2.5,-3,4e1]", "[[1,2.5],[-3,40]]"}) {
    auto request = Decode(TwoInputs(), R"({"id":"7","inputs":[)" + std::string(kStrings) +
                                           R"(,{"name":"a","data":)" + data +
                                           R"(,"shape":[2,2],"datatype":"FP32"}]})");
    ASSERT_TRUE(request.ok()) << request.status().ToString();
    EXPECT_EQ(request->id, "7");
    EXPECT_TRUE(TensorsEqual(request->inputs[0],
                             Tensor::Of<float>(DType::kFloat32, {2, 2}, {1, 2.5, -3, 40})));
    EXPECT_EQ(request->inputs[1].strings(), std::vector<std::string>{"q"});
    EXPECT_EQ(request->outputs.size(), 3u);
    EXPECT_FALSE(request->outputs[0].binary);
  }
}

TEST(InferCodec, ReadsEveryDatatypeAtItsLimits) {
  struct Case {
    DType dtype;
    const char* data;
    bool ok;
  };
  const Case cases[] = {
      {DType::kUint8, "[0,255]", true},
      {DType::kUint8, "[0,256]", false},
      {DType::kUint8, "[0,-1]", false},
      {DType::kInt8, "[-128,127]", true},
      {DType::kInt8, "[-129,0]", false},
      {DType::kUint16, "[0,65535]", true},
      {DType::kUint16, "[0,65536]", false},
      {DType::kInt16, "[-32768,32767]", true},
      {DType::kInt16, "[0,32768]", false},
      {DType::kUint32, "[0,4294967295]", true},
      {DType::kUint32, "[0,4294967296]", false},
      {DType::kInt32, "[-2147483648,2147483647]", true},
      {DType::kInt32, "[0,2147483648]", false},
      {DType::kUint64, "[0,18446744073709551615]", true},
      {DType::kUint64, "[0,18446744073709551616]", false},
      {DType::kInt64, "[-9223372036854775808,9223372036854775807]", true},
      {DType::kInt64, "[0,9223372036854775808]", false},
      {DType::kInt64, "[0,1.5]", false},
      {DType::kBool, "[true,false]", true},
      {DType::kBool, "[1,0]", false},
      {DType::kFloat32, "[3.4e38,-1e-45]", true},
      {DType::kFloat32, "[3.5e38,0]", false},
      {DType::kFloat64, "[1.7e308,5e-324]", true},
      {DType::kFloat64, "[1e309,0]", false},
      {DType::kString, "[\"a\",\"\\u00e9\"]", true},
      {DType::kString, "[\"a\",1]", false},
      {DType::kFloat16, "[1,2]", false},
      {DType::kBFloat16, "[1,2]", false},
  };
  for (const Case& c : cases) {
    const std::string type(DTypeProtocolName(c.dtype));
    auto request =
        Decode(OneInput(c.dtype, {2}), R"({"inputs":[{"name":"x","shape":[2],"datatype":")" + type +
                                           R"(","data":)" + c.data + "}]}");
    EXPECT_EQ(request.ok(), c.ok) << type << c.data << request.status().ToString();
  }
}

TEST(InferCodec, BadRequestsSayWhatIsWrong) {
  const std::string a = R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,2]})";
  const std::string deep = std::string(200, '[') + std::string(200, ']');
  struct Case {
    std::string json;
    const char* message;
  };
  const Case cases[] = {
      {"", "has no JSON"},
      {"{", "malformed"},
      {"[]", "the request is not a JSON object"},
      {"{}x", "malformed"},
      {"{}", "has no 'inputs'"},
      {R"({"inputs":7})", "'inputs' is not an array"},
      {R"({"inputs":[]})", "input 'a' is missing"},
      {R"({"inputs":[7]})", "an entry of 'inputs' is not a JSON object"},
      {R"({"inputs":[{}]})", "has no 'name'"},
      {R"({"inputs":[{"name":1}]})", "the 'name' of an input is not a string"},
      {R"({"inputs":[{"name":"a"}]})", "input 'a' has no 'datatype'"},
      {R"({"inputs":[{"name":"a","datatype":"FP32"}]})", "input 'a' has no 'shape'"},
      {R"({"inputs":[)" + a + "]}", "input 's' is missing"},
      {WithA(a + "," + a), "input 'a' is given twice"},
      {R"({"id":"1","id":"2","inputs":[]})", "the request has the key 'id' twice"},
      {R"({"id":1,"inputs":[]})", "'id' is not a string"},
      {WithA(R"({"name":"zz","datatype":"FP32","shape":[1,2],"data":[1,2]})"),
       "'m' has no input 'zz'; it has a, s"},
      {WithA(R"({"name":"a","datatype":"FP33","shape":[1,2],"data":[1,2]})"),
       "input 'a': unknown datatype 'FP33'"},
      {WithA(R"({"name":"a","datatype":"INT32","shape":[1,2],"data":[1,2]})"),
       "input 'a': expected datatype FP32, got INT32"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,3],"data":[1,2,3]})"),
       "input 'a': expected shape [N,2], got [1,3]"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[2],"data":[1,2]})"),
       "input 'a': expected shape [N,2], got [2]"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[-1,2],"data":[1,2]})"), "no size"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":["1",2],"data":[1,2]})"), "no size"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":{},"data":[1,2]})"), "is not an array"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1]})"),
       "input 'a': its data holds 1 elements, shape [1,2] has 2"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,2,3]})"),
       "input 'a': its data holds more elements, shape [1,2] has 2"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[[1],[2]]})"), "nested"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[[1,2],3]})"), "nested"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,[2]]})"),
       "element 1: an array is no FP32"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,"2"]})"),
       "element 1: \"2\" is no FP32"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,null]})"),
       "element 1: null is no FP32"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":7})"),
       "its 'data' is 7, expected an array"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,NaN]})"),
       "JSON has no NaN and no Infinity"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,-Infinity]})"), "Infinity"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,1e999]})"),
       "malformed or out of range"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,1e300]})"),
       "element 1: 1e+300 is no FP32"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2]})"),
       "has neither 'data' nor 'binary_data_size'"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[4611686018427387904,2],"data":[1]})"),
       "too many elements"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[99999999999,2],"data":[1]})"),
       "fewer elements than the 199999999998 of shape"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}})"),
       "only 0 bytes are left in the body"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"parameters":7})"),
       "its 'parameters' is not a JSON object"},
      {WithA(
           R"({"name":"a","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":-8}})"),
       "'binary_data_size' is not an integer"},
      {WithA(R"({"name":"a","datatype":"FP32","shape":[1,2],"data":[1,2],)"
             R"("parameters":{"binary_data_size":8}})"),
       "has both 'data' and 'binary_data_size'"},
      {R"({"parameters":{"priority":-1},"inputs":[]})", "parameter 'priority' is not an integer"},
      {R"({"parameters":{"timeout":"5"},"inputs":[]})", "parameter 'timeout' is not an integer"},
      {R"({"parameters":{"binary_data_output":1},"inputs":[]})", "neither true nor false"},
      {R"({"parameters":[],"inputs":[]})", "'parameters' is not a JSON object"},
      {R"({"inputs":[)" + a + "," + kStrings + R"(],"outputs":[{"name":"zz"}]})",
       "'m' has no output 'zz'; it has y, h, t"},
      {R"({"inputs":[)" + a + "," + kStrings + R"(],"outputs":[{"name":"y"},{"name":"y"}]})",
       "output 'y' is asked for twice"},
      {R"({"inputs":[)" + a + "," + kStrings + R"(],"outputs":7})", "'outputs' is not an array"},
      {R"({"inputs":[)" + a + "," + kStrings + R"(],"outputs":[{}]})", "has no 'name'"},
      {R"({"inputs":)" + deep + "}", "nested deeper than 100 levels"},
      {"{\"inputs\":[\"\xff\"]}", "malformed"},
  };
  for (const Case& c : cases) {
    const auto request = Decode(TwoInputs(), c.json);
    ASSERT_FALSE(request.ok()) << c.json;
    EXPECT_EQ(request.status().code(), StatusCode::kInvalidArgument) << c.json;
    EXPECT_NE(request.status().message().find(c.message), std::string::npos)
        << c.json << "\n"
        << request.status().message() << "\nexpected " << c.message;
  }
}

TEST(InferCodec, ExtensionsThatAreNotThereAreUnimplemented) {
  const std::string a = R"({"name":"a","datatype":"FP32","shape":[1,2],)";
  for (const std::string& json :
       {WithA(a + R"("parameters":{"shared_memory_region":"r","shared_memory_byte_size":8}})"),
        std::string(R"({"parameters":{"sequence_id":5},"inputs":[]})"),
        R"({"inputs":[)" + a + R"("data":[1,2]},)" + kStrings +
            R"(],"outputs":[{"name":"y","parameters":{"classification":3}}]})"}) {
    EXPECT_EQ(Decode(TwoInputs(), json).status().code(), StatusCode::kUnimplemented) << json;
  }
  // What clients send when they do not use them.
  EXPECT_EQ(
      Decode(TwoInputs(), R"({"parameters":{"sequence_id":0,"sequence_start":false},"inputs":[]})")
          .status()
          .code(),
      StatusCode::kInvalidArgument);
}

TEST(InferCodec, BinaryTensorsBorrowTheBody) {
  const std::string json =
      R"({"inputs":[{"name":"a","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}},)"
      R"({"name":"s","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":12}}],)"
      R"("outputs":[{"name":"y"},{"name":"t","parameters":{"binary_data":false}}],)"
      R"("parameters":{"binary_data_output":true,"priority":3,"timeout":2000,"deadline_us":50}})";
  const std::string tail = F32({1, 2, 3, 4}) + BytesElement("abc") + BytesElement("\xff");
  const SharedBytes body = Bytes(json + tail, json.size());
  const auto request = DecodeInferRequest(*TwoInputs(), body, json.size(), {});
  ASSERT_TRUE(request.ok()) << request.status().ToString();
  EXPECT_TRUE(
      TensorsEqual(request->inputs[0], Tensor::Of<float>(DType::kFloat32, {2, 2}, {1, 2, 3, 4})));
  EXPECT_EQ(request->inputs[0].raw(), body.data + json.size());
  EXPECT_EQ(request->inputs[1].strings(), (std::vector<std::string>{"abc", "\xff"}));
  ASSERT_EQ(request->outputs.size(), 2u);
  EXPECT_TRUE(request->outputs[0].binary);
  EXPECT_FALSE(request->outputs[1].binary);
  EXPECT_EQ(request->outputs[1].index, 2u);
  EXPECT_EQ(request->priority, 3u);
  EXPECT_EQ(request->timeout, Duration(std::chrono::milliseconds(2)));
  EXPECT_EQ(request->deadline, Duration(std::chrono::microseconds(50)));
}

TEST(InferCodec, MisalignedBinaryTensorsAreCopied) {
  const std::string json =
      R"({"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]})";
  const SharedBytes body = Bytes(json + F32({7}), json.size() + 1);
  const auto request = DecodeInferRequest(*OneInput(DType::kFloat32, {-1}), body, json.size(), {});
  ASSERT_TRUE(request.ok()) << request.status().ToString();
  EXPECT_TRUE(TensorsEqual(request->inputs[0], Tensor::Of<float>(DType::kFloat32, {1}, {7})));
  EXPECT_NE(request->inputs[0].raw(), body.data + json.size());
}

TEST(InferCodec, BadBinaryTensorsSayWhatIsWrong) {
  struct Case {
    DType dtype;
    const char* shape;
    size_t size;
    std::string tail;
    const char* message;
  };
  const Case cases[] = {
      {DType::kFloat32, "[2]", 7, std::string(7, 'x'), "shape [2] of FP32 takes 8"},
      {DType::kFloat32, "[2]", 8, std::string(7, 'x'), "only 7 bytes are left"},
      {DType::kFloat32, "[2]", 8, std::string(9, 'x'), "1 bytes follow"},
      {DType::kFloat32, "[1099511627776]", 8, std::string(8, 'x'), "takes 4398046511104"},
      {DType::kBool, "[2]", 2, "\x01\x02", "element 1 is neither 0 nor 1"},
      {DType::kString, "[1]", 4, std::string("\x05\0\0\0", 4), "element 0 is longer than its data"},
      {DType::kString, "[1]", 3, "abc", "too few for the lengths of 1 elements"},
      {DType::kString, "[1]", 6, BytesElement("") + "ab", "2 bytes follow its 1 elements"},
      {DType::kString, "[1]", 4, std::string("\xff\xff\xff\xff", 4), "longer than its data"},
      {DType::kString, "[100000000000]", 4, std::string(4, '\0'), "too few"},
  };
  for (const Case& c : cases) {
    const std::string json = R"({"inputs":[{"name":"x","datatype":")" +
                             std::string(DTypeProtocolName(c.dtype)) + R"(","shape":)" + c.shape +
                             R"(,"parameters":{"binary_data_size":)" + std::to_string(c.size) +
                             "}}]}";
    const auto request = Decode(OneInput(c.dtype, {-1}), json, c.tail);
    ASSERT_FALSE(request.ok()) << json;
    EXPECT_NE(request.status().message().find(c.message), std::string::npos)
        << json << "\n"
        << request.status().message();
  }
}

TEST(InferCodec, RawRequestsTakeTheShapeFromTheModel) {
  const auto raw = [](const ServablePtr& servable, const std::string& body) {
    return DecodeInferRequest(*servable, Bytes(body), 0, {});
  };
  auto floats = raw(OneInput(DType::kFloat32, {-1, 2}), F32({1, 2, 3, 4}));
  ASSERT_TRUE(floats.ok()) << floats.status().ToString();
  EXPECT_EQ(floats->inputs[0].shape(), (Shape{2, 2}));
  EXPECT_TRUE(floats->outputs[0].binary);
  auto text = raw(OneInput(DType::kString, {-1}), "any\xff");
  ASSERT_TRUE(text.ok()) << text.status().ToString();
  EXPECT_EQ(text->inputs[0].strings(), std::vector<std::string>{"any\xff"});
  EXPECT_FALSE(raw(OneInput(DType::kFloat32, {-1, 2}), F32({1, 2, 3})).ok());
  EXPECT_FALSE(raw(OneInput(DType::kFloat32, {-1, -1}), F32({1})).ok());
  EXPECT_FALSE(raw(OneInput(DType::kString, {2}), "a").ok());
  EXPECT_FALSE(raw(TwoInputs(), "a").ok());
}

TEST(InferCodec, HeaderLengthIsANumberWithinTheBody) {
  EXPECT_EQ(ParseTensorHeaderLength("12", 12).value(), 12u);
  for (const char* bad : {"", "-1", "13", "1x", " 1", "99999999999999999999999"}) {
    EXPECT_FALSE(ParseTensorHeaderLength(bad, 12).ok()) << bad;
  }
}

TEST(InferCodec, TheLimitOnTensorsHolds) {
  CodecLimits limits;
  limits.max_tensor_bytes = 4;
  EXPECT_EQ(
      Decode(OneInput(DType::kFloat64, {-1}),
             R"({"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1]}]})", "", limits)
          .status()
          .code(),
      StatusCode::kInvalidArgument);
}

TEST(InferCodec, AnAnswersTextIsChargedAndItsWritingMayEnd) {
  InferRequest request;
  request.outputs = {{0, false}};
  const std::vector<Tensor> outputs = {
      Tensor::Of<float>(DType::kFloat32, {100'000}, std::vector<float>(100'000, 0.5f)), Tensor(),
      Tensor()};
  const auto encode = [&](size_t limit, const std::function<Status()>& alive) {
    return EncodeInferResponse(*TwoInputs(), request, outputs,
                               std::make_shared<MemoryBudget>("the request", limit), alive)
        .status();
  };
  EXPECT_TRUE(encode(size_t{1} << 20, nullptr).ok());
  const Status full = encode(100'000, nullptr);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message().substr(0, 8), "output '") << full.message();
  int asked = 0;
  EXPECT_EQ(encode(size_t{1} << 20,
                   [&] { return ++asked < 3 ? OkStatus() : DeadlineExceededError("late"); })
                .code(),
            StatusCode::kDeadlineExceeded);
  EXPECT_EQ(asked, 3);
}

TEST(InferCodec, WritesJsonThatReadsBack) {
  InferRequest request;
  request.id = "a\"b";
  request.outputs = {{0, false}, {2, false}};
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<Tensor> outputs = {
      Tensor::Of<float>(DType::kFloat32, {3, 2}, {0.1f, -2, 1e-8f, inf, -inf, NAN}), Tensor(),
      Tensor::FromStrings({2}, {"x\n\x01", "\xc3\xa9"})};
  const auto response = EncodeInferResponse(*TwoInputs(), request, outputs);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_EQ(
      response->body,
      R"({"model_name":"m","model_version":"1","id":"a\"b","outputs":[)"
      R"({"name":"y","datatype":"FP32","shape":[3,2],"data":[0.1,-2,1e-08,Infinity,-Infinity,NaN]},)"
      "{\"name\":\"t\",\"datatype\":\"BYTES\",\"shape\":[2],\"data\":[\"x\\n\\u0001\",\"\xc3\xa9\"]"
      "}]}");
  EXPECT_TRUE(response->payload.empty());
}

TEST(InferCodec, WritesBinaryOutputsBehindTheJson) {
  InferRequest request;
  request.outputs = {{2, true}, {0, true}};
  const std::vector<Tensor> outputs = {Tensor::Of<float>(DType::kFloat32, {1, 2}, {1, 2}), Tensor(),
                                       Tensor::FromStrings({1}, {"\xff"})};
  const auto response = EncodeInferResponse(*TwoInputs(), request, outputs);
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_NE(response->body.find(R"("parameters":{"binary_data_size":5})"), std::string::npos);
  EXPECT_EQ(response->headers[0].second, std::to_string(response->body.size()));
  ASSERT_EQ(response->payload.size(), 2u);
  EXPECT_EQ(std::memcmp(response->payload[0].data, "\x01\0\0\0\xff", 5), 0);
  EXPECT_EQ(response->payload[1].data, outputs[0].raw());  // not copied
}

TEST(InferCodec, OutputsThatJsonCannotCarryAreErrors) {
  const std::vector<Tensor> outputs = {Tensor(),
                                       Tensor::Of<uint16_t>(DType::kFloat16, {1}, {0x3c00}),
                                       Tensor::FromStrings({1}, {"\xff"})};
  for (const size_t index : {1, 2}) {
    InferRequest request;
    request.outputs = {{index, false}};
    const auto response = EncodeInferResponse(*TwoInputs(), request, outputs);
    EXPECT_EQ(response.status().code(), StatusCode::kInvalidArgument);
    EXPECT_NE(response.status().message().find("binary_data"), std::string::npos);
  }
}

// The fuzzer's seeds: valid requests of every kind.
std::vector<std::string> Seeds() {
  const std::string b = R"({"name":"b","datatype":"BOOL","shape":[1],"data":[true]})";
  const std::string s = R"({"name":"s","datatype":"BYTES","shape":[2],"data":["x","yz"]})";
  const std::string json =
      "\xff"
      R"({"id":"1","inputs":[{"name":"f","datatype":"FP32","shape":[2,2],)"
      R"("data":[[1,2],[3,4.5]]},)" +
      s + "," + b + R"(],"outputs":[{"name":"o"}]})";
  std::string binary =
      R"({"inputs":[{"name":"f","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}},)"
      R"({"name":"s","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":7}},)" +
      b + R"(],"parameters":{"binary_data_output":true,"priority":1,"timeout":5}})";
  const std::string tail = F32({1, 2}) + BytesElement("abc");
  // The first byte says how much of the rest is JSON, rounded down: pad the JSON with spaces.
  while ((binary.size() + tail.size()) * (255 * binary.size() / (binary.size() + tail.size())) /
             255 !=
         binary.size()) {
    binary += ' ';
    if (binary.size() > 2000) break;
  }
  const char share = static_cast<char>(255 * binary.size() / (binary.size() + tail.size()));
  return {json, std::string(1, share) + binary + tail, std::string("\0\1\2\3\4\5\6\7\0", 9),
          std::string("\xff\x1f\x8b\x08\0\0\0\0\0\0\3\3\0\0\0\0\0\0\0\0\0", 21)};
}
void Fuzz(const std::string& bytes) {
  // On the heap and exactly this long, so that the address sanitizer sees one byte beyond.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(copy.data()), copy.size());
}

TEST(InferCodecFuzz, SeedsTruncationsAndFlippedBitsReturn) {
  std::mt19937_64 random(20240608);
  for (const std::string& seed : Seeds()) {
    for (size_t size = 0; size <= seed.size(); ++size) Fuzz(seed.substr(0, size));
    for (int i = 0; i < 2000; ++i) {
      std::string mutant = seed;
      for (uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
        mutant[random() % mutant.size()] ^= static_cast<char>(1 << random() % 8);
      }
      Fuzz(mutant);
    }
  }
}

}  // namespace
}  // namespace plexus
