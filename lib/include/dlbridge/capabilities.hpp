#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "dlbridge/device.hpp"
#include "dlbridge/dtype.hpp"
#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {

/// How a consumer deals with memory that nobody may write to.
enum class ReadOnlySupport : std::uint8_t {
  kHonours,  // it keeps the promise
  kUnaware,  // it would write: the policy's `readonly` decides
  kNever,    // it cannot even be told, and must not get it (a legacy capsule)
};

/// Which strides a consumer follows.
enum class StrideSupport : std::uint8_t {
  kAny,
  kNonNegative,
  kCompact,  // C-contiguous memory only
};

/// Bytes that an address has to be a multiple of: a power of two, and no more than the largest page
/// has. Throws std::invalid_argument for any other number; in a constant, that does not compile.
class Alignment {
 public:
  static constexpr const char* kWhyNot = " is no power of two from 1 to 2**30, as 64 is";

  constexpr Alignment(std::int64_t bytes) : bytes_(bytes) {  // NOLINT(google-explicit-constructor)
    if (!allows(bytes)) {
      detail::refuse_argument(bytes, kWhyNot);
    }
  }
  [[nodiscard]] static constexpr bool allows(std::int64_t bytes) {
    return bytes > 0 && bytes <= std::int64_t{1} << 30 && (bytes & (bytes - 1)) == 0;
  }
  constexpr operator std::int64_t() const { return bytes_; }  // NOLINT(google-explicit-constructor)

 private:
  std::int64_t bytes_;
};

/// What a consumer can take, as data: a quirk of a library is a row here. A new field is a line
/// here, one in for_each_field() below, and its rule in plan().
struct Capabilities {
  std::string_view name = "the target";  // for messages: "NumPy"
  std::string_view result{};             // what comes out: "numpy.ndarray"
  DeviceSet devices{};                   // where it can read memory as it is
  bool wants_host = false;               // what lies elsewhere is brought to the host
  bool copies_to_device = false;  // it can move what it got from the host to a device of its own
  std::int32_t own_device = 0;    // where its objects are, so what lies on the host goes there
  bool copies = false;            // it makes a copy of its own of whatever it is given
  DTypeSet dtypes{};              // of its own
  DTypeSet extension_dtypes{};    // with ml_dtypes
  std::string_view extension_hint{};  // what would add to these: "pip install ml_dtypes"
  ReadOnlySupport readonly = ReadOnlySupport::kHonours;
  bool gives_writable = true;      // its objects can be written to at all
  bool takes_as_constant = false;  // it computes as if nobody wrote to the memory any more
  bool guards_overlap = false;     // it refuses by itself to write where elements share memory
  StrideSupport strides = StrideSupport::kAny;
  bool reads_unaligned = false;  // it reads an element at any address, and not by its type
  Alignment alignment = 1;       // where its first element needs more than its type
  bool carries_padding = false;  // it keeps the flag that says that elements are padded to bytes
  std::int32_t min_dimensions = 0;
  std::int32_t max_dimensions = kMaxDimensions;
};

/// A device type, where it is meant as one and not as a number; 0 is none.
struct DeviceType {
  std::int32_t& type;
};

/// The table of fields: calls visit(name, value) for each that a library may say of itself, by the
/// name that it has in Python. Values are changed, or read, in place.
template <typename Visit>
constexpr void for_each_field(Capabilities& can, Visit&& visit) {
  visit("devices", can.devices);
  visit("own_device", DeviceType{can.own_device});
  visit("copies_to_device", can.copies_to_device);
  visit("dtypes", can.dtypes);
  visit("strides", can.strides);
  visit("reads_unaligned", can.reads_unaligned);
  visit("alignment", can.alignment);
  visit("min_dimensions", can.min_dimensions);
  visit("max_dimensions", can.max_dimensions);
  visit("read_only", can.readonly);
  visit("writable", can.gives_writable);
  visit("takes_as_constant", can.takes_as_constant);
  visit("guards_overlap", can.guards_overlap);
  visit("copies", can.copies);
  visit("carries_padding", can.carries_padding);
}

/// Bytes that the address of the first element has to be a multiple of for this target.
[[nodiscard]] constexpr std::int64_t needed_alignment(const Capabilities& target, DType dtype) {
  return std::max<std::int64_t>(target.alignment, target.reads_unaligned ? 1 : dtype.alignment());
}

/// Whether the target can read memory at this address.
[[nodiscard]] inline bool is_aligned(const DLTensor& tensor, const Capabilities& target) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data) + tensor.byte_offset;
  const std::int64_t needed = needed_alignment(target, tensor.dtype);
  return (address & static_cast<std::uintptr_t>(needed - 1)) == 0;
}

/// The values of the fields that are one of a few, by their names in Python.
template <typename Value>
struct NamedValue {
  std::string_view name;
  Value value;
};
inline constexpr std::array kStrideSupports = {
    NamedValue<StrideSupport>{"any", StrideSupport::kAny},
    NamedValue<StrideSupport>{"non-negative", StrideSupport::kNonNegative},
    NamedValue<StrideSupport>{"compact", StrideSupport::kCompact}};
inline constexpr std::array kReadOnlySupports = {
    NamedValue<ReadOnlySupport>{"honours", ReadOnlySupport::kHonours},
    NamedValue<ReadOnlySupport>{"unaware", ReadOnlySupport::kUnaware},
    NamedValue<ReadOnlySupport>{"never", ReadOnlySupport::kNever}};

}  // namespace dlbridge
