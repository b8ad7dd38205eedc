// Recorded ops: what is called between begin and end is not run but kept, and then runs as often as wanted with one
// launch. Tensors keep their addresses; what changes between runs is written into them before. Nothing in between may
// wait for the device or read the host's memory.
#pragma once

namespace temper::gpu {

struct RecordedGraph;
// Waits for the calls of other threads (gpu/turn.h). Throws Error{"graph_recording"} when one is under way.
void begin_graph();
RecordedGraph* end_graph();     // the recording, ready to run; throws what recording failed with
void abandon_graph() noexcept;  // ends a recording whose ops failed
void launch_graph(const RecordedGraph* graph);
void free_graph(RecordedGraph* graph) noexcept;
bool recording() noexcept;  // by this thread

}  // namespace temper::gpu
