#pragma once

#include "dlbridge/device.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge {

/// What comes next on `after` waits for what is on `before` now; the caller does not wait. Streams
/// that are being captured into a graph are left alone: they can be ordered within their graph
/// only.
void order_streams(Device device, Stream before, Stream after);
/// The same for streams of two devices of one type.
void order_streams(Device device_before, Stream before, Device device_after, Stream after);

/// The stream that the memory of managed tensors on that device is ordered on: the runtime's own;
/// the default one for memory of the host, and where there is no runtime.
[[nodiscard]] Stream managed_stream(Device device);

/// Waits until memory that the host can read though a device works on it (pinned, managed) holds
/// what `source.stream` was told to do. Nothing where the type has no runtime.
void wait_for_host_memory(const Source& source);

}  // namespace dlbridge
