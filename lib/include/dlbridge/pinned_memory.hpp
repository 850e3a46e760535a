#pragma once

#include <cstdint>
#include <span>

#include "dlbridge/device_runtime.hpp"
#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {

/// New pinned host memory from the runtime's pool: C-contiguous, page-aligned, writable, not
/// initialised; of the device kDLCPU. Throws MalformedTensor, DeviceError, std::bad_alloc.
[[nodiscard]] ManagedTensor allocate_pinned(DeviceRuntime& runtime, DType dtype,
                                            std::span<const std::int64_t> shape);

/// Gives the pinned memory that waits for the next copy back to the driver.
void release_pinned_memory(DeviceRuntime& runtime);

}  // namespace dlbridge
