#pragma once

#include "errors.hpp"

namespace dlbridge::python {

/// The capsule of dlbridge::detail::PythonInterface.
[[nodiscard]] Ref extension_interface();

/// The functions of dlbridge/dlbridge.h, a dlbridge_api, for extensions in whatever calls C. Named
/// so that PyCapsule_Import() finds it.
inline constexpr const char* kCInterface = "dlbridge._core.dlbridge_c_api";
[[nodiscard]] Ref c_interface();

}  // namespace dlbridge::python
