#include "graph/work.h"

#include <algorithm>
#include <string_view>

namespace plexus {
namespace {

Shape ShapeOf(const Graph& graph, const std::vector<ValueId>& ids, size_t i) {
  if (i >= ids.size() || !ids[i].valid()) return {};
  const SymbolicShape& shape = graph.value(ids[i]).shape;
  return shape.IsConcrete() ? shape.ToConcrete() : Shape{};
}

int64_t Elements(const Shape& shape) { return std::max<int64_t>(1, NumElementsUnchecked(shape)); }

bool OneOf(std::string_view op, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), op) != names.end();
}

// y[N, M, ...] from w[M, C/groups, k...]: per group a product of [N·pixels, C/groups·k] and
// [C/groups·k, M/groups]. A depthwise one has nothing to share between channels and is no product.
void AddConvolution(const Graph& graph, const Node& node, size_t weights, NodeWork* work) {
  const Shape w = ShapeOf(graph, node.inputs, weights);
  const Shape x = ShapeOf(graph, node.inputs, 0);
  const Shape y = ShapeOf(graph, node.outputs, 0);
  if (w.size() < 3 || y.size() < 3 || x.size() < 3) return;
  const bool transposed = node.op == "ConvTranspose";
  const int64_t groups = std::max<int64_t>(1, node.IntAttr("group", 1));
  // A transposed one scatters what the forward one gathers: the same product over x's pixels.
  const Shape& pixels = transposed ? x : y;
  const int64_t channels = std::max<int64_t>(1, (transposed ? Elements(w) / w[0] : w[0]) / groups);
  work->depth = std::max<int64_t>(1, Elements(w) / std::max<int64_t>(1, w[0]));
  if (transposed) work->depth = std::max<int64_t>(1, w[0] / groups);
  const int64_t rows = Elements(pixels) / std::max<int64_t>(1, pixels[1]);
  work->flops = 2.0 * static_cast<double>(rows) * static_cast<double>(groups * channels) *
                static_cast<double>(work->depth);
  if (channels == 1) return;
  work->batch = groups;
  work->rows = rows;
  work->columns = channels;
}

void AddProduct(const Graph& graph, const Node& node, NodeWork* work) {
  const Shape a = ShapeOf(graph, node.inputs, 0);
  const Shape y = ShapeOf(graph, node.outputs, 0);
  if (a.empty()) return;
  const bool trans = node.IntAttr("trans_a", node.IntAttr("transA", 0)) != 0 && a.size() >= 2;
  work->depth = std::max<int64_t>(1, trans ? a[a.size() - 2] : a.back());
  work->columns = y.empty() ? 1 : std::max<int64_t>(1, y.back());
  work->rows = std::max<int64_t>(1, Elements(y) / work->columns);
  // One weight matrix for all rows makes one tall product; else each matrix is its own.
  const size_t second = OneOf(node.op, {"QMatMul", "QLinearMatMul"}) ? 3 : 1;
  const Shape b = ShapeOf(graph, node.inputs, second);
  if (b.size() > 2 && y.size() >= 2) {
    work->batch = std::max<int64_t>(1, work->rows / std::max<int64_t>(1, y[y.size() - 2]));
    work->rows = std::max<int64_t>(1, y[y.size() - 2]);
  }
  work->flops = 2.0 * static_cast<double>(Elements(y)) * static_cast<double>(work->depth);
}

// q[B,H,S,D] with k[B,H,T,D] and v[B,H,T,E], scores kept on chip: tiles of query rows.
void AddAttention(const Graph& graph, const Node& node, NodeWork* work) {
  const Shape q = ShapeOf(graph, node.inputs, 0);
  const Shape k = ShapeOf(graph, node.inputs, 1);
  const Shape y = ShapeOf(graph, node.outputs, 0);
  if (q.size() < 3 || k.size() < 3 || y.size() < 3) return;
  const int64_t keys = k[k.size() - 2];
  work->rows = std::max<int64_t>(1, q[q.size() - 2]);
  work->batch = std::max<int64_t>(1, Elements(q) / std::max<int64_t>(1, work->rows * q.back()));
  work->columns = 1;  // one tile wide
  work->depth = 1;    // the keys are not split
  work->flops = 2.0 * static_cast<double>(work->batch * work->rows) * static_cast<double>(keys) *
                static_cast<double>(q.back() + y.back());
}

void AddRecurrent(const Graph& graph, const Node& node, NodeWork* work) {
  const Shape x = ShapeOf(graph, node.inputs, 0);  // [steps, batch, features], or batch first
  const double weights = static_cast<double>(Elements(ShapeOf(graph, node.inputs, 1)) +
                                             Elements(ShapeOf(graph, node.inputs, 2)));
  if (x.size() == 3) work->flops = 2.0 * static_cast<double>(x[0] * x[1]) * weights;
}

}  // namespace

NodeWork WorkOf(const Graph& graph, const Node& node) {
  NodeWork work;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    work.elements = std::max(work.elements, Elements(ShapeOf(graph, node.outputs, i)));
  }
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (!node.inputs[i].valid() || graph.value(node.inputs[i]).IsConstant()) continue;
    work.elements = std::max(work.elements, Elements(ShapeOf(graph, node.inputs, i)));
  }
  const auto steps = node.attributes.find("ops");
  const auto* names = steps == node.attributes.end()
                          ? nullptr
                          : std::get_if<std::vector<std::string>>(&steps->second);
  const size_t operations = names != nullptr ? std::max<size_t>(1, names->size()) : 1;
  work.flops = static_cast<double>(work.elements) * static_cast<double>(operations);
  if (OneOf(node.op, {"Conv", "ConvTranspose", "ConvInteger"})) {
    AddConvolution(graph, node, 1, &work);
  } else if (OneOf(node.op, {"QConv", "QLinearConv"})) {
    AddConvolution(graph, node, 3, &work);
  } else if (OneOf(node.op, {"MatMul", "Gemm", "MatMulInteger", "QMatMul", "QLinearMatMul"})) {
    AddProduct(graph, node, &work);
  } else if (node.op == "Attention") {
    AddAttention(graph, node, &work);
  } else if (OneOf(node.op, {"LSTM", "GRU", "RNN"})) {
    AddRecurrent(graph, node, &work);
  }
  return work;
}

}  // namespace plexus
