#pragma once

#include "generic.hpp"

namespace dlbridge::python {

/// Reads an object through __cuda_array_interface__, __array_interface__ or the buffer protocol.
/// All three give strides in bytes and a type as a text.
void take_interface(PyObject* object, SourceKind kind, Crossing& crossing);

}  // namespace dlbridge::python
