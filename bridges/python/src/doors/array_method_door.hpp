#pragma once

#include "doors/door.hpp"

namespace dlbridge::python {

/// A new array of what a door of kArrayMethodWay reads, by NumPy, for what no managed tensor holds.
[[nodiscard]] Ref array_made_for(const Door& door);

}  // namespace dlbridge::python
