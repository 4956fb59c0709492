// The operators' functions, one file each; vision_ops.h describes them. Internal to this folder.
#pragma once

#include "program/reference/reference.h"

namespace plexus::vision {

Status DecodeImage(OpContext& c);
Status ResizeImage(OpContext& c);
Status DbBoxes(OpContext& c);
Status PerspectiveCrop(OpContext& c);
Status Rotate180(OpContext& c);

}  // namespace plexus::vision
