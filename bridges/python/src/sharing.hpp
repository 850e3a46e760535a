#pragma once

// Functions of the module for dlbridge/processes/sharing.py: see _core.pyi.

#include <Python.h>

namespace dlbridge::python {

PyObject* shared_target(PyObject* module, PyObject* arguments);
PyObject* shared_bytes(PyObject* module, PyObject* arguments);
PyObject* shared_allocate(PyObject* module, PyObject* arguments);
PyObject* pack_shared(PyObject* module, PyObject* arguments);
PyObject* unpack_shared(PyObject* module, PyObject* arguments);
PyObject* send_shared(PyObject* module, PyObject* arguments);
PyObject* receive_shared(PyObject* module, PyObject* arguments);

}  // namespace dlbridge::python
