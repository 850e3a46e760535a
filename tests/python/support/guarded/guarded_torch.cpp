// The module dlbridge_guarded_torch: torch's backend PrivateUse1 on the guarded device, so that
// there are torch.Tensors whose memory faults when the host touches it and whose work comes late.
// What it does not do itself, torch does on the processor with copies there and back.
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/library.h>

#include <map>
#include <memory>
#include <utility>

#include "guarded/guarded_device.hpp"

namespace dlbridge::guarded {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

GuardedDevice* one = nullptr;  // of the module dlbridge_guarded

thread_local c10::DeviceIndex current_device = 0;
std::map<int, void*> current_streams;  // the GIL guards it

Stream current_stream(int id) {
  return Stream{current_streams[id]};
}

// --- memory
// ---------------------------------------------------------------------------------------

struct Held {
  int id;
  void* memory;
  Stream stream;
};

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    const int id = current_device;
    auto held = std::make_unique<Held>(Held{id, one->make(id, bytes), current_stream(id)});
    void* memory = held->memory;
    return {memory, held.release(), &give_back, c10::Device(kType, current_device)};
  }
  [[nodiscard]] c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* /*to*/, const void* /*from*/, std::size_t /*bytes*/) const override {
    TORCH_CHECK(false, "the guarded device clones no storages");
  }

 private:
  // In the order of the stream it was made on, as torch's allocators do.
  static void give_back(void* context) {
    const std::unique_ptr<Held> held(static_cast<Held*>(context));
    one->free(held->id, held->memory, held->stream);
  }
};

Allocator& allocator() {
  static auto* made = new Allocator;
  return *made;
}

// --- devices and streams
// --------------------------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  [[nodiscard]] c10::DeviceType type() const override { return kType; }
  [[nodiscard]] c10::Device exchangeDevice(c10::Device device) const override {
    const auto before = std::exchange(current_device, device.index());
    return {kType, before};
  }
  [[nodiscard]] c10::Device getDevice() const override { return {kType, current_device}; }
  void setDevice(c10::Device device) const override { uncheckedSetDevice(device); }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    current_device = device.index();
  }
  [[nodiscard]] c10::Stream getStream(c10::Device device) const override {
    return stream(current_stream(device.index()), device);
  }
  [[nodiscard]] c10::Stream getDefaultStream(c10::Device device) const override {
    return stream({}, device);
  }
  [[nodiscard]] c10::Stream exchangeStream(c10::Stream next) const override {
    const c10::Stream before = getStream(next.device());
    current_streams[next.device_index()] = getStreamNativeHandle(next);
    return before;
  }
  // No `override`: torch before 2.12 does not ask for it.
#pragma GCC diagnostic push
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winconsistent-missing-override"
#endif
  [[nodiscard]] virtual void* getStreamNativeHandle(const c10::Stream stream) const {
    return reinterpret_cast<void*>(stream.id());
  }
#pragma GCC diagnostic pop
  [[nodiscard]] c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(one->device_count());
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    one->synchronise(stream.device_index(), Stream{getStreamNativeHandle(stream)});
  }

 private:
  static c10::Stream stream(Stream handle, c10::Device device) {
    return c10::Stream(c10::Stream::UNSAFE, device, reinterpret_cast<std::int64_t>(handle.handle));
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  [[nodiscard]] bool isBuilt() const override { return true; }
  [[nodiscard]] bool isAvailable() const override { return one->device_count() > 0; }
  [[nodiscard]] bool hasPrimaryContext(c10::DeviceIndex /*index*/) const override { return true; }
  [[nodiscard]] c10::DeviceIndex deviceCount() const override {
    return static_cast<c10::DeviceIndex>(one->device_count());
  }
  [[nodiscard]] c10::DeviceIndex getCurrentDevice() const override { return current_device; }
  void setCurrentDevice(c10::DeviceIndex device) const override { current_device = device; }
  [[nodiscard]] bool isPinnedPtr(const void* data) const override {
    const auto place = one->locate(data);
    return place && place->type == kDLCUDAHost;
  }
  [[nodiscard]] at::Device getDeviceFromPtr(void* data) const override {
    const auto place = one->locate(data);
    TORCH_CHECK(place && place->type == kDLExtDev, "no memory of the guarded device");
    return {kType, static_cast<c10::DeviceIndex>(place->id)};
  }
};

// --- operators
// ------------------------------------------------------------------------------------

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype,
                 std::optional<c10::Layout> /*layout*/, std::optional<c10::Device> device,
                 std::optional<bool> /*pinned*/, std::optional<c10::MemoryFormat> format) {
  const c10::DeviceGuard guard(device.value_or(c10::Device(kType, current_device)));
  return at::detail::empty_generic(size, &allocator(),
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride,
                         std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout> /*layout*/, std::optional<c10::Device> device,
                         std::optional<bool> /*pinned*/) {
  const c10::DeviceGuard guard(device.value_or(c10::Device(kType, current_device)));
  return at::detail::empty_strided_generic(size, stride, &allocator(),
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
}

// The tensor as work on the device sees it: one on the processor over the open memory.
at::Tensor opened(const at::Tensor& tensor, int id) {
  if (tensor.is_cpu()) {
    return tensor;
  }
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < tensor.dim(); ++i) {
    last += (tensor.size(i) - 1) * tensor.stride(i);
  }
  const auto bytes = static_cast<std::size_t>(last + 1) * tensor.itemsize();
  void* data = tensor.numel() == 0 ? nullptr : one->open(id, tensor.const_data_ptr(), bytes);
  at::Tensor open = at::from_blob(data, tensor.sizes(), tensor.strides(),
                                  at::TensorOptions().dtype(tensor.dtype()).device(c10::kCPU));
  open._set_conj(tensor.is_conj());
  open._set_neg(tensor.is_neg());
  return open;
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const int id = from.is_cpu() ? to.device().index() : from.device().index();
  const Stream stream = current_stream(id);
  const Hooks hooks;
  const bool reads_pageable = from.is_cpu() && !hooks.isPinnedPtr(from.const_data_ptr());
  const at::Tensor source = reads_pageable ? from.clone() : from;
  one->enqueue(id, stream, [source, to, id] { opened(to, id).copy_(opened(source, id)); });
  if (!non_blocking || (to.is_cpu() && !hooks.isPinnedPtr(to.const_data_ptr()))) {
    one->synchronise(id, stream);
  }
  return to;
}

// What torch does in place on the processor comes back by this.
at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  TORCH_CHECK(from.sizes() == to.sizes(), "the guarded device resizes nothing");
  return copy_from(from, to, false);
}

at::Tensor& fill(at::Tensor& tensor, const at::Scalar& value) {
  const int id = tensor.device().index();
  one->enqueue(id, current_stream(id), [tensor, value, id] { opened(tensor, id).fill_(value); });
  return tensor;
}

at::Tensor as_strided(const at::Tensor& tensor, c10::IntArrayRef size, c10::IntArrayRef stride,
                      std::optional<std::int64_t> offset) {
  return at::native::as_strided_tensorimpl(tensor, size, stride, offset);
}

at::Tensor view(const at::Tensor& tensor, c10::IntArrayRef size) {
  return at::native::view(tensor, size);
}

void on_processor(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  at::native::cpu_fallback(op, stack);
}

// --- the module
// -----------------------------------------------------------------------------------

PyObject* open_backend(PyObject* /*module*/, PyObject* address) {
  if (one == nullptr) {
    one = static_cast<GuardedDevice*>(PyLong_AsVoidPtr(address));
    c10::SetAllocator(kType, &allocator());
    at::RegisterPrivateUse1HooksInterface(new Hooks);
  }
  Py_RETURN_NONE;
}

PyObject* set_current_stream(PyObject* /*module*/, PyObject* arguments) {
  unsigned long long handle = 0;
  int id = 0;
  if (PyArg_ParseTuple(arguments, "K|i", &handle, &id) == 0) {
    return nullptr;
  }
  current_streams[id] = reinterpret_cast<void*>(handle);
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"open", open_backend, METH_O, "Makes the guarded device at that address torch's backend."},
    {"set_current_stream", set_current_stream, METH_VARARGS, "set_current_stream(handle, id=0)"},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "dlbridge_guarded_torch",
                          "torch's backend PrivateUse1 on the guarded device.",
                          -1,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", TORCH_FN(empty));
  library.impl("empty_strided", TORCH_FN(empty_strided));
  library.impl("_copy_from", TORCH_FN(copy_from));
  library.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  library.impl("fill_.Scalar", TORCH_FN(fill));
  library.impl("as_strided", TORCH_FN(as_strided));
  library.impl("view", TORCH_FN(view));
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_processor>());
}

using GuardOfDevice = Guard;
C10_REGISTER_GUARD_IMPL(PrivateUse1, GuardOfDevice)

}  // namespace dlbridge::guarded

PyMODINIT_FUNC PyInit_dlbridge_guarded_torch() {
  return PyModule_Create(&dlbridge::guarded::definition);
}
