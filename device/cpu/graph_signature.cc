#include "device/cpu/graph_signature.h"

#include "graph/graph_hash.h"

namespace plexus::cpu {

ContentHash SignatureOf(const Graph& region, const CompileOptions& options, uint32_t workers) {
  ContentHasher hasher;
  hasher.UpdateString("cpu");
  hasher.UpdateInt(workers);
  hasher.UpdateInt(static_cast<int64_t>(options.precision));
  HashGraph(region, hasher);
  return hasher.Finish();
}

}  // namespace plexus::cpu
