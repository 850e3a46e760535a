#pragma once

// The core's vocabularies, and torch's, for the package's Python files: functions of
// dlbridge._core.

#include "module_functions.hpp"

namespace dlbridge::python {

/// device_name(type, id): how a device prints.
Ref name_of_device(ArgumentTuple arguments);

/// device_type(device): DLPack's number for what device_argument() takes.
Ref type_of_device(PyObject* device);

/// dtype_name(code, bits, lanes): how a type prints.
Ref name_of_dtype(ArgumentTuple arguments);

/// dtype_triple(name): DLPack's code, bits and lanes.
Ref triple_of_dtype(PyObject* name);

/// conditions(): the number of each condition, by the names that _torch/ uses.
Ref conditions_by_name();

/// torch_vocabulary() -> {"dtypes": {name: triple}, "devices": {name: DLPack type}}, what torch
/// calls the types and devices that DLPack has too.
Ref torch_vocabulary();

}  // namespace dlbridge::python
