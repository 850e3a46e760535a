#pragma once

#include <Python.h>

#include "dlbridge/source.hpp"

namespace dlbridge::detail {

/// Says what an array of a subclass of ndarray means beside its values: a mask, or a unit. Other
/// subclasses are plain. Throws PythonError with a TypeError set where it is no array at all.
void describe_subclass(PyObject* array, Source& source);

}  // namespace dlbridge::detail
