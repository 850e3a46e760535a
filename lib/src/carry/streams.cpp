#include "dlbridge/streams.hpp"

#include <memory>
#include <system_error>
#include <thread>

#include "carry/pass.hpp"
#include "device/staging.hpp"

namespace dlbridge {
namespace {

struct HandedOver {
  DLManagedTensorVersioned* tensor;
  DeviceRuntime* runtime;
  Stream stream;
  RunElsewhere run;
};

void end_handed_over(void* context) {
  const std::unique_ptr<HandedOver> handed(static_cast<HandedOver*>(context));
  detail::run_own_deleter<DLManagedTensorVersioned>(handed->tensor);
}

// What gives memory back may use the device, which a thread of its runtime must not.
void leave_runtime(void* context) {
  static_cast<HandedOver*>(context)->run(context, end_handed_over);
}

// Called by whoever got the memory, at any time and on any thread; must not wait.
void give_back_in_order(void* context) noexcept {
  const auto* handed = static_cast<HandedOver*>(context);
  const int device = handed->tensor->dl_tensor.device.device_id;
  try {
    if (!handed->runtime->is_capturing(device, handed->stream)) {
      handed->runtime->call_when_done(device, handed->stream, leave_runtime, context);
      return;
    }
  } catch (...) {  // a stream or a device that is gone has no work left
  }
  leave_runtime(context);
}

}  // namespace

void order_streams(Device device, Stream before, Stream after) {
  order_streams(device, before, device, after);
}

void order_streams(Device device_before, Stream before, Device device_after, Stream after) {
  DeviceRuntime* runtime = device_runtime(device_before.type);
  const bool same = device_before == device_after && before == after;
  if (runtime == nullptr || same || runtime->is_capturing(device_before.id, before) ||
      runtime->is_capturing(device_after.id, after)) {
    return;
  }
  detail::order(*runtime, device_before.id, before, device_after.id, after);
}

Stream managed_stream(Device device) {
  DeviceRuntime* runtime = device_runtime(device.type);
  return runtime == nullptr || device.host_accessible() ? Stream{} : runtime->own_stream(device.id);
}

void wait_for_host_memory(const Source& source) {
  const Device device(source.tensor.device);
  DeviceRuntime* runtime = device_runtime(device.type);
  if (device.type == kDLCPU || runtime == nullptr) {
    return;
  }
  detail::require_no_capture(*runtime, device.id, source.stream);
  runtime->synchronise(device.id, source.stream);
}

void run_elsewhere(void* context, void (*action)(void* context)) noexcept {
  try {
    std::thread(action, context).detach();
  } catch (const std::system_error&) {  // no thread can be had: better here than never
    action(context);
  }
}

ManagedTensor until_done_on(ManagedTensor tensor, Stream stream, RunElsewhere run) {
  DeviceRuntime* runtime = device_runtime(tensor.device().type);
  if (runtime == nullptr || tensor.device().host_accessible()) {
    return tensor;
  }
  const DLTensor described = tensor.tensor();
  const std::uint64_t flags = tensor.flags();
  auto held = std::make_unique<HandedOver>(HandedOver{nullptr, runtime, stream, run});
  held->tensor = tensor.release();
  return ManagedTensor::own(described, flags, {held.release(), give_back_in_order});
}

}  // namespace dlbridge
