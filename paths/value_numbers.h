// ValueNumbers: which calls of several paths are equal when inputs of equal names are.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "paths/bodies.h"
#include "paths/path_map.h"

namespace plexus {

// Numbers calls so that equal numbers are equal work. Never says equal of what may differ; work
// that is equal for another reason than its wiring may get two numbers. Thread-compatible.
class ValueNumbers {
 public:
  // What a value is; of equal values the same.
  using Source = std::tuple<uint64_t, uint64_t, uint64_t>;
  using Sources = std::vector<Source>;
  using Numbers = std::vector<uint32_t>;  // by call

  // Of a pipeline's inputs: equal where name, type and shape are.
  Sources InputsOf(const Path& path);
  // Random work is another's each time.
  Numbers Number(const Path& path, const Sources& inputs);
  // Of the inputs of `body_path`, the path of a body in the segment of path.calls[call]. Elements
  // of equal arrays are equal. What a loop carries is equal turn by turn where it begins equal and
  // the loops make the same of it.
  Sources InputsOf(const StageBody& body, const Path& body_path, const Path& path, size_t call,
                   const Sources& inputs, const Numbers& numbers);

 private:
  using Key = std::pair<uint64_t, Sources>;
  static Source Of(const PathValue& value, const Sources& inputs, const Numbers& numbers);
  Source Element(uint64_t kind, const Source& of);
  Sources CarriedBy(const StageBody& body, const Path& body_path, const Sources& begin,
                    const Sources& captures);

  std::map<Key, uint32_t> calls_;
  std::map<Sources, uint64_t> lists_;
  std::map<std::string, uint64_t> inputs_;
  uint32_t next_ = 0;
};

}  // namespace plexus
