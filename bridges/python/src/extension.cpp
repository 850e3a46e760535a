// What extensions of others call: dlbridge/python.hpp is their side of it.

#include "extension.hpp"

#include "convert.hpp"
#include "dlbridge/python.hpp"
#include "dlbridge/python_lease.hpp"
#include "ledger.hpp"
#include "managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

using detail::PythonInterface;

PackageAttribute convert_to("dlbridge._targets", "to");

DLManagedTensorVersioned* take(PyObject* object, bool on_host) noexcept {
  DLManagedTensorVersioned* taken = nullptr;
  (void)guarded([&] {
    drain_releases();
    const Watch watch;
    Call call;
    if (any_block_open()) [[unlikely]] {
      call = read_call(nullptr, nullptr, nullptr, nullptr);
    }
    if (on_host) {
      call.request.device = Device{};
    }
    taken = to_managed_tensor(object, call).release();
    return Py_None;
  });
  return taken;
}

PyObject* give(DLManagedTensorVersioned* tensor, const char* library) noexcept {
  return guarded([&] {
    Ref managed = wrap(ManagedTensor::adopt(tensor, run_foreign_deleter));
    if (library == nullptr) {
      return managed.release();
    }
    return PyObject_CallFunction(convert_to.get(), "Os", managed.get(), library);
  });
}

constexpr PythonInterface kInterface{.take = take, .give = give};

}  // namespace

Ref extension_interface() {
  return checked(
      PyCapsule_New(const_cast<PythonInterface*>(&kInterface), PythonInterface::kCapsule, nullptr));
}

}  // namespace dlbridge::python
