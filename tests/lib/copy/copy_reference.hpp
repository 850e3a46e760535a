#pragma once

// What a copy shall make of one element, written to be right and not to be fast: small floats by
// the book, the nearest code by search.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>

#include "dlbridge/copy.hpp"

namespace dlbridge::copy_reference {

// ---- small floats, by the book ------------------------------------------------------------------

struct Format {
  int exponent_bits;
  int mantissa_bits;
  int bias;
  bool infinity;    // the highest exponent is infinity and NaN
  bool no_minus_0;  // NaN is the code that negative zero would have
};

inline const std::map<int, Format>& formats() {
  static const std::map<int, Format> all = {
      {kDLBfloat, {8, 7, 127, true, false}},
      {kDLFloat, {5, 10, 15, true, false}},  // of 16 bits
      {kDLFloat8_e3m4, {3, 4, 3, true, false}},
      {kDLFloat8_e4m3, {4, 3, 7, true, false}},
      {kDLFloat8_e5m2, {5, 2, 15, true, false}},
      {kDLFloat8_e4m3fn, {4, 3, 7, false, false}},
      {kDLFloat8_e4m3fnuz, {4, 3, 8, false, true}},
      {kDLFloat8_e4m3b11fnuz, {4, 3, 11, false, true}},
      {kDLFloat8_e5m2fnuz, {5, 2, 16, false, true}},
  };
  return all;
}

// As if every code stood for a number: what would come after the largest has a value too.
inline double magnitude_of(const Format& f, std::uint32_t code) {
  const auto mantissa = static_cast<int>(code & ((1U << f.mantissa_bits) - 1));
  const auto exponent = static_cast<int>(code >> f.mantissa_bits);
  return exponent == 0
             ? std::ldexp(mantissa, 1 - f.bias - f.mantissa_bits)
             : std::ldexp(mantissa + (1 << f.mantissa_bits), exponent - f.bias - f.mantissa_bits);
}

struct Codes {
  std::uint32_t sign, largest, overflow, nan;
};

inline Codes codes_of(const Format& f) {
  const std::uint32_t sign = 1U << (f.exponent_bits + f.mantissa_bits);
  const std::uint32_t top = sign - (1U << f.mantissa_bits);
  if (f.infinity) {
    return {sign, top - 1, top, top + (1U << (f.mantissa_bits - 1))};
  }
  return f.no_minus_0 ? Codes{sign, sign - 1, sign, sign}
                      : Codes{sign, sign - 2, sign - 1, sign - 1};
}

inline double decode(DType dtype, std::uint32_t code) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (dtype.is(kDLFloat8_e8m0fnu)) {
    return code == 255 ? nan : std::ldexp(1, static_cast<int>(code) - 127);
  }
  const Format& f = formats().at(dtype.code);
  const Codes codes = codes_of(f);
  const std::uint32_t magnitude = code & (codes.sign - 1);
  if (f.no_minus_0 ? code == codes.nan : magnitude > codes.overflow) {
    return nan;
  }
  if (!f.no_minus_0 && magnitude == codes.overflow) {
    const double infinity = std::numeric_limits<double>::infinity();
    return f.infinity ? (code >= codes.sign ? -infinity : infinity) : nan;
  }
  const double value = magnitude_of(f, magnitude);
  return code >= codes.sign ? -value : value;
}

inline std::uint32_t encode(DType dtype, double value) {
  if (dtype.is(kDLFloat8_e8m0fnu)) {
    if (!(value > 0) || value >= 1.5 * std::ldexp(1, 127)) {
      return 255;
    }
    if (value < std::ldexp(1, -126)) {
      return value > std::ldexp(1, -127) ? 1 : 0;  // an oddity of ml_dtypes
    }
    int exponent = 0;
    const double fraction = std::frexp(value, &exponent);  // of [0.5, 1)
    return static_cast<std::uint32_t>(exponent + (fraction >= 0.75 ? 127 : 126));
  }
  const Format& f = formats().at(dtype.code);
  const Codes codes = codes_of(f);
  const std::uint32_t sign = std::signbit(value) ? codes.sign : 0;
  if (std::isnan(value)) {
    return f.no_minus_0 ? codes.nan : codes.nan | sign;
  }
  const double magnitude = std::fabs(value);
  std::uint32_t low = 0;
  for (std::uint32_t step = codes.sign; step > 0; step /= 2) {
    if (low + step <= codes.largest && magnitude_of(f, low + step) <= magnitude) {
      low += step;
    }
  }
  const double below = magnitude - magnitude_of(f, low);
  const double above = magnitude_of(f, low + 1) - magnitude;
  std::uint32_t code = below < above || (below == above && low % 2 == 0) ? low : low + 1;
  code = code > codes.largest ? codes.overflow : code;
  return f.no_minus_0 && (code == 0 || code == codes.nan) ? code : code | sign;
}

// ---- one element, by the book -------------------------------------------------------------------

template <class T>
T get(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void put(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

inline bool is_small_float(DType d) {
  return d.bits <= 16 && (d.is(kDLFloat) || formats().contains(d.code) || d.is(kDLFloat8_e8m0fnu));
}

/// A number in the widest type of its kind.
struct Number {
  enum { kSigned, kUnsigned, kReal } kind = kReal;
  std::int64_t i = 0;
  std::uint64_t u = 0;
  double r = 0;
};

inline Number read(DType d, const std::byte* from) {
  Number n;
  if (is_small_float(d)) {
    n.r = decode(d, d.bits == 8 ? get<std::uint8_t>(from) : get<std::uint16_t>(from));
  } else if (d.is(kDLFloat)) {
    n.r = d.bits == 32 ? static_cast<double>(get<float>(from)) : get<double>(from);
  } else if (d.is(kDLInt)) {
    n.kind = Number::kSigned;
    n.i = d.bits == 8    ? get<std::int8_t>(from)
          : d.bits == 16 ? get<std::int16_t>(from)
          : d.bits == 32 ? get<std::int32_t>(from)
                         : get<std::int64_t>(from);
  } else {
    n.kind = Number::kUnsigned;
    n.u = d.bits == 8    ? get<std::uint8_t>(from)
          : d.bits == 16 ? get<std::uint16_t>(from)
          : d.bits == 32 ? get<std::uint32_t>(from)
                         : get<std::uint64_t>(from);
    n.u = d.is(kDLBool) ? n.u != 0 : n.u;
  }
  return n;
}

// As NumPy on x86: by way of int32 or int64, whose least stands for what they do not hold.
inline std::uint64_t to_integer(const Number& n, DType d) {
  if (n.kind != Number::kReal) {
    return n.kind == Number::kSigned ? static_cast<std::uint64_t>(n.i) : n.u;
  }
  const bool wide = d.bits == 64 || d == DType{kDLUInt, 32};
  const double limit = std::ldexp(1, wide ? 63 : 31);
  if (d == DType{kDLUInt, 64} && n.r >= limit) {
    return n.r < 2 * limit ? static_cast<std::uint64_t>(n.r) : 0;
  }
  if (std::isnan(n.r) || n.r < -limit || n.r >= limit) {
    return static_cast<std::uint64_t>(wide ? INT64_MIN : INT32_MIN);
  }
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(n.r));
}

inline float to_float(const Number& n) {
  return n.kind == Number::kSigned     ? static_cast<float>(n.i)
         : n.kind == Number::kUnsigned ? static_cast<float>(n.u)
                                       : static_cast<float>(n.r);
}

inline void write(DType d, std::byte* to, const Number& n) {
  if (is_small_float(d)) {
    const bool direct = d.is(kDLFloat) && n.kind == Number::kReal;
    const std::uint32_t code = encode(d, direct ? n.r : static_cast<double>(to_float(n)));
    std::memcpy(to, &code, d.bits / 8);  // little-endian machines
  } else if (d.is(kDLFloat) && d.bits == 32) {
    put(to, to_float(n));
  } else if (d.is(kDLFloat)) {
    put(to, n.kind == Number::kSigned     ? static_cast<double>(n.i)
            : n.kind == Number::kUnsigned ? static_cast<double>(n.u)
                                          : n.r);
  } else if (d.is(kDLBool)) {
    put(to, static_cast<std::uint8_t>(n.kind == Number::kReal ? n.r != 0 : to_integer(n, d) != 0));
  } else {
    const std::uint64_t integer = to_integer(n, d);
    std::memcpy(to, &integer, d.bits / 8);
  }
}

inline DType part_of(DType d) {
  return d.is(kDLComplex) ? DType(kDLFloat, d.bits / 2) : DType(d.code, d.bits);
}

inline void negate(DType d, std::byte* number) {
  if (d.is(kDLFloat8_e8m0fnu)) {
    *number = std::byte{0xff};
  } else if (d.is(kDLInt) || d.is(kDLUInt)) {
    Number n = read(d, number);
    n.u = 0 - to_integer(n, d);
    n.kind = Number::kUnsigned;
    write(d, number, n);
  } else if (!d.is(kDLBool) && !d.is(kDLOpaqueHandle)) {
    const Format* f = formats().contains(d.code) ? &formats().at(d.code) : nullptr;
    std::byte& top = number[d.bits / 8 - 1];
    if (f == nullptr || !f->no_minus_0 || (top & std::byte{0x7f}) != std::byte{0}) {
      top ^= std::byte{0x80};
    }
  }
}

/// What copy_elements shall make of one element.
inline void reference_element(const CopyJob& job, const std::byte* source, std::byte* target) {
  const DType from = job.source_dtype;
  const DType to = job.target_dtype;
  std::array<std::byte, 1024> item{};  // 32 lanes of 248 bits are 992 bytes
  const auto itemsize = static_cast<std::size_t>(from.itemsize());
  std::memcpy(item.data(), source, itemsize);
  if (from.bits % 8 == 0) {
    const bool complex = from.is(kDLComplex) && from.bits % 16 == 0;
    const auto width = from.bits / (complex ? 16U : 8U);
    const bool has_sign = width == 1 || width == 2 || width == 4 || width == 8;
    for (std::size_t at = 0; at < itemsize; at += width) {
      std::byte* number = item.data() + at;
      if (job.swap_bytes) {
        std::reverse(number, number + width);
      }
      if (job.negate && has_sign) {
        negate(part_of(from), number);
      }
      if (job.conjugate && has_sign && complex && at / width % 2 == 1) {
        negate(part_of(from), number);
      }
    }
  }
  if (from == to) {
    std::memcpy(target, item.data(), itemsize);
    return;
  }
  write(part_of(to), target, read(part_of(from), item.data()));
  if (to.is(kDLComplex)) {
    const Number zero;
    const auto half = to.itemsize() / 2;
    write(part_of(to), target + half,
          from.is(kDLComplex) ? read(part_of(from), item.data() + from.itemsize() / 2) : zero);
  }
}

/// Whether the two are the same number: the bits of a NaN may differ, anything else may not.
inline bool same_number(DType d, const std::byte* a, const std::byte* b) {
  if (std::memcmp(a, b, d.bits / 8U) == 0) {
    return true;
  }
  const auto is_nan = [&](const std::byte* n) { return std::isnan(read(d, n).r); };
  return (is_small_float(d) || d.is(kDLFloat)) && is_nan(a) && is_nan(b);
}

/// The same for a whole element of what was of type `from` before. Without a cast every bit counts.
inline bool same_element(DType from, DType to, const std::byte* a, const std::byte* b) {
  const auto itemsize = static_cast<std::size_t>(to.itemsize());
  if (from == to) {
    return std::memcmp(a, b, itemsize) == 0;
  }
  const std::size_t width = part_of(to).bits / 8U;
  for (std::size_t at = 0; at < itemsize; at += width) {
    if (!same_number(part_of(to), a + at, b + at)) {
      return false;
    }
  }
  return true;
}

}  // namespace dlbridge::copy_reference
