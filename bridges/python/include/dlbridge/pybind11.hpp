#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <type_traits>
#include <utility>

#include "dlbridge/python.hpp"
#include "dlbridge/view_argument.hpp"

namespace pybind11::detail {

/// A parameter of type dlbridge::ManagedTensor takes any tensor of any library; a result of that
/// type leaves as a dlbridge.ManagedTensor. What dlbridge refuses reaches the caller as it is, not
/// as "incompatible function arguments".
template <>
struct type_caster<dlbridge::ManagedTensor> {
  PYBIND11_TYPE_CASTER(dlbridge::ManagedTensor, const_name("dlbridge.ManagedTensor"));

  bool load(handle source, bool /*convert*/) {
    value = dlbridge::from_python(source.ptr());
    if (value) {
      return true;
    }
    // Something that is no array may fit another overload; a refusal fits none.
    if (PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
      PyErr_Clear();
      return false;
    }
    throw error_already_set();
  }

  static handle cast(dlbridge::ManagedTensor&& tensor, return_value_policy, handle) {
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
  using View = dlbridge::TensorView<T, Rank>;
  static constexpr auto name = const_name("dlbridge.TensorView[") +
                               dlbridge_element_name<std::remove_const_t<T>>() + const_name(", ") +
                               const_name<Rank>() + const_name("]");
  template <typename>
  using cast_op_type = View&;

  bool load(handle source, bool /*convert*/) {
    if (argument_.load(source.ptr())) {
      return true;
    }
    if (PyErr_Occurred() != nullptr) {
      throw error_already_set();
    }
    return false;
  }

  operator View&() { return argument_.view(); }  // NOLINT(google-explicit-constructor)

 private:
  dlbridge::detail::ViewArgument<T, Rank> argument_;
};

}  // namespace pybind11::detail
