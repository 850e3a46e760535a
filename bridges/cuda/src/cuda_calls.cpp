#include "cuda_calls.hpp"

#include <new>
#include <string>
#include <string_view>

namespace dlbridge::cuda {

void check(cudaError_t error, const char* call) {
  if (succeeded(error)) {
    return;
  }
  if (error == cudaErrorMemoryAllocation) {
    throw std::bad_alloc();
  }
  const std::string_view text = call;
  throw DeviceError(std::string(text.substr(0, text.find('('))) +
                    " failed: " + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")");
}

bool succeeded(cudaError_t error) noexcept {
  if (error == cudaSuccess) {
    return true;
  }
  static_cast<void>(cudaGetLastError());
  return false;
}

CurrentDevice::CurrentDevice(int device) {
  DLBRIDGE_CUDA(cudaGetDevice(&previous_));
  if (previous_ != device) {
    DLBRIDGE_CUDA(cudaSetDevice(device));
    changed_ = true;
  }
}

CurrentDevice::~CurrentDevice() {
  if (changed_) {
    succeeded(cudaSetDevice(previous_));
  }
}

RelaxedCapture::RelaxedCapture() noexcept {
  succeeded(cudaThreadExchangeStreamCaptureMode(&mode_));
}

RelaxedCapture::~RelaxedCapture() {
  succeeded(cudaThreadExchangeStreamCaptureMode(&mode_));
}

}  // namespace dlbridge::cuda
