#pragma once

#include "errors.hpp"

namespace dlbridge::python {

/// The capsule of dlbridge::detail::PythonInterface.
[[nodiscard]] Ref extension_interface();

}  // namespace dlbridge::python
