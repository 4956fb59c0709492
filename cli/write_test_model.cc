// Writes the model that cli_test.py serves: write_test_model FILE. y = x, float32[n].
#include <cstdio>
#include <fstream>
#include <string>

#include "graph/onnx/wire_writer.h"

int main(int argc, char** argv) {
  using plexus::onnx::BytesField;
  using plexus::onnx::IntField;
  if (argc != 2) return 2;
  const auto info = [](const char* name) {
    const std::string shape = BytesField(2, BytesField(1, BytesField(2, "n")));
    return BytesField(1, name) + BytesField(2, BytesField(1, IntField(1, 1) + shape));
  };
  std::ofstream out(argv[1], std::ios::binary);
  out << plexus::onnx::ModelBytes(plexus::onnx::NodeField("Abs", {"x"}, {"a"}, "", "abs") +
                                  plexus::onnx::NodeField("Sign", {"x"}, {"s"}, "", "sign") +
                                  plexus::onnx::NodeField("Mul", {"a", "s"}, {"y"}, "", "mul") +
                                  BytesField(2, "same") + BytesField(11, info("x")) +
                                  BytesField(12, info("y")));
  return out.good() ? 0 : 1;
}
