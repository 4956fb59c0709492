// Chrome trace JSON, as chrome://tracing and https://ui.perfetto.dev read it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "base/trace.h"

namespace plexus {

// Takes the next piece of a document; false stops the writer.
using TraceSink = std::function<bool(std::string_view)>;

// Writes the document in pieces of about 64 KiB. Each device is a process with a track per unit
// (more where blocks run side by side), the jobs, the compiles and the decisions have a process
// each, and every tenant's requests as well; arrows lead from a job to where it ran. Times are µs
// from the first event; "otherData" holds that event's own time. False when the sink gave up.
bool WriteTraceJson(const TraceRecorder::Snapshot& snapshot, const TraceSink& sink);

// The same into a file; what is there is replaced. kPermissionDenied or kInternal names the file.
Status WriteTraceFile(const TraceRecorder::Snapshot& snapshot, const std::string& path);

}  // namespace plexus
