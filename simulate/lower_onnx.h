// ONNX files as programs for the simulated GPU. Internal.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "device/sim/sim_gpu.h"
#include "graph/tensor.h"
#include "program/program.h"

namespace plexus {

// Imports, specialises and lowers the model for the device: grids and block times from a roofline.
// Input dimensions that `shapes` leaves open are 1. Errors name the file.
Result<ProgramPtr> LowerOnnx(const std::filesystem::path& file,
                             const std::map<std::string, Shape>& shapes,
                             const SimGpuOptions& device);
// Programs for 1, 2, 4, ... rows, up to `max_rows`, each row by itself; only the first where rows
// are not independent.
Result<std::vector<ProgramPtr>> LowerOnnxRows(const std::filesystem::path& file,
                                              const std::map<std::string, Shape>& shapes,
                                              const SimGpuOptions& device, uint32_t max_rows);

}  // namespace plexus
