#include "devices/devices.hpp"

#include <vector>

#include "call.hpp"
#include "devices/device_companion.hpp"
#include "devices/packaged_runtimes.hpp"
#include "dlbridge/pinned_memory.hpp"
#include "dlbridge/python_lease.hpp"
#include "dlbridge/streams.hpp"
#include "doors/exchange_table.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

PackageAttribute torch_current_stream("dlbridge._torch", "current_stream");
PackageAttribute torch_cuda_names("dlbridge._torch", "CUDA_NAMES");
Name initialized_name("_initialized");

DeviceRuntime* opened(PyObject* capsule) {
  const auto* companion = static_cast<const DeviceCompanion*>(
      checked_pointer(PyCapsule_GetPointer(capsule, kDeviceCapsule)));
  if (companion->interface != DeviceCompanion::kInterface) {
    raise(PyExc_ImportError, "the device runtime was built for another release of dlbridge");
  }
  DeviceRuntime* runtime = companion->open();
  if (runtime == nullptr) {
    raise(PyExc_ImportError, "the device runtime of this extension cannot be made");
  }
  return runtime;
}

void load(const PackagedRuntime& packaged) {
  const Ref module(PyImport_ImportModule(packaged.module));
  if (!module) {
    if (PyErr_ExceptionMatches(PyExc_ModuleNotFoundError) == 0) {
      throw PythonError();
    }
    PyErr_Clear();
    set_runtime_absence(packaged.device_type, packaged.absence);
    return;
  }
  const Ref capsule = checked(PyObject_GetAttrString(module.get(), "runtime"));
  DeviceRuntime* runtime = opened(capsule.get());
  if (runtime->device_count() == 0) {
    // Lives as long as the process: the core keeps the text.
    const auto& why = *new std::string(runtime->unavailable());
    set_runtime_absence(packaged.device_type, why.c_str());
    return;
  }
  set_device_runtime(*runtime);
}

// The table by which torch tells its streams, if it has one; borrowed from torch for good. Looked
// for under the GIL alone: a static's initialiser would hold a lock of C++ while Python runs.
const DLPackExchangeAPI* torch_table() {
  static bool looked = false;
  static const DLPackExchangeAPI* found = nullptr;
  if (!looked) {
    const Ref torch = checked(PyImport_ImportModule("torch"));
    const Ref type = checked(PyObject_GetAttrString(torch.get(), "Tensor"));
    const DLPackExchangeAPI* table = exchange_table_of(type.get());
    found = table != nullptr && table->current_work_stream != nullptr ? table : nullptr;
    looked = true;
  }
  return found;
}

bool torch_uses_cuda() {
  return found_in(torch_cuda_names.get(), initialized_name.get()) == Py_True;
}

// The stream of a handle; nothing where it is no number, or null.
std::optional<Stream> stream_at(const Ref& handle) {
  PyObject* number = handle.get();
  if (number == nullptr || !PyLong_Check(number) || PyBool_Check(number)) {
    return std::nullopt;
  }
  return Stream{reinterpret_cast<void*>(size_of(number, "stream"))};
}

}  // namespace

DeviceRuntime* runtime_for(std::int32_t device_type) {
  if (device_runtime(device_type) == nullptr) {
    const PackagedRuntime* packaged = packaged_runtime(device_type);
    if (packaged != nullptr && runtime_absence(packaged->device_type).empty()) {
      load(*packaged);
    }
  }
  return device_runtime(device_type);
}

Stream torch_stream(Device device) {
  if (const DLPackExchangeAPI* table = torch_table(); table != nullptr) {
    void* stream = nullptr;
    if (table->current_work_stream(static_cast<DLDeviceType>(device.type), device.id, &stream) !=
        0) {
      throw PythonError();
    }
    return {stream};
  }
  const Ref handle =
      checked(PyObject_CallFunction(torch_current_stream.get(), "ii", device.type, device.id));
  return stream_at(handle).value_or(Stream{});
}

void settle_pinned(Source& source) {
  if (!torch_uses_cuda()) {
    return;
  }
  DeviceRuntime* runtime = runtime_for(kDLCUDA);
  if (runtime == nullptr) {
    return;
  }
  const auto place = runtime->locate(source.tensor.data);
  if (!place || place->type != kDLCUDAHost) {
    return;
  }
  source.tensor.device = place->dl();
  // Which device writes to it nobody knows; its work is on torch's current streams.
  std::vector<Stream> streams;
  for (int device = 0; device < runtime->device_count(); ++device) {
    streams.push_back(torch_stream(Device(kDLCUDA, device)));
  }
  const WithoutGil without_gil;
  for (std::size_t device = 0; device < streams.size(); ++device) {
    const auto id = static_cast<int>(device);
    if (!runtime->is_capturing(id, streams[device])) {
      runtime->synchronise(id, streams[device]);
    }
  }
}

void wait_without_runtime(Device device) {
  const PackagedRuntime* packaged = packaged_runtime(device.type);
  if (packaged != nullptr && packaged->managed_type == device.type &&
      runtime_for(device.type) == nullptr) {
    const WithoutGil without_gil;
    packaged->wait_for_driver();
  }
}

Stream stream_of_managed(Device device) {
  (void)runtime_for(device.type);
  return managed_stream(device);
}

Ref stream_number(std::int32_t device_type, Stream stream) {
  const auto numbers = stream_numbers(device_type).value_or(StreamNumbers{});
  return checked(PyLong_FromVoidPtr(reinterpret_cast<void*>(numbers.number_of(stream))));
}

std::optional<Stream> stream_argument(PyObject* stream) {
  if (stream == Py_None) {
    return std::nullopt;
  }
  if (const auto found = stream_at(Ref::borrow(stream))) {
    return found;
  }
  for (const char* name : {"cuda_stream", "ptr", "handle"}) {  // torch, CuPy, PyCUDA and others
    const Ref handle(PyObject_GetAttrString(stream, name));
    forget_error();
    if (const auto found = stream_at(handle)) {
      return found;
    }
  }
  // cuda.core's protocol: a pair of its version and the handle.
  const Ref pair(PyObject_CallMethod(stream, "__cuda_stream__", nullptr));
  forget_error();
  if (pair && PyTuple_Check(pair.get()) && PyTuple_GET_SIZE(pair.get()) == 2) {
    if (const auto found = stream_at(Ref::borrow(PyTuple_GET_ITEM(pair.get(), 1)))) {
      return found;
    }
  }
  raise_other_type(
      "stream must be None, the handle of a stream as an int, or a stream of torch, CuPy or "
      "cuda.core",
      stream);
}

Ref register_device_runtime(ArgumentTuple arguments) {
  int type = 0;
  PyObject* companion = nullptr;
  arguments.read("iO:register_device_runtime", &type, &companion);
  set_device_runtime(type, companion == Py_None ? nullptr : opened(companion));
  return Ref::borrow(Py_None);
}

Ref release_pinned() {
  for (std::int32_t type = 0; type < 32; ++type) {
    if (DeviceRuntime* runtime = device_runtime(type)) {
      const WithoutGil without_gil;
      release_pinned_memory(*runtime);
    }
  }
  return Ref::borrow(Py_None);
}

Ref runtimes_in_words() {
  Ref words = checked(PyDict_New());
  for (std::int32_t type = 0; type < 32; ++type) {
    DeviceRuntime* runtime = device_runtime(type);
    std::string said(runtime_absence(type));
    if (runtime != nullptr) {
      const int count = runtime->device_count();
      said = std::to_string(count) + (count == 1 ? " device" : " devices");
    }
    if (!said.empty() && !Device(type, 0).host_accessible()) {
      const Ref text = checked(PyUnicode_FromString(said.c_str()));
      checked(PyDict_SetItemString(words.get(), device_type_name(type).c_str(), text.get()));
    }
  }
  return words;
}

Ref new_pinned(ArgumentTuple arguments) {
  PyObject* dtype = nullptr;
  PyObject* shape = nullptr;
  int device_type = kDLCUDA;
  arguments.read("OO!i:pinned", &dtype, &PyTuple_Type, &shape, &device_type);
  const std::vector<std::int64_t> sizes = sizes_in(shape);
  const DType type = dtype_argument(dtype);
  DeviceRuntime* runtime = runtime_for(device_type);
  return wrap(runtime == nullptr ? ManagedTensor::allocate(type, sizes)
                                 : allocate_pinned(*runtime, type, sizes));
}

}  // namespace dlbridge::python
