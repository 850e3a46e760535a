#pragma once

// For C++ libraries with a Python face: makes them known to the Python package, as
// dlbridge.register() does, so that dlbridge.to(x, "grid") and dlbridge.to_numpy(image) work.

#include "dlbridge/convert.hpp"
#include "dlbridge/error.hpp"
#include "dlbridge/python.hpp"

namespace dlbridge {

/// A library as Python knows it. The texts, and what the pointers point to, must live as long as
/// the process.
struct PythonLibrary {
  const char* name;    // of its module: "grid"
  const char* object;  // as messages call it: "grid.Image"
  bool immutable = false;
  /// The object's tensor, or an empty one with Python's error set; null where its objects speak a
  /// protocol themselves.
  ManagedTensor (*read)(PyObject* object) = nullptr;
  /// What it can take; null where it is a source only.
  const Capabilities* capabilities = nullptr;
  /// A new reference to its object over the tensor's memory, or null with Python's error set.
  PyObject* (*take)(ManagedTensor tensor) = nullptr;
};

namespace detail {

/// A reference that is owned, or null with Python's error set.
class PythonReference {
 public:
  explicit PythonReference(PyObject* owned) noexcept : object_(owned) {}
  PythonReference(const PythonReference&) = delete;
  PythonReference& operator=(const PythonReference&) = delete;
  ~PythonReference() { Py_XDECREF(object_); }
  [[nodiscard]] PyObject* get() const noexcept { return object_; }
  [[nodiscard]] PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  PyObject* object_;
};

inline PyObject* set_python_error(const std::exception& error) noexcept {
  PyErr_SetString(PyExc_BufferError, error.what());
  return nullptr;
}

inline const PythonLibrary* library_behind(PyObject* self) noexcept {
  return static_cast<const PythonLibrary*>(PyCapsule_GetPointer(self, nullptr));
}

inline PyObject* call_read(PyObject* self, PyObject* object) {
  try {
    ManagedTensor tensor = library_behind(self)->read(object);
    return tensor ? to_python(std::move(tensor)) : nullptr;
  } catch (const std::exception& error) {
    return set_python_error(error);
  }
}

inline PyObject* call_take(PyObject* self, PyObject* managed) {
  try {
    ManagedTensor tensor = from_python(managed);
    return tensor ? library_behind(self)->take(std::move(tensor)) : nullptr;
  } catch (const std::exception& error) {
    return set_python_error(error);
  }
}

inline PyMethodDef read_method{"read", call_read, METH_O, nullptr};
inline PyMethodDef take_method{"take", call_take, METH_O, nullptr};

/// The names of the types in the set, or None for every type.
inline PyObject* names_of(DTypeSet types) {
  if (types == DTypeSet::everything()) {
    return Py_NewRef(Py_None);
  }
  PythonReference names(PyList_New(0));
  for (const auto& row : kNamedDTypes) {
    if (names && types.contains(row.dtype)) {
      const PythonReference name(
          PyUnicode_FromStringAndSize(row.name.data(), static_cast<Py_ssize_t>(row.name.size())));
      if (!name || PyList_Append(names.get(), name.get()) < 0) {
        return nullptr;
      }
    }
  }
  return names ? PyList_AsTuple(names.get()) : nullptr;
}

inline PyObject* names_of(DeviceSet devices) {
  struct Row {
    const char* name;
    std::int32_t type;
  };
  static constexpr Row kRows[] = {{"cpu", kDLCPU},     {"cuda", kDLCUDA},
                                  {"rocm", kDLROCM},   {"oneapi", kDLOneAPI},
                                  {"metal", kDLMetal}, {"vulkan", kDLVulkan}};
  PythonReference names(PyList_New(0));
  for (const auto& row : kRows) {
    if (names && devices.contains(row.type)) {
      const PythonReference name(PyUnicode_FromString(row.name));
      if (!name || PyList_Append(names.get(), name.get()) < 0) {
        return nullptr;
      }
    }
  }
  return names ? PyList_AsTuple(names.get()) : nullptr;
}

inline PyObject* python_capabilities(PyObject* module, const Capabilities& from) {
  const char* strides = from.negative_strides && from.any_strides ? "any"
                        : from.any_strides                        ? "non-negative"
                                                                  : "compact";
  const char* read_only = from.readonly == ReadOnlySupport::kHonours   ? "honours"
                          : from.readonly == ReadOnlySupport::kUnaware ? "unaware"
                                                                       : "never";
  const PythonReference type(PyObject_GetAttrString(module, "Capabilities"));
  const PythonReference nothing(PyTuple_New(0));
  const PythonReference result(
      PyUnicode_FromStringAndSize(from.result.data(), static_cast<Py_ssize_t>(from.result.size())));
  const PythonReference dtypes(names_of(from.dtypes));
  const PythonReference devices(names_of(from.devices));
  if (!type || !nothing || !result || !dtypes || !devices) {
    return nullptr;
  }
  const PythonReference keywords(Py_BuildValue(
      "{sOsOsOsssLsisisssOsO}", "result", result.get(), "devices", devices.get(), "dtypes",
      dtypes.get(), "strides", strides, "alignment", static_cast<long long>(from.alignment),
      "min_dimensions", from.min_dimensions, "max_dimensions", from.max_dimensions, "read_only",
      read_only, "writable", from.gives_writable ? Py_True : Py_False, "copies",
      from.copies ? Py_True : Py_False));
  return keywords ? PyObject_Call(type.get(), nothing.get(), keywords.get()) : nullptr;
}

}  // namespace detail

/// Registers the library with the Python package: 0, or -1 with Python's error set. Needs the GIL;
/// a module calls it when it is imported, or from the entry point "dlbridge.libraries".
inline int register_library(const PythonLibrary& library) noexcept {
  using detail::PythonReference;
  const PythonReference module(PyImport_ImportModule("dlbridge"));
  const PythonReference self(PyCapsule_New(const_cast<PythonLibrary*>(&library), nullptr, nullptr));
  if (!module || !self) {
    return -1;
  }
  const auto function = [&](bool there, PyMethodDef& method) {
    return there ? PyCFunction_New(&method, self.get()) : Py_NewRef(Py_None);
  };
  const PythonReference read(function(library.read != nullptr, detail::read_method));
  const PythonReference take(function(library.take != nullptr, detail::take_method));
  const PythonReference capabilities(
      library.capabilities == nullptr
          ? Py_NewRef(Py_None)
          : detail::python_capabilities(module.get(), *library.capabilities));
  const PythonReference type(PyObject_GetAttrString(module.get(), "Library"));
  const PythonReference nothing(PyTuple_New(0));
  if (!read || !take || !capabilities || !type || !nothing) {
    return -1;
  }
  const PythonReference keywords(
      Py_BuildValue("{sssssOsOsOsO}", "name", library.name, "object", library.object, "immutable",
                    library.immutable ? Py_True : Py_False, "read", read.get(), "capabilities",
                    capabilities.get(), "take", take.get()));
  if (!keywords) {
    return -1;
  }
  const PythonReference row(PyObject_Call(type.get(), nothing.get(), keywords.get()));
  const PythonReference done(row ? PyObject_CallMethod(module.get(), "register", "O", row.get())
                                 : nullptr);
  return done ? 0 : -1;
}

}  // namespace dlbridge
