#pragma once

#include <utility>

#include "dlbridge/device_runtime.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/source.hpp"

namespace dlbridge {

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
