#pragma once

#include "module_functions.hpp"

namespace dlbridge::python {

/// The capsule of dlbridge::detail::PythonInterface.
[[nodiscard]] Ref extension_interface();

/// The functions of dlbridge/dlbridge.h, a dlbridge_api, for extensions in whatever calls C. Named
/// so that PyCapsule_Import() finds it.
inline constexpr const char* kCInterface = "dlbridge._core.dlbridge_c_api";
[[nodiscard]] Ref c_interface();

/// dlbridge._core.counting_deleters(): the addresses of two deleters for dlbridge.testing,
/// versioned and legacy. Each adds one to the 64-bit number that `manager_ctx` points to, and does
/// nothing else: consumers call deleters without the GIL, while an error is set, and after the
/// interpreter has ended, and nothing written in Python bears that.
Ref counting_deleters();

}  // namespace dlbridge::python
