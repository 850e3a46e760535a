#pragma once

#include <array>
#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "dlbridge/dtype.hpp"
#include "dlbridge/error.hpp"
#include "dlbridge/managed_tensor.hpp"

namespace dlbridge {

/// The DType of a C++ element type; types that DLPack and C++ do not share have none.
template <typename T>
[[nodiscard]] constexpr DType dtype_of() {
  using Element = std::remove_const_t<T>;
  constexpr int bits = static_cast<int>(8 * sizeof(Element));
  if constexpr (std::same_as<Element, bool>) {
    return {kDLBool, 8};
  } else if constexpr (std::integral<Element>) {
    return {std::is_signed_v<Element> ? kDLInt : kDLUInt, bits};
  } else if constexpr (std::same_as<Element, float> || std::same_as<Element, double>) {
    return {kDLFloat, bits};
  } else {
    static_assert(
        std::same_as<Element, std::complex<float>> || std::same_as<Element, std::complex<double>>,
        "no DLPack type corresponds to this C++ type");
    return {kDLComplex, bits};
  }
}

/// A borrowed, typed look at host memory: T is the element, const where it is only read; Rank is
/// the number of dimensions. Indexed like std::mdspan, with any strides.
///
/// The managed tensor must outlive the view. Strides are in elements.
template <typename T, std::size_t Rank>
class TensorView {
 public:
  using element_type = T;

  /// Throws ConversionRefused when the tensor is of another type or rank, is not readable by the
  /// processor, or is read-only while T is not const.
  explicit TensorView(const ManagedTensor& tensor) : data_(static_cast<T*>(tensor.data())) {
    if (tensor.dtype() != dtype_of<T>()) {
      refuse("of dtype " + to_string(tensor.dtype()), "the view reads " + to_string(dtype_of<T>()));
    }
    if (static_cast<std::size_t>(tensor.ndim()) != Rank) {
      refuse("of " + std::to_string(tensor.ndim()) + " dimensions",
             "the view has " + std::to_string(Rank));
    }
    if (!tensor.device().host_accessible()) {
      refuse("on " + to_string(tensor.device()), "the view reads host memory");
    }
    if (!std::is_const_v<T> && tensor.readonly()) {
      refuse("that nobody may write to", "take a view of const elements");
    }
    for (std::size_t i = 0; i < Rank; ++i) {
      extents_[i] = tensor.shape()[i];
      strides_[i] = tensor.strides()[i];
    }
    if (size() != 0 && reinterpret_cast<std::uintptr_t>(data_) % alignof(T) != 0) {
      refuse("at an unaligned address",
             "a " + to_string(dtype_of<T>()) + " needs " + std::to_string(alignof(T)) + " bytes");
    }
  }
  // A view of a temporary would dangle at the end of the line.
  explicit TensorView(ManagedTensor&&) = delete;

  [[nodiscard]] static constexpr std::size_t rank() noexcept { return Rank; }
  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] std::int64_t extent(std::size_t dimension) const noexcept {
    return extents_[dimension];
  }
  [[nodiscard]] std::int64_t stride(std::size_t dimension) const noexcept {
    return strides_[dimension];
  }
  [[nodiscard]] std::int64_t size() const noexcept {
    std::int64_t count = 1;
    for (auto extent : extents_) {
      count *= extent;
    }
    return count;
  }

  /// Not checked against the extents; at() is.
  template <std::convertible_to<std::int64_t>... Index>
  requires(sizeof...(Index) == Rank) [[nodiscard]] T& operator()(Index... index) const noexcept {
    const std::array<std::int64_t, Rank> indices{static_cast<std::int64_t>(index)...};
    std::int64_t offset = 0;
    for (std::size_t i = 0; i < Rank; ++i) {
      offset += indices[i] * strides_[i];
    }
    return data_[offset];
  }

  /// Throws std::out_of_range.
  template <std::convertible_to<std::int64_t>... Index>
  requires(sizeof...(Index) == Rank) [[nodiscard]] T& at(Index... index) const {
    const std::array<std::int64_t, Rank> indices{static_cast<std::int64_t>(index)...};
    for (std::size_t i = 0; i < Rank; ++i) {
      if (indices[i] < 0 || indices[i] >= extents_[i]) {
        throw std::out_of_range("index " + std::to_string(indices[i]) + " in dimension " +
                                std::to_string(i) + " of size " + std::to_string(extents_[i]));
      }
    }
    return (*this)(index...);
  }

 private:
  [[noreturn]] static void refuse(const std::string& met, const std::string& why) {
    throw ConversionRefused("cannot look at a managed tensor " + met + " (" + why + ")",
                            {"a managed tensor " + met + ": " + why});
  }

  T* data_;
  std::array<std::int64_t, Rank> extents_{};
  std::array<std::int64_t, Rank> strides_{};
};

}  // namespace dlbridge
