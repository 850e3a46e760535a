#include <nanobind/ndarray.h>

#include <dlbridge/nanobind.hpp>

#include "functions.hpp"

namespace nb = nanobind;

NB_MODULE(dlbridge_nanobind_casters, module) {
  module.def("rows", &casters::rows);
  module.def("rows_of_view", &casters::rows_of_view);
  module.def("sum", &casters::sum);
  module.def("fill", &casters::fill);
  module.def("is_read_only", &casters::is_read_only);
  module.def("counted", &casters::counted);
  module.def("counted_as", [](const char* library) {
    return nb::steal(dlbridge::to_python(casters::counted(), library));
  });
  module.def("same", &casters::same);
  module.def("kind", [](const casters::ConstMatrix&) { return "matrix"; });
  module.def("kind", [](const casters::ConstVector&) { return "vector"; });
  module.def("kind", [](nb::handle) { return "anything"; });
  // The peer in the benchmark.
  module.def("rows_of_own", [](const nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>& x) {
    return static_cast<std::int64_t>(x.shape(0));
  });
}
