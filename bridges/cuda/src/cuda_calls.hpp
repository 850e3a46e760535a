#pragma once

// Calls of CUDA's runtime library: errors as exceptions, and what surrounds a call.

#include <cuda_runtime_api.h>

#include "dlbridge/device_runtime.hpp"

/// Throws where the call fails; the text begins with the call's name.
#define DLBRIDGE_CUDA(call) ::dlbridge::cuda::check((call), #call)

namespace dlbridge::cuda {

/// Throws std::bad_alloc for want of memory, else DeviceError. `call` is the call as it is written.
/// The error is cleared, so that nobody takes it for that of a later call.
void check(cudaError_t error, const char* call);

/// For what must not throw: clears the error. Whether there was none.
bool succeeded(cudaError_t error) noexcept;

[[nodiscard]] inline cudaStream_t native(Stream stream) noexcept {
  return static_cast<cudaStream_t>(stream.handle);
}

/// Makes a device current, and at the end the one that was.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device);
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice();

 private:
  int previous_ = 0;
  bool changed_ = false;
};

/// While it lives, calls of this thread that CUDA deems unsafe while some stream is captured
/// (allocating, asking for an event) are let through and leave that capture as it is. None of ours
/// touches what is captured.
class RelaxedCapture {
 public:
  RelaxedCapture() noexcept;
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;
  ~RelaxedCapture();

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

/// Around every piece of work on one device.
class OnDevice {
 public:
  explicit OnDevice(int device) : current_(device) {}

 private:
  RelaxedCapture relaxed_;
  CurrentDevice current_;
};

}  // namespace dlbridge::cuda
