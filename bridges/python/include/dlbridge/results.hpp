#pragma once

// Results of functions that Python calls, in a library that their type names.

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <utility>

#include "dlbridge/python.hpp"

namespace dlbridge {

/// The name of a library, as an argument of a template.
template <std::size_t N>
struct LibraryName {
  constexpr LibraryName(const char (&name)[N]) {  // NOLINT(google-explicit-constructor)
    std::copy_n(name, N, characters.begin());
  }
  [[nodiscard]] constexpr std::string_view text() const { return {characters.data(), N - 1}; }

  std::array<char, N> characters{};
};

/// A result that leaves as an object of that library, as of dlbridge.to(): `In<"torch">`. Made of
/// the tensor, which is returned in its place.
template <LibraryName kName>
class In {
 public:
  In(ManagedTensor tensor) noexcept  // NOLINT(google-explicit-constructor)
      : tensor_(std::move(tensor)) {}

  /// A new reference, or null with Python's error set. Needs the GIL.
  [[nodiscard]] PyObject* to_python() && noexcept {
    return dlbridge::to_python(std::move(tensor_), kName.characters.data());
  }

 private:
  ManagedTensor tensor_;
};

/// A result that leaves in the library, and on the device, of an argument: what like() of a
/// FromPython gives. Valid during the call.
class Like {
 public:
  Like(ManagedTensor tensor, PyObject* object) noexcept
      : tensor_(std::move(tensor)), object_(object) {}

  /// A new reference, or null with Python's error set. Needs the GIL.
  [[nodiscard]] PyObject* to_python() && noexcept {
    return to_python_like(std::move(tensor_), object_);
  }

 private:
  ManagedTensor tensor_;
  PyObject* object_;
};

/// A parameter that is a Taken, and knows the object that Python passed.
template <typename Taken>
class FromPython : public Taken {
 public:
  FromPython(Taken taken, PyObject* object) : Taken(std::move(taken)), object_(object) {}

  /// Borrowed, for the time of the call.
  [[nodiscard]] PyObject* object() const noexcept { return object_; }
  /// The tensor as a result in the library of this argument.
  [[nodiscard]] Like like(ManagedTensor tensor) const noexcept {
    return {std::move(tensor), object_};
  }

 private:
  PyObject* object_;
};

}  // namespace dlbridge
