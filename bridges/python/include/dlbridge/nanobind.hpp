#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "dlbridge/python.hpp"
#include "dlbridge/view_argument.hpp"

namespace nanobind::detail {

/// A parameter of type dlbridge::ManagedTensor takes any tensor of any library; a result of that
/// type leaves as a dlbridge.ManagedTensor. What dlbridge refuses reaches the caller as it is, not
/// as "incompatible function arguments".
template <>
struct type_caster<dlbridge::ManagedTensor> {
  NB_TYPE_CASTER(dlbridge::ManagedTensor, const_name("dlbridge.ManagedTensor"))

  bool from_python(handle source, std::uint32_t, cleanup_list*) {
    value = dlbridge::from_python(source.ptr());
    if (value) {
      return true;
    }
    // Something that is no array may fit another overload; a refusal fits none.
    if (PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
      PyErr_Clear();
      return false;
    }
    throw python_error();
  }

  static handle from_cpp(dlbridge::ManagedTensor&& tensor, rv_policy, cleanup_list*) {
    return dlbridge::to_python(std::move(tensor));
  }
};

/// "float32": how the element type of a view reads in a signature.
template <typename T>
constexpr auto dlbridge_element_name() {
  constexpr std::size_t bits = 8 * sizeof(T);
  if constexpr (std::is_same_v<T, bool>) {
    return const_name("bool");
  } else if constexpr (std::is_floating_point_v<T>) {
    return const_name("float") + const_name<bits>();
  } else if constexpr (std::is_integral_v<T>) {
    return const_name<std::is_signed_v<T>>("int", "uint") + const_name<bits>();
  } else {
    return const_name("complex") + const_name<bits>();
  }
}

/// A parameter of type dlbridge::TensorView<T, Rank> takes a tensor of any library with that type
/// and rank, brought to the host if it is elsewhere; valid during the call. `const` elements also
/// take what nobody may write to.
template <typename T, std::size_t Rank>
struct type_caster<dlbridge::TensorView<T, Rank>> {
  using Value = dlbridge::TensorView<T, Rank>;
  static constexpr auto Name = const_name("dlbridge.TensorView[") +
                               dlbridge_element_name<std::remove_const_t<T>>() + const_name(", ") +
                               const_name<Rank>() + const_name("]");
  template <typename>
  using Cast = Value&;
  template <typename>
  static constexpr bool can_cast() {
    return true;
  }

  bool from_python(handle source, std::uint32_t, cleanup_list*) {
    if (argument_.load(source.ptr())) {
      return true;
    }
    if (PyErr_Occurred() != nullptr) {
      throw python_error();
    }
    return false;
  }

  explicit operator Value&() { return argument_.view(); }

 private:
  dlbridge::detail::ViewArgument<T, Rank> argument_;
};

}  // namespace nanobind::detail
