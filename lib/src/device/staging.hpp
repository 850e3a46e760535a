#pragma once

#include "dlbridge/device_runtime.hpp"

namespace dlbridge::detail {

/// An event that ends with its scope.
struct OwnedEvent {
  DeviceRuntime& runtime;
  const Event event;

  OwnedEvent(DeviceRuntime& of, Event owned) noexcept : runtime(of), event(owned) {}
  OwnedEvent(const OwnedEvent&) = delete;
  OwnedEvent& operator=(const OwnedEvent&) = delete;
  ~OwnedEvent() { runtime.release(event); }
};

/// Does what may fail when the device was told something already: that does not go on behind it.
template <typename Action>
void or_wait(DeviceRuntime& runtime, int device, Stream stream, Action&& action) {
  try {
    action();
  } catch (...) {
    try {
      runtime.synchronise(device, stream);
    } catch (...) {  // a device that failed does nothing more, and the first failure is to be told
    }
    throw;
  }
}

/// What comes next on `after` waits for what is on `before` now; each is of the device before it.
void order(DeviceRuntime& runtime, int device_before, Stream before, int device_after,
           Stream after);

/// The copies of a device, in terms of one CopyJob: its arrays are borrowed for the call, and
/// either side's memory stays the caller's. What the device does is done on `stream`.
/// All throw DeviceError or std::bad_alloc with nothing of the job still under way.

/// The source is on the device, the target on the host. Returns when the target is filled.
/// Repacking, casts and the like are done on the device, so that the target's bytes cross and no
/// more; the host's part, from pinned staging buffers to the target, is spread over threads. A
/// packed target that is pinned itself is written by the device.
void copy_to_host(DeviceRuntime& runtime, int device, const CopyJob& job, Stream stream);

/// The same, only begun: the target is pinned memory, and filled when the event has come.
[[nodiscard]] Event begin_copy_to_host(DeviceRuntime& runtime, int device, const CopyJob& job,
                                       Stream stream);

/// The source is on the host, the target on the device. Returns when the source has been read; the
/// target is filled in the order of `stream`. Repacking, casts and the like are done on the way
/// into pinned staging buffers, which reads the source's memory once. False as of copy_elements().
[[nodiscard]] bool copy_to_device(DeviceRuntime& runtime, int device, const CopyJob& job,
                                  Stream stream);

}  // namespace dlbridge::detail
