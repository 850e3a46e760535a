#pragma once

// What both extensions bind, for tests/python/targets/test_casters.py.

#include <cstddef>
#include <cstdint>
#include <dlbridge/error.hpp>
#include <dlbridge/managed_tensor.hpp>
#include <dlbridge/needs.hpp>
#include <dlbridge/python_error.hpp>
#include <dlbridge/results.hpp>
#include <dlbridge/tensor_view.hpp>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace casters {

using Matrix = dlbridge::TensorView<float, 2>;
using ConstMatrix = dlbridge::TensorView<const float, 2>;
using ConstVector = dlbridge::TensorView<const std::int64_t, 1>;
using Row = dlbridge::TensorView<float, 1>;
using ConstRow = dlbridge::TensorView<const float, 1>;

inline std::int64_t rows(const dlbridge::ManagedTensor& tensor) {
  return tensor.shape()[0];
}
inline std::int64_t rows_of_view(const ConstMatrix& matrix) {
  return matrix.extent(0);
}

/// As many arguments as a kernel has.
inline std::int64_t rows_of_eight(const ConstMatrix& a, const ConstMatrix& b, const ConstMatrix& c,
                                  const ConstMatrix& d, const ConstMatrix& e, const ConstMatrix& f,
                                  const ConstMatrix& g, const ConstMatrix& h) {
  return a.extent(0) + b.extent(0) + c.extent(0) + d.extent(0) + e.extent(0) + f.extent(0) +
         g.extent(0) + h.extent(0);
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

inline void scale(Row row, float by) {
  for (std::int64_t i = 0; i < row.extent(0); ++i) {
    row(i) *= by;
  }
}

/// One under which the argument's elements are next to each other, one that always copies, and one
/// that casts.
inline bool is_packed(const dlbridge::Needs<ConstMatrix, dlbridge::CContiguous>& matrix) {
  return matrix.stride(1) == 1 && matrix.stride(0) == matrix.extent(1);
}
inline std::uintptr_t address_of_snapshot(
    const dlbridge::Needs<dlbridge::ManagedTensor, dlbridge::Snapshot>& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.data());
}
inline double sum_cast(const dlbridge::Needs<ConstMatrix, dlbridge::Casting>& matrix) {
  return sum(matrix);
}
inline void fill_strictly(dlbridge::Needs<Matrix, dlbridge::Strict> matrix, float value) {
  fill(matrix, value);
}

inline std::int64_t rows_or_none(const std::optional<dlbridge::ManagedTensor>& tensor) {
  return tensor ? rows(*tensor) : -1;
}
inline double sum_or_none(const std::optional<ConstMatrix>& matrix) {
  return matrix ? sum(*matrix) : -1;
}
inline std::size_t rows_of_all(const std::vector<dlbridge::ManagedTensor>& tensors) {
  std::size_t total = 0;
  for (const auto& tensor : tensors) {
    total += static_cast<std::size_t>(rows(tensor));
  }
  return total;
}

inline std::int64_t rows_or_none_taken(std::optional<dlbridge::ManagedTensor> tensor) {
  const auto taken = std::move(tensor);
  return taken ? rows(*taken) : -1;
}
inline std::size_t count_of_none(
    const std::vector<std::optional<dlbridge::ManagedTensor>>& tensors) {
  std::size_t none = 0;
  for (const auto& tensor : tensors) {
    none += tensor ? 0 : 1;
  }
  return none;
}

/// What a body throws.
inline void refuse_in_body() {
  throw dlbridge::ConversionRefused("refused in the body", {"the reason"}, "the fix");
}
inline double first_of(const dlbridge::ManagedTensor& tensor) {
  return dlbridge::TensorView<const double, 1>(tensor)(0);
}
inline void fail_otherwise() {
  throw std::invalid_argument("not a refusal");
}
inline void fail_in_python() {
  PyErr_SetString(PyExc_KeyError, "of Python's");
  throw dlbridge::PythonError();
}
inline dlbridge::ManagedTensor empty() {
  return {};
}

/// Whether nobody may write to it.
inline bool is_read_only(const dlbridge::ManagedTensor& tensor) {
  return tensor.readonly();
}

inline dlbridge::ManagedTensor counted() {
  auto tensor = dlbridge::ManagedTensor::allocate(dlbridge::dtype_of<float>(), {2, 3});
  const Matrix matrix(tensor);
  for (std::int64_t i = 0; i < 6; ++i) {
    matrix(i / 3, i % 3) = static_cast<float>(i);
  }
  return tensor;
}

inline std::optional<dlbridge::ManagedTensor> counted_or_none(bool some) {
  return some ? std::optional(counted()) : std::nullopt;
}
inline dlbridge::In<"torch"> counted_in_torch() {
  return counted();
}
inline dlbridge::In<"nowhere"> counted_nowhere() {
  return counted();
}
inline dlbridge::Like like(const dlbridge::FromPython<ConstMatrix>& matrix) {
  return matrix.like(dlbridge::ManagedTensor::own(std::vector<float>{1, 2, 3}));
}
inline dlbridge::Like like_any(const dlbridge::FromPython<dlbridge::ManagedTensor>& tensor) {
  return tensor.like(tensor.share());
}
inline double sum_of_any(const dlbridge::TensorView<const double, dlbridge::kDynamicRank>& view) {
  double total = 0;
  for (const double element : view) {
    total += element;
  }
  return total;
}
inline std::uintptr_t stream_of(const dlbridge::DeviceView<const float, 1>& view) {
  return reinterpret_cast<std::uintptr_t>(view.stream().handle);
}
inline std::int32_t type_of_device(const dlbridge::Needs<dlbridge::DeviceView<const float, 1>,
                                                         dlbridge::OnDevice<kDLExtDev>>& view) {
  return view.device().type;
}
inline std::int64_t rows_alone(const dlbridge::Needs<ConstMatrix, dlbridge::Alone>& matrix) {
  return matrix.extent(0);
}

inline dlbridge::ManagedTensor same(const dlbridge::ManagedTensor& tensor) {
  return tensor.share();
}

}  // namespace casters
