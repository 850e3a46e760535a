#pragma once

// What happens to one element on its way, for the device and, compiled from the same source, for
// tests on the host. The values are those of copy_elements(): bits of a NaN aside, exactly.

#include <bit>
#include <cstdint>
#include <type_traits>

#include "copy/numbers.hpp"

#ifdef __CUDACC__
#define DLBRIDGE_BOTH __host__ __device__
#else
#define DLBRIDGE_BOTH
#endif

namespace dlbridge::cuda {

using detail::kNumber;
using detail::Number;
using detail::Sign;

/// What happens to one element: swap bytes, flip signs, cast.
struct ElementChange {
  bool swap_bytes = false;
  bool cast = false;
  Sign real = Sign::kKeep;  // of every number that is not an imaginary part
  Sign imaginary = Sign::kKeep;
  Number from = Number::kNone;  // only read where `cast`
  Number to = Number::kNone;
  std::uint8_t source_numbers = 1;  // 2: complex
  std::uint8_t target_numbers = 1;  // 2 with one of the source: an imaginary zero is added
  std::uint8_t source_width = 1;    // bytes of a number: 1, 2, 4 or 8
  std::uint8_t target_width = 1;
};

/// An element of up to 16 bytes, the first byte lowest. The machine is little-endian.
struct alignas(16) Lane {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
};

DLBRIDGE_BOTH constexpr std::uint64_t low_bytes(std::uint64_t bits, unsigned width) {
  return width == 8 ? bits : bits & ((std::uint64_t{1} << (8 * width)) - 1);
}

DLBRIDGE_BOTH constexpr std::uint64_t number_of(const Lane& lane, unsigned index, unsigned width) {
  if (width == 8) {
    return index == 0 ? lane.low : lane.high;
  }
  return low_bytes(lane.low >> (8 * width * index), width);
}

DLBRIDGE_BOTH constexpr void add_number(Lane& lane, unsigned index, unsigned width,
                                        std::uint64_t bits) {
  if (width == 8 && index == 1) {
    lane.high = bits;
  } else {
    lane.low |= low_bytes(bits, width) << (8 * width * index);
  }
}

DLBRIDGE_BOTH constexpr std::uint64_t swapped(std::uint64_t bits, unsigned width) {
  std::uint64_t result = 0;
  for (unsigned i = 0; i < 8; ++i) {
    result = (result << 8) | ((bits >> (8 * i)) & 0xff);
  }
  return result >> (64 - 8 * width);
}

DLBRIDGE_BOTH constexpr std::uint64_t with_sign(std::uint64_t bits, unsigned width, Sign sign) {
  const std::uint64_t top = std::uint64_t{1} << (8 * width - 1);
  switch (sign) {
    case Sign::kKeep:
      return bits;
    case Sign::kFlip:
      return bits ^ top;
    case Sign::kMinus:
      return 0 - bits;  // only the low bytes are stored
    case Sign::kFlipUnlessZero:
      return (bits & (top - 1)) != 0 ? bits ^ top : bits;
    case Sign::kNan:
      return detail::Float8E8M0::kNan;
  }
  return bits;
}

/// What does not fit wraps, or becomes the least integer; as in copy_elements().
template <class From>
DLBRIDGE_BOTH constexpr std::uint64_t integer_of(From value, Number to) {
  if constexpr (std::is_floating_point_v<From>) {
    const bool wide =
        to == kNumber<std::int64_t> || to == kNumber<std::uint64_t> || to == kNumber<std::uint32_t>;
    const From end = wide ? 9223372036854775808.0F : 2147483648.0F;
    if (to == kNumber<std::uint64_t> && value >= end) {
      return integer_of(value - end, kNumber<std::int64_t>) + (std::uint64_t{1} << 63);
    }
    const bool fits = value >= -end && value < end;
    const std::int64_t least = wide ? INT64_MIN : INT32_MIN;
    return static_cast<std::uint64_t>(fits ? static_cast<std::int64_t>(value) : least);
  } else {
    return static_cast<std::uint64_t>(value);
  }
}

/// Code and value of a small float, whose row is looked for from kRow on.
template <std::size_t kRow = detail::kPlainRows>
DLBRIDGE_BOTH constexpr std::uint64_t small_float_code(Number to, float value) {
  if constexpr (kRow + 1 < detail::kNumberRows) {
    if (to != Number{kRow}) {
      return small_float_code<kRow + 1>(to, value);
    }
  }
  return detail::HeldIn<kRow>::encode(value);
}

template <std::size_t kRow = detail::kPlainRows>
DLBRIDGE_BOTH constexpr float small_float_value(Number from, std::uint32_t code) {
  if constexpr (kRow + 1 < detail::kNumberRows) {
    if (from != Number{kRow}) {
      return small_float_value<kRow + 1>(from, code);
    }
  }
  return detail::HeldIn<kRow>::decode(code);
}

// By width, the signed ones first.
DLBRIDGE_BOTH constexpr bool is_integer(Number number) {
  return number >= kNumber<std::int8_t> && number <= kNumber<std::uint64_t>;
}

/// The bits of the target's number, in the low bytes.
template <class From>
DLBRIDGE_BOTH constexpr std::uint64_t bits_of(From value, Number to) {
  if (to == kNumber<detail::Truth>) {
    return value != From{0} ? 1 : 0;
  }
  if (is_integer(to)) {
    return integer_of(value, to);
  }
  if (to == kNumber<float>) {
    return std::bit_cast<std::uint32_t>(static_cast<float>(value));
  }
  if (to == kNumber<double>) {
    return std::bit_cast<std::uint64_t>(static_cast<double>(value));
  }
  if constexpr (std::is_same_v<From, double>) {
    if (to == kNumber<detail::Float16>) {
      return detail::float16_from_double(value);
    }
  }
  return small_float_code(to, static_cast<float>(value));
}

/// By way of the widest number of the source's kind, which holds each of them as it is. From there
/// on as in copy_elements(): straight to the target, but to small floats by way of float, for which
/// only float64 to float16 is an exception.
DLBRIDGE_BOTH constexpr std::uint64_t cast_bits(std::uint64_t bits, Number from, Number to) {
  if (from == kNumber<detail::Truth>) {
    return bits_of(std::uint64_t{bits != 0 ? 1U : 0U}, to);
  }
  if (is_integer(from)) {
    if (from > kNumber<std::int64_t>) {
      return bits_of(bits, to);
    }
    const int doublings = static_cast<int>(from) - static_cast<int>(kNumber<std::int8_t>);
    const int unused = 64 - (8 << doublings);
    return bits_of(static_cast<std::int64_t>(bits << unused) >> unused, to);
  }
  if (from == kNumber<double>) {
    return bits_of(std::bit_cast<double>(bits), to);
  }
  const auto code = static_cast<std::uint32_t>(bits);
  return bits_of(
      from == kNumber<float> ? std::bit_cast<float>(code) : small_float_value(from, code), to);
}

DLBRIDGE_BOTH constexpr Lane changed(const ElementChange& change, const Lane& source) {
  Lane target;
  for (unsigned i = 0; i < change.source_numbers; ++i) {
    std::uint64_t bits = number_of(source, i, change.source_width);
    if (change.swap_bytes) {
      bits = swapped(bits, change.source_width);
    }
    bits = with_sign(bits, change.source_width, i == 0 ? change.real : change.imaginary);
    if (change.cast) {
      bits = cast_bits(low_bytes(bits, change.source_width), change.from, change.to);
    }
    add_number(target, i, change.target_width, bits);
  }
  return target;  // an imaginary part that the source lacks is zero already: no format's zero is
                  // not
}

}  // namespace dlbridge::cuda
