#include "dlbridge/device_runtime.hpp"

#include <array>
#include <atomic>

namespace dlbridge {
namespace {

// DLPack's device types are small numbers; the rest of the table stays empty.
constexpr std::int32_t kTypes = 32;
std::array<std::atomic<DeviceRuntime*>, kTypes> runtimes{};
std::array<std::atomic<const char*>, kTypes> absences{};

std::size_t place_of(std::int32_t device_type) {
  if (!known_device_type(device_type)) {
    throw std::out_of_range("DLPack has no device type " + std::to_string(device_type));
  }
  return static_cast<std::size_t>(device_type);
}

template <typename Entry>
Entry entry(const std::array<std::atomic<Entry>, kTypes>& table, std::int32_t device_type) {
  return device_type < 0 || device_type >= kTypes
             ? nullptr
             : table[static_cast<std::size_t>(device_type)].load(std::memory_order_acquire);
}

}  // namespace

void set_device_runtime(std::int32_t device_type, DeviceRuntime* runtime) {
  runtimes[place_of(device_type)].store(runtime, std::memory_order_release);
}

DeviceRuntime* device_runtime(std::int32_t device_type) noexcept {
  return entry(runtimes, device_type);
}

void set_runtime_absence(std::int32_t device_type, const char* reason) {
  absences[place_of(device_type)].store(reason, std::memory_order_release);
}

std::string_view runtime_absence(std::int32_t device_type) noexcept {
  const char* reason = entry(absences, device_type);
  return reason == nullptr ? std::string_view() : std::string_view(reason);
}

}  // namespace dlbridge
