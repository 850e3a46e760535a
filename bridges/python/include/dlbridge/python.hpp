#pragma once

#include <Python.h>

#include <cstdint>
#include <exception>
#include <new>
#include <optional>

#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"
#include "dlbridge/plan.hpp"
#include "dlbridge/policy.hpp"

namespace dlbridge {

/// What a parameter of a C++ function takes of a caller in Python.
struct Parameter {
  // Brought about where the object is not so.
  std::optional<Policy> policy{};  // otherwise that of the open block, or the default
  std::optional<DType> cast_to{};
  std::optional<Device> device{};  // otherwise where the object is
  bool c_order = false;
  bool loadable = false;  // by the processor and by their type: on the host, and aligned
  // Has to be so already.
  DType dtype{};           // of no bits: any
  std::int32_t ndim = -1;  // below zero: any
  bool on_device = false;  // memory of a device: no plain memory of the host
  bool in_place = false;   // what is written to it is to reach the object, not a copy of it
};

/// What becomes of an object that does not fit a parameter.
enum class Matching : std::uint8_t {
  kAlone,       // an error: there is no other overload
  kConverting,  // another overload may fit its type or rank; a refusal is an error
  kLooking,     // another overload may fit whatever is no view, or is refused
};

namespace detail {

/// A bridge of C++ as the package calls it: both ways, without a detour through Python. Made by
/// register_bridge(); lives as long as the process. What fails leaves Python's error set.
struct BridgeRow {
  const char* name;    // of its library: "grid"
  const char* object;  // as messages call it: "grid.Image"
  PyTypeObject* type;  // of its objects, and of their subclasses
  int (*describe)(PyObject* object, Source& source) noexcept;
  DLManagedTensorVersioned* (*acquire)(PyObject* object) noexcept;
  DLManagedTensorVersioned* (*prepare)(PyObject* object, const Leg& leg, Source& made) noexcept;
  const Capabilities* (*capabilities)(const Source& source) noexcept;
  PyObject* (*deliver)(DLManagedTensorVersioned* tensor) noexcept;  // takes the tensor
};

/// What the Python package does for extensions, without a detour through Python.
struct PythonInterface {
  static constexpr const char* kCapsule = "dlbridge._core._interface";
  static constexpr int kVersion = 7;  // of this struct, and of what its functions are given

  int version = kVersion;
  int block_version = kBlockVersion;
  /// The object as a managed tensor that fits the parameter. Null with Python's error set, or
  /// without one where another overload may fit; then nothing was copied or consumed.
  DLManagedTensorVersioned* (*take)(PyObject* object, const Parameter& parameter,
                                    Matching matching) = nullptr;
  /// The common case of take(), for a look that ends with the call: where the object is plain and
  /// fits, describes it, and keeps its memory until let_go(lease). Its shape is the object's own,
  /// to be read before Python runs again, and without strides it is in C order; no byte offset.
  /// False without an error where it takes take().
  bool (*look)(PyObject* object, const Parameter& parameter, DLTensor& tensor,
               Lease& lease) = nullptr;
  void (*let_go)(const Lease& lease) = nullptr;
  /// A new reference to the tensor as an object of the library of that name, or, without a name, as
  /// a dlbridge.ManagedTensor. Takes the tensor in every case; null with Python's error set.
  PyObject* (*give)(DLManagedTensorVersioned* tensor, const char* library) = nullptr;
  /// The same in the library of that object, and on its device.
  PyObject* (*give_like)(DLManagedTensorVersioned* tensor, PyObject* object) = nullptr;
  /// Makes a bridge a way in and a way out: 0, or -1 with Python's error set.
  int (*add_bridge)(const BridgeRow& bridge) = nullptr;
  /// What the memory of a device in a tensor of take()'s is ordered on.
  Stream (*stream_of)(Device device) = nullptr;
  /// Sets dlbridge.ConversionRefused of a refusal in C++.
  void (*set_refused)(const ConversionRefused& refused) = nullptr;
  // The classes that cross between the two binaries, as _core knows them.
  std::size_t classes = sizeof(Source) + sizeof(Leg) + sizeof(Capabilities) + sizeof(Parameter);
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

/// The same for a result: null with an error for an empty one, which what failed may have set.
inline const PythonInterface* interface_for(const ManagedTensor& result) noexcept {
  if (result) [[likely]] {
    return python_interface();
  }
  if (PyErr_Occurred() == nullptr) {
    PyErr_SetString(PyExc_ValueError, "the function returned an empty ManagedTensor");
  }
  return nullptr;
}

}  // namespace detail

/// Any tensor of any library, or a capsule, as a managed tensor: as dlbridge.from_dlpack(object),
/// or as the parameter says. An empty ManagedTensor with Python's error set where that is refused
/// or the object does not fit, and without one where `matching` leaves it to another overload.
/// Needs the GIL; the result may end on any thread, with or without it.
inline ManagedTensor from_python(PyObject* object, const Parameter& parameter = {},
                                 Matching matching = Matching::kAlone) noexcept {
  const detail::PythonInterface* interface = detail::python_interface();
  DLManagedTensorVersioned* tensor =
      interface == nullptr ? nullptr : interface->take(object, parameter, matching);
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

/// The stream that from_python()'s tensors are ordered on where they are on that device. The core
/// of an extension knows no runtime of the package's, so its managed_stream() is another one.
inline Stream python_stream(Device device) {
  const detail::PythonInterface* interface = detail::python_interface();
  return interface == nullptr ? Stream{} : interface->stream_of(device);
}

/// For a catch (...) of a function that Python calls: makes the exception that is being handled
/// Python's error. ConversionRefused becomes dlbridge.ConversionRefused, with its fix and reasons;
/// an error that is set already, as where PythonError was thrown, stays. Needs the GIL.
inline void set_python_error() noexcept {
  try {
    throw;
  } catch (const ConversionRefused& refused) {
    if (const detail::PythonInterface* interface = detail::python_interface()) {
      interface->set_refused(refused);
    }
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    if (PyErr_Occurred() == nullptr) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
    }
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "a C++ exception of no known class");
  }
}

/// A new reference to the tensor as an object of the library of that name ("torch", "numpy", "jax"
/// and whatever dlbridge.to() knows), or as a dlbridge.ManagedTensor. Null, with Python's error set
/// and the tensor released, on failure; an empty tensor, as from_python() gives it, leaves the
/// error that is set as it is. Needs the GIL.
inline PyObject* to_python(ManagedTensor tensor, const char* library = nullptr) noexcept {
  const detail::PythonInterface* interface = detail::interface_for(tensor);
  return interface == nullptr ? nullptr : interface->give(tensor.release(), library);
}

/// The same in the library of `object`, an array or tensor of any, and on its device; as a
/// dlbridge.ManagedTensor where it is of no library that takes arrays, as a memoryview is.
inline PyObject* to_python_like(ManagedTensor tensor, PyObject* object) noexcept {
  const detail::PythonInterface* interface = detail::interface_for(tensor);
  return interface == nullptr ? nullptr : interface->give_like(tensor.release(), object);
}

}  // namespace dlbridge
