#pragma once

#include "dlbridge/device_runtime.hpp"

namespace dlbridge::python {

/// What an extension with a runtime for devices gives the module: one capsule of this name, the
/// attribute `runtime` of the extension. The extension holds a core of its own, whose registry is
/// not the one that counts: the module registers the runtime itself.
inline constexpr const char* kDeviceCapsule = "dlbridge.device_runtime";
struct DeviceCompanion {
  // Bumped with any change of the classes that cross between the two binaries: DeviceRuntime and
  // what its functions take and give.
  static constexpr int kInterface = 2;
  int interface = kInterface;
  /// The runtime, which lives as long as the process. Null where it cannot be made. Throws nothing,
  /// and needs no GIL; the first call may load the driver.
  DeviceRuntime* (*open)() = nullptr;
};

}  // namespace dlbridge::python
