#include "cuda_devices.hpp"

#include <algorithm>
#include <cstdint>

#include "cuda_calls.hpp"

namespace dlbridge::cuda {
namespace {

// What a pool keeps of memory that is not in use: enough for the pieces of large copies, little
// enough for torch's allocator and others beside it.
constexpr std::uint64_t kMostKept = std::uint64_t{1} << 30;
constexpr std::uint64_t kKeptPart = 16;  // and no more than this part of the device's memory

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string why_unavailable(cudaError_t error) {
  int driver = 0;
  succeeded(cudaDriverGetVersion(&driver));
  if (driver == 0) {
    return "there is no NVIDIA driver here";
  }
  if (driver < CUDART_VERSION) {
    return "the NVIDIA driver is for CUDA " + version_text(driver) +
           ", dlbridge was built with CUDA " + version_text(CUDART_VERSION) +
           ": update the driver, or build dlbridge with an older CUDA";
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice) {
    return "the NVIDIA driver shows no device (CUDA_VISIBLE_DEVICES may hide them)";
  }
  return std::string("cudaGetDeviceCount failed: ") + cudaGetErrorName(error) + " (" +
         cudaGetErrorString(error) + ")";
}

}  // namespace

cudaMemPool_t DeviceState::pool() {
  const std::scoped_lock lock(mutex_);
  if (!pool_made_) {
    make_pool();
    pool_made_ = true;
  }
  return pool_;
}

void DeviceState::make_pool() {
  int supported = 0;
  DLBRIDGE_CUDA(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device_));
  if (supported == 0) {
    return;
  }
  std::size_t unused = 0;
  std::size_t total = 0;
  DLBRIDGE_CUDA(cudaMemGetInfo(&unused, &total));
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device_;
  cudaMemPool_t pool = nullptr;
  DLBRIDGE_CUDA(cudaMemPoolCreate(&pool, &properties));
  std::uint64_t kept = std::min<std::uint64_t>(kMostKept, total / kKeptPart);
  // A pool that keeps nothing is slow, not wrong.
  succeeded(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept));
  pool_ = pool;
}

cudaStream_t DeviceState::own_stream() {
  const std::scoped_lock lock(mutex_);
  if (stream_ == nullptr) {
    DLBRIDGE_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  return stream_;
}

PooledEvent* DeviceState::take_event() {
  const std::scoped_lock lock(mutex_);
  if (free_events_.empty()) {
    free_events_.reserve(events_.size() + 1);
    cudaEvent_t event = nullptr;
    DLBRIDGE_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    try {
      return &events_.emplace_back(PooledEvent{event, device_});
    } catch (...) {
      succeeded(cudaEventDestroy(event));
      throw;
    }
  }
  PooledEvent* event = free_events_.back();
  free_events_.pop_back();
  return event;
}

void DeviceState::give_back(PooledEvent* event) noexcept {
  const std::scoped_lock lock(mutex_);
  free_events_.push_back(event);
}

Devices::Devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (!succeeded(error) || count == 0) {
    unavailable_ = why_unavailable(error);
    return;
  }
  for (int device = 0; device < count; ++device) {
    states_.emplace_back(device);
  }
}

DeviceState& Devices::at(int device) {
  if (device >= 0 && device < count()) {
    return states_[static_cast<std::size_t>(device)];
  }
  if (count() == 0) {
    throw DeviceError("CUDA cannot be used: " + unavailable_);
  }
  throw DeviceError("there is no CUDA device " + std::to_string(device) + ", only " +
                    std::to_string(count()) + " from 0 on");
}

}  // namespace dlbridge::cuda
