#pragma once

// What both extensions bind, for tests/python/targets/test_casters.py.

#include <array>
#include <cstdint>
#include <dlbridge/managed_tensor.hpp>
#include <dlbridge/tensor_view.hpp>
#include <utility>

namespace casters {

using Matrix = dlbridge::TensorView<float, 2>;
using ConstMatrix = dlbridge::TensorView<const float, 2>;
using ConstVector = dlbridge::TensorView<const std::int64_t, 1>;

inline std::int64_t rows(const dlbridge::ManagedTensor& tensor) {
  return tensor.shape()[0];
}
inline std::int64_t rows_of_view(const ConstMatrix& matrix) {
  return matrix.extent(0);
}

inline double sum(const ConstMatrix& matrix) {
  double total = 0;
  for (std::int64_t i = 0; i < matrix.extent(0); ++i) {
    for (std::int64_t j = 0; j < matrix.extent(1); ++j) {
      total += matrix(i, j);
    }
  }
  return total;
}

inline void fill(Matrix matrix, float value) {
  for (std::int64_t i = 0; i < matrix.extent(0); ++i) {
    for (std::int64_t j = 0; j < matrix.extent(1); ++j) {
      matrix(i, j) = value;
    }
  }
}

/// Whether nobody may write to it.
inline bool is_read_only(const dlbridge::ManagedTensor& tensor) {
  return tensor.readonly();
}

inline dlbridge::ManagedTensor counted() {
  const std::array<std::int64_t, 2> shape{2, 3};
  auto tensor = dlbridge::ManagedTensor::allocate(dlbridge::dtype_of<float>(), shape);
  const Matrix matrix(tensor);
  for (std::int64_t i = 0; i < 6; ++i) {
    matrix(i / 3, i % 3) = static_cast<float>(i);
  }
  return tensor;
}

inline dlbridge::ManagedTensor same(const dlbridge::ManagedTensor& tensor) {
  return tensor.share();
}

}  // namespace casters
