#pragma once

#include <Python.h>

namespace dlbridge::python {

/// The module of a companion extension, whose one attribute is a capsule of `pointer`, which lives
/// as long as the process. Needs the GIL; null, with Python's error set, on failure.
inline PyObject* companion_module(PyModuleDef& definition, const char* attribute, void* pointer,
                                  const char* capsule_name) noexcept {
  PyObject* module = PyModule_Create(&definition);
  if (module == nullptr) {
    return nullptr;
  }
  PyObject* capsule = PyCapsule_New(pointer, capsule_name, nullptr);
  const int status = capsule == nullptr ? -1 : PyModule_AddObjectRef(module, attribute, capsule);
  Py_XDECREF(capsule);
  if (status < 0) {
    Py_CLEAR(module);
  }
  return module;
}

}  // namespace dlbridge::python
