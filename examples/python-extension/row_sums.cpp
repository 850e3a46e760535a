// A Python extension whose function takes any tensor: of NumPy, torch, JAX, or a raw capsule.

#include <dlbridge/nanobind.hpp>
#include <dlbridge/tensor_view.hpp>

namespace {

dlbridge::ManagedTensor row_sums(const dlbridge::TensorView<const float, 2>& rows) {
  const std::int64_t shape[] = {rows.extent(0)};
  auto sums = dlbridge::ManagedTensor::allocate(dlbridge::dtype_of<float>(), shape);
  const dlbridge::TensorView<float, 1> out(sums);
  for (std::int64_t i = 0; i < rows.extent(0); ++i) {
    out(i) = 0;
    for (std::int64_t j = 0; j < rows.extent(1); ++j) {
      out(i) += rows(i, j);
    }
  }
  return sums;
}

}  // namespace

NB_MODULE(row_sums, module) {
  module.def("row_sums", &row_sums, nanobind::arg("matrix"),
             "The sum of each row of a float32 matrix of any library.");
}
