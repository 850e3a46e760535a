#pragma once

#include <optional>

#include "dlbridge/dtype.hpp"

// Types that stand near another: wider, narrower, of the same width.

namespace dlbridge::detail {

// The type that holds every value of `narrow` and that every library has.
inline std::optional<DType> widened(DType narrow) {
  switch (narrow.code) {
    case kDLBfloat:
      return DType{kDLFloat, 32};
    case kDLComplex:
      return narrow.bits < 64 ? std::optional<DType>({kDLComplex, 64}) : std::nullopt;
    default:
      if (narrow.code >= kDLFloat8_e3m4 && narrow.code <= kDLFloat8_e8m0fnu) {
        return DType{kDLFloat, 32};
      }
      return std::nullopt;
  }
}

// The unsigned integer of the same width, for a look at the bits.
inline std::optional<DType> same_width_integer(DType dtype) {
  const auto bits = dtype.element_bits();
  if (bits == 8 || bits == 16 || bits == 32 || bits == 64) {
    return DType{kDLUInt, static_cast<int>(bits)};
  }
  return std::nullopt;
}

// Whether every value of `narrow` is one of `wide`'s, which is another type.
inline bool holds(DType wide, DType narrow) {
  if (wide.lanes != 1 || narrow.lanes != 1) {
    return false;
  }
  switch (narrow.code) {
    case kDLBool:
      return wide.kind() == DType::Kind::kInteger && wide.bits >= 8;
    case kDLUInt:
      return wide.kind() == DType::Kind::kInteger && wide.bits > narrow.bits;
    case kDLInt:
    case kDLFloat:
    case kDLComplex:
      return wide.is(narrow.code) && wide.bits > narrow.bits;
    case kDLOpaqueHandle:
      return false;
    default:
      return wide.is(kDLFloat) && wide.bits >= 32;
  }
}

// The 32-bit sibling of a 64-bit type: what a library without the one may have.
inline std::optional<DType> narrower(DType dtype) {
  const int half = dtype.bits / 2;
  const bool wide = dtype.lanes == 1 && (dtype.is(kDLComplex) ? half == 64 : half == 32);
  return wide ? std::optional<DType>({dtype.code, half}) : std::nullopt;
}

}  // namespace dlbridge::detail
