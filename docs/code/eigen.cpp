// Eigen's matrices as managed tensors, and any tensor as a Map.

#include <Eigen/Core>
#include <cstdlib>
#include <dlbridge/tensor_view.hpp>
#include <memory>

// [eigen]
// Moved into the tensor, not copied; of any storage order.
template <typename T, int Rows, int Columns, int Options>
dlbridge::ManagedTensor own(Eigen::Matrix<T, Rows, Columns, Options> matrix) {
  auto kept = std::make_shared<decltype(matrix)>(std::move(matrix));
  return dlbridge::ManagedTensor::own(kept->data(), {kept->rows(), kept->cols()},
                                      {kept->rowStride(), kept->colStride()}, kept);
}

// A look with the strides of the view, none of which may be negative.
template <typename T>
auto map(const dlbridge::TensorView<T, 2>& view) {
  using Matrix = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic>;
  using Seen = std::conditional_t<std::is_const_v<T>, const Matrix, Matrix>;
  using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;  // of columns, then of rows
  return Eigen::Map<Seen, Eigen::Unaligned, Strides>(view.data(), view.extent(0), view.extent(1),
                                                     Strides(view.stride(1), view.stride(0)));
}
// [eigen]

int main() {
  Eigen::MatrixXf matrix(2, 3);
  matrix << 0, 1, 2, 3, 4, 5;
  const float* const data = matrix.data();
  const dlbridge::ManagedTensor tensor = own(std::move(matrix));
  const dlbridge::TensorView<float, 2> view(tensor);
  auto mapped = map(view.slice(1, 1, 3));
  mapped *= 2;
  const bool right = tensor.data() == data && view(1, 0) == 3 && view(0, 1) == 2 &&
                     view(1, 2) == 10 &&
                     map(dlbridge::TensorView<const float, 2>(view)).sum() == 27;
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
