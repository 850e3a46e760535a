#include "dlbridge/device_runtime.hpp"

#include <array>
#include <atomic>

namespace dlbridge {
namespace {

// DLPack's device types are small numbers; the rest of the table stays empty.
std::array<std::atomic<DeviceRuntime*>, 32> runtimes{};

}  // namespace

void set_device_runtime(std::int32_t device_type, DeviceRuntime* runtime) {
  if (!known_device_type(device_type)) {
    throw std::out_of_range("DLPack has no device type " + std::to_string(device_type));
  }
  runtimes[static_cast<std::size_t>(device_type)].store(runtime, std::memory_order_release);
}

DeviceRuntime* device_runtime(std::int32_t device_type) noexcept {
  if (device_type < 0 || device_type >= static_cast<std::int32_t>(runtimes.size())) {
    return nullptr;
  }
  return runtimes[static_cast<std::size_t>(device_type)].load(std::memory_order_acquire);
}

}  // namespace dlbridge
