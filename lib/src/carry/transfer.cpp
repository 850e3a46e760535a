#include "dlbridge/transfer.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <utility>

#include "device/staging.hpp"
#include "dlbridge/copy.hpp"
#include "tensor/layout.hpp"
#include "device/pinned_pool.hpp"

namespace dlbridge {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& why) {
  throw ConversionRefused(what + ": " + why, {why});
}

void require_copyable(DType from, DType to) {
  if (!from.whole_bytes() || !can_cast(from, to)) {
    throw ConversionRefused("cannot copy elements of dtype " + to_string(from) + " as " +
                                to_string(to) +
                                ": they are packed below a byte, or the "
                                "two types have no cast",
                            {"dtype " + to_string(from) + " cannot be copied as " + to_string(to)});
  }
}

char* first_element(const DLTensor& tensor) {
  return static_cast<char*>(tensor.data) + tensor.byte_offset;
}

/// The pass over memory that a plan comes down to, with the arrays that it reads.
class Pass {
 public:
  Pass(const Plan& plan, const Source& source, const DLTensor& target) {
    const DLTensor& from = source.tensor;
    const DType type(from.dtype);
    const bool casts = plan.has(Step::kCast);
    // A view of the same bits is no cast: the bytes are copied as they are.
    job_.source_dtype = type;
    job_.target_dtype = casts ? plan.dtype : type;
    job_.ndim = from.ndim;
    job_.shape = from.shape;
    job_.source = first_element(from);
    job_.target = first_element(target);
    job_.source_strides_bytes = from_strides_.data();
    job_.target_strides_bytes = to_strides_.data();
    job_.conjugate = plan.has(Step::kResolveConj);
    job_.negate = plan.has(Step::kResolveNeg);
    job_.swap_bytes = plan.has(Step::kSwapBytes);
    if (source.traits.conditions.has(Condition::kZeroTensor)) {
      // Its zeros are nowhere in memory: one for all, as it is.
      static constexpr std::array<std::byte, 16> kZero{};
      job_.source = &kZero;
      job_.conjugate = job_.negate = job_.swap_bytes = false;
      from_strides_.fill(0);
      if (is_c_contiguous(target)) {
        take_as_bytes(byte_count(target));
        return;
      }
      require_copyable(job_.target_dtype, job_.target_dtype);
      if (job_.target_dtype.itemsize() > static_cast<std::int64_t>(kZero.size())) {
        refuse("cannot write zeros of dtype " + to_string(job_.target_dtype) + " with strides",
               "an element is larger than " + std::to_string(kZero.size()) + " bytes");
      }
      job_.source_dtype = job_.target_dtype;
      fill_bytes(target, job_.target_dtype, to_strides_);
      return;
    }
    if (!type.whole_bytes() && !casts && is_c_contiguous(from) && is_c_contiguous(target)) {
      // Packed elements have no addresses of their own, but their bytes can be copied together.
      take_as_bytes(byte_count(from));
      from_strides_[0] = 1;
      return;
    }
    require_copyable(type, job_.target_dtype);
    fill_bytes(from, type, from_strides_);
    if (source.byte_strides != nullptr) {
      std::copy_n(source.byte_strides, from.ndim, from_strides_.begin());
    }
    fill_bytes(target, job_.target_dtype, to_strides_);
  }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  [[nodiscard]] const CopyJob& job() const { return job_; }

 private:
  using Strides = std::array<std::int64_t, kMaxDimensions>;

  // What lies together, byte by byte, whatever it is.
  void take_as_bytes(std::int64_t count) {
    bytes_ = count;
    job_.source_dtype = job_.target_dtype = DType{kDLUInt, 8};
    job_.ndim = 1;
    job_.shape = &bytes_;
    to_strides_[0] = 1;
  }

  static void fill_bytes(const DLTensor& tensor, DType type, Strides& bytes) {
    const auto ndim = static_cast<std::size_t>(tensor.ndim);
    if (tensor.strides == nullptr) {
      fill_c_strides({tensor.shape, ndim}, bytes.data());
    } else {
      std::copy_n(tensor.strides, ndim, bytes.begin());
    }
    for (std::size_t i = 0; i < ndim; ++i) {
      bytes[i] *= type.itemsize();
    }
  }

  CopyJob job_;
  std::int64_t bytes_ = 0;
  Strides from_strides_;
  Strides to_strides_;
};

DeviceRuntime& runtime_of(Device device) {
  DeviceRuntime* runtime = device_runtime(device.type);
  if (runtime == nullptr) {
    refuse("cannot copy memory on " + to_string(device), "there is no runtime for its device");
  }
  return *runtime;
}

// The device that holds the memory in truth: what an object says of it is not asked.
int device_holding(DeviceRuntime& runtime, Device said, const void* address) {
  const auto found = runtime.locate(address);
  if (!found) {
    refuse("cannot copy memory that is said to be on " + to_string(said),
           std::string(runtime.name()) + " knows of no memory at its address");
  }
  return found->type == said.type ? found->id : said.id;
}

void require_no_capture(DeviceRuntime& runtime, int device, Stream stream) {
  if (runtime.is_capturing(device, stream)) {
    refuse("cannot copy while the stream is being captured into a graph",
           "a copy has to be waited for, and nothing in a capture is done before its graph is "
           "launched; convert before the capture or after it");
  }
}

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

void refuse_padded(const Source& source) {
  if (source.traits.conditions.has(Condition::kPaddedElements)) {
    throw ConversionRefused("cannot copy elements that are padded to whole bytes",
                            {"the elements are padded to whole bytes"});
  }
}

}  // namespace

void describe(const ManagedTensor& tensor, const Library& library, Source& source) {
  source.traits.library = &library;
  source.traits.conditions.add_if(tensor.readonly(), Condition::kReadOnly);
  const bool padded = (tensor.flags() & DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED) != 0;
  source.traits.conditions.add_if(padded && tensor.dtype().element_bits() % 8 != 0,
                                  Condition::kPaddedElements);
  source.tensor = tensor.tensor();
}

ManagedTensor carry_out(const Plan& plan, const Source& source) {
  const DLTensor& from = source.tensor;
  const DType dtype = plan.has(Step::kCast) ? plan.dtype : DType(from.dtype);
  const auto ndim = static_cast<std::size_t>(from.ndim);
  ManagedTensor copy;
  Stream stream;
  if (plan.device.host_accessible()) {
    copy = ManagedTensor::allocate(dtype, {from.shape, ndim});
  } else {
    DeviceRuntime& runtime = runtime_of(plan.device);
    copy = allocate_on(runtime, plan.device, dtype, from);
    stream = runtime.own_stream(plan.device.id);
  }
  copy.mark_copied();
  carry_out_into(plan, source, copy.tensor(), stream);
  if (!plan.has(Step::kCast)) {
    copy.reinterpret(plan.dtype);
  }
  return copy;
}

void carry_out_into(const Plan& plan, const Source& source, const DLTensor& target, Stream stream) {
  refuse_padded(source);
  if (element_count(source.tensor) == 0) {
    return;
  }
  const Pass pass(plan, source, target);
  const bool zeros = source.traits.conditions.has(Condition::kZeroTensor);
  const Device from = zeros ? Device{} : Device(source.tensor.device);
  const Device to(target.device);
  if (from.host_accessible() && to.host_accessible()) {
    copy_elements(pass.job());
    return;
  }
  if (to.host_accessible()) {
    DeviceRuntime& runtime = runtime_of(from);
    const int device = device_holding(runtime, from, pass.job().source);
    require_no_capture(runtime, device, source.stream);
    detail::copy_to_host(runtime, device, pass.job(), source.stream);
    return;
  }
  DeviceRuntime& runtime = runtime_of(to);
  const int device = device_holding(runtime, to, pass.job().target);
  require_no_capture(runtime, device, stream);
  if (from.host_accessible()) {
    detail::copy_to_device(runtime, device, pass.job(), stream);
    return;
  }
  if (from.type != to.type || device_holding(runtime, from, pass.job().source) != device) {
    refuse("cannot copy from " + to_string(from) + " to " + to_string(to),
           "memory goes from one device to another by their own libraries, or by the host");
  }
  require_no_capture(runtime, device, source.stream);
  detail::order(runtime, device, source.stream, device, stream);
  runtime.copy_elements(device, pass.job(), stream);
  // The source may be written to again, on its own stream, once that stream is told to wait.
  try {
    detail::order(runtime, device, stream, device, source.stream);
  } catch (...) {
    try {  // whoever is told that it failed may end the source at once
      runtime.synchronise(device, stream);
    } catch (...) {  // a device that failed does nothing more
    }
    throw;
  }
}

void carry_out_view(const Plan& plan, ManagedTensor& view) noexcept {
  if (plan.has(Step::kMarkReadOnly)) {
    view.mark_read_only();
  }
  view.reinterpret(plan.dtype);
}

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
  require_no_capture(*runtime, device.id, source.stream);
  runtime->synchronise(device.id, source.stream);
}

ManagedTensor allocate_pinned(DeviceRuntime& runtime, DType dtype,
                              std::span<const std::int64_t> shape) {
  DLTensor tensor{};
  tensor.device = Device{}.dl();
  tensor.ndim = static_cast<std::int32_t>(shape.size());
  tensor.dtype = dtype.dl();
  tensor.shape = const_cast<std::int64_t*>(shape.data());
  const std::size_t bytes = detail::bytes_to_allocate(tensor);
  struct Held {
    detail::PinnedPool& pool;
    detail::PinnedBlock block;
  };
  auto& pool = detail::PinnedPool::of(runtime);
  auto held = std::make_unique<Held>(Held{pool, pool.take(std::max<std::size_t>(1, bytes))});
  tensor.data = held->block.memory;
  return ManagedTensor::own(tensor, 0,
                            {held.release(), [](void* context) noexcept {
                               const std::unique_ptr<Held> owner(static_cast<Held*>(context));
                               owner->pool.give_back(owner->block);
                             }});
}

void release_pinned_memory(DeviceRuntime& runtime) {
  detail::PinnedPool::of(runtime).release_all();
}

ArrivingTensor begin_to_host(const Plan& plan, const Source& source, ManagedTensor owner,
                             ManagedTensor target) {
  refuse_padded(source);
  const Device from(source.tensor.device);
  DeviceRuntime& runtime = runtime_of(from);
  ArrivingTensor arriving;
  arriving.target_ = std::move(target);
  if (!arriving.target_) {
    const DType dtype = plan.has(Step::kCast) ? plan.dtype : DType(source.tensor.dtype);
    arriving.target_ = allocate_pinned(
        runtime, dtype, {source.tensor.shape, static_cast<std::size_t>(source.tensor.ndim)});
  }
  arriving.target_.mark_copied();
  const Pass pass(plan, source, arriving.target_.tensor());
  if (!plan.has(Step::kCast)) {
    arriving.target_.reinterpret(plan.dtype);
  }
  if (element_count(source.tensor) == 0) {
    return arriving;
  }
  const int device = device_holding(runtime, from, pass.job().source);
  require_no_capture(runtime, device, source.stream);
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
  const Event filled = std::exchange(filled_, Event{});
  try {
    runtime.synchronise(filled);
  } catch (...) {
    runtime.release(filled);
    try {  // the call may have failed, and not the work: that goes on, in memory that ends here
      runtime.synchronise(device_, stream_);
    } catch (...) {  // a device that failed does nothing more
    }
    throw;
  }
  runtime.release(filled);
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
