#pragma once

#include <Python.h>

namespace dlbridge::python {

/// The module of a companion extension, the only one of its binary. Its one attribute is a capsule
/// of `pointer`, which lives as long as the process. Needs the GIL; null, with Python's error set,
/// on failure.
inline PyObject* companion_module(const char* name, const char* says, const char* attribute,
                                  void* pointer, const char* capsule_name) noexcept {
  static PyModuleDef definition{
      PyModuleDef_HEAD_INIT, name, says, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
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
