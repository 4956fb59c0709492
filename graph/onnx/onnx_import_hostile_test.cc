// Files that are wrong, by accident or on purpose: always an error, never a crash or a huge
// allocation.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "graph/onnx/onnx_import.h"
#include "graph/onnx/wire_writer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes);

namespace plexus::onnx {
namespace {

namespace fs = std::filesystem;

Status Import(const std::string& bytes, const fs::path& folder = {},
              const ImportOptions& options = {}) {
  return ImportOnnxBytes(std::as_bytes(std::span(bytes.data(), bytes.size())), folder, options)
      .status();
}

void ExpectError(const Status& status, StatusCode code, const std::string& part) {
  EXPECT_EQ(status.code(), code) << status.ToString();
  EXPECT_NE(status.ToString().find(part), std::string::npos) << status.ToString();
}
void ExpectInvalid(const Status& status, const std::string& part) {
  ExpectError(status, StatusCode::kInvalidArgument, part);
}

std::string WithInitialiser(const TensorText& tensor) {
  return ModelBytes(BytesField(5, TensorBytes(tensor)) + NodeField("Neg", {"w"}, {"y"}) +
                    OutputField("y"));
}

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  for (const char* name : {"captures", "functions", "tensors", "external"}) {
    std::ifstream in("graph/onnx/testdata/" + std::string(name) + ".onnx", std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    EXPECT_FALSE(seeds.back().empty()) << name;
  }
  return seeds;
}
void Fuzz(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

TEST(OnnxImportHostile, TheFuzzerAcceptsItsSeeds) {
  for (const std::string& seed : Seeds()) Fuzz(seed);
}

TEST(OnnxImportHostile, EveryTruncationReturns) {
  for (const std::string& seed : Seeds()) {
    for (size_t size = 0; size < seed.size(); ++size) {
      // On the heap and exactly this long, so that the address sanitizer sees one byte beyond.
      const std::vector<char> cut(seed.begin(), seed.begin() + size);
      Fuzz(std::string(cut.begin(), cut.end()));
      const Status status =
          ImportOnnxBytes(std::as_bytes(std::span(cut.data(), cut.size()))).status();
      // A cut between two fields may leave a model, but not one with all of the graph.
      if (size + 16 < seed.size()) {
        EXPECT_FALSE(status.ok()) << size;
      }
    }
  }
}

TEST(OnnxImportHostile, FlippedBitsReturn) {
  std::mt19937_64 random(20240607);
  for (const std::string& seed : Seeds()) {
    for (int round = 0; round < 5000; ++round) {
      std::string bytes = seed;
      const int flips = 1 + random() % 4;
      for (int i = 0; i < flips; ++i) bytes[random() % bytes.size()] ^= 1 << random() % 8;
      SCOPED_TRACE(round);
      Fuzz(bytes);
    }
  }
}

TEST(OnnxImportHostile, SplicedFilesReturn) {
  std::mt19937_64 random(7);
  const std::vector<std::string> seeds = Seeds();
  for (int round = 0; round < 5000; ++round) {
    const std::string& from = seeds[random() % seeds.size()];
    std::string bytes = seeds[random() % seeds.size()];
    const size_t begin = random() % from.size();
    bytes.insert(random() % bytes.size(), from.substr(begin, random() % 40));
    Fuzz(bytes);
  }
}

TEST(OnnxImportHostile, AClaimedLengthIsCheckedBeforeAnythingIsAllocated) {
  const std::string raw_2gb = Varint(9 << 3 | 2) + Varint(0x7fffffff) + "abc";
  ExpectInvalid(Import(WithInitialiser({"w", {1}, 1, raw_2gb})), "beyond the end");
  const std::string floats = Varint(4 << 3 | 2) + Varint(uint64_t{1} << 62);
  ExpectInvalid(Import(WithInitialiser({"w", {1}, 1, floats})), "beyond the end");
  const std::string name = Varint(8 << 3 | 2) + Varint(0xffffffffffffffff);
  ExpectInvalid(Import(WithInitialiser({"w", {1}, 1, name})), "beyond the end");
}

TEST(OnnxImportHostile, DimensionsMustMatchTheData) {
  const std::string four = BytesField(9, "abcd");
  ExpectInvalid(Import(WithInitialiser({"w", {2}, 1, four})), "holds 4 bytes");
  ExpectInvalid(Import(WithInitialiser({"w", {1 << 28}, 1, four})), "'w'");
  ExpectInvalid(Import(WithInitialiser({"w", {-1}, 1, four})), "'w'");
  ExpectInvalid(Import(WithInitialiser({"w", {3}, 7, IntField(7, 1)})), "holds 1 values");
  ExpectInvalid(Import(WithInitialiser({"w", {3}, 8, BytesField(6, "a")})), "holds 1 strings");
  ExpectInvalid(Import(WithInitialiser({"w", {3}, 22, BytesField(9, "a")})), "holds 1 bytes");
  for (const int64_t huge : {int64_t{1} << 40, int64_t{1} << 62, INT64_MAX}) {
    EXPECT_FALSE(Import(WithInitialiser({"w", {huge, huge}, 1, four})).ok());
    EXPECT_FALSE(Import(WithInitialiser({"w", {huge}, 8, ""})).ok());
  }
  ExpectInvalid(Import(WithInitialiser({"w", std::vector<int64_t>(1000, 1), 1, four})),
                "1000 dimensions");
  ExpectInvalid(Import(WithInitialiser({"w", {1}, 0, four})), "element type");
  ExpectError(Import(WithInitialiser({"w", {1}, 99, four})), StatusCode::kUnimplemented,
              "element type 99");
}

TEST(OnnxImportHostile, SparseTensorsStayWithinTheirShapeAndSize) {
  const auto sparse = [](int64_t index, std::vector<int64_t> dims) {
    std::string out =
        BytesField(1, TensorBytes({"w", {1}, 1, BytesField(9, "abcd")})) +
        BytesField(2, TensorBytes({"i", {1}, 7, IntField(7, static_cast<uint64_t>(index))}));
    for (int64_t dim : dims) out += IntField(3, static_cast<uint64_t>(dim));
    return ModelBytes(BytesField(15, out) + NodeField("Neg", {"w"}, {"y"}) + OutputField("y"));
  };
  EXPECT_TRUE(Import(sparse(3, {2, 2})).ok());
  ExpectInvalid(Import(sparse(4, {2, 2})), "outside the shape");
  ExpectInvalid(Import(sparse(-1, {2, 2})), "outside the shape");
  ExpectError(Import(sparse(0, {1 << 30})), StatusCode::kResourceExhausted, "too sparse");
  EXPECT_FALSE(Import(sparse(0, {INT64_MAX, INT64_MAX})).ok());
}

TEST(OnnxImportHostile, DeepNestingIsRefused) {
  std::string graph = NodeField("Neg", {"x"}, {"y"}) + OutputField("y");
  for (int i = 0; i < 200; ++i) {
    graph = NodeField("If", {"x"}, {"y"}, GraphAttribute("then_branch", graph)) + OutputField("y");
  }
  ExpectInvalid(Import(ModelBytes(InputField("x") + graph)), "deep");
  std::string type = BytesField(1, IntField(1, 1));
  for (int i = 0; i < 5000; ++i) type = BytesField(4, BytesField(1, type));
  ExpectInvalid(Import(ModelBytes(BytesField(11, BytesField(1, "x") + BytesField(2, type)))),
                "nested too deeply");
}

TEST(OnnxImportHostile, NamesMustBeDefinedOnce) {
  const std::string x = InputField("x");
  ExpectInvalid(Import(ModelBytes(x + NodeField("Neg", {"z"}, {"y"}, "", "n") + OutputField("y"))),
                "node 'n' ('Neg'): nothing makes 'z'");
  ExpectInvalid(Import(ModelBytes(x + NodeField("Neg", {"x"}, {"y"}) +
                                  NodeField("Abs", {"x"}, {"y"}, "", "n") + OutputField("y"))),
                "node 'n' ('Abs'): makes 'y'");
  ExpectInvalid(Import(ModelBytes(x + NodeField("Neg", {"x"}, {"x"}) + OutputField("x"))), "'x'");
  ExpectInvalid(Import(ModelBytes(x + x + OutputField("x"))), "two graph inputs");
  ExpectInvalid(Import(ModelBytes(x + OutputField("x") + OutputField("x"))), "two graph outputs");
  ExpectInvalid(Import(ModelBytes(x + OutputField("z"))), "graph output 'z': nothing makes 'z'");
  const std::string w = BytesField(5, TensorBytes({"w", {1}, 1, BytesField(9, "abcd")}));
  ExpectInvalid(Import(ModelBytes(w + w + OutputField("w"))), "two initializers");
  const std::string alpha = BytesField(5, BytesField(1, "a") + IntField(3, 1) + IntField(20, 2));
  ExpectInvalid(
      Import(ModelBytes(x + NodeField("Elu", {"x"}, {"y"}, alpha + alpha) + OutputField("y"))),
      "attribute 'a' twice");
  ExpectInvalid(Import(ModelBytes(InputField("\xff") + OutputField("\xff"))), "UTF-8");
}

TEST(OnnxImportHostile, CyclesAreRefused) {
  const Status status =
      Import(ModelBytes(NodeField("Neg", {"b"}, {"a"}, "", "first") +
                        NodeField("Neg", {"a"}, {"b"}, "", "second") + OutputField("b")));
  ExpectInvalid(status, "cycle");
  EXPECT_NE(status.message().find("'first'"), std::string::npos);
  // Through a subgraph's capture.
  ExpectInvalid(Import(ModelBytes(
                    InputField("c") +
                    NodeField("If", {"c"}, {"y"}, GraphAttribute("then_branch", OutputField("y"))) +
                    OutputField("y"))),
                "cycle");
}

TEST(OnnxImportHostile, VersionsAndDomainsAreChecked) {
  const std::string graph = InputField("x") + NodeField("Neg", {"x"}, {"y"}) + OutputField("y");
  EXPECT_TRUE(Import(ModelBytes(graph, "", 7)).ok());
  ExpectError(Import(ModelBytes(graph, "", 6)), StatusCode::kUnimplemented, "opset 6");
  ExpectError(Import(ModelBytes(graph, "", 99)), StatusCode::kUnimplemented, "opset 99");
  ExpectError(Import(ModelBytes(graph, "", 17, 2)), StatusCode::kUnimplemented, "IR version 2");
  ExpectInvalid(Import(IntField(1, 8) + BytesField(7, graph)), "names no version");
  ExpectInvalid(Import(IntField(1, 8)), "no graph");
  ExpectInvalid(Import(""), "no graph");
  const std::string other = InputField("x") +
                            NodeField("Neg", {"x"}, {"y"}, BytesField(7, "org.example")) +
                            OutputField("y");
  const std::string import = BytesField(8, Opset("org.example", 1));
  EXPECT_TRUE(Import(ModelBytes(graph, import)).ok());
  ExpectError(Import(ModelBytes(other, import)), StatusCode::kUnimplemented, "'org.example'");
}

std::string Function(std::string_view name, const std::string& body) {
  return BytesField(25, BytesField(1, name) + BytesField(10, "f") + BytesField(4, "a") +
                            BytesField(5, "b") + body);
}
std::string FunctionCall(std::string_view callee, std::string_view from, std::string_view to) {
  return BytesField(
      7, BytesField(1, from) + BytesField(2, to) + BytesField(4, callee) + BytesField(7, "f"));
}

TEST(OnnxImportHostile, FunctionsMayNotRecurseOrExplode) {
  const std::string call =
      InputField("x") + NodeField("F0", {"x"}, {"y"}, BytesField(7, "f")) + OutputField("y");
  ExpectInvalid(Import(ModelBytes(call, Function("F0", FunctionCall("F0", "a", "b")))),
                "calls itself");
  // Every function calls the next one twice: 2^30 nodes.
  std::string functions;
  for (int i = 0; i < 30; ++i) {
    const std::string next = "F" + std::to_string(i + 1);
    functions += Function("F" + std::to_string(i),
                          FunctionCall(next, "a", "m") + FunctionCall(next, "m", "b"));
  }
  const std::string neg =
      BytesField(7, BytesField(1, "a") + BytesField(2, "b") + BytesField(4, "Neg"));
  functions += Function("F30", neg);
  ImportOptions options;
  options.max_nodes = 100'000;
  ExpectError(Import(ModelBytes(call, functions), {}, options), StatusCode::kResourceExhausted,
              "100000 nodes");
  EXPECT_TRUE(Import(ModelBytes(call, Function("F0", neg))).ok());
  ExpectInvalid(Import(ModelBytes(call, Function("F0", ""))), "nothing makes output 'b'");
}

// One long symbol, captured by many small subgraphs.
TEST(OnnxImportHostile, CopiesAreLimited) {
  const std::string shape = BytesField(1, BytesField(2, std::string(1 << 20, 's')));
  const std::string type = BytesField(1, IntField(1, 1) + BytesField(2, shape));
  std::string graph = BytesField(11, BytesField(1, "x") + BytesField(2, type));
  const std::string branch = NodeField("Neg", {"x"}, {"y"}) + OutputField("y");
  for (int i = 0; i < 300; ++i) {
    graph += NodeField("If", {""}, {""}, GraphAttribute("then_branch", branch));
  }
  ExpectError(Import(ModelBytes(graph)), StatusCode::kResourceExhausted, "expand");
}

TEST(OnnxImportHostile, NodesAreCounted) {
  std::string graph = InputField("x");
  for (int i = 0; i < 20; ++i) graph += NodeField("Neg", {"x"}, {""});
  ImportOptions options;
  options.max_nodes = 10;
  ExpectError(Import(ModelBytes(graph), {}, options), StatusCode::kResourceExhausted, "10 nodes");
  options = {};
  options.max_file_bytes = 10;
  ExpectError(Import(ModelBytes(graph), {}, options), StatusCode::kResourceExhausted, "limit");
}

class ExternalDataTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "plexus_onnx_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    folder_ = root_ / "model";
    fs::create_directories(folder_ / "sub");
    for (const fs::path& file : {root_ / "secret", folder_ / "in.bin", folder_ / "sub/in.bin"}) {
      std::ofstream(file, std::ios::binary) << "0123456789abcdef";
    }
  }
  void TearDown() override { fs::remove_all(root_); }

  Status ImportWith(std::string_view location, std::string_view offset = "",
                    std::string_view length = "", std::vector<int64_t> dims = {2}) {
    return Import(WithInitialiser({"w", dims, 1, ExternalFields(location, offset, length)}),
                  folder_);
  }

  fs::path root_, folder_;
};

TEST_F(ExternalDataTest, FilesInTheFolderAreRead) {
  EXPECT_TRUE(ImportWith("in.bin").ok());
  EXPECT_TRUE(ImportWith("sub/in.bin", "8", "8").ok());
  fs::create_symlink("sub/in.bin", folder_ / "inside");
  EXPECT_TRUE(ImportWith("inside").ok());
}

TEST_F(ExternalDataTest, PathsOutOfTheFolderAreRefused) {
  ExpectInvalid(ImportWith("../secret"), "model's folder");
  ExpectInvalid(ImportWith("sub/../../secret"), "model's folder");
  ExpectInvalid(ImportWith((root_ / "secret").string()), "model's folder");
  ExpectInvalid(ImportWith((folder_ / "in.bin").string()), "model's folder");
  fs::create_symlink(root_ / "secret", folder_ / "link");
  ExpectInvalid(ImportWith("link"), "leads out");
  fs::create_directory_symlink(root_, folder_ / "up");
  ExpectInvalid(ImportWith("up/secret"), "leads out");
  // A folder whose name merely starts like the model's.
  fs::create_directory(root_ / "model2");
  fs::copy(root_ / "secret", root_ / "model2/x");
  fs::create_symlink(root_ / "model2/x", folder_ / "sibling");
  ExpectInvalid(ImportWith("sibling"), "leads out");
}

TEST_F(ExternalDataTest, OnlyRegularFilesThatAreThere) {
  ExpectError(ImportWith("gone.bin"), StatusCode::kNotFound, "gone.bin");
  ExpectInvalid(ImportWith("sub"), "regular file");
  ExpectInvalid(ImportWith(std::string_view("in.bin\0x", 8)), "file name");
  ExpectInvalid(ImportWith(""), "without a location");
}

TEST_F(ExternalDataTest, RangesMustLieInTheFile) {
  ExpectInvalid(ImportWith("in.bin", "12"), "not in the file");
  ExpectInvalid(ImportWith("in.bin", "18446744073709551615"), "not in the file");
  ExpectInvalid(ImportWith("in.bin", "", "", {1000}), "not in the file");
  ExpectInvalid(ImportWith("in.bin", "0", "4"), "holds 4 external bytes");
  ExpectInvalid(ImportWith("in.bin", "-1"), "bad offset");
  ExpectInvalid(ImportWith("in.bin", "8x"), "bad offset");
  ExpectInvalid(ImportWith("in.bin", "99999999999999999999"), "bad offset");
}

TEST_F(ExternalDataTest, NoFolderMeansNoExternalData) {
  ExpectError(Import(WithInitialiser({"w", {2}, 1, ExternalFields("in.bin")})),
              StatusCode::kFailedPrecondition, "not allowed");
}

TEST_F(ExternalDataTest, ModelFilesMustBeRegularFiles) {
  ExpectError(ImportOnnxFile(folder_ / "gone.onnx").status(), StatusCode::kNotFound, "gone.onnx");
  ExpectInvalid(ImportOnnxFile(folder_).status(), "regular file");
}

}  // namespace
}  // namespace plexus::onnx
