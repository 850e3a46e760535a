#pragma once

#include "module_functions.hpp"

namespace dlbridge::python {

/// dlbridge._core.counting_deleters(): the addresses of two deleters for dlbridge.testing,
/// versioned and legacy. Each adds one to the 64-bit number that `manager_ctx` points to, and does
/// nothing else: consumers call deleters without the GIL, while an error is set, and after the
/// interpreter has ended, and nothing written in Python bears that.
Ref counting_deleters();

}  // namespace dlbridge::python
