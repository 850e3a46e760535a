#include "torch/vocabulary.hpp"

#include "dlbridge/torch_vocabulary.hpp"
#include "errors.hpp"

namespace dlbridge::python {

PyObject* torch_vocabulary(PyObject* /*module*/, PyObject* /*unused*/) noexcept {
  return guarded([]() -> PyObject* {
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
    return Py_BuildValue("{sOsO}", "dtypes", dtypes.get(), "devices", devices.get());
  });
}

}  // namespace dlbridge::python
