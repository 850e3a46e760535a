#include "dlbridge/streams.hpp"

#include "carry/pass.hpp"
#include "device/staging.hpp"

namespace dlbridge {

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

}  // namespace dlbridge
