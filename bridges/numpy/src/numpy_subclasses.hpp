#pragma once

#include <Python.h>

#include "dlbridge/condition.hpp"

namespace dlbridge::detail {

/// What an array of a subclass of ndarray means beside its values: a mask, or a unit. Other
/// subclasses are plain.
[[nodiscard]] Conditions beside_values(PyObject* array);

}  // namespace dlbridge::detail
