#pragma once

#include "dlbridge/device.hpp"
#include "dlbridge/managed_tensor.hpp"
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

/// Runs action(context) once, and soon, on a thread that may use a device, which one of a runtime's
/// must not.
using RunElsewhere = void (*)(void* context, void (*action)(void* context));
/// On a thread of its own.
void run_elsewhere(void* context, void (*action)(void* context)) noexcept;

/// A managed tensor over the same memory, given back only when the work that `stream` has by then
/// is done, by `run`: for memory of a device that is read on that stream. Memory that the host can
/// read, and where there is no runtime, comes back as it is.
[[nodiscard]] ManagedTensor until_done_on(ManagedTensor tensor, Stream stream,
                                          RunElsewhere run = run_elsewhere);

}  // namespace dlbridge
