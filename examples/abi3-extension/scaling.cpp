// One extension for every CPython from 3.10 on: built once, it takes tensors of any library. Python
// is seen through its limited API alone; what is made is made by dlbridge's interface for C.

#include <dlbridge/dlbridge.h>

#include <dlbridge/python.hpp>
#include <dlbridge/python_error.hpp>
#include <dlbridge/tensor_view.hpp>
#include <stdexcept>
#include <string>

namespace {

using dlbridge::ManagedTensor;
using dlbridge::TensorView;

/// What a function of C++ throws, as Python's error.
template <typename Action>
PyObject* answer(Action&& action) noexcept {
  try {
    return action();
  } catch (...) {
    dlbridge::set_python_error();
    return nullptr;
  }
}

ManagedTensor taken(PyObject* object, const dlbridge::Parameter& parameter) {
  ManagedTensor tensor = dlbridge::from_python(object, parameter);
  if (!tensor) {
    throw dlbridge::PythonError();
  }
  return tensor;
}

const dlbridge_api* c_interface() {
  const auto* api =
      static_cast<const dlbridge_api*>(PyCapsule_Import("dlbridge._core.dlbridge_c_api", 0));
  if (api != nullptr && api->abi_version >> 16 != DLBRIDGE_ABI_MAJOR) {
    PyErr_SetString(PyExc_ImportError, "scaling was built for another major version of dlbridge");
    api = nullptr;
  }
  if (api == nullptr) {
    throw dlbridge::PythonError();
  }
  return api;
}

ManagedTensor new_vector(std::int64_t size) {
  static const dlbridge_api* const kC = c_interface();
  DLManagedTensorVersioned* made = nullptr;
  dlbridge_error* error = nullptr;
  if (kC->allocate("float32", 1, &size, &made, &error) != DLBRIDGE_OK) {
    const std::string message = kC->error_message(error);
    kC->error_free(error);
    throw std::runtime_error(message);
  }
  return ManagedTensor::adopt(made);
}

PyObject* total(PyObject* /*module*/, PyObject* x) {
  return answer([&] {
    const ManagedTensor tensor = taken(x, {.loadable = true, .dtype = dlbridge::dtype_of<float>()});
    double sum = 0;
    for (const float each : TensorView<const float, dlbridge::kDynamicRank>(tensor)) {
      sum += each;
    }
    return PyFloat_FromDouble(sum);
  });
}

PyObject* row_sums(PyObject* /*module*/, PyObject* x) {
  return answer([&] {
    const ManagedTensor tensor =
        taken(x, {.loadable = true, .dtype = dlbridge::dtype_of<float>(), .ndim = 2});
    const TensorView<const float, 2> rows(tensor);
    ManagedTensor sums = new_vector(rows.extent(0));
    const TensorView<float, 1> out(sums);
    for (std::int64_t i = 0; i < rows.extent(0); ++i) {
      out(i) = 0;
      for (std::int64_t j = 0; j < rows.extent(1); ++j) {
        out(i) += rows(i, j);
      }
    }
    return dlbridge::to_python_like(std::move(sums), x);
  });
}

template <typename T>
void scale_all(const ManagedTensor& tensor, double factor) {
  for (T& each : TensorView<T, dlbridge::kDynamicRank>(tensor)) {
    each = static_cast<T>(each * factor);
  }
}

PyObject* scale(PyObject* /*module*/, PyObject* arguments) {
  return answer([&]() -> PyObject* {
    PyObject* x = nullptr;
    double factor = 1;
    if (PyArg_ParseTuple(arguments, "Od", &x, &factor) == 0) {
      return nullptr;
    }
    const ManagedTensor tensor = taken(x, {.loadable = true, .in_place = true});
    if (tensor.dtype() == dlbridge::dtype_of<float>()) {
      scale_all<float>(tensor, factor);
    } else if (tensor.dtype() == dlbridge::dtype_of<double>()) {
      scale_all<double>(tensor, factor);
    } else {
      const std::string met = "elements of " + to_string(tensor.dtype());
      throw dlbridge::ConversionRefused("cannot scale " + met + " in place",
                                        {met + ": the result would not fit them"},
                                        "scale(dlbridge.to_numpy(x, dtype=\"float32\"), factor)");
    }
    return Py_NewRef(Py_None);
  });
}

PyMethodDef functions[] = {
    {"total", total, METH_O, "The sum of a float32 tensor of any shape."},
    {"row_sums", row_sums, METH_O, "The sum of each row, in the library of the matrix."},
    {"scale", scale, METH_VARARGS, "Multiplies the caller's own memory by a factor."},
    {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "scaling", nullptr, 0, functions, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_scaling() {
  return PyModuleDef_Init(&definition);
}
