#pragma once

#if !defined(_MSC_VER) && __cplusplus < 202002L
#error "dlbridge is C++20: compile with -std=c++20, or link dlbridge::dlbridge in CMake"
#endif
#if !defined(_MSC_VER) && !defined(__cpp_exceptions)
#error "dlbridge refuses by exceptions: compile without -fno-exceptions"
#endif

#include <dlpack/dlpack.h>

#if !defined(DLPACK_MAJOR_VERSION) || DLPACK_MAJOR_VERSION != 1 || DLPACK_MINOR_VERSION < 3
#error "dlbridge needs DLPack 1.3 or a later 1.x: another dlpack/dlpack.h comes first in the path"
#endif

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace dlbridge {
namespace detail {

// Apart: what it throws needs a text, which no constant can hold.
[[noreturn]] inline void refuse_argument(std::int64_t met, const char* why) {
  throw std::invalid_argument(std::to_string(met) + why);
}

// In a field that is narrower. Throws std::invalid_argument rather than lose a bit.
template <typename Field>
[[nodiscard]] constexpr Field whole(int number) {
  if (!std::in_range<Field>(number)) {
    refuse_argument(
        number, " does not fit DLDataType, which has 8 bits for code and bits, and 16 for lanes");
  }
  return static_cast<Field>(number);
}

}  // namespace detail

/// One element's type, in DLPack's own terms: a code, the bits of one lane, and the lanes.
///
/// A plain value. Any triple can be held, also one that DLPack 1.3 does not allow (dtype_fault()
/// tells); what does not fit the triple throws std::invalid_argument.
struct DType {
  std::uint8_t code = 0;
  std::uint8_t bits = 0;
  std::uint16_t lanes = 1;

  constexpr DType() = default;
  constexpr DType(int code_, int bits_, int lanes_ = 1)
      : code(detail::whole<std::uint8_t>(code_)),
        bits(detail::whole<std::uint8_t>(bits_)),
        lanes(detail::whole<std::uint16_t>(lanes_)) {}
  // Implicit on purpose: the two are the same triple.
  constexpr DType(DLDataType dtype)  // NOLINT(google-explicit-constructor)
      : code(dtype.code), bits(dtype.bits), lanes(dtype.lanes) {}

  [[nodiscard]] constexpr DLDataType dl() const { return DLDataType{code, bits, lanes}; }

  /// Bits of one element, all lanes together.
  [[nodiscard]] constexpr std::int64_t element_bits() const { return std::int64_t{bits} * lanes; }

  /// Bytes that one element takes in memory. Sub-byte types that are packed take less than a byte
  /// an element, so this is only meaningful when `whole_bytes()`.
  [[nodiscard]] constexpr std::int64_t itemsize() const { return (element_bits() + 7) / 8; }

  /// Whether an element fills whole bytes (float4 pairs, lanes 2, do; a single float4 does not).
  [[nodiscard]] constexpr bool whole_bytes() const {
    return element_bits() > 0 && element_bits() % 8 == 0;
  }

  /// What the address of an element has to be a multiple of to be loaded by its type: its size in
  /// bytes, or the part of it that is a power of two, since no more would hold for its neighbour.
  [[nodiscard]] constexpr std::int64_t alignment() const {
    const std::int64_t power = element_bits() & -element_bits();
    return power < 8 ? 1 : power / 8;
  }

  [[nodiscard]] constexpr bool is(int code_) const { return code == code_; }

  /// What the type is of: truth, integers, floating or complex numbers. An opaque handle, or no
  /// type at all, is of no kind.
  enum class Kind : std::uint8_t { kNone, kTruth, kInteger, kFloating, kComplex };
  [[nodiscard]] constexpr Kind kind() const {
    if (bits == 0 || code == kDLOpaqueHandle) {
      return Kind::kNone;
    }
    const bool integer = code == kDLInt || code == kDLUInt;
    return code == kDLBool      ? Kind::kTruth
           : code == kDLComplex ? Kind::kComplex
           : integer            ? Kind::kInteger
                                : Kind::kFloating;
  }

  friend constexpr bool operator==(DType, DType) = default;
};

/// A row of the table of types: what DLPack 1.3 can express, by the name that people use for it.
struct NamedDType {
  std::string_view name;
  DType dtype;
};

/// Every type that has a name, lanes 1 but for the packed pair of float4. One table for both
/// directions: a name to its type and a type to its name. The order is the bit order of DTypeSet.
inline constexpr std::array kNamedDTypes = {
    NamedDType{"bool", {kDLBool, 8}},
    NamedDType{"int8", {kDLInt, 8}},
    NamedDType{"int16", {kDLInt, 16}},
    NamedDType{"int32", {kDLInt, 32}},
    NamedDType{"int64", {kDLInt, 64}},
    NamedDType{"uint8", {kDLUInt, 8}},
    NamedDType{"uint16", {kDLUInt, 16}},
    NamedDType{"uint32", {kDLUInt, 32}},
    NamedDType{"uint64", {kDLUInt, 64}},
    NamedDType{"float16", {kDLFloat, 16}},
    NamedDType{"float32", {kDLFloat, 32}},
    NamedDType{"float64", {kDLFloat, 64}},
    NamedDType{"complex32", {kDLComplex, 32}},
    NamedDType{"complex64", {kDLComplex, 64}},
    NamedDType{"complex128", {kDLComplex, 128}},
    NamedDType{"bfloat16", {kDLBfloat, 16}},
    NamedDType{"float8_e3m4", {kDLFloat8_e3m4, 8}},
    NamedDType{"float8_e4m3", {kDLFloat8_e4m3, 8}},
    NamedDType{"float8_e4m3b11fnuz", {kDLFloat8_e4m3b11fnuz, 8}},
    NamedDType{"float8_e4m3fn", {kDLFloat8_e4m3fn, 8}},
    NamedDType{"float8_e4m3fnuz", {kDLFloat8_e4m3fnuz, 8}},
    NamedDType{"float8_e5m2", {kDLFloat8_e5m2, 8}},
    NamedDType{"float8_e5m2fnuz", {kDLFloat8_e5m2fnuz, 8}},
    NamedDType{"float8_e8m0fnu", {kDLFloat8_e8m0fnu, 8}},
    NamedDType{"float6_e2m3fn", {kDLFloat6_e2m3fn, 6}},
    NamedDType{"float6_e3m2fn", {kDLFloat6_e3m2fn, 6}},
    NamedDType{"float4_e2m1fn", {kDLFloat4_e2m1fn, 4}},
    NamedDType{"float4_e2m1fn_x2", {kDLFloat4_e2m1fn, 4, 2}},
    NamedDType{"int2", {kDLInt, 2}},
    NamedDType{"int4", {kDLInt, 4}},
    NamedDType{"uint1", {kDLUInt, 1}},
    NamedDType{"uint2", {kDLUInt, 2}},
    NamedDType{"uint4", {kDLUInt, 4}},
    NamedDType{"opaque64", {kDLOpaqueHandle, 64}},
};

namespace detail {

inline constexpr std::size_t kIndexCodes = kDLFloat4_e2m1fn + 1;
inline constexpr std::size_t kIndexBits = 129;

// Rows of types with one lane, by code and bits: every crossing asks for one.
inline constexpr auto kRowOfType = [] {
  std::array<std::int8_t, kIndexCodes * kIndexBits> rows{};
  rows.fill(-1);
  for (std::size_t i = 0; i < kNamedDTypes.size(); ++i) {
    const DType dtype = kNamedDTypes[i].dtype;
    if (dtype.lanes == 1) {
      rows[dtype.code * kIndexBits + dtype.bits] = static_cast<std::int8_t>(i);
    }
  }
  return rows;
}();

}  // namespace detail

/// The type's row in kNamedDTypes, or -1 where it has none.
[[nodiscard]] constexpr int index_of(DType dtype) {
  if (dtype.lanes == 1) [[likely]] {
    const bool inside = dtype.code < detail::kIndexCodes && dtype.bits < detail::kIndexBits;
    return inside ? detail::kRowOfType[dtype.code * detail::kIndexBits + dtype.bits] : -1;
  }
  for (std::size_t i = 0; i < kNamedDTypes.size(); ++i) {
    if (kNamedDTypes[i].dtype == dtype) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

/// The type of that name ("float32", "bfloat16", ...), or nothing.
[[nodiscard]] constexpr std::optional<DType> dtype_named(std::string_view name) {
  for (const auto& row : kNamedDTypes) {
    if (row.name == name) {
      return row.dtype;
    }
  }
  return std::nullopt;
}

/// "float32", "float32x4" with lanes, "dtype(code=99, bits=8, lanes=1)" where DLPack has no name.
[[nodiscard]] std::string to_string(DType dtype);

/// Why DLPack 1.3 does not allow this triple (an unknown code, no bits, no lanes, a bit width that
/// the code cannot have), or an empty text when it does. Rules 7 and 22 of the DLPack text.
[[nodiscard]] std::string_view dtype_fault(DType dtype) noexcept;

/// A set of named types, as one word; a row of a Capabilities table.
class DTypeSet {
 public:
  constexpr DTypeSet() = default;
  /// Those of these names, as "float32". Throws std::bad_optional_access for an unknown one; in a
  /// constant, that does not compile.
  [[nodiscard]] static constexpr DTypeSet of(std::initializer_list<std::string_view> names) {
    DTypeSet set;
    for (auto name : names) {
      // A misspelt name has no value: constant evaluation stops here.
      // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): each name has a row
      set.bits_ |= std::uint64_t{1} << index_of(dtype_named(name).value());
    }
    return set;
  }
  [[nodiscard]] static constexpr DTypeSet of_name(std::string_view name) { return of({name}); }
  [[nodiscard]] static constexpr DTypeSet everything() {
    DTypeSet set;
    set.bits_ = ~std::uint64_t{0};
    return set;
  }
  /// Types without a name are in the set of everything only.
  [[nodiscard]] constexpr bool contains(DType dtype) const {
    if (bits_ == ~std::uint64_t{0}) {
      return true;
    }
    const int index = index_of(dtype);
    return index >= 0 && ((bits_ >> index) & 1) != 0;
  }
  friend constexpr DTypeSet operator|(DTypeSet a, DTypeSet b) {
    a.bits_ |= b.bits_;
    return a;
  }
  friend constexpr bool operator==(DTypeSet, DTypeSet) = default;

 private:
  std::uint64_t bits_ = 0;
};

/// What somebody has for each named type: a library its numbers, a protocol its letters.
template <typename Value>
class DTypeMap {
 public:
  constexpr explicit DTypeMap(Value none) : none_(none) { values_.fill(none); }

  /// For a type that has a name. Where several values stand for one type, the first counts.
  constexpr void add(DType dtype, Value value) {
    Value& held = values_[static_cast<std::size_t>(index_of(dtype))];
    held = held == none_ ? value : held;
  }
  /// `none` where there is nothing for the type.
  [[nodiscard]] constexpr Value operator[](DType dtype) const {
    const int row = index_of(dtype);
    return row < 0 ? none_ : values_[static_cast<std::size_t>(row)];
  }
  [[nodiscard]] constexpr DTypeSet types() const {
    DTypeSet set;
    for (const NamedDType& row : kNamedDTypes) {
      if ((*this)[row.dtype] != none_) {
        set = set | DTypeSet::of_name(row.name);
      }
    }
    return set;
  }

 private:
  Value none_;
  std::array<Value, kNamedDTypes.size()> values_{};
};

}  // namespace dlbridge
