#pragma once

#include <span>
#include <utility>

#include "dlbridge/device_runtime.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge {

/// Carries out a plan that copies: repack, cast, conjugate, negate, swap bytes and materialise, all
/// in one pass, and on the way between the host and a device that has a runtime. Reads the source's
/// memory, which the caller keeps alive meanwhile, and returns memory of its own where the plan
/// says: C-contiguous, at least 64-byte aligned, writable, marked as copied.
///
/// Work on a source that a device works on is ordered after `source.stream`; a copy on a device is
/// ordered on the runtime's own stream, where the tensor's memory also comes from.
/// What needs the source's library (densify, a carrier that is not a runtime) the bridge has done
/// before. Throws ConversionRefused for what cannot be copied so, DeviceError, std::bad_alloc.
[[nodiscard]] ManagedTensor carry_out(const Plan& plan, const Source& source);

/// The same into memory that is there already: `target` has the source's shape and the plan's
/// dtype, any strides, no two elements in one place, and shares no memory with the source. Memory
/// of a device is used in the order of `stream`; when this returns, host memory is filled.
void carry_out_into(const Plan& plan, const Source& source, const DLTensor& target,
                    Stream stream = {});

/// Makes a view what a plan without a copy says: read-only, or read as another type.
void carry_out_view(const Plan& plan, ManagedTensor& view) noexcept;

/// What comes next on `after` waits for what is on `before` now; the caller does not wait. Streams
/// that are being captured into a graph are left alone: they can be ordered within their graph
/// only.
void order_streams(Device device, Stream before, Stream after);
/// The same for streams of two devices of one type.
void order_streams(Device device_before, Stream before, Device device_after, Stream after);

/// The stream that the memory of managed tensors on that device is ordered on: the runtime's own;
/// the default one for memory of the host, and where there is no runtime.
[[nodiscard]] Stream managed_stream(Device device);

/// Waits until memory that the host can read though a device works on it (pinned, managed) holds
/// what `source.stream` was told to do. Nothing where the type has no runtime.
void wait_for_host_memory(const Source& source);

/// New pinned host memory from the runtime's pool: C-contiguous, page-aligned, writable, not
/// initialised; of the device kDLCPU. Throws MalformedTensor, DeviceError, std::bad_alloc.
[[nodiscard]] ManagedTensor allocate_pinned(DeviceRuntime& runtime, DType dtype,
                                            std::span<const std::int64_t> shape);

/// Gives the pinned memory that waits for the next copy back to the driver.
void release_pinned_memory(DeviceRuntime& runtime);

/// A copy from a device to the host that was begun and may not be done: see begin_to_host().
/// Move-only; destroying it waits until the device is done with its memory. The functions may be
/// called on any thread, by one at a time.
class ArrivingTensor {
 public:
  ArrivingTensor() noexcept = default;
  ArrivingTensor(ArrivingTensor&& other) noexcept { swap(other); }
  ArrivingTensor& operator=(ArrivingTensor&& other) noexcept {
    swap(other);
    return *this;
  }
  ArrivingTensor(const ArrivingTensor&) = delete;
  ArrivingTensor& operator=(const ArrivingTensor&) = delete;
  ~ArrivingTensor();

  /// Whether it has arrived; does not wait. Throws what the device's work failed with.
  [[nodiscard]] bool has_come() const;
  /// Waits until it has. Throws likewise.
  void wait();
  /// Waits for it, and gives it out: once.
  [[nodiscard]] ManagedTensor take();
  /// Calls action(context) once the device is done with it, on a thread of the runtime's, which
  /// must use no device; at once where it is done already. Throws DeviceError, not having called.
  void call_when_done(void (*action)(void* context), void* context) const;

 private:
  friend ArrivingTensor begin_to_host(const Plan&, const Source&, ManagedTensor, ManagedTensor);
  void swap(ArrivingTensor& other) noexcept {
    std::swap(runtime_, other.runtime_);
    std::swap(device_, other.device_);
    std::swap(stream_, other.stream_);
    std::swap(filled_, other.filled_);
    std::swap(source_, other.source_);
    std::swap(target_, other.target_);
  }

  DeviceRuntime* runtime_ = nullptr;  // null once it has come
  int device_ = 0;
  Stream stream_;
  Event filled_;
  ManagedTensor source_;
  ManagedTensor target_;
};

/// Begins what carry_out() would do for a plan whose carrier to the host is a runtime, on
/// `source.stream`: what was written there before is copied, what is written after is not. `owner`
/// keeps the source's memory until the copy is done. The result is `target`, packed and pinned, or
/// where there is none, pinned memory from the runtime's pool. Throws as carry_out(), with both
/// released.
[[nodiscard]] ArrivingTensor begin_to_host(const Plan& plan, const Source& source,
                                           ManagedTensor owner, ManagedTensor target = {});

}  // namespace dlbridge
