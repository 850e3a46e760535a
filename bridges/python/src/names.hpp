#pragma once

// The core's vocabularies for the package's Python files: functions of dlbridge._core.

#include "errors.hpp"

namespace dlbridge::python {

/// device_name(type, id): how a device prints.
PyObject* name_of_device(PyObject* module, PyObject* arguments) noexcept;

/// device_type(device): DLPack's number for what device_argument() takes.
PyObject* type_of_device(PyObject* module, PyObject* device) noexcept;

/// dtype_name(code, bits, lanes): how a type prints.
PyObject* name_of_dtype(PyObject* module, PyObject* arguments) noexcept;

/// dtype_triple(name): DLPack's code, bits and lanes.
PyObject* triple_of_dtype(PyObject* module, PyObject* name) noexcept;

/// conditions(): the number of each condition, by the names that _torch/ uses.
PyObject* conditions_by_name(PyObject* module, PyObject* unused) noexcept;

}  // namespace dlbridge::python
