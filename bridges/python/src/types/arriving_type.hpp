#pragma once

#include "dlbridge/arriving_tensor.hpp"
#include "errors.hpp"

namespace dlbridge::python {

/// Readies dlbridge._core.Arriving: what a PendingArray holds of a copy that goes on.
void add_arriving_type();

/// A new one. `out`: the array to be returned, or null; `fill_out`: whether the processor fills it
/// once the copy is there. The copy is begun by begin(), which gives what is under way, so that
/// nothing can fail behind it.
[[nodiscard]] Ref new_arriving(PyObject* out, bool fill_out);
void set_arriving(PyObject* object, ArrivingTensor arriving);

}  // namespace dlbridge::python
