// One of the ONNX standard's own test cases: a folder with model.onnx and data sets of serialised
// inputs and expected outputs.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"

namespace plexus::testing {

enum class ValueKind { kTensor, kSequence, kOptional, kOther };

// What the runner reads from the model file by itself, so that a case can be classified even when
// the importer refuses it.
struct OnnxCase {
  std::string name;  // "test_abs"
  std::filesystem::path folder;
  std::set<std::pair<std::string, std::string>> operators;  // (domain, op) at the top level
  bool foreign_domain = false;  // imports another domain than ONNX's default one
  std::vector<std::pair<std::string, ValueKind>> inputs, outputs;  // initialisers left out
};

struct DataSet {
  std::vector<Tensor> inputs;   // undefined where the case gives none
  std::vector<Tensor> outputs;  // sequences as in program/reference/sequence.h
};

// All cases under `root`/node and its neighbours, by name.
std::vector<std::filesystem::path> FindCases(const std::filesystem::path& root);
Result<OnnxCase> ReadCase(const std::filesystem::path& folder);
Result<std::vector<DataSet>> ReadDataSets(const OnnxCase& test_case);

struct Tolerance {
  double relative = 1e-3;
  double absolute = 1e-7;
  bool shapes_only = false;
};
// OK when `actual` matches; else says where and how they differ. Integers and strings exactly.
Status CompareValues(const Tensor& actual, const Tensor& expected, const Tolerance& tolerance);

}  // namespace plexus::testing
