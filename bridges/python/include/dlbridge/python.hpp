#pragma once

#include <Python.h>

#include <string>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {

namespace detail {

/// The exchange table of dlbridge.ManagedTensor in the running interpreter, by way of the installed
/// Python package; null with Python's error set when it cannot be imported.
inline const DLPackExchangeAPI* managed_tensor_table() noexcept {
  static const DLPackExchangeAPI* table = nullptr;
  if (table != nullptr) {
    return table;
  }
  PyObject* module = PyImport_ImportModule("dlbridge");
  PyObject* type = module == nullptr ? nullptr : PyObject_GetAttrString(module, "ManagedTensor");
  PyObject* capsule =
      type == nullptr ? nullptr : PyObject_GetAttrString(type, "__dlpack_c_exchange_api__");
  if (capsule != nullptr) {
    table =
        static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  }
  Py_XDECREF(capsule);
  Py_XDECREF(type);
  Py_XDECREF(module);
  return table;
}

}  // namespace detail

/// Any tensor of any library, or a capsule, as a managed tensor: as dlbridge.from_dlpack(object).
/// An empty ManagedTensor, with Python's error set, when that refuses. Needs the GIL; the result
/// may end on any thread, with or without it.
inline ManagedTensor from_python(PyObject* object) noexcept {
  const DLPackExchangeAPI* table = detail::managed_tensor_table();
  if (table == nullptr) {
    return {};
  }
  PyObject* module = PyImport_ImportModule("dlbridge");
  PyObject* managed =
      module == nullptr ? nullptr : PyObject_CallMethod(module, "from_dlpack", "O", object);
  Py_XDECREF(module);
  if (managed == nullptr) {
    return {};
  }
  DLManagedTensorVersioned* tensor = nullptr;
  const int status = table->managed_tensor_from_py_object_no_sync(managed, &tensor);
  Py_DECREF(managed);
  if (status != 0) {
    return {};
  }
  try {
    return ManagedTensor::adopt(tensor);
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_BufferError, error.what());
    return {};
  }
}

/// A new reference to a dlbridge.ManagedTensor that owns the tensor: for dlbridge.to_numpy(),
/// to_torch(), or whatever speaks DLPack. Null, with Python's error set and the tensor released, on
/// failure. Needs the GIL.
inline PyObject* to_python(ManagedTensor tensor) noexcept {
  const DLPackExchangeAPI* table = detail::managed_tensor_table();
  if (table == nullptr) {
    return nullptr;
  }
  DLManagedTensorVersioned* managed = tensor.release();
  void* object = nullptr;
  if (table->managed_tensor_to_py_object_no_sync(managed, &object) != 0) {
    managed->deleter(managed);
    return nullptr;
  }
  return static_cast<PyObject*>(object);
}

}  // namespace dlbridge
