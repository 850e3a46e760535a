#include <pybind11/numpy.h>

#include <dlbridge/pybind11.hpp>

#include "functions.hpp"

namespace py = pybind11;

PYBIND11_MODULE(dlbridge_pybind11_casters, module) {
  module.def("rows", &casters::rows);
  module.def("rows_of_view", &casters::rows_of_view);
  module.def("sum", &casters::sum);
  module.def("fill", &casters::fill);
  module.def("is_read_only", &casters::is_read_only);
  module.def("counted", &casters::counted);
  module.def("counted_as", [](const char* library) {
    PyObject* given = dlbridge::to_python(casters::counted(), library);
    if (given == nullptr) {
      throw py::error_already_set();
    }
    return py::reinterpret_steal<py::object>(given);
  });
  module.def("same", &casters::same);
  module.def("kind", [](const casters::ConstMatrix&) { return "matrix"; });
  module.def("kind", [](const casters::ConstVector&) { return "vector"; });
  module.def("kind", [](const py::handle&) { return "anything"; });
  // The peer in the benchmark.
  module.def("rows_of_own", [](const py::array_t<float, 0>& x) { return x.shape(0); });
}
