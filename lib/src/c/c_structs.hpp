#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

#include "c/c_error.hpp"

namespace dlbridge::detail {

// No struct is ever as large as that: a larger struct_size was not set, and nothing is read by it.
inline constexpr std::size_t kLargestStruct = 4096;

/// A struct of a caller who may know an older or a newer one: what is not there is zero, and what
/// this library does not know has to be.
template <typename Struct>
[[nodiscard]] Struct read_struct(const Struct& given, std::string_view name) {
  const auto wrong = [&](const std::string& why) {
    return UsageError(std::string(name) + ".struct_size is " + std::to_string(given.struct_size) +
                      ": " + why + "; set it to sizeof(" + std::string(name) + ")");
  };
  const std::size_t size = given.struct_size;
  if (size == 0) {
    throw wrong("it was not set");
  }
  if (size > kLargestStruct || size % alignof(Struct) != 0) {
    throw wrong("no version of the struct has that size");
  }
  Struct read{};
  const std::size_t known = size < sizeof(Struct) ? size : sizeof(Struct);
  std::memcpy(&read, &given, known);
  const auto* bytes = reinterpret_cast<const unsigned char*>(&given);
  for (std::size_t i = known; i < size; ++i) {
    if (bytes[i] != 0) {
      throw wrong("the program asks for what this dlbridge, of " +
                  std::to_string(DLBRIDGE_ABI_MAJOR) + "." + std::to_string(DLBRIDGE_ABI_MINOR) +
                  ", does not know");
    }
  }
  return read;
}

/// As above; a NULL is a struct of zeros.
template <typename Struct>
[[nodiscard]] Struct read_struct(const Struct* given, std::string_view name) {
  return given == nullptr ? Struct{} : read_struct(*given, name);
}

/// Calls visit(text) for each of a list that ends with NULL; a list that is NULL has none.
template <typename Visit>
void for_each_text(const char* const* texts, Visit&& visit) {
  for (; texts != nullptr && *texts != nullptr; ++texts) {
    visit(*texts);
  }
}

/// The row of that name. Throws UsageError with the names that there are.
template <typename Table>
[[nodiscard]] const auto& row_named(const Table& table, const char* text, std::string_view place) {
  std::string known;
  for (const auto& row : table) {
    if (row.name == text && !row.name.empty()) {
      return row;
    }
    if (!row.name.empty()) {
      known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
  }
  throw UsageError(std::string(place) + " is \"" + text + "\"; use one of " + known);
}

}  // namespace dlbridge::detail
