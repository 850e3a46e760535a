#pragma once

// DLPack's devices and streams as torch has them.

#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "dlbridge/device_runtime.hpp"
#include "dlbridge/torch_vocabulary.hpp"

namespace dlbridge::torch_detail {

inline constexpr auto kDevicesHere = [] {
  auto rows = kDeviceTypes;
#ifdef USE_ROCM
  std::ranges::find(rows, "cuda", &DeviceRow::name)->type = kDLROCM;
#endif
  return rows;
}();

static_assert(std::ranges::equal(
    kDeviceTypes,
    std::array{c10::DeviceType::CPU, c10::DeviceType::CUDA, c10::DeviceType::HIP,
               c10::DeviceType::MAIA, c10::DeviceType::XPU, c10::DeviceType::MPS,
               c10::DeviceType::PrivateUse1},
    {}, [](const DeviceRow& row) { return static_cast<c10::DeviceType>(row.number); }));

/// DLPack's type for a device of torch; that of extensions where it has none.
inline std::int32_t device_type_of(c10::DeviceType type) {
  for (const DeviceRow& row : kDevicesHere) {
    if (row.number == static_cast<std::int8_t>(type)) {
      return row.type;
    }
  }
  return kDLExtDev;
}

/// torch's device where the memory is. Memory that the host can read is the CPU's.
inline c10::Device device_of(Device device) {
  for (const DeviceRow& row : kDevicesHere) {
    if (row.type == device.type && row.type != kDLCPU) {
      return {static_cast<c10::DeviceType>(row.number), static_cast<c10::DeviceIndex>(device.id)};
    }
  }
  return {c10::DeviceType::CPU};
}

/// Whether this torch tells the handle of a stream (early 2026 on).
template <typename AnyStream = c10::Stream>
inline constexpr bool kTellsStreams = requires(const AnyStream& stream) {
  stream.native_handle();
};

/// The stream that torch's work on that device is on now, on this thread.
template <typename AnyStream = c10::Stream>
Stream current_stream(c10::Device device) {
  if constexpr (kTellsStreams<AnyStream>) {
    try {
      const AnyStream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
      return {stream.native_handle()};
    } catch (const c10::Error&) {  // a backend that has no handles: its default stream
    }
  }
  return {};
}

}  // namespace dlbridge::torch_detail
