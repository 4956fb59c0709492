// Lowering of LSTM and GRU.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

Status LowerLstm(LoweringContext& context, const Node& node);
Status LowerGru(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
