#pragma once

#include <Python.h>

namespace dlbridge::python {

/// For the module: torch_vocabulary() -> {"dtypes": {name: triple}, "devices": {name: DLPack
/// type}}, what torch calls the types and devices that DLPack has too.
PyObject* torch_vocabulary(PyObject* module, PyObject* unused) noexcept;

}  // namespace dlbridge::python
