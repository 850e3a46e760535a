#pragma once

#include "errors.hpp"

namespace dlbridge::python {

/// The Python object dlbridge.ManagedTensor: one owner of a managed tensor. It is also the base of
/// every array that NumPy gets from here.
struct ManagedTensorObject {
  PyObject_HEAD ManagedTensor managed;
  PyObject* weak_references;
};

extern PyTypeObject managed_tensor_type;

[[nodiscard]] inline bool is_managed_tensor(PyObject* object) noexcept {
  return Py_IS_TYPE(object, &managed_tensor_type);
}

[[nodiscard]] inline ManagedTensor& managed_of(PyObject* object) noexcept {
  return reinterpret_cast<ManagedTensorObject*>(object)->managed;
}

/// A new object that owns the tensor. Throws PythonError.
[[nodiscard]] Ref wrap(ManagedTensor tensor);

/// hold(managed, other), a function of the module: the same tensor, which keeps another object
/// alive for as long as it lives.
Ref hold(PyObject* const* arguments, Py_ssize_t count);

/// Readies the type and adds it to the module, with the exchange table on it.
void add_managed_tensor_type(PyObject* module);

/// DLPack's C exchange table of dlbridge.ManagedTensor, in its capsule. A new reference.
[[nodiscard]] Ref exchange_table_capsule();

}  // namespace dlbridge::python
