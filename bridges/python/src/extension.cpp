// What extensions of others call: dlbridge/python.hpp is their side of it.

#include "extension.hpp"

#include "dlbridge/dlbridge.h"
#include "dlbridge/python.hpp"
#include "ledger.hpp"
#include "targets/argument_target.hpp"
#include "targets/bridge_target.hpp"
#include "types/managed_tensor_type.hpp"

namespace dlbridge::python {
namespace {

using detail::PythonInterface;

PackageAttribute convert_to("dlbridge._targets", "to");
PackageAttribute library_of("dlbridge.trees", "library_of");
PackageAttribute returns_like("dlbridge.functions.agnostic", "returns_like");

DLManagedTensorVersioned* take(PyObject* object, const Parameter& parameter,
                               Matching matching) noexcept {
  DLManagedTensorVersioned* taken = nullptr;
  (void)guarded([&] {
    drain_releases();
    const Watch watch;
    if (ManagedTensor tensor = argument(object, parameter, matching)) {
      taken = tensor.release();
    }
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

PyObject* give_like(DLManagedTensorVersioned* tensor, PyObject* object) noexcept {
  return guarded([&] {
    Ref managed = wrap(ManagedTensor::adopt(tensor, run_foreign_deleter));
    const Ref library = checked(PyObject_CallOneArg(library_of.get(), object));
    if (library.get() == Py_None) {
      return managed.release();
    }
    const Ref like = checked(PyObject_CallOneArg(returns_like.get(), object));
    return PyObject_CallOneArg(like.get(), managed.get());
  });
}

int add_bridge_for_extension(const detail::BridgeRow& bridge) {
  return guarded([&] {
           add_bridge(bridge);
           return Py_None;
         }) == nullptr
             ? -1
             : 0;
}

void set_refused_for_extension(const ConversionRefused& refused) {
  (void)guarded([&]() -> PyObject* { throw refused; });
}

constexpr PythonInterface kInterface{.take = take,
                                     .give = give,
                                     .give_like = give_like,
                                     .add_bridge = add_bridge_for_extension,
                                     .set_refused = set_refused_for_extension};

}  // namespace

Ref extension_interface() {
  return checked(
      PyCapsule_New(const_cast<PythonInterface*>(&kInterface), PythonInterface::kCapsule, nullptr));
}

Ref c_interface() {
  const dlbridge_api* api = dlbridge_get_api(DLBRIDGE_ABI_MAJOR);
  return checked(PyCapsule_New(const_cast<dlbridge_api*>(api), kCInterface, nullptr));
}

}  // namespace dlbridge::python
