// DLPack's C exchange table of dlbridge.ManagedTensor: other libraries call it straight from C.
// No C++ exception leaves a slot, and an error is set exactly when one fails (rules 30 and 31).

#include <utility>

#include "devices/devices.hpp"
#include "dlbridge/python_lease.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

constexpr const char* kTableCapsule = "dlpack_exchange_api";

template <typename Action>
int slot(Action&& action) noexcept {
  return succeeds(std::forward<Action>(action)) ? 0 : -1;
}

void require_managed(PyObject* object) {
  if (!is_managed_tensor(object)) {
    raise(PyExc_TypeError, std::string("this exchange table takes a dlbridge.ManagedTensor, not ") +
                               Py_TYPE(object)->tp_name + "; use dlbridge.from_dlpack(x) first");
  }
}

// Without elements there is no address either (rule 5).
DLManagedTensorVersioned* handed_over(ManagedTensor tensor) noexcept {
  tensor.drop_address_if_empty();
  return tensor.release();
}

int from_py_object(void* object, DLManagedTensorVersioned** out) {
  return slot([&] {
    auto* python = static_cast<PyObject*>(object);
    require_managed(python);
    *out = handed_over(managed_of(python).share());
  });
}

int dltensor_from_py_object(void* object, DLTensor* out) {
  return slot([&] {
    auto* python = static_cast<PyObject*>(object);
    require_managed(python);
    const ManagedTensor& managed = managed_of(python);
    if (managed.readonly()) {
      raise(
          PyExc_BufferError,
          "cannot lend a read-only dlbridge.ManagedTensor as a DLTensor (it has no flag for that); "
          "use managed_tensor_from_py_object_no_sync");
    }
    *out = managed.tensor();
    if (element_count(*out) == 0) {
      out->data = nullptr;
    }
  });
}

// Everything that can fail comes before the tensor is taken: after a failure it is the caller's.
int to_py_object(DLManagedTensorVersioned* tensor, void** out) {
  return slot([&] {
    if (tensor == nullptr) {
      raise(PyExc_ValueError, "the managed tensor is NULL");
    }
    Ref object = wrap(ManagedTensor());
    managed_of(object.get()) = ManagedTensor::adopt_or_leave(tensor, run_foreign_deleter);
    *out = object.release();
  });
}

int current_work_stream(DLDeviceType device_type, std::int32_t device_id, void** out) {
  return slot([&] {
    if (!is_device_type(device_type)) {
      raise(PyExc_ValueError,
            "there is no device type " + std::to_string(static_cast<int>(device_type)));
    }
    // A ManagedTensor computes nothing; its memory is ordered on the runtime's own stream.
    *out = stream_of_managed(Device(device_type, device_id)).handle;
  });
}

int allocate(DLTensor* prototype, DLManagedTensorVersioned** out, void* error_context,
             void (*set_error)(void* error_context, const char* kind, const char* message)) {
  const auto fail = [&](const char* kind, const char* message) {
    if (set_error != nullptr) {
      set_error(error_context, kind, message);
    }
    return -1;
  };
  try {
    if (prototype == nullptr) {
      return fail("ValueError", "the prototype is NULL");
    }
    const Device device(prototype->device);
    if (!device.host_accessible()) {
      return fail(
          "BufferError",
          ("a ManagedTensor allocates host memory only, not on " + to_string(device)).c_str());
    }
    DLTensor sized = *prototype;
    sized.strides = nullptr;
    sized.byte_offset = 0;
    sized.data = prototype;  // stands in for the memory that is to come
    if (const auto fault = tensor_fault(sized); !fault.empty()) {
      return fail("ValueError", ("cannot allocate this tensor: " + fault).c_str());
    }
    const auto ndim = static_cast<std::size_t>(sized.ndim);
    *out = handed_over(ManagedTensor::allocate(sized.dtype, {sized.shape, ndim}));
    return 0;
  } catch (const std::bad_alloc&) {
    return fail("MemoryError", "there is not enough memory for this tensor");
  } catch (const std::exception& error) {
    return fail("RuntimeError", error.what());
  }
}

DLPackExchangeAPI table = [] {
  DLPackExchangeAPI api{};
  api.header.version = kVersion;
  api.header.prev_api = nullptr;
  api.managed_tensor_allocator = allocate;
  api.managed_tensor_from_py_object_no_sync = from_py_object;
  api.managed_tensor_to_py_object_no_sync = to_py_object;
  api.dltensor_from_py_object_no_sync = dltensor_from_py_object;
  api.current_work_stream = current_work_stream;
  return api;
}();

}  // namespace

Ref exchange_table_capsule() {
  return checked(PyCapsule_New(&table, kTableCapsule, nullptr));
}

}  // namespace dlbridge::python
