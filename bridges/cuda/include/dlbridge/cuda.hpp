#pragma once

#include "dlbridge/device_runtime.hpp"

namespace dlbridge {

/// The runtime for CUDA devices, on the CUDA runtime library, which is linked in: a program with it
/// also starts where there is no driver, and device_count() is 0 there.
///
/// Made at the first call and never destroyed: tensors that outlive main() may still use it. Safe
/// on any thread. docs/cuda.md says what is kept, and what happens while a stream is captured.
[[nodiscard]] DeviceRuntime& cuda_runtime();

/// Makes cuda_runtime() the one for CUDA devices, and for the host memory that CUDA knows of
/// (pinned and managed).
void register_cuda_runtime();

}  // namespace dlbridge
