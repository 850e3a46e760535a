#pragma once

#include <dlpack/dlpack.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "dlbridge/dtype.hpp"

namespace dlbridge {

/// Where memory is: DLPack's pair of a device type and an id. A plain value.
struct Device {
  std::int32_t type = kDLCPU;
  std::int32_t id = 0;

  constexpr Device() = default;
  constexpr Device(std::int32_t type_, std::int32_t id_) : type(type_), id(id_) {}
  // Implicit on purpose: the two are the same pair.
  constexpr Device(DLDevice device)  // NOLINT(google-explicit-constructor)
      : type(device.device_type), id(device.device_id) {}

  [[nodiscard]] constexpr DLDevice dl() const {
    return DLDevice{static_cast<DLDeviceType>(type), id};
  }

  /// Whether the processor can read the memory as it is: host, pinned and managed memory.
  [[nodiscard]] constexpr bool host_accessible() const {
    return type == kDLCPU || type == kDLCUDAHost || type == kDLROCMHost || type == kDLCUDAManaged;
  }

  /// Whether `data` is an address that can be added to. For the others, and for types newer than
  /// DLPack 1.3, it is an opaque handle, and the byte offset has to stay beside it.
  [[nodiscard]] constexpr bool addressable() const {
    return type != kDLOpenCL && type != kDLVulkan && type != kDLMetal && type != kDLWebGPU &&
           type <= kDLTrn;
  }

  friend constexpr bool operator==(Device, Device) = default;
};

/// An order of work on a device, as its runtime names it (a cudaStream_t); the default is the
/// device's default stream. Borrowed: whoever made the stream keeps it.
struct Stream {
  void* handle = nullptr;
  friend constexpr bool operator==(Stream, Stream) = default;
};

/// How the keyword `stream` of DLPack's Python protocol numbers the streams of a kind of device: by
/// their handles, but for the default stream and for numbers that stand for nothing.
struct StreamNumbers {
  std::uintptr_t of_default = 1;
  std::uintptr_t first_unused = 1;
  std::uintptr_t last_unused = 0;  // below the first: none

  [[nodiscard]] std::uintptr_t number_of(Stream stream) const {
    return stream.handle == nullptr ? of_default : reinterpret_cast<std::uintptr_t>(stream.handle);
  }
  /// Nothing where the number stands for no stream.
  [[nodiscard]] std::optional<Stream> stream_of(std::int64_t number) const {
    const auto handle = static_cast<std::uintptr_t>(number);
    if (number < 0 || (handle >= first_unused && handle <= last_unused)) {
      return std::nullopt;
    }
    return handle == of_default ? Stream{} : Stream{reinterpret_cast<void*>(handle)};
  }
};

/// How DLPack itself numbers the streams of that type's devices; nothing where it does not say.
[[nodiscard]] std::optional<StreamNumbers> fixed_stream_numbers(std::int32_t type) noexcept;

/// Whether it can be the number of a device type. DLPack adds types faster than its users follow:
/// memory of a type without a name here passes by its number.
[[nodiscard]] constexpr bool is_device_type(std::int32_t type) {
  return type > 0;
}

/// "cpu", "cuda", "cuda_managed"; "device(99)" for a type without a name.
[[nodiscard]] std::string device_type_name(std::int32_t type);

/// "cpu", "cuda:0", "cuda_managed:0"; "device(99):0" for a type without a name.
[[nodiscard]] std::string to_string(Device device);

/// The device of a text such as "cpu", "cuda" or "cuda:1", or nothing when the name is unknown.
[[nodiscard]] std::optional<Device> device_named(std::string_view text);

/// A set of device types, as one word; a row of a Capabilities table.
class DeviceSet {
 public:
  constexpr DeviceSet() = default;
  explicit constexpr DeviceSet(std::uint32_t bits) : bits_(bits) {}
  /// Throws std::invalid_argument for a type that has no bit, from 32 on; in a constant, that does
  /// not compile.
  [[nodiscard]] static constexpr DeviceSet of(std::initializer_list<std::int32_t> types) {
    DeviceSet set;
    for (auto type : types) {
      if (type < 0 || type >= 32) {
        detail::refuse_argument(type, " is no device type that a set holds; everything() has all");
      }
      set.bits_ |= std::uint32_t{1} << type;
    }
    return set;
  }
  /// The types whose memory the host reads.
  [[nodiscard]] static constexpr DeviceSet host() {
    return of({kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged});
  }
  [[nodiscard]] static constexpr DeviceSet everything() { return DeviceSet(~std::uint32_t{0}); }
  friend constexpr DeviceSet operator|(DeviceSet a, DeviceSet b) {
    a.bits_ |= b.bits_;
    return a;
  }
  friend constexpr bool operator==(DeviceSet, DeviceSet) = default;
  [[nodiscard]] constexpr bool contains(std::int32_t type) const {
    return type >= 0 && type < 32 ? ((bits_ >> type) & 1) != 0 : *this == everything();
  }

 private:
  std::uint32_t bits_ = 0;
};

/// The types of devices that have a runtime now (device_runtime.hpp).
[[nodiscard]] DeviceSet device_runtimes() noexcept;

namespace detail {

/// A tensor on the host, in C order, whose memory is still to be named. Borrows the shape.
[[nodiscard]] inline DLTensor host_tensor(DType dtype, std::span<const std::int64_t> shape) {
  return {.data = nullptr,
          .device = Device{}.dl(),
          .ndim = static_cast<std::int32_t>(shape.size()),
          .dtype = dtype.dl(),
          .shape = const_cast<std::int64_t*>(shape.data()),
          .strides = nullptr,
          .byte_offset = 0};
}

}  // namespace detail
}  // namespace dlbridge
