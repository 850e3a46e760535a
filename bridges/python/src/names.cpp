#include "names.hpp"

#include "call.hpp"

namespace dlbridge::python {

PyObject* name_of_device(PyObject* /*module*/, PyObject* arguments) noexcept {
  int type = 0;
  int id = 0;
  if (PyArg_ParseTuple(arguments, "ii:device_name", &type, &id) == 0) {
    return nullptr;
  }
  return guarded([&] { return PyUnicode_FromString(to_string(Device(type, id)).c_str()); });
}

PyObject* type_of_device(PyObject* /*module*/, PyObject* device) noexcept {
  return guarded([&] { return PyLong_FromLong(device_argument(device).type); });
}

PyObject* name_of_dtype(PyObject* /*module*/, PyObject* arguments) noexcept {
  int code = 0;
  int bits = 0;
  int lanes = 1;
  if (PyArg_ParseTuple(arguments, "iii:dtype_name", &code, &bits, &lanes) == 0) {
    return nullptr;
  }
  return guarded([&] { return PyUnicode_FromString(to_string(DType(code, bits, lanes)).c_str()); });
}

PyObject* triple_of_dtype(PyObject* /*module*/, PyObject* name) noexcept {
  return guarded([&]() -> PyObject* {
    const char* text = PyUnicode_AsUTF8(name);
    if (text == nullptr) {
      throw PythonError();
    }
    const auto dtype = dtype_named(text);
    if (!dtype) {
      raise(PyExc_ValueError, "DLPack has no type of that name");
    }
    return Py_BuildValue("(iii)", dtype->code, dtype->bits, dtype->lanes);
  });
}

PyObject* conditions_by_name(PyObject* /*module*/, PyObject* /*unused*/) noexcept {
  return guarded([&]() -> PyObject* {
    Ref names = checked(PyDict_New());
    for (const auto& row : kConditions) {
      const Ref number = checked(PyLong_FromLong(static_cast<long>(row.condition)));
      checked(PyDict_SetItemString(names.get(), row.name.data(), number.get()));
    }
    return names.release();
  });
}

}  // namespace dlbridge::python
