#pragma once

#include "torch/torch_road.hpp"

namespace dlbridge::python {

/// The portable road: any torch since 2.4, by way of dlbridge/_torch/, which asks torch's own
/// Python surface. The same policy and laws as the linked road; slower. Null, with Python's error
/// set, when torch cannot be asked.
[[nodiscard]] const TorchRoad* portable_torch_road() noexcept;

}  // namespace dlbridge::python
