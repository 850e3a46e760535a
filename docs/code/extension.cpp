// A Python extension: halved(x) takes a tensor of any library, returns a NumPy array.

#include <dlbridge/numpy.hpp>
#include <dlbridge/python.hpp>
#include <dlbridge/tensor_view.hpp>

namespace {

PyObject* halved(PyObject* /*module*/, PyObject* x) {
  try {
    const dlbridge::ManagedTensor tensor = dlbridge::from_python(
        x, {.loadable = true, .dtype = dlbridge::dtype_of<float>(), .ndim = 1});
    if (!tensor) {
      return nullptr;  // the error is set
    }
    const dlbridge::TensorView<const float, 1> from(tensor);
    auto result = dlbridge::ManagedTensor::allocate(tensor.dtype(), tensor.shape());
    const dlbridge::TensorView<float, 1> to(result);
    for (std::int64_t i = 0; i < to.size(); ++i) {
      to(i) = from(i) / 2;
    }
    return dlbridge::NumPy::deliver(std::move(result));
  } catch (...) {
    dlbridge::set_python_error();
    return nullptr;
  }
}

PyMethodDef functions[] = {{"halved", halved, METH_O, nullptr}, {nullptr, nullptr, 0, nullptr}};
PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "manual_extension",
                          nullptr,
                          -1,
                          functions,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_manual_extension() {
  return dlbridge::NumPy::import() ? PyModule_Create(&definition) : nullptr;
}
