#pragma once

#include "convert.hpp"

namespace dlbridge::python {

/// to_numpy() with a place of its own to go to, or without waiting.
///
/// `out`: a writable numpy.ndarray of the result's shape and dtype, which is filled and returned,
/// or None. `pending`: the result is a dlbridge.PendingArray, whose copy from a device goes on.
[[nodiscard]] Ref to_numpy_arriving(PyObject* x, const Call& call, PyObject* out, bool pending);

/// Readies the type of what PendingArray holds.
void add_arriving_type();

}  // namespace dlbridge::python
