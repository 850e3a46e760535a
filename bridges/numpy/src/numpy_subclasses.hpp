#pragma once

#include <Python.h>

#include "dlbridge/condition.hpp"

namespace dlbridge::detail {

/// What an array of a subclass of ndarray means beside its values: a mask, or a unit. Other
/// subclasses are plain. Throws PythonError with a TypeError set where it is no array at all.
[[nodiscard]] Conditions beside_values(PyObject* array);

}  // namespace dlbridge::detail
