#pragma once

#include <bit>
#include <cstdint>

#include "copy/simd.hpp"

namespace dlbridge::detail {

// Compilers vectorise this even for baseline x86-64, which compares signed numbers only and knows
// no blend. No operand here ever has the top bit.
[[nodiscard]] DLBRIDGE_INLINE constexpr std::uint32_t choose_if_less(std::uint32_t a,
                                                                     std::uint32_t b,
                                                                     std::uint32_t chosen,
                                                                     std::uint32_t otherwise) {
  const bool less = static_cast<std::int32_t>(a) < static_cast<std::int32_t>(b);
  const std::uint32_t mask = less ? ~0U : 0U;
  return (chosen & mask) | (otherwise & ~mask);
}

/// What a small float format does with the codes of its highest exponent, and with its negative
/// zero.
enum class Specials {
  kIeee,     // the highest exponent is infinity and NaN
  kFinite,   // no infinity; NaN is all ones
  kUnsigned  // no infinity, no negative zero; NaN is the code that negative zero would have
};

/// A float of up to 16 bits with a sign; the largest exponent lies within that of float.
/// Encoding follows ml_dtypes: to nearest even, too large a value becomes infinity or else NaN.
template <int kExponentBits, int kMantissaBits, int kBias, Specials kSpecials>
struct SmallFloat {
  static constexpr int kValueBits = kExponentBits + kMantissaBits;
  static constexpr std::uint32_t kSign = 1U << kValueBits;
  static constexpr std::uint32_t kTopExponent = ((1U << kExponentBits) - 1U) << kMantissaBits;
  static constexpr std::uint32_t kNan = kSpecials == Specials::kIeee
                                            ? kTopExponent | (1U << (kMantissaBits - 1))
                                            : (kSpecials == Specials::kFinite ? kSign - 1U : kSign);
  static constexpr std::uint32_t kLargest =
      kSpecials == Specials::kIeee ? kTopExponent - 1U
                                   : (kSpecials == Specials::kFinite ? kSign - 2U : kSign - 1U);
  static constexpr std::uint32_t kOverflow = kSpecials == Specials::kIeee ? kTopExponent : kNan;

  // Without branches, so that compilers vectorise the loops around it.
  [[nodiscard]] DLBRIDGE_INLINE static constexpr float decode(std::uint32_t code) {
    constexpr int kUp = 23 - kMantissaBits;
    constexpr auto kRebias = static_cast<std::uint32_t>(127 - kBias) << 23;
    // 2^(1 - bias - mantissa bits): the value of the smallest subnormal.
    constexpr auto kStep =
        std::bit_cast<float>(static_cast<std::uint32_t>(128 - kBias - kMantissaBits) << 23);
    const std::uint32_t value = code & (kSign - 1U);
    const std::uint32_t normal = (value << kUp) + kRebias;
    const auto subnormal =
        std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(value)) * kStep);
    std::uint32_t bits = choose_if_less(value, 1U << kMantissaBits, subnormal, normal);
    if constexpr (kSpecials == Specials::kIeee) {
      bits = choose_if_less(value, kTopExponent, bits, (value << kUp) | 0x7f800000U);
    } else {
      bits = (kSpecials == Specials::kFinite ? value : code) == kNan ? 0x7fc00000U : bits;
    }
    return std::bit_cast<float>(bits | ((code & kSign) << (31 - kValueBits)));
  }

  [[nodiscard]] DLBRIDGE_INLINE static constexpr std::uint32_t encode(float number) {
    constexpr int kDown = 23 - kMantissaBits;
    constexpr auto kRebias = static_cast<std::uint32_t>(127 - kBias) << 23;
    constexpr std::uint32_t kSmallestNormal = static_cast<std::uint32_t>(128 - kBias) << 23;
    // Added to a subnormal it pushes out, rounding, what the target's mantissa cannot hold.
    constexpr std::uint32_t kMagic = static_cast<std::uint32_t>(127 - kBias + 1 + kDown) << 23;
    const auto all = std::bit_cast<std::uint32_t>(number);
    const std::uint32_t magnitude = all & 0x7fffffffU;
    const std::uint32_t odd = (magnitude >> kDown) & 1U;
    // Unsigned on purpose: below the smallest normal this wraps, and is not used.
    const std::uint32_t normal = (magnitude - kRebias + ((1U << (kDown - 1)) - 1U) + odd) >> kDown;
    const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) +
                                                                 std::bit_cast<float>(kMagic)) -
                                    kMagic;
    std::uint32_t code = choose_if_less(magnitude, kSmallestNormal, subnormal, normal);
    code = choose_if_less(kLargest, code, kOverflow, code);
    code = choose_if_less(0x7f800000U, magnitude, kNan, code);
    const std::uint32_t sign = (all >> (31 - kValueBits)) & kSign;
    if constexpr (kSpecials == Specials::kUnsigned) {
      return code == 0U ? 0U : code | sign;
    }
    return code | sign;
  }
};

using Float16 = SmallFloat<5, 10, 15, Specials::kIeee>;
using Float8E3M4 = SmallFloat<3, 4, 3, Specials::kIeee>;
using Float8E4M3 = SmallFloat<4, 3, 7, Specials::kIeee>;
using Float8E5M2 = SmallFloat<5, 2, 15, Specials::kIeee>;
using Float8E4M3Fn = SmallFloat<4, 3, 7, Specials::kFinite>;
using Float8E4M3Fnuz = SmallFloat<4, 3, 8, Specials::kUnsigned>;
using Float8E4M3B11Fnuz = SmallFloat<4, 3, 11, Specials::kUnsigned>;
using Float8E5M2Fnuz = SmallFloat<5, 2, 16, Specials::kUnsigned>;

/// The upper half of a float.
struct Bfloat16 {
  [[nodiscard]] DLBRIDGE_INLINE static constexpr float decode(std::uint32_t code) {
    return std::bit_cast<float>(code << 16);
  }
  [[nodiscard]] DLBRIDGE_INLINE static constexpr std::uint32_t encode(float number) {
    const auto bits = std::bit_cast<std::uint32_t>(number);
    const std::uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    const std::uint32_t nan = ((bits >> 16) & 0x8000U) | 0x7fc0U;
    return choose_if_less(0x7f800000U, bits & 0x7fffffffU, nan, rounded);
  }
};

/// A power of two, 2^-127 to 2^127, and NaN: no sign, no zero.
struct Float8E8M0 {
  static constexpr std::uint32_t kNan = 0xffU;
  [[nodiscard]] DLBRIDGE_INLINE static constexpr float decode(std::uint32_t code) {
    const std::uint32_t bits = code == 0U ? 0x00400000U : code << 23;
    return std::bit_cast<float>(code == kNan ? 0x7fc00000U : bits);
  }
  /// As ml_dtypes: ties go up, zero and negative values are NaN, and what lies between 2^-127 and
  /// 2^-126 (subnormal in float) goes up too.
  [[nodiscard]] DLBRIDGE_INLINE static constexpr std::uint32_t encode(float number) {
    const auto bits = std::bit_cast<std::uint32_t>(number);
    const std::uint32_t nearest = bits <= 0x00400000U ? 0U : (bits + 0x00400000U) >> 23;
    // Negative values have the top bit, so they are large here; 0 wraps round to the largest.
    return bits - 1U >= 0x7f400000U - 1U ? kNan : nearest;
  }
};

/// Straight from double: by way of float it would round twice. (ml_dtypes goes by way of float for
/// its own types, NumPy does not for float16.)
[[nodiscard]] DLBRIDGE_INLINE constexpr std::uint32_t float16_from_double(double number) {
  const auto bits = std::bit_cast<std::uint64_t>(number);
  // Rounding to odd first keeps in the last bit of a float whether anything was cut off, and a
  // float has enough bits more than a float16 for the second rounding to be the only one.
  auto as_float = std::bit_cast<std::uint32_t>(static_cast<float>(number));
  const double back = static_cast<double>(std::bit_cast<float>(as_float));
  if (back != number && number == number && (as_float & 1U) == 0U) {
    const bool too_far =
        (back < 0 ? -back : back) > std::bit_cast<double>(bits & 0x7fffffffffffffffULL);
    as_float += too_far ? ~0U : 1U;
  }
  return Float16::encode(std::bit_cast<float>(as_float));
}

}  // namespace dlbridge::detail
