#pragma once

#include "python.hpp"

namespace dlbridge::python {

/// gather(target, arrays): writes arrays of one shape and dtype into the rows of a NumPy array.
PyObject* gather(PyObject* module, PyObject* const* arguments, Py_ssize_t count);

}  // namespace dlbridge::python
