#pragma once

#include "dlbridge/device.hpp"

namespace dlbridge::python {

/// A runtime that comes with the package, in an extension of its own that is imported when memory
/// of one of its types is first met.
struct PackagedRuntime {
  DeviceSet types;
  std::int32_t device_type;   // of its devices
  std::int32_t managed_type;  // of memory that they and the host share
  const char* module;
  const char* absence;  // why it is missing where the package was built without it
  // Waits for the devices by their driver, if some library has loaded it. Without the runtime this
  // is all that can be done for managed memory (neither DLPack nor NumPy waits).
  void (*wait_for_driver)() noexcept;
};

/// Null where the package has none for that type.
[[nodiscard]] const PackagedRuntime* packaged_runtime(std::int32_t device_type) noexcept;

}  // namespace dlbridge::python
