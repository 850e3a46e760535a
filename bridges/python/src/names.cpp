#include "names.hpp"

#include "call.hpp"
#include "dlbridge/torch_vocabulary.hpp"

namespace dlbridge::python {

Ref name_of_device(ArgumentTuple arguments) {
  int type = 0;
  int id = 0;
  arguments.read("ii:device_name", &type, &id);
  return checked(PyUnicode_FromString(to_string(Device(type, id)).c_str()));
}

Ref type_of_device(PyObject* device) {
  return checked(PyLong_FromLong(device_argument(device).type));
}

Ref name_of_dtype(ArgumentTuple arguments) {
  int code = 0;
  int bits = 0;
  int lanes = 1;
  arguments.read("iii:dtype_name", &code, &bits, &lanes);
  return checked(PyUnicode_FromString(to_string(DType(code, bits, lanes)).c_str()));
}

Ref triple_of_dtype(PyObject* name) {
  const auto dtype = dtype_named(checked_pointer(PyUnicode_AsUTF8(name)));
  if (!dtype) {
    raise(PyExc_ValueError, "DLPack has no type of that name");
  }
  return checked(Py_BuildValue("(iii)", dtype->code, dtype->bits, dtype->lanes));
}

Ref conditions_by_name() {
  Ref names = checked(PyDict_New());
  for (const auto& row : kConditions) {
    const Ref number = checked(PyLong_FromLong(static_cast<long>(row.condition)));
    checked(PyDict_SetItemString(names.get(), row.name.data(), number.get()));
  }
  return names;
}

Ref torch_vocabulary() {
  const Ref dtypes = checked(PyDict_New());
  for (const auto& row : torch_detail::kScalarTypes) {
    const auto [code, bits, lanes] = row.dtype;
    if (bits != 0) {
      const Ref triple = checked(Py_BuildValue("(iii)", code, bits, lanes));
      checked(PyDict_SetItemString(dtypes.get(), std::string(row.name).c_str(), triple.get()));
    }
  }
  const Ref devices = checked(PyDict_New());
  for (const auto& row : torch_detail::kDeviceTypes) {
    const Ref type = checked(PyLong_FromLong(row.type));
    checked(PyDict_SetItemString(devices.get(), row.name.data(), type.get()));
  }
  return checked(Py_BuildValue("{sOsO}", "dtypes", dtypes.get(), "devices", devices.get()));
}

}  // namespace dlbridge::python
