#pragma once

#include <Python.h>

#include "dlbridge/source.hpp"

namespace dlbridge::detail {

/// What is said of an array of a type that DLPack lacks: its name, what makes numbers of it, and
/// what NumPy's own copy costs.
void describe_inexpressible(PyObject* array, Source& source);

}  // namespace dlbridge::detail
