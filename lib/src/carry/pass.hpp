#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "dlbridge/copy.hpp"
#include "dlbridge/device_runtime.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge::detail {

/// Refuses a copy that no pass can make: "{what}: {why}".
[[noreturn]] void refuse_copy(const std::string& what, const std::string& why);

using ByteStrides = std::array<std::int64_t, kMaxDimensions>;

/// Fills in the tensor's strides, or those of C order where it has none, for items of that type.
void fill_bytes(const DLTensor& tensor, DType type, ByteStrides& bytes);

/// The pass over memory that a leg comes down to, with the arrays that it reads.
class Pass {
 public:
  /// Throws ConversionRefused where there is no such pass.
  Pass(const Leg& leg, const Source& source, const DLTensor& target);
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  [[nodiscard]] const CopyJob& job() const { return job_; }

 private:
  void take_as_bytes(std::int64_t count);

  CopyJob job_;
  std::int64_t bytes_ = 0;
  ByteStrides from_strides_;
  ByteStrides to_strides_;
};

/// The runtime of that device. Throws ConversionRefused where there is none.
[[nodiscard]] DeviceRuntime& runtime_of(Device device);

/// The device that holds the memory in truth: what an object says of it is not asked.
[[nodiscard]] int device_holding(DeviceRuntime& runtime, Device said, const void* address);

/// Refuses to wait for a stream whose work is recorded and not done.
void require_no_capture(DeviceRuntime& runtime, int device, Stream stream);

/// Refuses elements that are padded to whole bytes: as packed ones they would be other numbers.
void refuse_padded(const Source& source);

}  // namespace dlbridge::detail
