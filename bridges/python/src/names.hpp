#pragma once

// The core's vocabularies, and torch's, for the package's Python files: functions of the module,
// see _core.pyi.

#include "module_functions.hpp"

namespace dlbridge::python {

Ref name_of_device(ArgumentTuple arguments);
Ref type_of_device(PyObject* device);
Ref name_of_dtype(ArgumentTuple arguments);
Ref triple_of_dtype(PyObject* name);
Ref conditions_by_name();
Ref torch_vocabulary();

}  // namespace dlbridge::python
