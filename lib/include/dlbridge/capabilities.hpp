#pragma once

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

/// What a consumer can take, as data: a quirk of a library is a row here.
struct Capabilities {
  std::string_view name;          // for messages: "NumPy"
  std::string_view result;        // what comes out: "numpy.ndarray"
  DeviceSet devices{};            // where it can read memory as it is
  bool wants_host = false;        // what lies elsewhere is brought to the host
  bool copies_to_device = false;  // it can move what it got from the host to a device of its own
  std::int32_t own_device = 0;    // where its objects are, so what lies on the host goes there
  bool copies = false;            // it makes a copy of its own of whatever it is given
  DTypeSet dtypes{};              // of its own
  DTypeSet extension_dtypes{};    // with ml_dtypes
  std::string_view extension_hint{};  // what would add to these: "pip install ml_dtypes"
  ReadOnlySupport readonly = ReadOnlySupport::kHonours;
  bool gives_writable = true;   // its objects can be written to at all
  bool guards_overlap = false;  // it refuses by itself to write where elements share memory
  bool negative_strides = true;
  bool any_strides = true;       // otherwise C-contiguous only
  std::int64_t alignment = 1;    // bytes that the first element has to be a multiple of
  bool carries_padding = false;  // it keeps the flag that says that elements are padded to bytes
  std::int32_t min_dimensions = 0;
  std::int32_t max_dimensions = kMaxDimensions;
};

}  // namespace dlbridge
