#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "copy/float_formats.hpp"
#include "dlbridge/dtype.hpp"

/// The numbers that elements are made of, for copies on the host and on devices.
namespace dlbridge::detail {

/// A bool of a tensor: any byte. (To load one that is neither 0 nor 1 as a C++ bool is undefined.)
enum class Truth : std::uint8_t {};

/// What negation does to a number's bits.
enum class Sign : std::uint8_t {
  kKeep,
  kFlip,            // the top bit
  kMinus,           // integers
  kFlipUnlessZero,  // where negative zero is NaN's code: neither has a sign
  kNan,             // no negative values
};

/// A type's name; what holds one of its numbers, a C++ type or the format of a small float, which
/// is cast by way of float; and what negation does.
template <class Holder>
struct NumberRow {
  using Held = Holder;
  std::string_view name;
  Sign sign;
};
inline constexpr std::tuple kNumbers = {
    NumberRow<Truth>{"bool", Sign::kKeep},
    NumberRow<std::int8_t>{"int8", Sign::kMinus},
    NumberRow<std::int16_t>{"int16", Sign::kMinus},
    NumberRow<std::int32_t>{"int32", Sign::kMinus},
    NumberRow<std::int64_t>{"int64", Sign::kMinus},
    NumberRow<std::uint8_t>{"uint8", Sign::kMinus},
    NumberRow<std::uint16_t>{"uint16", Sign::kMinus},
    NumberRow<std::uint32_t>{"uint32", Sign::kMinus},
    NumberRow<std::uint64_t>{"uint64", Sign::kMinus},
    NumberRow<float>{"float32", Sign::kFlip},
    NumberRow<double>{"float64", Sign::kFlip},
    NumberRow<Float16>{"float16", Sign::kFlip},
    NumberRow<Bfloat16>{"bfloat16", Sign::kFlip},
    NumberRow<Float8E3M4>{"float8_e3m4", Sign::kFlip},
    NumberRow<Float8E4M3>{"float8_e4m3", Sign::kFlip},
    NumberRow<Float8E4M3B11Fnuz>{"float8_e4m3b11fnuz", Sign::kFlipUnlessZero},
    NumberRow<Float8E4M3Fn>{"float8_e4m3fn", Sign::kFlip},
    NumberRow<Float8E4M3Fnuz>{"float8_e4m3fnuz", Sign::kFlipUnlessZero},
    NumberRow<Float8E5M2>{"float8_e5m2", Sign::kFlip},
    NumberRow<Float8E5M2Fnuz>{"float8_e5m2fnuz", Sign::kFlipUnlessZero},
    NumberRow<Float8E8M0>{"float8_e8m0fnu", Sign::kNan},
};

using NumberRows = std::remove_const_t<decltype(kNumbers)>;
inline constexpr std::size_t kNumberRows = std::tuple_size_v<NumberRows>;
template <std::size_t kRow>
using HeldIn = typename std::tuple_element_t<kRow, NumberRows>::Held;

/// A row of the table.
enum class Number : std::int8_t { kNone = -1 };

/// The row of what is held so.
template <class Held>
inline constexpr Number kNumber = []<class... Rows>(const std::tuple<Rows...>&) {
  constexpr bool kFound[] = {std::is_same_v<typename Rows::Held, Held>...};
  return static_cast<Number>(std::find(kFound, kFound + sizeof...(Rows), true) - kFound);
}(kNumbers);

/// Small floats come behind the numbers that C++ has types for.
inline constexpr auto kPlainRows = static_cast<std::size_t>(kNumber<double>) + 1;
static_assert(std::is_arithmetic_v<HeldIn<kPlainRows - 1>> && std::is_class_v<HeldIn<kPlainRows>>);
constexpr bool is_plain(Number number) {
  return number <= kNumber<double>;
}

/// The number that elements are made of, complex ones of two. kNone: not of one number, or of less
/// than a byte.
inline constexpr auto kNumberOf = [] {
  DTypeMap<Number> numbers(Number::kNone);
  std::apply(
      [&, row = 0](const auto&... rows) mutable {
        (numbers.add(*dtype_named(rows.name), static_cast<Number>(row++)), ...);
      },
      kNumbers);
  for (const int bits : {16, 32, 64}) {
    numbers.add({kDLComplex, 2 * bits}, numbers[{kDLFloat, bits}]);
  }
  return numbers;
}();

inline constexpr auto kSigns = [] {
  std::array<Sign, kIndexCodes> signs{};
  std::apply([&](const auto&... rows) { ((signs[dtype_named(rows.name)->code] = rows.sign), ...); },
             kNumbers);
  signs[kDLComplex] = signs[kDLFloat];
  return signs;
}();

/// What negation does to elements of that type, whatever their bits and lanes.
constexpr Sign negation_of(DType dtype) {
  return dtype.code < kSigns.size() ? kSigns[dtype.code] : Sign::kKeep;
}

}  // namespace dlbridge::detail
