// The server's counters as Prometheus reads them.
#pragma once

#include <string>
#include <vector>

#include "serve/repository.h"
#include "serve/v2_api.h"

namespace plexus {

// The text exposition format, version 0.0.4: requests of every servable, device jobs, sharing, the
// result cache and sessions. Counters start at 0 with the process; a servable's with its load.
std::string MetricsText(const Runtime& runtime, const DispatcherStats& dispatcher, const V2Api& api,
                        const std::vector<ServablePtr>& loaded);

}  // namespace plexus
