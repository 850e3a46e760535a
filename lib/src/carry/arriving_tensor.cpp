#include "dlbridge/arriving_tensor.hpp"

#include "carry/pass.hpp"
#include "device/staging.hpp"
#include "dlbridge/pinned_memory.hpp"

namespace dlbridge {

ArrivingTensor begin_to_host(const Plan& plan, const Source& source, ManagedTensor owner,
                             ManagedTensor target) {
  detail::refuse_padded(source);
  const Leg& leg = plan.route.front();  // a runtime's, and the only one
  const Device from(source.tensor.device);
  DeviceRuntime& runtime = detail::runtime_of(from);
  ArrivingTensor arriving;
  arriving.target_ = std::move(target);
  if (!arriving.target_) {
    const DType dtype = leg.has(Step::kCast) ? leg.dtype : DType(source.tensor.dtype);
    arriving.target_ = allocate_pinned(
        runtime, dtype, {source.tensor.shape, static_cast<std::size_t>(source.tensor.ndim)});
  }
  arriving.target_.mark_copied();
  const detail::Pass pass(leg, source, arriving.target_.tensor());
  if (!leg.has(Step::kCast)) {
    arriving.target_.reinterpret(leg.dtype);
  }
  if (element_count(source.tensor) == 0) {
    return arriving;
  }
  const int device = detail::device_holding(runtime, from, pass.job().source);
  detail::require_no_capture(runtime, device, source.stream);
  arriving.filled_ = detail::begin_copy_to_host(runtime, device, pass.job(), source.stream);
  arriving.runtime_ = &runtime;
  arriving.device_ = device;
  arriving.stream_ = source.stream;
  arriving.source_ = std::move(owner);
  return arriving;
}

ArrivingTensor::~ArrivingTensor() {
  try {
    wait();
  } catch (...) {  // the device failed: nothing is under way any more
  }
}

bool ArrivingTensor::has_come() const {
  return runtime_ == nullptr || runtime_->has_come(filled_);
}

void ArrivingTensor::wait() {
  if (runtime_ == nullptr) {
    return;
  }
  DeviceRuntime& runtime = *std::exchange(runtime_, nullptr);
  const detail::OwnedEvent filled(runtime, std::exchange(filled_, Event{}));
  // The call may have failed, and not the work: that goes on, in memory that ends here.
  detail::or_wait(runtime, device_, stream_, [&] { runtime.synchronise(filled.event); });
  source_ = ManagedTensor();
}

void ArrivingTensor::call_when_done(void (*action)(void*), void* context) const {
  if (runtime_ == nullptr) {
    action(context);
  } else {
    runtime_->call_when_done(device_, stream_, action, context);
  }
}

ManagedTensor ArrivingTensor::take() {
  wait();
  return std::move(target_);
}

}  // namespace dlbridge
