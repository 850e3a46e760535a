#pragma once

#include <Python.h>

#include <exception>
#include <utility>

#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {

namespace detail {

/// What the Python package does for extensions, without a detour through Python.
struct PythonInterface {
  static constexpr const char* kCapsule = "dlbridge._core._interface";
  static constexpr int kVersion = 1;  // of this struct

  int version = kVersion;
  int block_version = kBlockVersion;
  /// The object as a managed tensor of the default policy, where it is or, if asked for, on the
  /// host. Null with Python's error set when that is refused.
  DLManagedTensorVersioned* (*take)(PyObject* object, bool on_host) = nullptr;
  /// A new reference to the tensor as an object of the library of that name, or, without a name, as
  /// a dlbridge.ManagedTensor. Takes the tensor in every case; null with Python's error set.
  PyObject* (*give)(DLManagedTensorVersioned* tensor, const char* library) = nullptr;
};

/// That of the running interpreter; null with Python's error set when the package cannot be had.
inline const PythonInterface* python_interface() noexcept {
  static const PythonInterface* interface = nullptr;
  if (interface != nullptr) {
    return interface;
  }
  PyObject* package = PyImport_ImportModule("dlbridge");
  Py_XDECREF(package);
  if (package == nullptr) {
    return nullptr;
  }
  const auto* found =
      static_cast<const PythonInterface*>(PyCapsule_Import(PythonInterface::kCapsule, 0));
  if (found != nullptr && found->version != PythonInterface::kVersion) {
    PyErr_SetString(PyExc_ImportError,
                    "this extension was built for another release of dlbridge than the installed "
                    "one; build it again, or install that release");
    return nullptr;
  }
  interface = found;
  return interface;
}

}  // namespace detail

/// Any tensor of any library, or a capsule, as a managed tensor: as dlbridge.from_dlpack(object),
/// or, with `on_host`, as dlbridge.from_dlpack(object, device="cpu").
/// An empty ManagedTensor, with Python's error set, when that refuses. Needs the GIL; the result
/// may end on any thread, with or without it.
inline ManagedTensor from_python(PyObject* object, bool on_host = false) noexcept {
  const detail::PythonInterface* interface = detail::python_interface();
  DLManagedTensorVersioned* tensor =
      interface == nullptr ? nullptr : interface->take(object, on_host);
  if (tensor == nullptr) {
    return {};
  }
  if (interface->block_version == detail::kBlockVersion) [[likely]] {
    return ManagedTensor::retake(tensor);
  }
  try {
    return ManagedTensor::adopt(tensor);
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_BufferError, error.what());
    return {};
  }
}

/// A new reference to the tensor as an object of the library of that name ("torch", "numpy", "jax"
/// and whatever dlbridge.to() knows), or as a dlbridge.ManagedTensor. Null, with Python's error set
/// and the tensor released, on failure. Needs the GIL.
inline PyObject* to_python(ManagedTensor tensor, const char* library = nullptr) noexcept {
  const detail::PythonInterface* interface = detail::python_interface();
  return interface == nullptr ? nullptr : interface->give(tensor.release(), library);
}

}  // namespace dlbridge
