#pragma once

#include <Python.h>

#include <exception>
#include <utility>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/plan.hpp"

namespace dlbridge {

namespace detail {

/// A bridge of C++ as the package calls it: both ways, without a detour through Python. Made by
/// register_bridge(); lives as long as the process. What fails leaves Python's error set.
struct BridgeRow {
  const char* name;    // of its library: "grid"
  const char* object;  // as messages call it: "grid.Image"
  PyTypeObject* type;  // of its objects, and of their subclasses
  int (*describe)(PyObject* object, Source& source) noexcept;
  DLManagedTensorVersioned* (*acquire)(PyObject* object, Source& source) noexcept;
  DLManagedTensorVersioned* (*prepare)(PyObject* object, const Leg& leg, Source& made) noexcept;
  const Capabilities* (*capabilities)(const Source& source) noexcept;
  PyObject* (*deliver)(DLManagedTensorVersioned* tensor) noexcept;  // takes the tensor
};

/// What the Python package does for extensions, without a detour through Python.
struct PythonInterface {
  static constexpr const char* kCapsule = "dlbridge._core._interface";
  static constexpr int kVersion = 3;  // of this struct

  int version = kVersion;
  int block_version = kBlockVersion;
  /// The object as a managed tensor of the default policy, where it is or, if asked for, on the
  /// host and where its elements can be loaded by their type. Null with Python's error set when
  /// that is refused.
  DLManagedTensorVersioned* (*take)(PyObject* object, bool on_host, bool aligned) = nullptr;
  /// A new reference to the tensor as an object of the library of that name, or, without a name, as
  /// a dlbridge.ManagedTensor. Takes the tensor in every case; null with Python's error set.
  PyObject* (*give)(DLManagedTensorVersioned* tensor, const char* library) = nullptr;
  /// Makes a bridge a way in and a way out: 0, or -1 with Python's error set.
  int (*add_bridge)(const BridgeRow& bridge) = nullptr;
  /// Sets dlbridge.ConversionRefused of a refusal in C++.
  void (*set_refused)(const ConversionRefused& refused) = nullptr;
  // The classes that cross between the two binaries, as _core knows them.
  std::size_t classes = sizeof(Source) + sizeof(Leg) + sizeof(Capabilities);
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
  if (found != nullptr && (found->version != PythonInterface::kVersion ||
                           found->classes != PythonInterface().classes)) {
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
/// or, with `on_host`, as dlbridge.from_dlpack(object, device="cpu"). With `aligned`, for whoever
/// loads elements by their type, a copy where their address is no multiple of their size.
/// An empty ManagedTensor, with Python's error set, when that refuses. Needs the GIL; the result
/// may end on any thread, with or without it.
inline ManagedTensor from_python(PyObject* object, bool on_host = false,
                                 bool aligned = false) noexcept {
  const detail::PythonInterface* interface = detail::python_interface();
  DLManagedTensorVersioned* tensor =
      interface == nullptr ? nullptr : interface->take(object, on_host, aligned);
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
