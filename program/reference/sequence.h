// Sequences: lists of tensors that travel through RunGraph as opaque handles.
//
// A handle is a Tensor that is not defined() but has a buffer, which keeps the list alive. Every
// tensor operator takes it for a missing input and says so; Identity, If, Loop and graph inputs and
// outputs pass it on. An optional value is the value itself, or an undefined Tensor when empty.
#pragma once

#include <vector>

#include "graph/tensor.h"

namespace plexus::reference {

Tensor MakeSequence(std::vector<Tensor> elements);
// nullptr when `t` is not a sequence. Borrowed from `t`.
const std::vector<Tensor>* AsSequence(const Tensor& t);

}  // namespace plexus::reference
