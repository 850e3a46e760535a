#pragma once

// An extension type's attributes and methods, called as the C functions that they are: what Python
// does on the way to them takes longer than most of them.

#include "errors.hpp"

namespace dlbridge::python {

/// An attribute that the type `owner` computes in C; without a function where it has none such.
/// For objects of that type only. Borrows from the type, which has to live.
class DirectGetter {
 public:
  DirectGetter() = default;
  DirectGetter(PyObject* owner, const char* name) {
    const Ref descriptor(PyObject_GetAttrString(owner, name));
    PyErr_Clear();
    if (descriptor && Py_IS_TYPE(descriptor.get(), &PyGetSetDescr_Type)) {
      definition_ = reinterpret_cast<PyGetSetDescrObject*>(descriptor.get())->d_getset;
    }
  }
  explicit operator bool() const noexcept { return definition_ != nullptr; }
  [[nodiscard]] Ref operator()(PyObject* object) const {
    return checked(definition_->get(object, definition_->closure));
  }

 private:
  PyGetSetDef* definition_ = nullptr;
};

/// The same for a method without arguments.
class DirectMethod {
 public:
  DirectMethod() = default;
  DirectMethod(PyObject* owner, const char* name) {
    const Ref descriptor(PyObject_GetAttrString(owner, name));
    PyErr_Clear();
    if (descriptor && Py_IS_TYPE(descriptor.get(), &PyMethodDescr_Type)) {
      PyMethodDef* definition = reinterpret_cast<PyMethodDescrObject*>(descriptor.get())->d_method;
      if ((definition->ml_flags & ~(METH_STATIC | METH_COEXIST)) == METH_NOARGS) {
        function_ = definition->ml_meth;
      }
    }
  }
  explicit operator bool() const noexcept { return function_ != nullptr; }
  /// A new reference, or null with Python's error set.
  [[nodiscard]] PyObject* call(PyObject* object) const noexcept {
    return function_(object, nullptr);
  }
  [[nodiscard]] Ref operator()(PyObject* object) const { return checked(call(object)); }

 private:
  PyCFunction function_ = nullptr;
};

}  // namespace dlbridge::python
