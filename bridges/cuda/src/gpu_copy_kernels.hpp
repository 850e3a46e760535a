#pragma once

#include <cuda_runtime_api.h>

#include "gpu_copy.hpp"

namespace dlbridge::cuda {

/// Begins the copy on the stream, of which the device is current. Nothing to copy is success.
[[nodiscard]] cudaError_t launch_copy(const DeviceCopy& copy, cudaStream_t stream) noexcept;

}  // namespace dlbridge::cuda
