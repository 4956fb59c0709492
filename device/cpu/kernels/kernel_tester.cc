#include "device/cpu/kernels/kernel_tester.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "device/cpu/cpu_compiler.h"
#include "device/cpu/program_runner.h"
#include "program/reference/reference.h"

namespace plexus::cpu {

namespace {

void ExpectClose(const Tensor& got, const Tensor& expected, float tolerance, const char* when) {
  ASSERT_EQ(got.dtype(), expected.dtype());
  ASSERT_EQ(got.shape(), expected.shape());
  if (got.dtype() != DType::kFloat32) {
    EXPECT_TRUE(TensorsEqual(got, expected))
        << when << ": " << TensorToString(got) << " is not " << TensorToString(expected);
    return;
  }
  const auto g = got.data<float>(), e = expected.data<float>();
  for (size_t i = 0; i < g.size(); ++i) {
    if (std::isnan(e[i]) && std::isnan(g[i])) continue;
    if (g[i] == e[i]) continue;
    if (std::fabs(g[i] - e[i]) <= tolerance * (1 + std::fabs(e[i]))) continue;
    ADD_FAILURE() << when << ": element " << i << " of " << ShapeToString(got.shape()) << " is "
                  << g[i] << ", should be " << e[i];
    return;
  }
}

}  // namespace

Tensor RandomTensor(const Shape& shape, uint32_t seed, float low, float high) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(low, high);
  Tensor t = Tensor::Allocate(DType::kFloat32, shape).value();
  for (float& v : t.mutable_data<float>()) v = uniform(random);
  return t;
}

ValueId KernelTester::NewValue(Tensor tensor) {
  Value value;
  value.name = "v" + std::to_string(tensors_.size());
  value.dtype = tensor.dtype();
  value.shape = SymbolicShape::FromConcrete(tensor.shape());
  tensors_.push_back(std::move(tensor));
  return graph_.AddValue(std::move(value));
}

ValueId KernelTester::Input(Tensor tensor, bool channels_last) {
  inputs_.push_back(tensor);
  const size_t rank = tensor.shape().size();
  const ValueId v = NewValue(std::move(tensor));
  graph_.inputs().push_back(v);
  if (!channels_last) return v;
  return Add("MaxPool", {v}, {{"kernel_shape", std::vector<int64_t>(rank - 2, 1)}});
}

ValueId KernelTester::Input(const Shape& shape, bool channels_last) {
  return Input(RandomTensor(shape, static_cast<uint32_t>(7 + tensors_.size()), -2, 2),
               channels_last);
}

ValueId KernelTester::Constant(Tensor tensor) {
  const std::string name = "c" + std::to_string(tensors_.size());
  tensors_.push_back(tensor);
  return graph_.AddConstant(name, ConstantStore::Get().Intern(std::move(tensor)));
}

ValueId KernelTester::Add(const std::string& op, std::vector<ValueId> inputs,
                          std::map<std::string, Attribute> attributes, size_t num_outputs) {
  Node node;
  const bool fused = op.rfind("plexus.", 0) == 0;
  node.op = fused ? op.substr(7) : op;
  node.domain = fused ? "plexus" : "";
  node.version = fused ? 1 : version;
  node.name = op + std::to_string(graph_.num_nodes());
  node.inputs = inputs;
  node.attributes = std::move(attributes);
  std::vector<Tensor> in;
  for (ValueId v : inputs) in.push_back(v.valid() ? tensors_[v.value()] : Tensor());
  // The reference only counts the outputs.
  node.outputs.assign(num_outputs, ValueId(0));
  auto results = ReferenceEvaluator::Get().Evaluate(graph_, node, in, {});
  EXPECT_TRUE(results.ok()) << op << ": " << results.status().ToString();
  node.outputs.clear();
  for (size_t i = 0; i < num_outputs; ++i) {
    node.outputs.push_back(NewValue(results.ok() ? (*results)[i] : Tensor::Scalar(0)));
  }
  last_outputs_ = node.outputs;
  graph_.AddNode(std::move(node));
  return last_outputs_[0];
}

void KernelTester::Check(float tolerance, bool by_reference) {
  graph_.outputs() = last_outputs_;
  CpuCompilerOptions options;
  options.workers = 2;
  options.target_block_time = std::chrono::microseconds(20);
  CompileOptions compile;
  compile.name = "test";
  auto program = MakeCpuCompiler(options)->Compile(graph_, compile);
  ASSERT_TRUE(program.ok()) << program.status().ToString();
  kernel_names.clear();
  for (const Kernel& kernel : (*program)->kernels) {
    kernel_names.push_back(kernel.name);
    if (!by_reference) {
      EXPECT_EQ(kernel.name.find("by reference"), std::string::npos) << kernel.name;
    }
  }
  for (uint64_t seed : {0, 1, 2}) {
    RunOptions run;
    run.shuffle_seed = seed;
    auto got = RunProgram(**program, inputs_, run);
    ASSERT_TRUE(got.ok()) << got.status().ToString();
    for (size_t i = 0; i < last_outputs_.size(); ++i) {
      ExpectClose((*got)[i], tensors_[last_outputs_[i].value()], tolerance,
                  seed == 0 ? "blocks in order" : "blocks shuffled");
    }
  }
}

}  // namespace plexus::cpu
