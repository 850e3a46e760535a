#pragma once

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
///     struct dlbridge::ElementType<mine::Half> : dlbridge::ElementOf<kDLFloat, 16> {};
///
/// dlbridge/torch_elements.hpp does so for c10's types, dlbridge/cuda_elements.hpp for CUDA's.
template <typename T>
struct ElementType;

/// A base for such a specialisation.
template <int kCode, int kBits>
struct ElementOf {
  static constexpr DType kDType{kCode, kBits};
};

/// std::complex of float and double, and what is like it. Told by what it has, since its header
/// takes as long to compile as half of dlbridge's.
template <typename T>
concept ComplexNumber = requires(const T& number) {
  { number.imag() } -> std::same_as<typename T::value_type>;
  requires std::same_as<typename T::value_type, float> ||
      std::same_as<typename T::value_type, double>;
  requires sizeof(T) == 2 * sizeof(typename T::value_type);
};

template <std::integral T>
struct ElementType<T> : ElementOf<std::is_signed_v<T> ? kDLInt : kDLUInt, 8 * sizeof(T)> {};
template <>
struct ElementType<bool> : ElementOf<kDLBool, 8> {};
template <>
struct ElementType<std::byte> : ElementOf<kDLUInt, 8> {};
template <>
struct ElementType<float> : ElementOf<kDLFloat, 32> {};
template <>
struct ElementType<double> : ElementOf<kDLFloat, 64> {};
// Before 13, GCC knows it in C++ on x86 alone.
#if defined(__FLT16_MAX__) && !defined(__CUDACC__) && \
    (defined(__x86_64__) || defined(__clang__) || __GNUC__ >= 13)
template <>
struct ElementType<_Float16> : ElementOf<kDLFloat, 16> {};
#endif
template <ComplexNumber T>
struct ElementType<T> : ElementOf<kDLComplex, 16 * sizeof(typename T::value_type)> {};

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
