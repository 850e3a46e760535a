#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <dlbridge/pybind11.hpp>

#include "functions.hpp"

namespace py = pybind11;

PYBIND11_MODULE(dlbridge_pybind11_casters, module) {
  dlbridge::install_pybind11_translator();
  module.def("rows", &casters::rows);
  module.def("rows_of_view", &casters::rows_of_view);
  module.def("rows_of_eight", &casters::rows_of_eight);
  module.def("sum", &casters::sum);
  module.def("sum_after", [](const casters::ConstMatrix& matrix, const py::function& meanwhile) {
    meanwhile();
    return casters::sum(matrix);
  });
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
  module.def("scale", &casters::scale);
  module.def("is_packed", &casters::is_packed);
  module.def("address_of_snapshot", &casters::address_of_snapshot);
  module.def("sum_cast", &casters::sum_cast);
  module.def("fill_strictly", &casters::fill_strictly);
  module.def("rows_or_none", &casters::rows_or_none);
  module.def("sum_or_none", &casters::sum_or_none);
  module.def("rows_of_all", &casters::rows_of_all);
  module.def("rows_or_none_taken", &casters::rows_or_none_taken);
  module.def("count_of_none", &casters::count_of_none);
  module.def("counted_or_none", &casters::counted_or_none);
  module.def("refuse_in_body", &casters::refuse_in_body);
  module.def("first_of", &casters::first_of);
  module.def("fail_otherwise", &casters::fail_otherwise);
  module.def("fail_in_python", &casters::fail_in_python);
  module.def("empty", &casters::empty);
  module.def("taken_in_body", [](const py::handle& x) { return dlbridge::from_python(x.ptr()); });
  module.def("taken_by_cast",
             [](const py::handle& x) { return x.cast<dlbridge::ManagedTensor>(); });
  module.def("sum_of_view", &casters::sum, py::arg("matrix").noconvert());
  module.def("either", [](casters::Row) { return "mutable"; });
  module.def("either", [](const casters::ConstRow&) { return "const"; });
  module.def(
      "aside", [](casters::Row) { return "mutable"; }, py::arg("row").noconvert());
  module.def("aside", [](const casters::ConstRow&) { return "const"; });
  module.def("one_of_four", [](const dlbridge::TensorView<const double, 1>&) { return 1; });
  module.def("one_of_four", [](const dlbridge::TensorView<const float, 1>&) { return 2; });
  module.def("one_of_four", [](const dlbridge::TensorView<const std::int64_t, 1>&) { return 3; });
  module.def("one_of_four",
             [](const dlbridge::TensorView<const std::complex<float>, 2>&) { return 4; });
  module.def("taken_as_row", [](const py::handle& x) {
    return dlbridge::from_python(
        x.ptr(), {.loadable = true, .dtype = dlbridge::dtype_of<float>(), .ndim = 1});
  });
  module.def("counted_in_torch", &casters::counted_in_torch);
  module.def("counted_nowhere", &casters::counted_nowhere);
  module.def("like", &casters::like);
  module.def("like_any", &casters::like_any);
  module.def("sum_of_any", &casters::sum_of_any);
  module.def("stream_of", &casters::stream_of);
  module.def("type_of_device", &casters::type_of_device);
  module.def("rows_alone", &casters::rows_alone);
  module.def("where", [](const dlbridge::DeviceView<const float, 1>&) { return "device"; });
  module.def("where", [](const casters::ConstRow&) { return "host"; });
  // The peer in the benchmark.
  module.def("rows_of_own", [](const py::array_t<float, 0>& x) { return x.shape(0); });
}
