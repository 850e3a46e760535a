#include "dlbridge/device_runtime.hpp"

#include <array>
#include <atomic>

namespace dlbridge {
namespace {

// DLPack's device types are small numbers; the rest of the table stays empty.
constexpr std::int32_t kTypes = 32;
std::array<std::atomic<DeviceRuntime*>, kTypes> runtimes{};
std::array<std::atomic<const char*>, kTypes> absences{};
std::atomic<std::uint32_t> served{0};  // the types that have one: what plan() is given

std::size_t place_of(std::int32_t device_type) {
  if (!is_device_type(device_type) || device_type >= kTypes) {
    throw std::out_of_range("there is no runtime for devices of type " +
                            std::to_string(device_type));
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
  const std::size_t place = place_of(device_type);
  const std::uint32_t bit = std::uint32_t{1} << place;
  runtimes[place].store(runtime, std::memory_order_release);
  runtime != nullptr ? served.fetch_or(bit) : served.fetch_and(~bit);
}

DeviceSet device_runtimes() noexcept {
  return DeviceSet(served.load(std::memory_order_acquire));
}

void set_device_runtime(DeviceRuntime& runtime) {
  for (std::int32_t type = 0; type < kTypes; ++type) {
    if (runtime.types().contains(type)) {
      set_device_runtime(type, &runtime);
    }
  }
}

std::optional<StreamNumbers> stream_numbers(std::int32_t device_type) noexcept {
  if (const auto fixed = fixed_stream_numbers(device_type)) {
    return fixed;
  }
  const DeviceRuntime* runtime = device_runtime(device_type);
  return runtime == nullptr || Device(device_type, 0).host_accessible()
             ? std::nullopt
             : std::optional(runtime->stream_numbers());
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
