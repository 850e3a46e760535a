#include "dlbridge/carry.hpp"

#include <memory>

#include "carry/fit.hpp"
#include "carry/pass.hpp"
#include "device/staging.hpp"
#include "dlbridge/shared_memory.hpp"
#include "memory/host_memory.hpp"
#include "tensor/layout.hpp"

namespace dlbridge {

using namespace detail;  // NOLINT(google-build-using-namespace): the parts of a pass

namespace {

struct DeviceMemory {
  DeviceRuntime& runtime;
  int device;
  Stream stream;
  void* memory;
};

// C-contiguous memory like `like`, of that type, on a device.
ManagedTensor allocate_on(DeviceRuntime& runtime, Device device, DType dtype,
                          const DLTensor& like) {
  DLTensor tensor = like;
  tensor.dtype = dtype.dl();
  tensor.device = device.dl();
  tensor.strides = nullptr;
  tensor.byte_offset = 0;
  const std::size_t bytes = detail::bytes_to_allocate(tensor);
  const Stream stream = runtime.own_stream(device.id);
  auto held = std::make_unique<DeviceMemory>(DeviceMemory{runtime, device.id, stream, nullptr});
  if (bytes == 0) {
    tensor.data = nullptr;
    return ManagedTensor::own(tensor, 0, {});
  }
  held->memory = runtime.allocate(device.id, bytes, stream);
  tensor.data = held->memory;
  return ManagedTensor::own(
      tensor, 0, {held.release(), [](void* context) noexcept {
                    const std::unique_ptr<DeviceMemory> memory(static_cast<DeviceMemory*>(context));
                    memory->runtime.free(memory->device, memory->memory, memory->stream);
                  }});
}

// A device does not check what it casts: the elements come as they are, and the host casts them.
void cast_to_host(DeviceRuntime& runtime, int device, const CopyJob& job, Stream stream,
                  CastWarning* warning) {
  const auto ndim = static_cast<std::size_t>(job.ndim);
  const ManagedTensor brought = ManagedTensor::allocate(job.source_dtype, {job.shape, ndim});
  ByteStrides strides;
  fill_bytes(brought.tensor(), job.source_dtype, strides);
  CopyJob bring = job;
  bring.target = brought.tensor().data;
  bring.target_strides_bytes = strides.data();
  bring.target_dtype = job.source_dtype;
  bring.conjugate = bring.negate = bring.swap_bytes = false;
  copy_to_host(runtime, device, bring, stream);
  CopyJob cast = job;
  cast.source = bring.target;
  cast.source_strides_bytes = strides.data();
  require_held(cast, copy_elements(cast), warning);
}

// From one place on a device to another, by way of the host: for casts that it has to check.
void cast_by_host(DeviceRuntime& runtime, int device, const CopyJob& job, Stream from, Stream to,
                  CastWarning* warning) {
  const auto ndim = static_cast<std::size_t>(job.ndim);
  const ManagedTensor made = ManagedTensor::allocate(job.target_dtype, {job.shape, ndim});
  ByteStrides strides;
  fill_bytes(made.tensor(), job.target_dtype, strides);
  CopyJob down = job;
  down.target = made.tensor().data;
  down.target_strides_bytes = strides.data();
  cast_to_host(runtime, device, down, from, warning);
  CopyJob up = job;
  up.source = down.target;
  up.source_strides_bytes = strides.data();
  up.source_dtype = job.target_dtype;
  up.conjugate = up.negate = up.swap_bytes = false;
  require_held(up, copy_to_device(runtime, device, up, to), nullptr);
}

}  // namespace

ManagedTensor carry_out(const Leg& leg, const Source& source, CastWarning* warning,
                        std::int64_t alignment) {
  const DLTensor& from = source.tensor;
  const DType dtype = leg.has(Step::kCast) ? leg.dtype : DType(from.dtype);
  const auto ndim = static_cast<std::size_t>(from.ndim);
  ManagedTensor copy;
  Stream stream;
  if (leg.to.host_accessible()) {
    copy = detail::allocate_aligned(dtype, {from.shape, ndim}, alignment);
  } else {
    DeviceRuntime& runtime = runtime_of(leg.to);
    copy = allocate_on(runtime, leg.to, dtype, from);
    stream = runtime.own_stream(leg.to.id);
  }
  copy.mark_copied();
  carry_out_into(leg, source, copy.tensor(), stream, warning);
  if (!leg.has(Step::kCast)) {
    copy.reinterpret(leg.dtype);
  }
  return copy;
}

void carry_out_into(const Leg& leg, const Source& source, const DLTensor& target, Stream stream,
                    CastWarning* warning) {
  refuse_padded(source);
  if (element_count(source.tensor) == 0) {
    return;
  }
  const Pass pass(leg, source, target);
  const bool zeros = source.traits.conditions.has(Condition::kZeroTensor);
  const Device from = zeros ? Device{} : Device(source.tensor.device);
  const Device to(target.device);
  if (from.host_accessible() && to.host_accessible()) {
    require_held(pass.job(), copy_elements(pass.job()), warning);
    return;
  }
  if (to.host_accessible()) {
    DeviceRuntime& runtime = runtime_of(from);
    const int device = device_holding(runtime, from, pass.job().source);
    require_no_capture(runtime, device, source.stream);
    if (always_fits(pass.job().source_dtype, pass.job().target_dtype)) {
      detail::copy_to_host(runtime, device, pass.job(), source.stream);
    } else {
      cast_to_host(runtime, device, pass.job(), source.stream, warning);
    }
    return;
  }
  DeviceRuntime& runtime = runtime_of(to);
  const int device = device_holding(runtime, to, pass.job().target);
  require_no_capture(runtime, device, stream);
  if (from.host_accessible()) {
    require_held(pass.job(), detail::copy_to_device(runtime, device, pass.job(), stream), warning);
    return;
  }
  if (from.type != to.type || device_holding(runtime, from, pass.job().source) != device) {
    refuse_copy("cannot copy from " + to_string(from) + " to " + to_string(to),
                "memory goes from one device to another by their own libraries, or by the host");
  }
  require_no_capture(runtime, device, source.stream);
  const CopyJob& job = pass.job();
  if (job.target_dtype.kind() == DType::Kind::kInteger &&
      !always_fits(job.source_dtype, job.target_dtype)) {
    cast_by_host(runtime, device, job, source.stream, stream, warning);
    return;
  }
  detail::order(runtime, device, source.stream, device, stream);
  runtime.copy_elements(device, pass.job(), stream);
  // The source may be written to again, on its own stream, once that stream is told to wait.
  // Whoever is told that this failed may end the source at once.
  or_wait(runtime, device, stream,
          [&] { detail::order(runtime, device, stream, device, source.stream); });
}

void carry_out_view(const Plan& plan, ManagedTensor& view) {
  if (plan.has(Step::kCopyOnWrite)) [[unlikely]] {
    view = copy_on_write(view);
  }
  if (plan.has(Step::kMarkReadOnly)) {
    view.mark_read_only();
  }
  view.reinterpret(plan.dtype);
}

}  // namespace dlbridge
