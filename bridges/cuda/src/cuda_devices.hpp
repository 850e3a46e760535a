#pragma once

// What the runtime keeps for each device: a memory pool, a stream, and events that are free.

#include <cuda_runtime_api.h>

#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "dlbridge/device_runtime.hpp"

namespace dlbridge::cuda {

/// An event and the device that it belongs to; Event::handle points at one.
struct PooledEvent {
  cudaEvent_t event = nullptr;
  int device = 0;
};

/// One device. All of it is made when it is first asked for, and lives as long as the process.
/// Every function needs OnDevice around it.
class DeviceState {
 public:
  explicit DeviceState(int device) : device_(device) {}

  /// Null where the device has no memory pools.
  [[nodiscard]] cudaMemPool_t pool();
  [[nodiscard]] cudaStream_t own_stream();
  [[nodiscard]] PooledEvent* take_event();
  void give_back(PooledEvent* event) noexcept;

 private:
  void make_pool();

  const int device_;
  std::mutex mutex_;
  bool pool_made_ = false;
  cudaMemPool_t pool_ = nullptr;
  cudaStream_t stream_ = nullptr;
  std::deque<PooledEvent> events_;         // all that there are
  std::vector<PooledEvent*> free_events_;  // with room for all of them
};

/// All devices, found once: CUDA itself does not look again.
class Devices {
 public:
  Devices();

  [[nodiscard]] int count() const noexcept { return static_cast<int>(states_.size()); }
  [[nodiscard]] const std::string& unavailable() const noexcept { return unavailable_; }

  /// Throws DeviceError where there is no such device.
  [[nodiscard]] DeviceState& at(int device);

 private:
  std::deque<DeviceState> states_;
  std::string unavailable_;
};

}  // namespace dlbridge::cuda
