// Inner loops of recurrent layers, built once per instruction set.
#pragma once

#include <cstdint>

namespace plexus::cpu {

struct RecurrentKernels {
  // y[r] += w[r, 0..n) · x for `rows` dense rows.
  void (*multiply_add)(const float* w, const float* x, float* y, int64_t rows, int64_t n);
  // One LSTM step: gates [4 · n] in ONNX's order (input, output, forget, cell), summed up but not
  // activated; c [n] is updated, h [n] is written.
  void (*lstm_cell)(const float* gates, float* c, float* h, int64_t n);
  // One GRU step: update, reset gates z, r [n] (not activated), the candidate's part from the input
  // xh and from the state rh [n] (both with their biases): h = (1-z)·tanh(xh + r·rh) + z·h.
  void (*gru_cell)(const float* z, const float* r, const float* xh, const float* rh, float* h,
                   int64_t n);
};
const RecurrentKernels& BestRecurrentKernels();

}  // namespace plexus::cpu
