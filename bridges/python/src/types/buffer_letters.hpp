#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "dlbridge/dtype.hpp"

namespace dlbridge::python {

/// The types of the struct module, which the buffer protocol uses: letters, and the kind of number
/// that typestr of the array interface has for them. A type's first row is how it is exported.
struct BufferLetters {
  std::string_view letters;
  char kind;
  DType dtype;
};
inline constexpr std::array kBufferLetters = {
    BufferLetters{"?", 'b', {kDLBool, 8}},      BufferLetters{"b", 'i', {kDLInt, 8}},
    BufferLetters{"h", 'i', {kDLInt, 16}},      BufferLetters{"i", 'i', {kDLInt, 32}},
    BufferLetters{"l", 'i', {kDLInt, 64}},      BufferLetters{"q", 'i', {kDLInt, 64}},
    BufferLetters{"n", 'i', {kDLInt, 64}},      BufferLetters{"B", 'u', {kDLUInt, 8}},
    BufferLetters{"H", 'u', {kDLUInt, 16}},     BufferLetters{"I", 'u', {kDLUInt, 32}},
    BufferLetters{"L", 'u', {kDLUInt, 64}},     BufferLetters{"Q", 'u', {kDLUInt, 64}},
    BufferLetters{"N", 'u', {kDLUInt, 64}},     BufferLetters{"e", 'f', {kDLFloat, 16}},
    BufferLetters{"f", 'f', {kDLFloat, 32}},    BufferLetters{"d", 'f', {kDLFloat, 64}},
    BufferLetters{"Zf", 'c', {kDLComplex, 64}}, BufferLetters{"Zd", 'c', {kDLComplex, 128}},
};

/// Null where the buffer protocol has no letter.
inline constexpr auto kBufferFormats = [] {
  DTypeMap<const char*> formats(nullptr);
  for (const BufferLetters& row : kBufferLetters) {
    formats.add(row.dtype, row.letters.data());
  }
  return formats;
}();

/// The type of a typestr's kind and size.
constexpr std::optional<DType> type_of_kind(char kind, std::int64_t itemsize) {
  for (const BufferLetters& row : kBufferLetters) {
    if (row.kind == kind && row.dtype.itemsize() == itemsize) {
      return row.dtype;
    }
  }
  return std::nullopt;
}

/// The type of a buffer's format. Its size counts: with an order before it, "l" has 4 bytes.
constexpr std::optional<DType> type_of_letters(std::string_view letters, std::int64_t itemsize) {
  for (const BufferLetters& row : kBufferLetters) {
    if (row.letters == letters) {
      return type_of_kind(row.kind, itemsize);
    }
  }
  return std::nullopt;
}

}  // namespace dlbridge::python
