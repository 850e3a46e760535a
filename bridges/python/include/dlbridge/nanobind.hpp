#pragma once

#include <nanobind/nanobind.h>

#include "dlbridge/python.hpp"

namespace nanobind::detail {

/// A parameter of type dlbridge::ManagedTensor takes any tensor of any library; a result of that
/// type leaves as a dlbridge.ManagedTensor. What dlbridge refuses reaches the caller as it is, not
/// as "incompatible function arguments".
template <>
struct type_caster<dlbridge::ManagedTensor> {
  NB_TYPE_CASTER(dlbridge::ManagedTensor, const_name("dlbridge.ManagedTensor"))

  bool from_python(handle source, uint8_t, cleanup_list*) {
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

}  // namespace nanobind::detail
