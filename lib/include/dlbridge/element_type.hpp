#pragma once

#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "dlbridge/dtype.hpp"

namespace dlbridge {

/// The DType of a C++ element type. For a type that dlbridge does not know, specialise it where the
/// type is declared:
///
///     template <>
///     struct dlbridge::ElementType<mine::Half> {
///       static constexpr DType kDType{kDLFloat, 16};
///     };
///
/// dlbridge/torch_elements.hpp does so for c10's types, dlbridge/cuda_elements.hpp for CUDA's.
template <typename T>
struct ElementType;

template <std::integral T>
struct ElementType<T> {
  static constexpr DType kDType{std::is_signed_v<T> ? kDLInt : kDLUInt,
                                static_cast<int>(8 * sizeof(T))};
};
template <>
struct ElementType<bool> {
  static constexpr DType kDType{kDLBool, 8};
};
template <>
struct ElementType<std::byte> {
  static constexpr DType kDType{kDLUInt, 8};
};
template <>
struct ElementType<float> {
  static constexpr DType kDType{kDLFloat, 32};
};
template <>
struct ElementType<double> {
  static constexpr DType kDType{kDLFloat, 64};
};
// Before 13, GCC knows it in C++ on x86 alone.
#if defined(__FLT16_MAX__) && !defined(__CUDACC__) && \
    (defined(__x86_64__) || defined(__clang__) || __GNUC__ >= 13)
template <>
struct ElementType<_Float16> {
  static constexpr DType kDType{kDLFloat, 16};
};
#endif
template <typename T>
requires std::same_as<T, float> || std::same_as<T, double>
struct ElementType<std::complex<T>> {
  static constexpr DType kDType{kDLComplex, static_cast<int>(16 * sizeof(T))};
};

/// A C++ type that elements can be read as.
template <typename T>
concept Element = requires {
  { ElementType<std::remove_const_t<T>>::kDType } -> std::convertible_to<DType>;
};

/// The DType of a C++ element type, const or not.
template <typename T>
[[nodiscard]] constexpr DType dtype_of() {
  static_assert(Element<T>,
                "no DLPack type is known for this T: specialise dlbridge::ElementType<T>");
  constexpr DType kDType = ElementType<std::remove_const_t<T>>::kDType;
  static_assert(kDType.element_bits() == static_cast<std::int64_t>(8 * sizeof(T)),
                "dlbridge::ElementType<T> names a DLPack type of another size than T");
  return kDType;
}

}  // namespace dlbridge
